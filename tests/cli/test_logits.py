"""logits: how many rows there are, and that the same tokens give the same bytes however they are fed."""
import base
import gguf

N_VOCAB = len(gguf.vocabulary()["tokenizer.ggml.tokens"])
IDS = [(7 * i + 3) % 250 for i in range(70)]


class Logits(base.Case):
    def logits(self, *words, ids=IDS):
        out = self.path("out.bin")
        self.good("logits", "-m", self.model, "--ids", ",".join(map(str, ids)), "-o", out, "-q", *words)
        with open(out, "rb") as f:
            return f.read()

    def rows(self, *words, **how):
        raw = self.logits(*words, **how)
        size = 4 * N_VOCAB
        self.assertEqual(len(raw) % size, 0)
        return [raw[i:i + size] for i in range(0, len(raw), size)]

    def test_sizes(self):
        self.assertEqual(len(self.rows()), 1)
        self.assertEqual(len(self.rows("--all")), len(IDS))
        self.assertEqual(len(self.rows("--seq", "2")), 2)
        self.assertEqual(len(self.rows("--seq", "2", "--all")), 2 * len(IDS))

    def test_last_of_all_is_the_last(self):
        rows = self.rows("--all")
        self.assertEqual(rows[-1], self.rows()[0])
        self.assertEqual(rows[9], self.rows(ids=IDS[:10])[0])
        self.assertNotEqual(rows[9], rows[-1])

    def test_chunks(self):
        want = self.rows("--all")
        for chunk in (1, 2, 7, 64, 70, 600):
            self.assertEqual(self.rows("--all", "--chunk", chunk), want, chunk)
        self.assertEqual(self.rows("--all", "-ub", "5"), want)

    def test_sequences(self):
        want = self.rows("--all")
        for words in ([], ["--chunk", "1"], ["--chunk", "9"], ["-ub", "4"]):
            self.assertEqual(self.rows("--all", "--seq", "2", *words), want + want, words)
        self.assertEqual(self.rows("--seq", "3", "--chunk", "8"), [want[-1]] * 3)

    def test_threads_and_fusion(self):
        want = self.rows("--all")
        for words in (["-t", "1"], ["-t", "2"], ["--fuse", "none"]):
            self.assertEqual(self.rows("--all", *words), want, words)
        self.assertEqual(self.rows("--all", "--act", "f32", "--fuse", "none"), self.rows("--all", "--act", "f32"))

    def test_cache_types(self):
        exact = self.rows("--kv-type", "f32")
        for kind in ("f16", "q8_0"):
            self.assertNotEqual(self.rows("--kv-type", kind), exact, kind)

    def test_too_many(self):
        self.bad(base.INPUT, "logits", "-m", self.model, "--ids", ",".join(["1"] * 20), "-c", "16", "-o",
                 self.path("x"), says=("20", "16"))


if __name__ == "__main__":
    base.main()
