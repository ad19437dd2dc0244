#!/usr/bin/env python3
"""Compare `tenon logits` with recorded logits of small models.

    check_reference.py TENON DIR [--backend NAME] [--only TEXT]

DIR holds models/NAME.gguf and logits/NAME.SEQ.MODE[.VARIANT].{json,logits}: float32 rows, the json with the tokens and the
positions of the rows. Variants: `deq` (weights dequantized first) and `exactgelu` are exact; none is the peer's own arithmetic
(`native`), which rounds activations as it likes.

For each model and sequence, in one batch and in chunks of 7 and 1:
  exact     --act f32 --kv-type f32: NMSE to the exact logits at most 1e-6
  defaults  (int8 activations, f16 cache): the median row's NMSE to the exact logits at most 1.25 times that of the peer's own
            result, and at most one row in ten above the peer's worst row; floor 5e-5
  bits      the same bits in all three chunkings, and with --fuse none
"""
import argparse
import array
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

BOUND, FLOOR, RATIO = 1e-6, 5e-5, 1.25


def floats(path):
    a = array.array("f")
    a.frombytes(pathlib.Path(path).read_bytes())
    return a


def row_nmse(got, want, n_vocab):
    out = []
    for r in range(0, len(want), n_vocab):
        num = sum((g - w) ** 2 for g, w in zip(got[r:r + n_vocab], want[r:r + n_vocab]))
        out.append(num / max(sum(w * w for w in want[r:r + n_vocab]), 1e-30))
    return out


def nmse(got, want):
    return sum((g - w) ** 2 for g, w in zip(got, want)) / max(sum(w * w for w in want), 1e-30)


class Check:
    def __init__(self, options):
        self.o, self.failed, self.tmp = options, 0, tempfile.mkdtemp()

    def logits(self, model, tokens, *flags):
        out = pathlib.Path(self.tmp, "out")
        command = [self.o.tenon, "logits", "-m", str(model), "--ids", ",".join(map(str, tokens)), "-o", str(out), "--all",
                   "-b", self.o.backend, "-q", *flags]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{' '.join(command)}: {run.stderr.strip()}")
        return out.read_bytes()

    def chunks(self, model, tokens, *flags):
        runs = {self.logits(model, tokens, *flags, *more)
                for more in ([], ["--chunk", "7"], ["--chunk", "1"], ["--fuse", "none"])}
        a = array.array("f")
        a.frombytes(next(iter(runs)))
        return a, len(runs) == 1

    def sequence(self, model, exact, native):
        about = json.loads(exact.with_suffix(".json").read_text())
        tokens, n_vocab = about["tokens"], about["n_vocab"]
        want = floats(exact)
        got, same = self.chunks(model, tokens, "--act", "f32", "--kv-type", "f32")
        error = nmse(got, want)
        line, ok = f"exact {error:8.2g}", error <= BOUND
        bits = same
        got, same = self.chunks(model, tokens)
        ours, theirs = row_nmse(got, want, n_vocab), row_nmse(floats(native), want, n_vocab)
        limit = max(RATIO * statistics.median(theirs), FLOOR)
        above = sum(e > max(max(theirs), FLOOR) for e in ours)
        ok &= statistics.median(ours) <= limit and above * 10 <= len(ours)
        line += f"  default median {statistics.median(ours):8.2g} (limit {limit:8.2g}), {above:3d} of {len(ours)} rows above"
        bits &= same
        if self.o.backend.startswith("cpu"):
            line += "  same bits" if bits else "  BITS DIFFER"
            ok &= bits
        print(f"{'ok  ' if ok else 'FAIL'} {exact.name[:exact.name.index('.prefill')]:32s} {line}", flush=True)
        self.failed += not ok


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tenon")
    ap.add_argument("dir", type=pathlib.Path)
    ap.add_argument("--backend", default="cpu")
    ap.add_argument("--only", default="")
    o = ap.parse_args()
    check, n = Check(o), 0
    for model in sorted((o.dir / "models").glob("*.gguf")):
        if o.only not in model.name:
            continue
        for seq in ("s48", "s130"):
            base = o.dir / "logits" / f"{model.stem}.{seq}.prefill"
            native = pathlib.Path(f"{base}.logits")
            exact = [p for p in (pathlib.Path(f"{base}.{v}.logits") for v in ("exactgelu", "deq")) if p.exists()]
            if not native.exists():
                continue
            check.sequence(model, exact[0] if exact else native, native)
            n += 1
    print(f"{n - check.failed} of {n} sequences passed")
    sys.exit(1 if check.failed or not n else 0)


main()
