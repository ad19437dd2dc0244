"""Words that make no sense: exit code 2, one line that says what is wrong."""
import base


class Usage(base.Case):
    def wrong(self, *words, says=()):
        self.bad(base.USAGE, *words, says=says)

    def test_no_verb(self):
        code, out, err = self.tenon()
        self.assertEqual((code, out), (base.USAGE, ""))
        self.assertIn("bench", err)

    def test_help_and_version(self):
        self.assertIn("inspect", self.good("-h"))
        self.assertRegex(self.good("--version"), r"\Atenon \d+\.\d+\.\d+\n\Z")

    def test_every_verb_has_help(self):
        verbs = [line.split()[0] for line in self.good("-h").splitlines() if line.startswith("  ")]
        self.assertGreaterEqual(len(verbs), 9)
        for verb in verbs:
            text = self.good(verb, "-h")
            self.assertTrue(text.startswith(f"tenon {verb}"))
            self.assertIn("--help", text)
            self.assertNotIn("\x1b", text)

    def test_unknown_verb(self):
        self.wrong("sing", says="'sing'")

    def test_unknown_option(self):
        self.wrong("run", "--sing", says="--sing")

    def test_option_of_another_verb(self):
        self.wrong("run", "-m", self.model, "--chunk", "3", says=("--chunk", "logits"))

    def test_word_out_of_place(self):
        self.wrong("run", "-m", self.model, "hello", says="'hello'")
        self.wrong("inspect", self.model, self.model, says="one FILE")

    def test_missing_things(self):
        self.wrong("run", "-p", "x", says="-m")
        self.wrong("logits", "-m", self.model, "-o", "x", says="--ids")
        self.wrong("logits", "-m", self.model, "--ids", "1", says="-o")
        self.wrong("inspect", says="FILE")
        self.wrong("verify", says="--rules")
        self.wrong("run", "-m", self.model, "-n", says="-n needs a value")

    def test_numbers_are_strict(self):
        for words in (["-n", "12x"], ["-n", ""], ["-n", " 3"], ["-n", "1e3"], ["-n", "99999999999"], ["-n", "-2"],
                      ["-t", "0"], ["-ub", "0"], ["-c", "-1"], ["--temp", "warm"], ["--temp", "nan"], ["--temp", "-1"],
                      ["--temp", "inf"], ["--top-p", "1.5"], ["--seed", "-2"], ["--ids", "1,,2"], ["--ids", "1,2,"],
                      ["--ids", "-1"], ["--ids", "a"], ["--kv-type", "f64"], ["--act", "int"], ["--kv-type", "f1"]):
            self.wrong("run", "-m", self.model, "-p", "x", *words, says=words[0])

    def test_words_that_exclude_each_other(self):
        self.wrong("run", "-m", self.model, "-p", "x", "--ids", "1")
        self.wrong("run", "-m", self.model, "--raw", "-p", "x", "-sys", "y")
        self.wrong("verify", "--rules", "--ops")
        self.wrong("tokenize", "-m", self.model, "-p", "x", "--decode", "1")
        self.wrong("explain", "-m", self.model, "--format", "dot", "--json")

    def test_gpu_layers(self):
        for layers in ("all", "99", "-1", "2", "33", "0"):
            self.good("run", "-m", self.model, "--ids", "1", "-n", "1", "--json", "-ngl", layers)
        for layers in ("1", "-2", "some", "", "2x"):
            self.wrong("run", "-m", self.model, "--ids", "1", "-n", "1", "-ngl", layers, says="-ngl")
        self.wrong("run", "-m", self.model, "--ids", "1", "-n", "1", "-b", "null", "-ngl", "0", says="-ngl")

    def test_unknown_rule(self):
        code, out, err = self.tenon("run", "-m", self.model, "-p", "x", "-n", "1", "--fuse", "superglue")
        self.assertEqual((code, out), (base.USAGE, ""))
        self.assertIn("superglue", err)
        self.assertIn("norm", err)  # lists those there are
        self.wrong("run", "-m", self.model, "-p", "x", "-n", "1", "--fuse", "-superglue", says="superglue")

    def test_id_out_of_range(self):
        code, _, err = self.tenon("run", "-m", self.model, "--ids", "1,100000", "-n", "1")
        self.assertIn(code, (base.USAGE, base.INPUT), err)
        self.assertEqual(err.count("\n"), 1)

    def test_backend_that_is_not_there(self):
        code, _, err = self.tenon("run", "-m", self.model, "-p", "x", "-n", "1", "-b", "abacus")
        self.assertIn(code, (base.USAGE, base.UNAVAILABLE), err)
        self.assertIn("abacus", err)
        self.assertEqual(err.count("\n"), 1)


if __name__ == "__main__":
    base.main()
