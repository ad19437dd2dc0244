#!/usr/bin/env python3
"""Writes the output of commands in documentation anew, and the picture of a layer: update_docs.py TENON [PAGE ...].

In a page, a block that begins with ```console holds commands, each on a line with "$ ", and what they print. They are run in
the repository's root with `tenon` standing for TENON and $M for the small model of scripts/fetch-model.sh; stderr counts as
output. A line "..." at the end of an output says that the rest was left out: as many lines are kept as were there."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.S | re.M)


def run(command, tenon):
    env = dict(os.environ, M="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    script = f'tenon() {{ "{tenon}" "$@"; }}\n{command}'
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return (done.stdout + done.stderr).rstrip("\n").splitlines()


def renew(block, tenon):
    lines = []
    for part in re.split(r"^(?=\$ )", block, flags=re.M):
        if not part.startswith("$ "):
            lines += part.splitlines()
            continue
        command, *old = part.rstrip("\n").splitlines()
        new = run(command[2:], tenon)
        if old and old[-1] == "..." and len(new) > len(old) - 1:
            new = new[: max(len(old) - 1, 1)] + ["..."]
        lines += [command, *(line.rstrip() for line in new)]
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    tenon = os.path.abspath(sys.argv[1])
    folder = os.path.join(ROOT, "docs", "verbs")
    for page in sys.argv[2:] or sorted(os.path.join(folder, f) for f in os.listdir(folder) if f.endswith(".md")):
        with open(page, encoding="utf-8") as f:
            text = f.read()
        with open(page, "w", encoding="utf-8") as f:
            f.write(BLOCK.sub(lambda block: renew(block.group(), tenon), text))
        print(page)
    if not sys.argv[2:]:
        with open(os.path.join(ROOT, "docs", "fused-layer.svg"), "w", encoding="utf-8") as f:
            f.write("\n".join(run("tenon explain -m $M --format svg", tenon)) + "\n")


if __name__ == "__main__":
    main()
