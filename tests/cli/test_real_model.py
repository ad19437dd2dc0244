"""The downloaded SmolLM2: real words."""
import json
import os

import base


class RealModel(base.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = os.path.join(base.OPTIONS.models, "SmolLM2-135M-Instruct.Q4_1.gguf")

    def run_json(self, *words):
        return json.loads(self.good("run", "-m", self.model, "--json", "--temp", "0", "-c", "512", *words))

    def test_it_knows_the_capital(self):
        self.assertTrue(self.run_json("--raw", "-p", "The capital of France is", "-n", "4")["text"].startswith(" Paris"))
        a = self.run_json("-p", "What is the capital of France?", "-n", "32", "--act", "f32")
        self.assertEqual((a["text"], a["stop"]), ("The capital of France is Paris.", "end"))

    def test_fused_and_unfused_say_the_same(self):
        words = ["--raw", "-p", "Once upon a time", "-n", "24"]
        fused = self.run_json(*words)
        self.assertEqual(fused["ids"], self.run_json(*words, "--fuse", "none")["ids"])
        self.assertEqual(fused["ids"], self.run_json(*words, "-t", "1")["ids"])

    def test_tokens(self):
        text = "The quick brown fox, 123 times: Grüße!"
        ids = self.good("tokenize", "-m", self.model, "-p", text).strip()
        self.assertEqual(self.good("tokenize", "-m", self.model, "--decode", ids), text + "\n")


if __name__ == "__main__":
    base.main()
