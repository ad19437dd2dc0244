"""Verbs that make files: quantize and synth."""
import array
import filecmp
import json
import os

import base
import gguf


class Quantize(base.Case):
    def types(self, path):
        return {t["name"]: t["type"] for t in json.loads(self.good("inspect", path, "--json"))["tensors"]}

    def text(self, path):
        out = self.good("run", "-m", path, "-p", "hello", "-n", "8", "--ignore-eos", "--temp", "0", "--json")
        return json.loads(out)["ids"]

    def test_half_floats_run_alike(self):
        out = self.path("f16.gguf")
        self.assertEqual(self.good("quantize", self.model, out, "F16"), "")
        types = self.types(out)
        self.assertEqual(types["blk.0.attn_q.weight"], "F16")
        self.assertEqual(types["blk.0.attn_norm.weight"], "F32")
        metadata = json.loads(self.good("inspect", out, "--json"))["metadata"]
        self.assertEqual((metadata["general.file_type"], metadata["general.name"]), (1, "Tiny"))
        self.assertEqual(len(self.text(out)), 8)
        again = self.path("again.gguf")
        self.good("quantize", out, again, "F32")  # no flag is needed: F16 is not quantised
        self.assertEqual(self.types(again), self.types(self.model))

    def test_every_type_runs(self):
        for name in ("F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q4_K_S", "Q4_K_M", "Q5_K",
                     "Q5_K_S", "Q5_K_M", "Q6_K", "Q3_K_M", "Q2_K", "IQ4_NL", "q4_k_m"):
            out = self.path("any.gguf")
            self.good("quantize", self.model, out, name)
            self.assertEqual(len(self.text(out)), 8, name)

    def logits(self, path):
        out = self.path("logits")
        self.good("logits", "-m", path, "--ids", "5,6,7", "-o", out, "--act", "f32", "--kv-type", "f32")
        with open(out, "rb") as f:
            return array.array("f", f.read())

    def test_more_bits_change_less(self):
        exact = self.logits(self.model)
        power = sum(x * x for x in exact)
        bounds = {"F16": 1e-5, "BF16": 1e-3, "Q8_0": 1e-3, "Q6_K": 1e-3, "Q5_1": 0.02, "Q4_K_M": 0.05}
        for name, bound in bounds.items():
            self.good("quantize", self.model, self.path("q.gguf"), name)
            left = sum((x - y) ** 2 for x, y in zip(self.logits(self.path("q.gguf")), exact)) / power
            self.assertLess(left, bound, name)
            self.assertGreater(left, 0, name)

    def test_fallback(self):
        out = self.path("k.gguf")
        code, _, err = self.tenon("quantize", self.model, out, "Q4_K_M")
        self.assertEqual(code, 0)
        self.assertIn("not whole blocks", err)  # rows of 64 and 128
        types = self.types(out)
        self.assertEqual(types["blk.0.attn_q.weight"], "Q5_0")
        self.assertEqual(types["token_embd.weight"], "Q8_0")
        code, _, err = self.tenon("quantize", "-q", self.model, out, "Q4_K_M")
        self.assertEqual((code, err), (0, ""))
        code, _, err = self.tenon("quantize", "-v", self.model, out, "Q4_K_M")
        self.assertIn("blk.0.attn_q.weight", err)

    def test_requantize(self):
        q, out = self.path("q8.gguf"), self.path("q4.gguf")
        self.good("quantize", self.model, q, "Q8_0")
        self.bad(base.USAGE, "quantize", q, out, "Q4_0", says=("--allow-requantize", "Q8_0"))
        self.assertFalse(os.path.exists(out))
        self.good("quantize", "--allow-requantize", q, out, "Q4_0")
        self.assertEqual(self.types(out)["blk.1.ffn_up.weight"], "Q4_0")
        self.good("quantize", q, out, "Q8_0")  # nothing to convert
        self.assertEqual(self.types(out), self.types(q))

    def test_pure(self):
        out = self.path("pure.gguf")
        self.good("quantize", "--pure", self.model, out, "Q4_0")
        self.assertEqual(self.types(out)["token_embd.weight"], "Q4_0")
        self.good("quantize", self.model, out, "Q4_0")
        self.assertEqual(self.types(out)["token_embd.weight"], "Q8_0")

    def test_threads(self):
        self.good("quantize", "-t", "1", self.model, self.path("t1.gguf"), "Q4_1")
        self.good("quantize", "-t", "3", self.model, self.path("t3.gguf"), "Q4_1")
        self.assertTrue(filecmp.cmp(self.path("t1.gguf"), self.path("t3.gguf"), shallow=False))

    def test_usage(self):
        out = self.path("no.gguf")
        self.bad(base.USAGE, "quantize", self.model, out, "Q9", says=("'Q9'", "Q4_K_M", "Q8_0", "BF16"))
        self.bad(base.USAGE, "quantize", self.model, out, says="IN OUT TYPE")
        self.bad(base.USAGE, "quantize", self.model, out, "Q8_0", "4", says="IN OUT TYPE")
        self.bad(base.USAGE, "quantize", self.model, self.model, "Q8_0", says="tiny.gguf")
        self.bad(base.USAGE, "quantize", self.model, os.path.join(self.folder.name, ".", "tiny.gguf"), "Q8_0")
        self.bad(base.USAGE, "run", "--pure", "-m", self.model, says="quantize")
        self.assertFalse(os.path.exists(out))
        self.text(self.model)

    def test_files(self):
        out = self.path("no.gguf")
        self.bad(base.INPUT, "quantize", self.path("nothing.gguf"), out, "Q8_0", says="nothing.gguf")
        self.bad(base.INPUT, "quantize", self.folder.name, out, "Q8_0")
        self.bad(base.INPUT, "quantize", self.put("text.gguf", "no model at all"), out, "Q8_0", says="text.gguf")
        self.bad(base.INPUT, "quantize", self.model, self.path("no/such/folder"), "Q8_0", says="no/such/folder")
        self.bad(base.INPUT, "quantize", self.model, self.folder.name, "Q8_0")
        metadata, tensors = gguf.tiny()
        odd = [(n, s, 77 if n == "blk.1.ffn_up.weight" else k, d) for n, s, k, d in tensors]
        gguf.write(self.path("odd.gguf"), metadata, odd)
        self.bad(base.INPUT, "quantize", self.path("odd.gguf"), out, "Q8_0", says=("blk.1.ffn_up.weight", "77"))
        self.assertFalse(os.path.exists(out))
        self.assertFalse(os.path.exists(out + ".tmp"))


class Synth(base.Case):
    def test_one_layer_runs(self):
        out = self.path("s.gguf")
        self.assertEqual(self.good("synth", "llama-3.2-1b", "-o", out, "--layers", "1"), "")
        about = json.loads(self.good("inspect", out, "--json"))
        self.assertTrue(about["runs"])
        types = {t["name"]: (t["type"], t["shape"]) for t in about["tensors"]}
        self.assertEqual(types["token_embd.weight"], ("Q6_K", [2048, 128256]))
        self.assertEqual(types["blk.0.attn_k.weight"], ("Q4_K", [2048, 512]))
        self.assertEqual(about["metadata"]["general.file_type"], 15)
        ids = self.good("run", "-m", out, "--ids", "1,2,3", "-n", "2", "-c", "16", "--json")
        self.assertEqual(len(json.loads(ids)["ids"]), 2)
        again, other = self.path("again.gguf"), self.path("other.gguf")
        self.good("synth", "llama-3.2-1b", "-o", again, "--layers", "1", "--seed", "0")
        self.assertTrue(filecmp.cmp(out, again, shallow=False))
        self.good("synth", "llama-3.2-1b", "-o", other, "--layers", "1", "--seed", "1")
        self.assertFalse(filecmp.cmp(out, other, shallow=False))

    def test_usage(self):
        out = self.path("no.gguf")
        self.bad(base.USAGE, "synth", "gpt-9", "-o", out, says=("gpt-9", "llama-3.2-1b", "qwen3.5-4b"))
        self.bad(base.USAGE, "synth", "llama-3.2-1b", says="-o")
        self.bad(base.USAGE, "synth", "-o", out, says="PRESET")
        self.bad(base.USAGE, "synth", "llama-3.2-1b", "-o", out, "--layers", "17", says="16")
        self.bad(base.USAGE, "synth", "llama-3.2-1b", "-o", out, "--layers", "0", says="--layers")
        self.bad(base.USAGE, "synth", "llama-3.2-1b", "-o", out, "--type", "int5", says="int5")
        self.assertFalse(os.path.exists(out))


if __name__ == "__main__":
    base.main()
