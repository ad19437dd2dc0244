"""run: how the next token is chosen (biases, penalties), where a stop text ends an answer, log-probabilities.

Most of it on a model that recites: its layers add nothing, and each token of a script has one successor."""
import array
import json
import math
import os
import random
import subprocess

import base
import gguf

ALPHABET = gguf.byte_alphabet()
N_VOCAB = len(gguf.vocabulary()["tokenizer.ggml.tokens"])
BEGIN, END = N_VOCAB - 3, N_VOCAB - 1


def word(text):
    """The token of a merged word; " " stands for itself."""
    return gguf.vocabulary()["tokenizer.ggml.tokens"].index(text.replace(" ", "\u0120"))


TEXT = "hello wor€ld!"
SCRIPT = [word("hello"), word(" w"), word("or"), *"€".encode(), *b"ld!", END]  # no token twice


def write_reciter(path, never=None):
    """The logit of the token `never` is -inf after BEGIN."""
    metadata, tensors = gguf.tiny()
    draw = random.Random(2)
    rows = [[draw.gauss(0, 1) for _ in range(gguf.EMBD)] for _ in range(N_VOCAB)]
    head = [[0.0] * gguf.EMBD for _ in range(N_VOCAB)]
    for token, follows in zip([BEGIN, *SCRIPT], SCRIPT):
        head[follows] = rows[token]
    if never is not None:
        head[never][0] = -math.copysign(math.inf, rows[BEGIN][0])
    silent = ("attn_output.weight", "ffn_down.weight")
    tensors = [(name, shape, kind, bytes(len(raw)) if name.endswith(silent) else raw)
               for name, shape, kind, raw in tensors if name not in ("token_embd.weight", "output_norm.weight")]
    for name, matrix in (("token_embd.weight", rows), ("output.weight", head)):
        tensors.append((name, (gguf.EMBD, N_VOCAB), gguf.F32, array.array("f", sum(matrix, [])).tobytes()))
    tensors.append(("output_norm.weight", (gguf.EMBD,), gguf.F32, array.array("f", [1.0] * gguf.EMBD).tobytes()))
    gguf.write(path, metadata, tensors)


class Sampling(base.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.reciter = cls.path("reciter.gguf")
        write_reciter(cls.reciter)

    def answer(self, *words, model=None, **how):
        return json.loads(self.good("run", "-m", model or self.model, "--json", "--temp", "0", *words, **how))

    def recite(self, *words, ids=BEGIN):
        return self.answer("--ids", ids, *words, model=self.reciter)

    def packets(self, *words):
        """What is written at a time: a pipe with O_DIRECT keeps writes apart."""
        reader, writer = os.pipe2(os.O_DIRECT)
        command = [base.OPTIONS.tenon, "run", "-m", self.reciter, "--ids", str(BEGIN), "--temp", "0", "-q", *words]
        with subprocess.Popen(command, stdout=writer, stdin=subprocess.DEVNULL) as run:
            os.close(writer)
            got = []
            while data := os.read(reader, 65536):
                got.append(data.decode())
            os.close(reader)
        self.assertEqual(run.returncode, 0)
        return got


class Stops(Sampling):
    def stopped(self, *stops):
        words = [w for s in stops for w in ("--stop", s)]
        a = self.recite(*words)
        shown = "".join(self.packets(*words))
        self.assertEqual(shown, a["text"] + ("\n" if a["text"] else ""))
        return a["text"], a["stop"], a["ids"]

    def test_the_script(self):
        self.assertEqual(self.stopped(), (TEXT, "end", SCRIPT))

    def test_in_a_token(self):
        self.assertEqual(self.stopped("l"), ("he", "stop", SCRIPT[:1]))
        self.assertEqual(self.stopped("hello"), ("", "stop", SCRIPT[:1]))

    def test_over_tokens(self):
        self.assertEqual(self.stopped("lo wo"), ("hel", "stop", SCRIPT[:3]))
        self.assertEqual(self.stopped("ld!"), ("hello wor€", "stop", SCRIPT[:9]))
        self.assertEqual(self.stopped(TEXT), ("", "stop", SCRIPT[:9]))

    def test_characters_of_several_tokens(self):
        self.assertEqual(self.stopped("€"), ("hello wor", "stop", SCRIPT[:6]))
        self.assertEqual(self.stopped("r€l"), ("hello wo", "stop", SCRIPT[:7]))

    def test_several(self):
        self.assertEqual(self.stopped("d!", "nothing", "or€", "€ld"), ("hello w", "stop", SCRIPT[:6]))
        self.assertEqual(self.stopped("llo", "ell"), ("h", "stop", SCRIPT[:1]))
        self.assertEqual(self.stopped("hello", "el"), ("h", "stop", SCRIPT[:1]))  # complete first
        self.assertEqual(self.stopped("lo", "ello"), ("h", "stop", SCRIPT[:1]))  # at once: the longer one
        self.assertEqual(self.stopped("ello", "lo"), ("h", "stop", SCRIPT[:1]))

    def test_a_comma_is_text(self):
        self.assertEqual(self.stopped("x,l"), (TEXT, "end", SCRIPT))

    def test_never_complete(self):
        for stop in ("!!", "world", TEXT + "!", "hello w€", "\u20ad"):
            self.assertEqual(self.stopped(stop), (TEXT, "end", SCRIPT), stop)

    def test_writes(self):
        self.assertEqual(self.packets(), ["hello", " w", "or", "€", "l", "d", "!", "\n"])
        self.assertEqual(self.packets("--stop", "world"), ["hello", " ", "wor", "€", "l", "d", "!", "\n"])
        self.assertEqual(self.packets("--stop", "world", "--stop", "z"), self.packets("--stop", "world"))
        self.assertEqual(self.packets("--stop", "r\u20ad"), ["hello", " w", "o", "r€", "l", "d", "!", "\n"])
        self.assertEqual(self.packets("--stop", "d!?"), ["hello", " w", "or", "€", "l", "d!", "\n"])
        self.assertEqual(self.packets("--stop", "d!"), ["hello", " w", "or", "€", "l", "\n"])
        self.assertEqual(self.packets("--stop", "lo?", "--stop", "o worse"),
                         ["hel", "l", "o wor", "€", "ld", "!", "\n"])

    def test_what_is_held_is_told_at_the_end(self):
        a = self.recite("--stop", "world", "-n", "3")
        self.assertEqual((a["text"], a["stop"]), ("hello wor", "length"))
        self.assertEqual(self.packets("--stop", "world", "-n", "3"), ["hello", " ", "wor", "\n"])
        a = self.recite("--stop", "wor", "-n", "3")  # both at once
        self.assertEqual((a["text"], a["stop"]), ("hello ", "stop"))

    def test_the_prompt_takes_no_part(self):
        a = self.recite("--stop", "hello w", "--stop", "o ", ids=SCRIPT[0])
        self.assertEqual((a["text"], a["stop"]), (TEXT[5:], "end"))

    def test_control_tokens_are_no_text(self):
        a = self.recite("--stop", "<|im_end|>", "--ignore-eos", "-n", "12")
        self.assertEqual((len(a["ids"]), a["stop"]), (12, "length"))

    def test_no_vocabulary(self):
        m, t = gguf.tiny()
        gguf.write(self.path("mute.gguf"), {k: v for k, v in m.items() if not k.startswith("tokenizer.")}, t)
        words = ["run", "-m", self.path("mute.gguf"), "--json", "--ids", "5", "-n", "3"]
        self.bad(base.INPUT, *words, "--stop", "x", says="tokenizer")
        a = json.loads(self.good(*words, "--logprobs", "2"))
        self.assertEqual([t["text"] for t in a["logprobs"]], [None] * 3)
        self.assertEqual([t["id"] for t in a["logprobs"]], a["ids"])

    def test_usage(self):
        self.bad(base.USAGE, "run", "-m", self.model, "-p", "x", "--stop", "", says=("--stop", "empty"))
        self.bad(base.USAGE, "run", "-m", self.model, "-p", "x", "--stop", says="--stop needs")


class Choice(Sampling):
    def test_bias_forces_a_token(self):
        self.assertEqual(self.answer("--ids", "5", "-n", "4", "-l", "65+1000")["ids"], [65] * 4)
        warm = self.answer("--ids", "5", "-n", "4", "--logit-bias", "66+1e3", "--temp", "1.5")
        self.assertEqual(warm["ids"], [66] * 4)

    def test_bias_forbids_tokens(self):
        first = self.answer("--ids", "5", "-n", "1", "--logprobs", "4")["logprobs"][0]["top_logprobs"]
        best = [t["id"] for t in first]
        for words in (["-l", f"{best[0]}-inf"], ["-l", f"{best[0]}-1000,{best[3]}-1.5"]):
            self.assertEqual(self.answer("--ids", "5", "-n", "1", *words)["ids"], [best[1]])
        for words in (["-l", f"{best[1]}-inf,{best[0]}-INF"], ["-l", f"{best[1]}-inf", "-l", f"{best[0]}-inf"],
                      ["-l", f"{best[0]}-inf,{best[1]}-500", "-l", f"{best[1]}-500"]):
            self.assertEqual(self.answer("--ids", "5", "-n", "1", *words)["ids"], [best[2]], words)

    def test_bias_is_added(self):
        first, second = self.answer("--ids", "5", "-n", "1", "--logprobs", "2")["logprobs"][0]["top_logprobs"]
        gap = first["logprob"] - second["logprob"]
        self.assertGreater(gap, 1e-3)
        for much, wins in ((gap * 0.99, first), (gap * 1.01, second)):
            a = self.answer("--ids", "5", "-n", "1", "-l", f"{second['id']}+{much:.9f}")
            self.assertEqual(a["ids"], [wins["id"]])
            a = self.answer("--ids", "5", "-n", "1", "-l", f"{first['id']}-{much:.9f}")
            self.assertEqual(a["ids"], [wins["id"]])

    def test_penalties(self):
        words = ["--ids", "5,6,5", "-n", "40", "--ignore-eos"]
        plain = self.answer(*words)["ids"]
        for penalty in ("--presence-penalty", "--frequency-penalty"):
            ids = self.answer(*words, penalty, "1000", "--repeat-last-n", "-1")["ids"]
            self.assertEqual(len({5, 6, *ids}), 42, penalty)
            self.assertEqual(self.answer(*words, penalty, "1000", "--repeat-last-n", "0")["ids"], plain)
            self.assertEqual(self.answer(*words, penalty, "0")["ids"], plain)
        self.assertEqual(self.answer(*words, "--frequency-penalty", "-1000")["ids"], [5] * 40)  # 5 is there twice
        self.assertEqual(self.answer(*words, "--frequency-penalty", "-1000", "-l", "5-inf")["ids"], [6] * 40)

    def test_bad_values(self):
        words = ["run", "-m", self.model, "--ids", "5", "-n", "1"]
        for bias in ("", "15", "15+", "+2", "15*2", "15+x", "15+2x", "15+-2", "15 +2", "15+nan", "15+inf", "15-nan",
                     "-1+2", "15+2,", ",15+2", "15+2,,16+2", "15+1e99", "15-1e99", "99999999999+2", "15+2 16+2", "x+2"):
            self.bad(base.USAGE, *words, "-l", bias, says="-l: '")
        self.bad(base.USAGE, *words, "--logit-bias", "3+1,x", says="--logit-bias: 'x' is not ID+X")
        self.bad(base.USAGE, *words, "-q", "-l", f"{N_VOCAB}+1", says=(f"token {N_VOCAB}", f"of {N_VOCAB}"))
        everything = ",".join(f"{i}-inf" for i in range(N_VOCAB))
        self.bad(base.USAGE, *words, "-q", "-l", everything, says="every token")
        for option in ("--presence-penalty", "--frequency-penalty"):
            for value in ("", "x", "nan", "inf", "1001", "-1e9"):
                self.bad(base.USAGE, *words, option, value, says=option)


class FromTheBest(Sampling):
    """Where the sampler needs few logits, a step brings no others back: the tokens are the same."""
    def check(self, backend, *words):
        words = ["-b", backend, "--ids", "5,6,7", "-n", "20", "--ignore-eos", *words]
        found = []
        for seed in range(4):
            best = self.answer(*words, "--seed", str(seed))["ids"]
            self.assertEqual(self.answer(*words, "--seed", str(seed), "--logprobs", "0")["ids"], best)
            self.assertEqual(self.answer(*words, "--seed", str(seed), "-l", "5+0")["ids"], best)
            found.append(best)
        return found

    def test_same_tokens(self):
        for words in (["--temp", "3"], ["--temp", "5", "--top-k", "64", "--top-p", "1", "--min-p", "0"],
                      ["--temp", "2", "--top-k", "2"]):
            found = self.check("cpu", *words)
            self.assertNotEqual(found[0], found[1])
            self.check("cpu:ref", *words)
        self.assertEqual(len({tuple(ids) for ids in self.check("cpu", "--temp", "3", "--top-k", "1")}), 1)

    def test_on_webgpu(self):
        code, out, _ = self.tenon("doctor", "--json")
        ready = [b for b in json.loads(out) if b["backend"] == "webgpu" and b["ready"]]
        if not ready:
            self.skipTest("no WebGPU here")
        found = self.check("webgpu", "--temp", "3")
        self.assertNotEqual(found[0], found[1])


class Logprobs(Sampling):
    def logits(self, ids):
        out = self.path("logits.bin")
        self.good("logits", "-m", self.model, "--ids", ",".join(map(str, ids)), "-o", out, "-q")
        with open(out, "rb") as f:
            return array.array("f", f.read())

    def check(self, k, *words):
        """Every place against the logits that the tokens before it give."""
        prompt = [5, 6, 7]
        a = self.answer("--ids", "5,6,7", "-n", "5", "--ignore-eos", "--logprobs", k, *words)
        self.assertEqual([t["id"] for t in a["logprobs"]], a["ids"])
        for i, token in enumerate(a["logprobs"]):
            logits = self.logits(prompt + a["ids"][:i])
            total = math.log(sum(map(math.exp, logits)))
            ranked = sorted(range(N_VOCAB), key=lambda id: (-logits[id], id))
            self.assertEqual([t["id"] for t in token["top_logprobs"]], ranked[:k])
            for t in [token, *token["top_logprobs"]]:
                self.assertAlmostEqual(t["logprob"], logits[t["id"]] - total, delta=1e-5)
            for t in token["top_logprobs"]:
                if t["id"] == token["id"]:
                    self.assertEqual(t, {key: v for key, v in token.items() if key != "top_logprobs"})
        return a

    def test_against_logits(self):
        a = self.check(4)
        self.assertEqual([t["top_logprobs"][0]["id"] for t in a["logprobs"]], a["ids"])  # greedy
        self.check(0)
        self.check(1)
        whole = self.check(N_VOCAB)
        for token in whole["logprobs"]:
            self.assertAlmostEqual(sum(math.exp(t["logprob"]) for t in token["top_logprobs"]), 1, delta=1e-5)
        self.assertEqual(whole["logprobs"], self.answer("--ids", "5,6,7", "-n", "5", "--ignore-eos", "--logprobs",
                                                        N_VOCAB + 1000)["logprobs"])

    def test_the_sampler_does_not_change_them(self):
        a = self.check(2, "--temp", "3", "--seed", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0")
        tops = [[t["id"] for t in token["top_logprobs"]] for token in a["logprobs"]]
        self.assertTrue(any(id not in top for id, top in zip(a["ids"], tops)), "only likely ones were drawn")
        self.check(2, "-l", "65+1000", "--presence-penalty", "3")

    def test_texts(self):
        a = self.recite("--logprobs", "2")
        self.assertEqual([t["text"] for t in a["logprobs"]],
                         ["hello", " w", "or", "\ufffd", "\ufffd", "\ufffd", "l", "d", "!", "<|im_end|>"])
        self.assertTrue(all(t["logprob"] <= 0 for t in a["logprobs"]))

    def test_no_probability_is_null(self):
        write_reciter(self.path("never.gguf"), never=7)
        a = self.answer("--ids", BEGIN, "-n", "1", "--logprobs", N_VOCAB, model=self.path("never.gguf"))
        self.assertEqual(a["ids"], SCRIPT[:1])
        top = a["logprobs"][0]["top_logprobs"]
        self.assertEqual((top[-1]["id"], top[-1]["logprob"]), (7, None))
        self.assertTrue(all(t["logprob"] <= 0 for t in top[:-1]))

    def test_only_when_asked(self):
        self.assertNotIn("logprobs", self.answer("--ids", "5", "-n", "2"))
        self.assertEqual(self.answer("--ids", "5", "-n", "0", "--logprobs", "3")["logprobs"], [])

    def test_usage(self):
        words = ["run", "-m", self.model, "--ids", "5", "-n", "1", "--logprobs"]
        self.bad(base.USAGE, *words, "3", says=("--logprobs", "--json"))
        for value in ("-1", "x", "", "1.5", "2000000"):
            self.bad(base.USAGE, *words, value, "--json", says="--logprobs")


if __name__ == "__main__":
    base.main()
