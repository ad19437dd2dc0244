"""Files that are missing, of another kind, or wrong in one place: exit code 65, one line that names the trouble."""
import os

import base
import gguf


class Files(base.Case):
    def refused(self, path, *says):
        for verb in (["run", "-p", "x", "-n", "1", "-m"], ["tokenize", "-p", "x", "-m"], ["bench", "-o", "jsonl", "-m"]):
            self.bad(base.INPUT, *verb, path, says=says)

    def changed(self, name, metadata=(), tensors=None, arch="llama", **how):
        """The tiny model with other metadata (None: without the key) or tensors."""
        m, t = gguf.tiny(arch)
        for key, v in dict(metadata).items():
            if v is None:
                del m[key]
            else:
                m[key] = v
        gguf.write(self.path(name), m, tensors(t) if tensors else t, **how)
        return self.path(name)

    def test_missing(self):
        self.refused(self.path("nothing.gguf"), "nothing.gguf")
        self.bad(base.INPUT, "inspect", self.path("nothing.gguf"), says="nothing.gguf")

    def test_directory(self):
        self.refused(self.folder.name)

    def test_text_file(self):
        self.refused(self.put("text.gguf", "This is a text, and no model.\n" * 10))

    def test_empty_file(self):
        self.refused(self.put("empty.gguf", b""))

    def test_no_permission(self):
        path = self.put("locked.gguf", b"GGUF")
        os.chmod(path, 0)
        if os.access(path, os.R_OK):
            self.skipTest("root reads everything")
        self.refused(path)

    def test_versions(self):
        self.refused(self.changed("v1.gguf", version=1), "version")
        self.refused(self.changed("v4.gguf", version=4), "version")
        self.good("run", "-m", self.changed("v2.gguf", version=2), "--ids", "1", "-n", "1", "--json")

    def test_cut_short(self):
        with open(self.model, "rb") as f:
            whole = f.read()
        for n in (3, 4, 23, 100, 5000, len(whole) // 2, len(whole) - 1):
            path = self.put("short.gguf", whole[:n])
            self.bad(base.INPUT, "run", "-m", path, "-p", "x", "-n", "1")

    def test_unknown_architecture(self):
        path = self.changed("arch.gguf", arch="abacus")
        self.bad(base.INPUT, "run", "-m", path, "-p", "x", "-n", "1", says="abacus")
        self.assertIn("abacus", self.good("inspect", path))

    def test_unknown_block_type(self):
        def retype(kind):
            return lambda ts: [(n, s, kind if n == "blk.1.ffn_up.weight" else k, d) for n, s, k, d in ts]

        path = self.changed("type77.gguf", tensors=retype(77))
        self.bad(base.INPUT, "run", "-m", path, "-p", "x", "-n", "1", says="77")
        path = self.changed("iq2.gguf", tensors=retype(16))
        self.bad(base.INPUT, "run", "-m", path, "-p", "x", "-n", "1")

    def test_vocabulary_of_wrong_types(self):
        wrong = {"tokens": [1, 2, 3], "merges": "a b", "token_type": ["normal"] * 300, "scores": ["high"] * 300, "pre": 3,
                 "model": ["gpt2"], "eos_token_id": "</s>", "bos_token_id": 1.0, "add_bos_token": 1}
        for key, value in wrong.items():
            path = self.changed("vocabulary.gguf", {f"tokenizer.ggml.{key}": value})
            for words in (("run", "-m", path, "-p", "x", "-n", "1"), ("tokenize", "-m", path, "-p", "x")):
                self.bad(base.INPUT, *words, says=(f"tokenizer.ggml.{key}", "is of type"))

    def test_missing_tensor(self):
        path = self.changed("hole.gguf", tensors=lambda ts: [t for t in ts if t[0] != "blk.1.ffn_up.weight"])
        self.bad(base.INPUT, "run", "-m", path, "-p", "x", "-n", "1", says="blk.1.ffn_up.weight")

    def test_wrong_shape(self):
        def reshape(ts):
            return [(n, (gguf.FF, gguf.EMBD) if n == "blk.1.ffn_up.weight" else s, k, d) for n, s, k, d in ts]

        path = self.changed("shape.gguf", tensors=reshape)
        self.bad(base.INPUT, "run", "-m", path, "-p", "x", "-n", "1", says="blk.1.ffn_up.weight")

    def test_missing_key(self):
        path = self.changed("key.gguf", {"llama.attention.head_count": None})
        self.bad(base.INPUT, "run", "-m", path, "-p", "x", "-n", "1", says="head_count")

    def test_prompt_file_missing(self):
        self.bad(base.INPUT, "run", "-m", self.model, "-f", self.path("no.txt"), says="no.txt")
        self.bad(base.INPUT, "tokenize", "-m", self.model, "-f", self.folder.name)

    def test_output_that_cannot_be_written(self):
        self.bad(base.INPUT, "logits", "-m", self.model, "--ids", "1", "-o", self.path("no/such/folder"))


if __name__ == "__main__":
    base.main()
