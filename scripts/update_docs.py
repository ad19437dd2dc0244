#!/usr/bin/env python3
"""Writes the output of commands in documentation anew, and the picture of a layer: update_docs.py TENON [PAGE ...].

In a page, a block that begins with ```console holds commands, each on a line with "$ ", and what they print. They are run in
the repository's root with `tenon` standing for TENON, $M for the small model of scripts/fetch-model.sh and /tmp for a folder of
their own; stderr counts as output. A line "..." at the end of an output says that the rest was left out: as many lines are kept
as were there. tests/cli/test_real_docs.py compares the pages with what they would become."""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = os.path.join(ROOT, "docs", "verbs")
PICTURE = os.path.join(ROOT, "docs", "fused-layer.svg"), "tenon explain -m $M --format svg"
MODEL = "models/SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.S | re.M)


def commands(text):
    """Each command of a text and the lines that stand below it."""
    for part in re.split(r"^(?=\$ )", text, flags=re.M):
        if part.startswith("$ "):
            command, *old = part.rstrip("\n").splitlines()
            yield command[2:], old


def run(command, tenon, folder, old=()):
    """The lines that a command prints, cut where `old` was."""
    script = f'tenon() {{ "{tenon}" "$@"; }}\n{command.replace("/tmp/", folder + "/")}'
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=dict(os.environ, M=MODEL), capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    new = [line.rstrip() for line in (done.stdout + done.stderr).replace(folder + "/", "/tmp/").rstrip("\n").splitlines()]
    if old and old[-1] == "..." and len(new) > len(old) - 1:
        new = new[: max(len(old) - 1, 1)] + ["..."]
    return new


def renew(block, tenon, folder):
    return "".join("\n".join([f"$ {command}", *run(command, tenon, folder, old)]) + "\n" for command, old in commands(block))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    tenon = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for page in sys.argv[2:] or sorted(os.path.join(PAGES, f) for f in os.listdir(PAGES) if f.endswith(".md")):
            with open(page, encoding="utf-8") as f:
                text = f.read()
            with open(page, "w", encoding="utf-8") as f:
                f.write(BLOCK.sub(lambda block: renew(block.group(), tenon, folder), text))
            print(page)
        if not sys.argv[2:]:
            path, command = PICTURE
            with open(path, "w", encoding="utf-8") as f:
                f.write("\n".join(run(command, tenon, folder)) + "\n")


if __name__ == "__main__":
    main()
