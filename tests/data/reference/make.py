"""Makes the files in this folder from a folder with logits that llama.cpp computed for small random models.

    make.py REFERENCE     reads REFERENCE/models/NAME.gguf and REFERENCE/logits/NAME.SEQ.prefill[.VARIANT].{json,logits}

NAME.gguf.xz    the model, as it is
NAME.exact      f32 logits of the last 16 of 48 positions, computed with f32 weights, activations and cache, and GELU without
                a table; NAME.long.exact those of the last 16 of 130
reference.json  for each model its tokens, and for each of the 48 positions the NMSE of llama.cpp's own result with the
                file as it is (it rounds activations to 8 or 16 bits where weights are, and looks GELU up in f16); under
                "long" the same for 130
"""
import array
import json
import lzma
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = 16

NAMES = ["llama-a.F32", "llama-ropefreqs.F32", "llama-a.F16", "llama-a.BF16"] + [
    f"llama-q.{t}-pure" for t in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
                                  "IQ4_NL", "IQ4_XS")] + [
    "qwen3-q.Q4_K_M", "qwen3moe-a.Q8_0", "qwen35-a.Q8_0", "stock-qwen35-dense.Q8_0"]
# Those with 130 tokens too: longer than every window and than a chunk of a recurrence.
LONG = ["qwen35-mtp.F32", "qwen35moe-a.F32", "gemma3-a.F32", "gemma4-ple.F32", "gemma4-moe.F32"]

# What is exact, the first that is there: GELU computed, weights dequantized first, f32 weights.
VARIANTS = [".exactgelu", ".deq", ""]


def read(path):
    values = array.array("f")
    with open(path, "rb") as f:
        values.frombytes(f.read())
    return values


def nmse(got, want):
    return sum((a - b) ** 2 for a, b in zip(got, want)) / sum(b * b for b in want)


def sequence(base, out):
    """Writes what is exact, and returns what reference.json says of the sequence."""
    native = read(base + ".logits")
    exact = read(next(p for p in (f"{base}{v}.logits" for v in VARIANTS) if os.path.exists(p)))
    with open(base + ".json") as f:
        about = json.load(f)
    n = about["n_vocab"]
    rows = [slice(i * n, (i + 1) * n) for i in range(len(exact) // n)]
    with open(out, "wb") as f:
        exact[rows[-ROWS].start:].tofile(f)
    return {"n_vocab": n, "tokens": about["tokens"], "native": [float(f"{nmse(native[r], exact[r]):.6g}") for r in rows]}


def pack(data, words):
    """As xz -9e does it, or in the way for words of four bytes."""
    four = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 2, "lp": 2, "pb": 2}]
    return lzma.compress(data, filters=four) if words else lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def main(reference):
    models = []
    for name in NAMES + LONG:
        base = f"{reference}/logits/{name}"
        models.append({"name": name} | sequence(f"{base}.s48.prefill", f"{HERE}/{name}.exact"))
        if name in LONG:
            models[-1]["long"] = sequence(f"{base}.s130.prefill", f"{HERE}/{name}.long.exact")
        with open(f"{reference}/models/{name}.gguf", "rb") as f, open(f"{HERE}/{name}.gguf.xz", "wb") as g:
            g.write(pack(f.read(), words=name.endswith("F32")))
    with open(f"{HERE}/reference.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(m) for m in models) + "\n]\n")


main(sys.argv[1])
