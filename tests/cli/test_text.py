"""tokenize and template: texts to ids and back, messages to a prompt."""
import json

import base
import gguf

BOS = 256 + len(gguf.MERGES)
START, END = BOS + 1, BOS + 2
HELLO = 256 + gguf.MERGES.index("hell o")


class Tokenize(base.Case):
    def ids(self, *words, **how):
        out = self.good("tokenize", "-m", self.model, *words, **how)
        self.assertEqual(out.count("\n"), 1)
        return [int(x) for x in out.split()]

    def test_one_line_of_ids(self):
        self.assertEqual(self.ids("-p", "hello"), [BOS, HELLO])
        self.assertEqual(self.ids("-p", "hello", "--no-bos"), [HELLO])
        self.assertEqual(self.ids("-p", "", "--no-bos"), [])

    def test_control_tokens(self):
        self.assertEqual(self.ids("-p", "<|im_start|>hello", "--no-bos"), [START, HELLO])
        plain = self.ids("-p", "<|im_start|>hello", "--no-bos", "--no-special")
        self.assertNotIn(START, plain)
        self.assertEqual(plain[-1], HELLO)

    def test_round_trip(self):
        for text in ("hello world", " two  spaces ", "Grüße, 世界! 😀", "a\tb\n\nc", "<|im_end|>hello", "it's 12345"):
            ids = self.ids("-p", text, "--no-bos")
            self.assertEqual(self.good("tokenize", "-m", self.model, "--decode", ",".join(map(str, ids))), text + "\n")

    def test_bytes_come_back(self):
        raw = bytes(range(1, 256))
        ids = self.ids("-f", self.put("bytes", raw), "--no-bos", "--no-special")
        back = self.good("tokenize", "-m", self.model, "--decode", ",".join(map(str, ids)), text=False)
        self.assertEqual(back, raw + b"\n")

    def test_sources_agree(self):
        path = self.put("text", "hello\n")
        want = self.ids("-p", "hello\n")
        self.assertEqual(self.ids("-f", path), want)
        self.assertEqual(self.ids(stdin=b"hello\n"), want)

    def test_json(self):
        got = json.loads(self.good("tokenize", "-m", self.model, "-p", "hello é", "--json"))
        self.assertEqual(got["ids"][:2], [BOS, HELLO])
        self.assertEqual(len(got["pieces"]), len(got["ids"]))
        self.assertEqual(got["pieces"][:2], ["<|begin|>", "hello"])
        got = json.loads(self.good("tokenize", "-m", self.model, "--decode", "195", "--json"))
        self.assertEqual(got["text"], "\ufffd")  # half a character

    def test_unknown_id(self):
        code, out, err = self.tenon("tokenize", "-m", self.model, "--decode", "999999")
        self.assertIn(code, (base.USAGE, base.INPUT))
        self.assertEqual((out, err.count("\n")), ("", 1))


class Template(base.Case):
    MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes?"},
                {"role": "user", "content": "<|im_end|>"}]
    TEXT = ("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nyes?<|im_end|>\n"
            "<|im_start|>user\n<|im_end|><|im_end|>\n")

    def render(self, content, *words):
        path = self.put("messages.json", content if isinstance(content, str) else json.dumps(content))
        return self.good("template", "-m", self.model, "-f", path, *words)

    def test_text(self):
        self.assertEqual(self.render(self.MESSAGES), self.TEXT + "<|im_start|>assistant\n")

    def test_object_with_variables(self):
        both = {"messages": self.MESSAGES, "add_generation_prompt": False}
        self.assertEqual(self.render(both), self.TEXT)
        own = self.put("own.jinja", "{{ mood }}:{{ messages[0].content }}")
        self.assertEqual(self.render({"messages": self.MESSAGES, "mood": "fine"}, "--chat-template", own), "fine:hello")

    def test_ids(self):
        ids = [int(x) for x in self.render(self.MESSAGES, "--ids").split()]
        self.assertEqual(ids.count(START), 4)
        self.assertEqual(ids.count(END), 3)  # the one inside a message is text
        got = json.loads(self.render(self.MESSAGES, "--json"))
        self.assertEqual(got["ids"], ids)
        self.assertEqual(got["text"], self.TEXT + "<|im_start|>assistant\n")

    def test_bad_messages(self):
        for content in ("", "{", "[1,", '{"a": 1}', "7", '"x"'):
            self.bad(base.INPUT, "template", "-m", self.model, "-f", self.put("bad.json", content))

    def test_bad_template(self):
        path = self.put("messages.json", json.dumps(self.MESSAGES))
        bad = self.put("bad.jinja", "{% for %}")
        self.bad(base.INPUT, "template", "-m", self.model, "-f", path, "--chat-template", bad)

    def test_model_without_template(self):
        m, t = gguf.tiny()
        del m["tokenizer.chat_template"]
        gguf.write(self.path("bare.gguf"), m, t)
        path = self.put("messages.json", json.dumps(self.MESSAGES))
        self.bad(base.INPUT, "template", "-m", self.path("bare.gguf"), "-f", path, says="template")
        self.bad(base.USAGE, "run", "-m", self.path("bare.gguf"), "-p", "x", "-sys", "y", says="template")
        self.good("run", "-m", self.path("bare.gguf"), "-p", "x", "-n", "1", "--json")


if __name__ == "__main__":
    base.main()
