"""Makes blocks.bin with the Python package `gguf` (pip install gguf), whose codecs are not ours.

Records, little-endian: u32 type, u32 elements, u32 what (0: decode, 1: encode), u32 bytes of blocks, the blocks, the
elements as f32. Blocks to decode are random bytes with sane f16 scales; elements to encode are normal, spread over many
magnitudes, on ties, or zero.
"""
import os
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q, quants

HERE = os.path.dirname(os.path.abspath(__file__))
# where the f16 scales of a block are
SCALES = {"F32": [], "F16": [], "BF16": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
ENCODED = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
rng = np.random.default_rng(7)


def record(f, name, what, blocks, x):
    assert np.isfinite(x).all()
    blocks, x = blocks.tobytes(), np.ascontiguousarray(x, np.float32)
    f.write(struct.pack("<4I", Q[name], x.size, what, len(blocks)) + blocks + x.tobytes())


def decode(f, name):
    block, size = GGML_QUANT_SIZES[Q[name]]
    n = {1: 64, 32: 8, 256: 3}[block]
    if block == 1:
        plain = rng.standard_normal(n).astype(np.float32)
        blocks = quants.quantize(plain, Q[name]).view(np.uint8).reshape(n, size)
    else:
        blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
        for at in SCALES[name]:
            scale = rng.standard_normal((n, 1)).astype(np.float16)
            scale[0] *= np.float16(2**-20)  # a subnormal
            blocks[:, at:at + 2] = scale.view(np.uint8)
    record(f, name, 0, blocks, quants.dequantize(blocks.reshape(-1), Q[name]).reshape(-1))



def encode(f, name):
    x = [rng.standard_normal(96), rng.standard_normal(96) * np.exp(rng.uniform(-40, 10, 96)),
         rng.integers(-64, 64, 96) / 8, np.abs(rng.standard_normal(32)), np.zeros(32)]
    x = np.concatenate(x).astype(np.float32)
    record(f, name, 1, quants.quantize(x, Q[name]).view(np.uint8), x)


with open(os.path.join(HERE, "blocks.bin"), "wb") as out:
    for each in SCALES:
        decode(out, each)
    for each in ENCODED:
        encode(out, each)
