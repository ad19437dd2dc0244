"""Makes the files in this folder with the Python package `gguf` (pip install gguf), a writer that is not ours.

all.gguf: every kind of key, arrays of each, tensors of several types and ranks. split-*.gguf: a model in three files.
"""
import os

import numpy as np
from gguf import GGMLQuantizationType as Q, GGUFValueType as V, GGUFWriter, quants

HERE = os.path.dirname(os.path.abspath(__file__))
SCALARS = [
    ("u8", V.UINT8, 200), ("i8", V.INT8, -100), ("u16", V.UINT16, 60000), ("i16", V.INT16, -30000),
    ("u32", V.UINT32, 4000000000), ("i32", V.INT32, -2000000000), ("f32", V.FLOAT32, 0.5), ("bool", V.BOOL, True),
    ("str", V.STRING, "h\u00e9llo"), ("u64", V.UINT64, 2**64 - 1), ("i64", V.INT64, -(2**63)), ("f64", V.FLOAT64, 1e300),
]


def save(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    w = GGUFWriter(os.path.join(HERE, "all.gguf"), "test")
    for name, kind, value in SCALARS:
        w.add_key_value("test." + name, value, kind)
    for name, kind, value in SCALARS:
        second = {"str": "", "bool": False}.get(name, 1)
        w.add_key_value("test.array." + name, [value, second, value], V.ARRAY, sub_type=kind)
    ramp = (np.arange(128, dtype=np.float32) - 64) / 8
    w.add_tensor("one", ramp[:3])
    w.add_tensor("two.weight", ramp[:8].reshape(2, 4).astype(np.float16))
    w.add_tensor("three", quants.quantize(ramp.reshape(2, 1, 64), Q.Q8_0), raw_dtype=Q.Q8_0)
    w.add_tensor("four", quants.quantize(ramp.reshape(2, 1, 2, 32), Q.Q4_0), raw_dtype=Q.Q4_0)
    save(w)

    w = GGUFWriter(os.path.join(HERE, "split.gguf"), "test", split_max_tensors=2)
    for i in range(5):
        w.add_tensor("t%d" % i, np.full((2, 2), i, np.float32))
    save(w)


main()
