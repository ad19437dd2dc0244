#!/usr/bin/env python3
"""Compare a real model's text, ids and logits with a recorded reference.

    check_real.py TENON MODEL DIR [--backend NAME] [--ppl FOLDER]

DIR holds tokenize.json, chat.json, greedy.json, logits-N.{deq,native}.{json,logits}: ids of texts, rendered conversations,
greedy continuations with the gap between the two best logits at each step, and logits after a prompt. `deq` was computed in f32
from dequantized weights (exact), `native` with the peer's rounded activations.

  tokenize, chat  every id and every text
  logits          --act f32 --kv-type f32: NMSE at most 1e-6 to deq; defaults: at most 1.25 times native's
  greedy          --act f32 --kv-type f32 against deq, defaults against native: token for token; a departure is told with the
                  gap there, and is a failure where the gap is larger than twice the largest error of a logit (f32: 1e-3)
  perplexity      FOLDER/text.txt in the chunks that FOLDER/ppl.json tells of: --act f32 --kv-type f32 within 0.01 of deq,
                  defaults within 1 % of it
"""
import argparse
import array
import json
import pathlib
import subprocess
import sys
import tempfile

EXACT = ["--act", "f32", "--kv-type", "f32"]


def floats(data):
    a = array.array("f")
    a.frombytes(data)
    return a


def nmse(got, want):
    return sum((g - w) ** 2 for g, w in zip(got, want)) / sum(w * w for w in want)


class Check:
    def __init__(self, options, folder):
        self.o, self.failed, self.out = options, 0, pathlib.Path(folder, "logits")

    def tenon(self, verb, *flags, text=None):
        command = [self.o.tenon, verb, "-m", self.o.model, *flags]
        run = subprocess.run(command, capture_output=True, input=text, text=text is None or isinstance(text, str))
        if run.returncode:
            sys.exit(f"{' '.join(map(str, command))[:300]}: {run.stderr}")
        return run.stdout

    def say(self, ok, text):
        print(f"{'ok  ' if ok else 'FAIL'} {text}", flush=True)
        self.failed += not ok

    def tokenize(self):
        items, wrong = json.loads((self.o.dir / "tokenize.json").read_text())["items"], []
        path = self.out.with_name("text")
        for item in items:
            path.write_text(item["text"], newline="")
            for key, flags in (("ids", ["--no-bos"]), ("ids_add_special", []),
                               ("ids_no_parse_special", ["--no-bos", "--no-special"])):
                got = [int(i) for i in self.tenon("tokenize", "-f", str(path), *flags).split()]
                if got != item[key]:
                    wrong.append((item["text"], key))
        self.say(not wrong, f"tokenize: {len(items)} texts, {3 * len(items) - len(wrong)} of {3 * len(items)} exact {wrong[:3]}")

    def chat(self):
        about = json.loads((self.o.dir / "chat.json").read_text())
        path, wrong, items = self.out.with_name("messages.json"), [], about["items"]
        own = "no chat template" not in about.get("template", "")
        for item in items:
            path.write_text(json.dumps({k: item[k] for k in ("messages", "add_generation_prompt")}) if own else item["prompt"])
            if own and self.tenon("template", "-f", str(path)).removesuffix("\n") != item["prompt"].removesuffix("\n"):
                wrong.append((item["title"], "text"))
            ids = self.tenon(*(["template", "--ids"] if own else ["tokenize"]), "-f", str(path))
            if [int(i) for i in ids.split()] != item["ids_add_special"]:
                wrong.append((item["title"], "ids"))
        self.say(not wrong, f"chat: {len(items)} conversations {wrong[:3]}")

    def logits(self):
        worst = 0.0
        for path in sorted(self.o.dir.glob("logits-*.deq.json")):
            about, base = json.loads(path.read_text()), str(path).removesuffix(".deq.json")
            want = floats(pathlib.Path(base + ".deq.logits").read_bytes())
            native_file, native = pathlib.Path(base + ".native.logits"), None
            if native_file.exists():
                native = nmse(floats(native_file.read_bytes()), want)
            ids, errors = ",".join(map(str, about["tokens"])), []
            for flags in (EXACT, []):
                self.tenon("logits", "--ids", ids, "-o", str(self.out), "-b", self.o.backend, *flags)
                got = floats(self.out.read_bytes())
                errors.append(nmse(got, want))
            worst = max(worst, max(abs(g - w) for g, w in zip(got, want)))
            limit = 1.25 * native if native else 1e-2
            self.say(errors[0] <= 1e-6 and errors[1] <= limit,
                     f"logits: {len(about['tokens'])} tokens: exact {errors[0]:.2g}, defaults {errors[1]:.2g} (limit {limit:.2g})")
        return worst

    def greedy(self, error):
        items = json.loads((self.o.dir / "greedy.json").read_text())["items"]
        for item in items:
            for key, flags, allowed in (("deq", EXACT, 1e-3), ("native", [], 2 * error)):
                want, gaps = item[key]["ids"], item[key]["top1_minus_top2"]
                got = json.loads(self.tenon("run", "--ids", ",".join(map(str, item["prompt_ids"])), "-n", str(len(want)), "--temp",
                                            "0", "--ignore-eos", "--json", "-b", self.o.backend, *flags))["ids"]
                same = next((i for i, (g, w) in enumerate(zip(got, want)) if g != w), len(want))
                told = "" if same == len(want) else f", departs where the gap is {gaps[same]:.4f} (allowed {allowed:.4f})"
                self.say(same == len(want) or gaps[same] <= allowed,
                         f"greedy {key:6s} {item['prompt'][:30]!r}: {same} of {len(want)} tokens{told}")

    def perplexity(self):
        about, name = json.loads((self.o.ppl / "ppl.json").read_text()), pathlib.Path(self.o.model).name
        wanted = [want for want in about["results"] if want["model"] == name and want["variant"] == "deq"]
        if not wanted:
            self.say(False, f"perplexity: ppl.json tells nothing of {name}")
        for want in wanted:
            for flags, bound in ((EXACT, 0.01), ([], 0.01 * want["ppl"])):
                got = json.loads(self.tenon("perplexity", "-f", str(self.o.ppl / about["text"]), "-c", str(want["n_ctx"]), "-q",
                                            "--json", "-b", self.o.backend, *flags))["ppl"]
                self.say(abs(got - want["ppl"]) <= bound, f"perplexity, {want['n_ctx']} tokens a chunk, "
                         f"{'exact' if flags else 'defaults'}: {got:.4f}, recorded {want['ppl']} (bound {bound:.2g})")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tenon")
    ap.add_argument("model")
    ap.add_argument("dir", type=pathlib.Path)
    ap.add_argument("--backend", default="cpu")
    ap.add_argument("--ppl", type=pathlib.Path)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(ap.parse_args(), folder)
        check.tokenize()
        check.chat()
        check.greedy(check.logits())
        if check.o.ppl:
            check.perplexity()
    sys.exit(1 if check.failed else 0)


main()
