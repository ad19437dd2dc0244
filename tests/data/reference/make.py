"""Makes the files in this folder from a folder with logits that llama.cpp computed for small random models.

    make.py REFERENCE     reads REFERENCE/models/NAME.gguf and REFERENCE/logits/NAME.s48.prefill[.deq].{json,logits}

NAME.gguf.xz    the model, as it is
NAME.exact      f32 logits of the last 16 of 48 positions, computed with f32 weights, activations and cache
reference.json  for each model its tokens, and for each of the 48 positions the NMSE of llama.cpp's own result with the
                weights as they are in the file (it rounds activations to 8 or 16 bits too)
"""
import array
import json
import lzma
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = 16
EXACT = ["llama-a.F32", "llama-ropefreqs.F32"]
NAMES = EXACT + ["llama-a.F16", "llama-a.BF16"] + [
    f"llama-q.{t}-pure" for t in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
                                  "IQ4_NL", "IQ4_XS")]


def read(path):
    values = array.array("f")
    with open(path, "rb") as f:
        values.frombytes(f.read())
    return values


def nmse(got, want):
    return sum((a - b) ** 2 for a, b in zip(got, want)) / sum(b * b for b in want)


def main(reference):
    models = []
    for name in NAMES:
        base = f"{reference}/logits/{name}.s48.prefill"
        native = read(base + ".logits")
        exact = native if name in EXACT else read(base + ".deq.logits")
        with open(base + ".json") as f:
            info = json.load(f)
        n = info["n_vocab"]
        rows = [slice(i * n, (i + 1) * n) for i in range(len(exact) // n)]
        models.append({"name": name, "n_vocab": n, "tokens": info["tokens"],
                       "native": [float(f"{nmse(native[r], exact[r]):.6g}") for r in rows]})
        with open(f"{HERE}/{name}.exact", "wb") as f:
            exact[rows[-ROWS].start:].tofile(f)
        with open(f"{reference}/models/{name}.gguf", "rb") as f, open(f"{HERE}/{name}.gguf.xz", "wb") as g:
            g.write(lzma.compress(f.read(), preset=9 | lzma.PRESET_EXTREME))
    with open(f"{HERE}/reference.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(m) for m in models) + "\n]\n")


main(sys.argv[1])
