"""run: where the prompt comes from, how an answer ends, what is printed where."""
import json

import base
import gguf


class Run(base.Case):
    def answer(self, *words, **how):
        return json.loads(self.good("run", "-m", self.model, "--json", "--temp", "0", *words, **how))

    def test_ids(self):
        a = self.answer("--ids", "5,6,7", "-n", "6")
        self.assertEqual(a["prompt_ids"], [5, 6, 7])
        self.assertEqual(len(a["ids"]), 6)
        self.assertEqual(a["stop"], "length")
        self.assertEqual(a["timings"]["prompt_n"], 3)
        self.assertEqual(a["timings"]["predicted_n"], 6)
        self.assertGreater(a["timings"]["predicted_per_second"], 0)
        self.assertEqual(a, a | {"ids": self.answer("--ids", "5 6 7", "-n", "6")["ids"]})

    def test_no_tokens(self):
        a = self.answer("--ids", "5", "-n", "0")
        self.assertEqual((a["text"], a["ids"]), ("", []))

    def test_greedy_goes_on_from_its_own_words(self):
        whole = self.answer("--ids", "5,6,7", "-n", "8", "--ignore-eos")
        rest = self.answer("--ids", ",".join(map(str, [5, 6, 7] + whole["ids"][:4])), "-n", "4", "--ignore-eos")
        self.assertEqual(rest["ids"], whole["ids"][4:])

    def test_raw_and_template(self):
        raw = self.answer("-p", "hello", "--raw", "-n", "1")["prompt_ids"]
        bos = len(gguf.byte_alphabet()) + len(gguf.MERGES)
        self.assertEqual(raw, [bos, 256 + gguf.MERGES.index("hell o")])
        chat = self.answer("-p", "hello", "-n", "1")["prompt_ids"]
        self.assertIn(bos + 1, chat)
        system = self.answer("-p", "hello", "-sys", "be brief", "-n", "1")["prompt_ids"]
        self.assertEqual(system.count(bos + 1), chat.count(bos + 1) + 1)
        own = self.put("own.jinja", "{{ messages[0]['content'] }}!")
        self.assertEqual(self.answer("-p", "hello", "--chat-template", own, "-n", "1")["prompt_ids"][-2:],
                         [raw[1], ord("!")])

    def test_control_tokens_in_a_prompt_stay_text(self):
        end = len(gguf.byte_alphabet()) + len(gguf.MERGES) + 2
        plain = self.answer("-p", "x", "-n", "1")["prompt_ids"].count(end)
        self.assertEqual(self.answer("-p", "<|im_end|>", "-n", "1")["prompt_ids"].count(end), plain)

    def test_prompt_from_file_and_stdin(self):
        want = self.answer("-p", "hello\nyou", "--raw", "-n", "3")
        path = self.put("prompt.txt", "hello\nyou\n")
        for words, stdin in ((["-f", path], b""), (["-f", "-"], b"hello\nyou\n"), ([], b"hello\nyou")):
            got = self.answer("--raw", "-n", "3", *words, stdin=stdin)
            self.assertEqual(got["prompt_ids"], want["prompt_ids"])
            self.assertEqual(got["ids"], want["ids"])

    def test_text_and_streaming_agree(self):
        words = ["-p", "hello", "-n", "20", "--ignore-eos"]
        a = self.answer(*words)
        code, out, err = self.tenon("run", "-m", self.model, "--temp", "0", *words, text=False)
        self.assertEqual(code, 0)
        self.assertEqual(out.decode(errors="replace").rstrip("\n"), a["text"].rstrip("\n"))
        self.assertNotIn(b"\x1b", out)
        self.assertIn("tokens per second", err)

    def test_quiet_and_verbose(self):
        words = ["run", "-m", self.model, "-p", "x", "-n", "2", "--temp", "0"]
        self.assertEqual(self.tenon(*words, "-q", text=False)[2], "")
        err = self.tenon(*words, "-v", text=False)[2]
        self.assertIn("load time", err)
        self.assertIn("peak memory", err)

    def test_no_vocabulary(self):
        m, t = gguf.tiny()
        m = {k: v for k, v in m.items() if not k.startswith("tokenizer.")}
        gguf.write(self.path("mute.gguf"), m, t)
        a = json.loads(self.good("run", "-m", self.path("mute.gguf"), "--json", "--ids", "5,6", "-n", "3"))
        self.assertEqual((a["text"], len(a["ids"])), (None, 3))
        self.bad(base.INPUT, "run", "-m", self.path("mute.gguf"), "-p", "x")

    def test_seed(self):
        words = ["--ids", "5", "-n", "12", "--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0"]
        one = self.answer(*words, "--seed", "1")["ids"]
        self.assertEqual(one, self.answer(*words, "--seed", "1")["ids"])
        self.assertNotEqual(one, self.answer(*words, "--seed", "2")["ids"])

    def test_same_words_whatever_the_machine_does(self):
        want = self.answer("-p", "hello world", "-n", "16")["ids"]
        for words in (["-t", "1"], ["-t", "3"], ["--fuse", "none"], ["-ub", "3"]):
            self.assertEqual(self.answer("-p", "hello world", "-n", "16", *words)["ids"], want, words)

    def test_end_of_generation(self):
        m, t = gguf.tiny()
        first = self.answer("--ids", "5", "-n", "1", "--ignore-eos")["ids"][0]
        m["tokenizer.ggml.eos_token_id"] = first
        gguf.write(self.path("ends.gguf"), m, t)
        words = ["run", "-m", self.path("ends.gguf"), "--json", "--temp", "0", "--ids", "5", "-n", "4"]
        a = json.loads(self.good(*words))
        self.assertEqual((a["stop"], a["ids"], a["text"]), ("end", [first], ""))
        self.assertEqual(len(json.loads(self.good(*words, "--ignore-eos"))["ids"]), 4)

    def test_full_context(self):
        code, out, err = self.tenon("run", "-m", self.model, "--json", "--temp", "0", "--ids", "1,2,3", "-c", "16",
                                    "--ignore-eos")
        self.assertEqual(code, 0)
        a = json.loads(out)
        self.assertEqual(a["stop"], "context")
        self.assertEqual(len(a["prompt_ids"]) + len(a["ids"]), 17)  # the last token needs no place
        self.assertIn("context of 16", err)

    def test_too_long_prompt(self):
        ids = ",".join("1" for _ in range(17))
        self.bad(base.INPUT, "run", "-m", self.model, "--ids", ids, "-c", "16", says=("17", "16"))
        self.bad(base.INPUT, "run", "-m", self.model, "--raw", "-p", "x " * 500, says="128")

    def test_empty_prompt(self):
        m, t = gguf.tiny()
        m["tokenizer.ggml.add_bos_token"] = False
        gguf.write(self.path("nobos.gguf"), m, t)
        self.bad(base.INPUT, "run", "-m", self.path("nobos.gguf"), "--raw", "-p", "", says="empty")

    def test_bytes_that_are_no_text(self):
        a = self.answer("--raw", "-n", "1", stdin=b"a\xff\xfe\x00b")
        self.assertEqual(len(a["prompt_ids"]), 6)


if __name__ == "__main__":
    base.main()
