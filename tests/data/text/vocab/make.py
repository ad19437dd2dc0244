#!/usr/bin/env python3
"""Makes the files in this folder from llama.cpp's vocabularies, with only what the texts of the tests can reach.

    make.py REFERENCE     reads REFERENCE/vocab/ggml-vocab-NAME.gguf[.xz], and as more texts all *.txt and *.json there

NAME.gguf.xz   the file with its metadata and all its ids. A token stays if it occurs in a text (as the vocabulary spells it:
               spaces, bytes), stands for a byte, or is special or could be; in place of the others is the empty token, which no
               text has. A merge stays if what it makes occurs in a text. Whatever merging tries on a text occurs in it, so
               these texts have the ids that the whole vocabulary gives.
"""
import glob
import json
import lzma
import os
import re
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "gemma-4"]

# Repeated, the long texts of test_tokenizer.c.
UNITS = [b"a", b"  ", b"\n", b" \n", b"7", b"\xcc\x81", b"\xff", b"\x80", "你".encode(), b"hello world ", b"<", b"<s>", b"!",
         b"\t", b"\n\t", b"'", b" a1", b"\r\n", b"<unused1", "😀".encode(), b"e\xcc\x81", b".", "▁".encode(), b"<|im_start|>",
         b"\xf0\x9f", b"A", "\u3000".encode()]

# More that it asks for.
STRINGS = ["1000", "2024", "20240", "a`b", "a\n\nb", "I'LL", "(th", "$th",
           "Hello, wOrld! it's 1234567 o'clock\r\n\r\n\t x  y\u00a0z 。你好Пр e\u0301 😀 <|x|> ''''``  "]


def byte_alphabet():
    """The character that stands for each byte in a byte-level vocabulary."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(rest)) for b in range(256)]


# ---- GGUF without tensors: the metadata, values kept as bytes but for arrays of strings -------------------------------

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def string(self):
        return self.take(self.number("Q"))

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.take(SIZES[kind])
        kind, n = self.number("I"), self.number("Q")
        return kind, [self.value(kind) for _ in range(n)]


def read(data):
    r = Reader(data)
    assert r.take(4) == b"GGUF" and r.number("I") == 3 and r.number("Q") == 0
    pairs = {}
    for _ in range(r.number("Q")):
        key, kind = r.string().decode(), r.number("I")
        pairs[key] = kind, r.value(kind)
    return pairs


def write(pairs):
    def string(s):
        return struct.pack("<Q", len(s)) + s

    def value(kind, v):
        if kind == ARRAY:
            return struct.pack("<IQ", v[0], len(v[1])) + b"".join(value(v[0], x) for x in v[1])
        return string(v) if kind == STRING else v

    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    head += b"".join(string(k.encode()) + struct.pack("<I", kind) + value(kind, v) for k, (kind, v) in pairs.items())
    return head + bytes(-len(head) % 32)


# ---- texts -------------------------------------------------------------------------------------------------------------


def strings(value):
    """All there are in a JSON value."""
    if isinstance(value, str):
        yield value.encode(errors="surrogatepass")
    elif isinstance(value, (list, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            yield from strings(v)


def texts(reference):
    for path in glob.glob(HERE + "/../suites/*.inp") + glob.glob(reference + "/**/*.txt", recursive=True):
        with open(path, "rb") as f:
            yield from f.read().split(b"\n__ggml_vocab_test__\n")
    folders = HERE + "/../suites", HERE + "/..", reference + "/**"
    for path in (p for folder in folders for p in glob.glob(folder + "/*.json", recursive=True)):
        with open(path) as f:
            yield from strings(json.load(f))
    yield from (unit * (600 // len(unit)) + b"x" for unit in UNITS)
    yield from (s.encode() for s in STRINGS)


class Speller:
    """Whether a token's text can occur in a text. One string of all texts may find more, which does no harm."""

    def __init__(self, model, blob):
        self.model = model
        if model == b"gpt2":
            letters = [c.encode() for c in byte_alphabet()]
            self.all = b"".join(letters[b] for b in blob)
        else:
            self.all = blob.replace(b" ", "▁".encode())

    def reaches(self, token):
        if self.model == b"llama" and token.startswith("▁".encode()):  # a space stands before all texts
            token = token[len("▁".encode()):]
        return token in self.all


def is_special(token):
    """A text that might be known as an end of generation whatever its type, or the name of a byte."""
    return re.fullmatch(rb"_?<.*>|\[.*[\]\[]", token) is not None


# ---- pruning -----------------------------------------------------------------------------------------------------------


def prune(pairs, blob):
    speller = Speller(pairs["tokenizer.ggml.model"][1], blob)
    tokens = pairs["tokenizer.ggml.tokens"][1][1]
    types = pairs["tokenizer.ggml.token_type"][1][1]
    scores = pairs.get("tokenizer.ggml.scores", (0, (0, None)))[1][1]
    letters = {c.encode() for c in byte_alphabet()} if speller.model == b"gpt2" else set()
    normal = struct.pack("<i", 1)
    for i, token in enumerate(tokens):
        if types[i] != normal or token in letters or is_special(token) or speller.reaches(token):
            continue
        tokens[i] = b""
        if scores:
            scores[i] = bytes(4)
    if "tokenizer.ggml.merges" in pairs:
        merges = pairs["tokenizer.ggml.merges"][1][1]
        merges[:] = [m for m in merges if speller.reaches(m[0:1] + m[1:].replace(b" ", b"", 1))]
    return sum(t != b"" for t in tokens), len(tokens)


def main(reference):
    blob = b"\0".join(sorted(set(texts(reference))))
    for name in NAMES:
        path = f"{reference}/vocab/ggml-vocab-{name}.gguf"
        with lzma.open(path + ".xz") if os.path.exists(path + ".xz") else open(path, "rb") as f:
            pairs = read(f.read())
        kept, n = prune(pairs, blob)
        packed = lzma.compress(write(pairs), preset=9 | lzma.PRESET_EXTREME)
        with open(f"{HERE}/{name}.gguf.xz", "wb") as f:
            f.write(packed)
        print(f"{name}: {kept} of {n} tokens, {len(packed)} bytes")


main(sys.argv[1])
