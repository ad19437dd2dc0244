#!/usr/bin/env python3
"""Compare tokenizers and chat templates with recorded ones.

    check_text.py TENON DIR

DIR holds ggml-vocab-NAME.gguf[.xz] with .inp (texts between separator lines) and .out (a line of ids for each, without special
tokens), strings-NAME.json (texts with their ids in three ways), chat.json with chat-templates/ (conversations with the prompt and
the ids).

  suites   every line of ids, and the text back from them
  strings  every id in each of three ways, and the text back
  chats    every prompt and every id
"""
import concurrent.futures
import itertools
import json
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile

SEPARATOR = "\n__ggml_vocab_test__\n"
PLAIN = ("--no-bos", "--no-special")
WAYS = {"ids": ("--no-bos",), "ids_add_special": (), "ids_no_parse_special": PLAIN}


class Texts:
    def __init__(self, tenon, folder):
        self.tenon, self.dir, self.failed, self.serial = tenon, pathlib.Path(folder), 0, itertools.count()
        self.kept = tempfile.TemporaryDirectory()
        self.tmp = pathlib.Path(self.kept.name)
        self.pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

    def run(self, *words):
        done = subprocess.run([self.tenon, *map(str, words)], capture_output=True)
        if done.returncode:
            sys.exit(f"{words}: {done.stderr.decode()}")
        return done.stdout

    def put(self, text):
        path = self.tmp / f"{next(self.serial)}"
        path.write_bytes(text.encode())
        return path

    def vocab(self, name):
        path = self.dir / f"ggml-vocab-{name}.gguf"
        plain = self.tmp / path.name
        if not path.exists() and not plain.exists():
            plain.write_bytes(lzma.decompress(pathlib.Path(f"{path}.xz").read_bytes()))
        return path if path.exists() else plain

    def ids(self, vocab, path, flags):
        return [int(i) for i in self.run("tokenize", "-m", vocab, "-f", path, *flags).split()]

    def back(self, vocab, ids):
        return self.run("tokenize", "-m", vocab, "--decode", ",".join(map(str, ids)))[:-1].decode() if ids else ""

    def say(self, what, results):
        results = list(results)
        wrong = [r for r in results if r]
        print(f"{'FAIL' if wrong or not results else 'ok  '} {what}: {len(results) - len(wrong)} of {len(results)} exact",
              *map(repr, wrong[:3]), flush=True)
        self.failed += bool(wrong) or not results

    def check(self, vocab, text, ways, back):
        """What is wrong with a text, or None; ways: flags and the ids that they should give."""
        path = self.put(text)
        for flags, want in ways:
            if self.ids(vocab, path, flags) != want:
                return text[:60], flags
        return None if self.back(vocab, ways[0][1]) == back else (text[:60], "back")

    def suite(self, name):
        vocab, base = self.vocab(name), self.dir / f"ggml-vocab-{name}.gguf"
        texts = pathlib.Path(f"{base}.inp").read_bytes().decode().removesuffix(SEPARATOR).split(SEPARATOR)
        lines = pathlib.Path(f"{base}.out").read_text().splitlines()
        if len(texts) != len(lines):
            sys.exit(f"{name}: {len(texts)} texts and {len(lines)} lines")
        jobs = [(t, [(PLAIN, [int(i) for i in line.split()])], t) for t, line in zip(texts, lines)]
        self.say(f"suite {name}: lines and texts back", self.pool.map(lambda j: self.check(vocab, *j), jobs))
        items = json.loads((self.dir / f"strings-{name}.json").read_text())["items"]
        jobs = [(i["text"], [(flags, i[key]) for key, flags in WAYS.items()], i["detok"]) for i in items]
        self.say(f"strings {name}: three ways each and back", self.pool.map(lambda j: self.check(vocab, *j), jobs))

    def chat(self, item):
        about = {k: item[k] for k in ("messages", "add_generation_prompt", "enable_thinking")}
        about["date_string"] = "26 Jul 2024"
        words = ("template", "-m", self.vocab(item["vocab"]), "-f", self.put(json.dumps(about)), "--chat-template",
                 self.dir / item["template"])
        if self.run(*words).decode() != item["prompt"]:
            return item["title"], "text"
        ids = [int(i) for i in self.run(*words, "--ids").split()]
        return None if ids == item["ids_add_special"] else (item["title"], "ids")

    def chats(self):
        items = json.loads((self.dir / "chat.json").read_text())["items"]
        for template in sorted({i["template"] for i in items}):
            mine = [i for i in items if i["template"] == template]
            self.vocab(mine[0]["vocab"])
            self.say(f"chats of {pathlib.Path(template).stem}", self.pool.map(self.chat, mine))

    def all(self):
        for path in sorted(self.dir.glob("ggml-vocab-*.inp")):
            self.suite(path.name.removeprefix("ggml-vocab-").removesuffix(".gguf.inp"))
        self.chats()
        return self.failed


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(1 if Texts(*sys.argv[1:]).all() else 0)


if __name__ == "__main__":
    main()
