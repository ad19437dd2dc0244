#!/usr/bin/env python3
"""Compare tenon with all of a folder of recorded results.

    check_reference.py TENON DIR [--backend NAME] [--only TEXT] [MODEL ...]

DIR holds models/NAME.gguf and logits/NAME.SEQ.MODE[.VARIANT].{json,logits}: float32 rows, the json with the tokens and the
positions of the rows. Variants: `deq` (weights dequantized first) and `exactgelu` are exact; none is the peer's own arithmetic
(`native`), which rounds activations as it likes, but is exact too where all weights are F32 and there is no GELU.
vocab/ is what check_text.py reads, real/NAME/ and ppl/ what check_real.py does, for each real MODEL given.

For each small model and sequence, in one batch, in chunks of 7, token by token, and in two sequences whose tokens alternate:
  exact     --act f32 --kv-type f32: NMSE to the exact logits at most 1e-6
  defaults  (int8 activations, f16 cache): the median row's NMSE to the exact logits at most 1.25 times that of the peer's own
            result, and at most one row in ten above the peer's worst row; floor 5e-5
  bits      the same bits in all of these, and with --fuse none
Then `--only` apart: the texts of vocab/, and the real models.
"""
import argparse
import array
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import check_text

WAYS = ([], ["--chunk", "7"], ["--chunk", "1"], ["--fuse", "none"], ["--seq", "2"], ["--seq", "2", "--chunk", "5", "--fuse", "none"])
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
    def __init__(self, options, folder):
        self.o, self.failed, self.out = options, 0, pathlib.Path(folder, "out")

    def logits(self, model, tokens, *flags):
        command = [self.o.tenon, "logits", "-m", str(model), "--ids", ",".join(map(str, tokens)), "-o", str(self.out), "--all",
                   "-b", self.o.backend, "-q", *flags]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{' '.join(command)}: {run.stderr.strip()}")
        return self.out.read_bytes()

    def chunks(self, model, tokens, *flags):
        runs = set()
        for way in WAYS:
            got = self.logits(model, tokens, *flags, *way)
            half = len(got) // 2 if "--seq" in way else len(got)  # one sequence after the other
            runs |= {got[:half], got[-half:]}
        a = array.array("f")
        a.frombytes(next(iter(runs)))
        return a, len(runs) == 1

    def tail(self, got, exact, n_vocab):
        """NMSE of the last rows to those recorded after single tokens, where there are any."""
        path = pathlib.Path(str(exact).replace(".prefill", ".tail8"))
        want = floats(path) if path.exists() else []
        return nmse(got[-len(want):], want) if want else 0.0

    def sequence(self, model, exact, native):
        about = json.loads(exact.with_suffix(".json").read_text())
        tokens, n_vocab = about["tokens"], about["n_vocab"]
        want = floats(exact)
        got, same = self.chunks(model, tokens, "--act", "f32", "--kv-type", "f32")
        error = max(nmse(got, want), self.tail(got, exact, n_vocab))
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


def exact_of(base):
    """The file with the exact logits of a model and sequence, or None."""
    for variant in ("exactgelu", "deq"):
        path = pathlib.Path(f"{base}.{variant}.logits")
        if path.exists():
            return path
    native = pathlib.Path(f"{base}.logits")
    return native if native.exists() and ".F32." in base.name and not base.name.startswith("gemma") else None


def small_models(o, folder):
    check, n = Check(o, folder), 0
    for model in sorted((o.dir / "models").glob("*.gguf")):
        for seq in ("s1", "s48", "s130"):
            base = o.dir / "logits" / f"{model.stem}.{seq}.prefill"
            exact = exact_of(base)
            if exact and o.only in model.name:
                check.sequence(model, exact, pathlib.Path(f"{base}.logits"))
                n += 1
    print(f"{n - check.failed} of {n} sequences passed", flush=True)
    return check.failed or not n


def real_model(o, model):
    """check_real.py with the folder of this model's results."""
    for folder in sorted((o.dir / "real").iterdir()):
        if json.loads((folder / "greedy.json").read_text())["model"] == model.name:
            print(f"== {model.name}", flush=True)
            script = pathlib.Path(__file__).with_name("check_real.py")
            return subprocess.run([sys.executable, script, o.tenon, model, folder, "--ppl", o.dir / "ppl", "--backend",
                                   o.backend]).returncode
    sys.exit(f"nothing was recorded of {model.name}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tenon")
    ap.add_argument("dir", type=pathlib.Path)
    ap.add_argument("models", type=pathlib.Path, nargs="*", metavar="MODEL")
    ap.add_argument("--backend", default="cpu")
    ap.add_argument("--only", default="")
    o = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failed = bool(small_models(o, folder))
    if not o.only:
        failed |= bool(check_text.Texts(o.tenon, o.dir / "vocab").all())
    for model in o.models:
        failed |= bool(real_model(o, model))
    print("something failed" if failed else "all passed")
    sys.exit(failed)


main()
