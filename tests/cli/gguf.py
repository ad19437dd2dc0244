"""Writes GGUF files: a tiny model with random weights, and files that are wrong in one place."""
import array
import random
import struct

F32 = 0

U32, I32, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9

TEMPLATE = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def _string(s):
    b = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(b)) + b


def _value(v):
    """Type id and bytes: Python's type tells GGUF's (an int is u32, in a list i32)."""
    if isinstance(v, bool):
        return BOOL, struct.pack("<?", v)
    if isinstance(v, int):
        return U32, struct.pack("<I", v)
    if isinstance(v, float):
        return FLOAT, struct.pack("<f", v)
    if isinstance(v, str):
        return STRING, _string(v)
    kinds = [(I32, struct.pack("<i", x)) if type(x) is int else _value(x) for x in v]
    return ARRAY, struct.pack("<IQ", kinds[0][0], len(v)) + b"".join(b for _, b in kinds)


def write(path, metadata, tensors, version=3, magic=b"GGUF"):
    """tensors: (name, shape, type id, bytes)"""
    head = magic + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, v in metadata.items():
        kind, raw = _value(v)
        head += _string(key) + struct.pack("<I", kind) + raw
    data = b""
    for name, shape, kind, raw in tensors:
        head += _string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + data)


def byte_alphabet():
    """The printable character that stands for each byte in a byte-level BPE vocabulary."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(rest)) for b in range(256)]


MERGES = ["h e", "l l", "he ll", "hell o", "\u0120 w", "o r"]


def vocabulary():
    tokens = byte_alphabet() + [m.replace(" ", "") for m in MERGES]
    control = ["<|begin|>", "<|im_start|>", "<|im_end|>"]
    n = len(tokens)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens + control,
        "tokenizer.ggml.token_type": [1] * n + [3] * len(control),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": n,
        "tokenizer.ggml.eos_token_id": n + 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }


EMBD, HEADS, KV, HEAD, FF, LAYERS, CONTEXT = 64, 2, 1, 32, 128, 2, 128


def tiny(arch="llama", seed=1):
    """Metadata and tensors of a two-layer model that a reader finds nothing wrong with."""
    metadata = {
        "general.architecture": arch,
        "general.name": "Tiny",
        f"{arch}.context_length": CONTEXT,
        f"{arch}.embedding_length": EMBD,
        f"{arch}.block_count": LAYERS,
        f"{arch}.feed_forward_length": FF,
        f"{arch}.attention.head_count": HEADS,
        f"{arch}.attention.head_count_kv": KV,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.dimension_count": HEAD,
        f"{arch}.rope.freq_base": 10000.0,
    } | vocabulary()
    n_vocab = len(metadata["tokenizer.ggml.tokens"])
    draw = random.Random(seed)

    def tensor(name, *shape, mean=0.0):
        n = 1
        for s in shape:
            n *= s
        spread = 0.5 if mean else 3.0 / shape[0] ** 0.5
        values = array.array("f", (mean + spread * (draw.random() - 0.5) for _ in range(n)))
        return name, shape, F32, values.tobytes()

    tensors = [tensor("token_embd.weight", EMBD, n_vocab), tensor("output_norm.weight", EMBD, mean=1.0)]
    for i in range(LAYERS):
        b = f"blk.{i}."
        tensors += [
            tensor(b + "attn_norm.weight", EMBD, mean=1.0),
            tensor(b + "attn_q.weight", EMBD, HEADS * HEAD),
            tensor(b + "attn_k.weight", EMBD, KV * HEAD),
            tensor(b + "attn_v.weight", EMBD, KV * HEAD),
            tensor(b + "attn_output.weight", HEADS * HEAD, EMBD),
            tensor(b + "ffn_norm.weight", EMBD, mean=1.0),
            tensor(b + "ffn_gate.weight", EMBD, FF),
            tensor(b + "ffn_up.weight", EMBD, FF),
            tensor(b + "ffn_down.weight", FF, EMBD),
        ]
        if arch == "qwen2":
            tensors += [tensor(f"{b}attn_{x}.bias", n * HEAD) for x, n in (("q", HEADS), ("k", KV), ("v", KV))]
    return metadata, tensors
