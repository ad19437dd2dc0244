"""inspect, explain, verify, doctor: what they print can be read, and says what it must."""
import json

import base
import gguf


class Inside(base.Case):
    def test_inspect(self):
        text = self.good("inspect", self.model)
        self.assertIn("blk.1.ffn_down.weight", text)
        self.assertIn("llama", text)
        self.assertNotIn("\x1b", text)

    def test_inspect_json(self):
        facts = json.loads(self.good("inspect", self.model, "--json"))
        self.assertIn("blk.1.ffn_down.weight", json.dumps(facts["tensors"]))
        self.assertEqual(len(facts["tensors"]), len(gguf.tiny()[1]))
        self.assertIn("llama.block_count", json.dumps(facts["metadata"]))

    def test_explain(self):
        for phase in ("decode", "prefill"):
            fused = self.good("explain", "-m", self.model, "--phase", phase)
            self.assertIn("norm", fused)
            self.assertNotEqual(fused, self.good("explain", "-m", self.model, "--phase", phase, "--fuse", "none"))
            self.assertEqual(fused, self.good("explain", "-m", self.model, "--phase", phase))

    def test_explain_formats(self):
        self.assertIn("digraph", self.good("explain", "-m", self.model, "--format", "dot"))
        by_format = json.loads(self.good("explain", "-m", self.model, "--format", "json"))
        self.assertEqual(by_format, json.loads(self.good("explain", "-m", self.model, "--json")))

    def test_explain_counts_what_bench_counts(self):
        explained = json.loads(self.good("explain", "-m", self.model, "--json"))
        (row,) = json.loads(self.good("bench", "-m", self.model, "-p", "0", "-n", "1", "-r", "1", "-o", "json"))
        self.assertEqual(explained["launches"], row["launches"])
        self.assertEqual(len(explained["plan"]), row["launches"])

    def test_verify(self):  # rules take long, and a C test verifies them
        for what in (["-m", self.model], ["--ops"]):
            self.assertIn("0 failed", self.good("verify", *what))
            checks = json.loads(self.good("verify", *what, "--json"))
            self.assertGreater(len(checks), 1)
            self.assertTrue(all(check["ok"] for check in checks))

    def test_doctor(self):
        self.assertIn("cpu", self.good("doctor").lower())
        json.loads(self.good("doctor", "--json"))


if __name__ == "__main__":
    base.main()
