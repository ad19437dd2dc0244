"""The pages of docs/verbs against the binary: what stands below a command is what the command prints now, by the code that writes
the pages (scripts/update_docs.py), but for what is another figure on each machine or each time."""
import difflib
import os
import platform
import re
import sys

import base

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import update_docs

# Too long for a test, and nearly all of it measured; what such tables look like is tested on a tiny model.
LONG = ("for i in", "bench --compare", "--ablate", "-d 0-128+128", "verify --rules")
# What differs in any page: the kind of kernels and with it the plan, times.
ANYWHERE = [
    (r"(?<![a-z])(avx512|avx2|neon|ref)(?![a-z])", "ISA"),
    (r"\b(plan(?: hash:)?) [0-9a-f]{16}\b", r"\1 HASH"),
    (r'("\w+_(?:ms|per_second)"): [\d.]+', r"\1: #"),
]
FIGURES = [(r"[-+]?\d+\.\d+", "#")]
MEASURED = [*FIGURES, (r"build: \S+ \(\d+\)", "build"), (r"% \*", "%"), (r"\b(too few runs|noise|faster|SLOWER)\b", "VERDICT"), (r" +", " ")]
# In the output of these commands, beside that; of doctor only the names of the backends are everywhere the same.
SOME = {
    "tenon bench": MEASURED,
    "tenon profile": MEASURED,
    "tenon run": [(r"eval time .*", lambda m: re.sub(r"[\d.]+", "#", re.sub(" +", " ", m[0])))],
    "tenon doctor": [(r"^(\w+) .*", r"\1"), (r"^ .*", "")],
}


def steady(command, lines):
    """The lines without what differs, in an order that does not go by times."""
    masks = ANYWHERE + [mask for part, some in SOME.items() if part in command for mask in some]
    if platform.machine() != "x86_64":
        masks += FIGURES  # other machines round otherwise
    for pattern, to in masks:
        lines = [re.sub(pattern, to, line) for line in lines]
    if "tenon doctor" in command:
        lines = [line for line in lines if line]
    return sorted(lines) if MEASURED[0] in masks else lines


class Docs(base.Case):
    def setUp(self):
        if not os.path.exists(os.path.join(update_docs.ROOT, update_docs.MODEL)):
            self.skipTest(f"there is no {update_docs.MODEL}")

    def compare(self, page, command, old):
        new = update_docs.run(command, base.OPTIONS.tenon, self.folder.name, old)
        want, got = steady(command, old), steady(command, new)
        if want != got:
            diff = difflib.unified_diff(want, got, page, "tenon", n=1, lineterm="")
            self.fail(f"{page} is out of date (scripts/update_docs.py TENON writes it anew): {command}\n" + "\n".join(diff))

    def pages(self):
        for name in sorted(os.listdir(update_docs.PAGES)):
            with open(os.path.join(update_docs.PAGES, name), encoding="utf-8") as f:
                yield name, f.read()

    def test_outputs(self):
        n = 0
        for name, text in self.pages():
            for block in update_docs.BLOCK.findall(text):
                for command, old in update_docs.commands(block):
                    if any(part in command for part in LONG):
                        continue
                    n += 1
                    with self.subTest(page=name, command=command):
                        self.compare(f"docs/verbs/{name}", command, old)
        self.assertGreater(n, 20)

    def test_picture(self):
        path, command = update_docs.PICTURE
        with open(path, encoding="utf-8") as f:
            self.compare("docs/fused-layer.svg", command, f.read().splitlines())

    def test_verbs_and_options(self):
        """A page for every verb, and in it no option that the verb does not take, but for llama-bench's own."""
        verbs = [line.split()[0] for line in self.good("help").splitlines() if line.startswith("  ")]
        pages = dict(self.pages())
        self.assertEqual(sorted(pages), sorted(f"{verb}.md" for verb in verbs))
        option = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
        for verb in verbs:
            prose = re.sub(r"^```.*?^```$", "", pages[f"{verb}.md"], flags=re.S | re.M)
            quoted = set(option.findall(" ".join(re.findall(r"`(-[^`]+)`", prose))))
            self.assertEqual(quoted - set(option.findall(self.good(verb, "-h"))) - {"-dev"}, set(), f"docs/verbs/{verb}.md names these")


if __name__ == "__main__":
    base.main()
