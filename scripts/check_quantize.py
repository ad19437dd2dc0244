#!/usr/bin/env python3
"""Compare `tenon quantize` with llama.cpp's llama-quantize.

    check_quantize.py TENON LLAMA_QUANTIZE MODEL [MODEL ...] [--types Q8_0,Q4_K_M,...]

Both convert each model to each type (models that are quantized already: at a further loss). Every tensor must have the same
type in both. Bytes that differ are counted; where some do, the logits of both files are compared with those of the model itself
(--act f32 --kv-type f32), and ours may err 1.25 times as much.
"""
import argparse
import array
import pathlib
import struct
import subprocess
import sys
import tempfile

TYPES = "F16,BF16,Q8_0,Q4_0,Q4_1,Q5_0,Q5_1,Q2_K,Q3_K_M,Q4_K_S,Q4_K_M,Q5_K_S,Q5_K_M,Q6_K,IQ4_NL,IQ4_XS"
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Gguf:
    """Types and bytes of the tensors of a file."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), 8
        n_tensors, n_keys = self.read("Q"), self.read("Q")
        for _ in range(n_keys):
            self.text()
            self.value(self.read("I"))
        info = {}
        for _ in range(n_tensors):
            name = self.text()
            n_dims = self.read("I")
            self.at += 8 * n_dims
            info[name] = (self.read("I"), self.read("Q"))
        start, ends = (self.at + 31) // 32 * 32, sorted(o for _, o in info.values()) + [len(self.data)]
        self.tensors = {name: (kind, self.data[start + o:start + ends[ends.index(o) + 1]]) for name, (kind, o) in info.items()}

    def read(self, code):
        size = struct.calcsize(code)
        self.at += size
        return struct.unpack_from("<" + code, self.data, self.at - size)[0]

    def text(self):
        n = self.read("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode(errors="replace")

    def value(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            kind, n = self.read("I"), self.read("Q")
            for _ in range(n):
                self.value(kind)
        else:
            self.read(NUMBERS[kind])


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr.decode(errors='replace')[-500:]}")


def logits(tenon, model, out):
    ids = ",".join(str(7 * i % 300 + 3) for i in range(24))
    run(tenon, "logits", "-m", model, "--ids", ids, "-o", out, "--all", "-q", "--act", "f32", "--kv-type", "f32")
    a = array.array("f")
    a.frombytes(out.read_bytes())
    return a


def nmse(got, want):
    return sum((g - w) ** 2 for g, w in zip(got, want)) / sum(w * w for w in want)


def compare(o, model, kind, tmp):
    ours, theirs, out = tmp / "ours.gguf", tmp / "theirs.gguf", tmp / "logits"
    run(o.tenon, "quantize", model, ours, kind, "--allow-requantize", "-q")
    run(o.llama_quantize, "--allow-requantize", model, theirs, kind, 1)
    a, b = Gguf(ours).tensors, Gguf(theirs).tensors
    wrong = [f"{n}: {a.get(n, ['none'])[0]}, not {b[n][0]}" for n in b if n not in a or a[n][0] != b[n][0]]
    differ = sum(a[n][1][:min(len(a[n][1]), len(b[n][1]))] != b[n][1][:min(len(a[n][1]), len(b[n][1]))] for n in b if n in a)
    line, ok = f"{len(b)} tensors, {len(wrong)} of other types, {differ} of other bytes", not wrong and set(a) == set(b)
    if differ and ok:
        want = logits(o.tenon, model, out)
        e, limit = nmse(logits(o.tenon, ours, out), want), nmse(logits(o.tenon, theirs, out), want)
        line, ok = f"{line}; NMSE of the logits {e:.3g}, theirs {limit:.3g}", e <= 1.25 * limit
    print(f"{'ok  ' if ok else 'FAIL'} {model.name:40s} {kind:8s} {line}", *wrong[:2], flush=True)
    return not ok


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tenon")
    ap.add_argument("llama_quantize")
    ap.add_argument("models", type=pathlib.Path, nargs="+")
    ap.add_argument("--types", default=TYPES)
    o = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        failed = sum(compare(o, m, t, pathlib.Path(tmp)) for m in o.models for t in o.types.split(","))
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


main()
