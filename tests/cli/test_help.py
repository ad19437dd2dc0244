"""help: the manual page and the completions come from the tables, and their readers take them."""
import json
import os
import shutil
import subprocess
import unittest

import base


class Help(base.Case):
    def help(self, form):
        return self.good("help", "--format", form)

    def verbs(self):
        return [line.split()[0] for line in self.good("help").splitlines() if line.startswith("  ")]

    def options(self, verb):
        words = [line.split() for line in self.good(verb, "-h").splitlines() if line.startswith("  -")]
        return {w.rstrip(",") for line in words for w in line[:2] if w.startswith("-")}

    def test_every_option_is_everywhere(self):
        pages = {form: self.help(form) for form in ("man", "bash", "zsh", "fish")}
        for verb in self.verbs():
            self.assertEqual(self.good("help", verb), self.good(verb, "-h"))
            for option in self.options(verb):
                self.assertIn(option.replace("-", "\\-"), pages["man"])
                self.assertIn(option, pages["bash"])
                self.assertIn(f"'*{option}[", pages["zsh"])
                name = option.lstrip("-")
                self.assertRegex(pages["fish"], rf"seen_subcommand_from {verb}'[^\n]* -[slo] {name} ")

    def test_man(self):
        groff = shutil.which("groff")
        if not groff:
            self.skipTest("no groff")
        done = subprocess.run([groff, "-man", "-ww", "-Tutf8", "-P-cbou"], input=self.help("man").encode(),
                              capture_output=True, check=True)
        self.assertEqual(done.stderr, b"")
        text = done.stdout.decode()
        self.assertIn("tenon help --format", self.good("help", "-h"))
        for part in ("EXIT STATUS", "tenon profile", "--ablate", "EXAMPLES"):
            self.assertIn(part, text)
        self.assertEqual(text.count("where code compiled for a GPU is kept"), 1)

    def complete(self, *words):
        """What bash offers after these words."""
        script = self.put("completion.bash", self.help("bash"))
        run = f"""set -euo pipefail
. '{script}'
COMP_WORDS=({' '.join(f"'{w}'" for w in ('tenon', *words))})
COMP_CWORD={len(words)}
_tenon
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        done = subprocess.run(["bash", "-c", run], capture_output=True, check=True, cwd=self.folder.name)
        return done.stdout.decode().split()

    def test_bash(self):
        self.assertEqual(sorted(self.complete("")), sorted([*self.verbs(), "help", "--help", "--version"]))
        self.assertEqual(self.complete("ben"), ["bench"])
        self.assertEqual(self.complete("bench", "--abl"), ["--ablate"])
        self.assertEqual(self.complete("run", "--kv-type", ""), ["f16", "q8_0", "f32"])
        self.assertEqual(self.complete("explain", "--format", "h"), ["html"])
        self.assertEqual(self.complete("run", "-b", ""), ["cpu", "cuda", "webgpu"])
        rules = [r["name"] for r in json.loads(self.good("explain", "-m", self.model, "--json"))["rules"]]
        self.assertEqual(set(self.complete("bench", "--fuse", "")), {"all", "none", *rules, *(f"-{r}" for r in rules)})
        self.assertEqual(self.complete("run", "-m", "tin"), ["tiny.gguf"])
        self.assertEqual(self.complete("bench", "--against", "tin"), ["tiny.gguf"])
        self.assertEqual(self.complete("run", "--webgpu-lib", "tin"), ["tiny.gguf"])
        os.makedirs(self.path("tin_folder"), exist_ok=True)
        self.assertEqual(self.complete("run", "--cache-dir", "tin"), ["tin_folder"])
        self.assertEqual(self.complete("run", "--fuse", "attend,row_c"), ["attend,row_chain"])
        self.assertEqual(self.complete("help", "--format", "z"), ["zsh"])
        self.assertEqual(set(self.complete("logits", "-")), self.options("logits"))

    def check_syntax(self, shell, *flags):
        if not shutil.which(shell):
            raise unittest.SkipTest(f"no {shell}")
        done = subprocess.run([shell, *flags, self.put("completion", self.help(shell))], capture_output=True, check=True)
        self.assertEqual(done.stderr, b"")

    def test_zsh(self):
        self.check_syntax("zsh", "-n")

    def test_fish(self):
        self.check_syntax("fish", "--no-execute")

    def test_wrong(self):
        for words in (["--format"], ["--format", "pdf"], ["sing"], ["run", "run"]):
            self.bad(base.USAGE, "help", *words, says="help takes")


if __name__ == "__main__":
    base.main()
