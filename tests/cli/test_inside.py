"""inspect, explain, verify, doctor: what they print can be read, and says what it must."""
import itertools
import json
import re
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

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

    def test_dot_has_a_cluster_for_each_launch(self):
        plan = json.loads(self.good("explain", "-m", self.model, "--json"))
        dot = self.good("explain", "-m", self.model, "--format", "dot")
        self.assertEqual(len(re.findall("subgraph cluster_", dot)), plan["launches"])
        nodes = sum(len(launch["nodes"]) for launch in plan["plan"])
        self.assertEqual(len(re.findall(r"n\d+ \[label", dot)), nodes)
        self.assertIn(plan["plan_hash"], dot)

    def test_svg_is_a_layer(self):
        for phase in ("decode", "prefill"):
            svg = ElementTree.fromstring(self.good("explain", "-m", self.model, "--format", "svg", "--phase", phase))
            texts = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
            plan = json.loads(self.good("explain", "-m", self.model, "--json", "--phase", phase))["plan"]
            drawn = [launch for launch in plan if any(node["layer"] == 0 for node in launch["nodes"])]
            for launch in drawn:
                runs = [(rule, len(list(same))) for rule, same in itertools.groupby(filter(None, launch["rules"].split(", ")))]
                rules = ", ".join(rule if n == 1 else f"{rule} x{n}" for rule, n in runs)
                self.assertIn(f"{launch['kind']}: {rules}" if rules else launch["kind"], texts)
                for node in launch["nodes"]:
                    self.assertIn(node["name"], texts)

    def test_html_stands_alone(self):
        page = self.good("explain", "-m", self.model, "--format", "html")
        stack = []

        class Check(HTMLParser):
            def handle_starttag(parser, tag, attrs):
                self.assertFalse({"src", "href"} & {name for name, _ in attrs})
                if tag != "meta":
                    stack.append(tag)

            def handle_startendtag(parser, tag, attrs):
                pass

            def handle_endtag(parser, tag):
                self.assertEqual(stack.pop(), tag)

        Check().feed(page)
        self.assertEqual(stack, [])
        self.assertNotIn("url(", page)
        plan = json.loads(self.good("explain", "-m", self.model, "--json"))
        self.assertIn(plan["plan_hash"], page)
        self.assertIn("l0.attn_norm = rms_norm(", page)
        for rule in plan["rules"]:
            self.assertIn(f">{rule['name']}</td><td class=n>{rule['fired']}<", page)
            for reject in rule["rejects"]:
                self.assertIn(reject["reason"], page.replace("&gt;", ">").replace("&lt;", "<"))

    def test_names_are_escaped(self):
        metadata, tensors = gguf.tiny()
        gguf.write(self.path("odd.gguf"), {**metadata, "general.name": "<b>a & b</b>"}, tensors)
        page = self.good("explain", "-m", self.path("odd.gguf"), "--format", "html")
        self.assertIn("&lt;b&gt;a &amp; b&lt;/b&gt;", page)
        self.assertNotIn("<b>", page)

    def test_memory_is_never_shared_by_the_living(self):
        for phase in ("decode", "prefill"):
            plan = json.loads(self.good("explain", "-m", self.model, "--json", "--phase", phase))
            lives = plan["memory"]
            self.assertEqual(max(v["offset"] + v["bytes"] for v in lives) <= plan["arena_bytes"], True)
            for i, a in enumerate(lives):
                for b in lives[:i]:
                    apart = a["offset"] + a["bytes"] <= b["offset"] or b["offset"] + b["bytes"] <= a["offset"]
                    # in place: made where one that is read for the last time lies
                    self.assertTrue(apart or b["last_launch"] <= a["first_launch"]
                                    or a["last_launch"] <= b["first_launch"], (a, b))

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

    def test_verify_takes_the_types_of_a_session(self):
        for words in (["--kv-type", "q8_0"], ["--act", "f32", "--fuse", "-norm"], ["--fuse", "none"]):
            self.assertIn("0 failed", self.good("verify", "-m", self.model, *words))
        self.bad(base.USAGE, "verify", "-m", self.model, "--fuse", "nothing", says="nothing")
        for words in (["--kv-type", "q8_0"], ["--act", "f32"], ["--fuse", "none"], ["--fuse", "nothing"]):
            for what in ("--ops", "--rules"):
                self.bad(base.USAGE, "verify", what, *words, says="need -m")

    def test_reasons_are_near_misses(self):
        words = ["explain", "-m", self.model, "--phase", "prefill"]
        rules = {r["name"]: r for r in json.loads(self.good(*words, "--json"))["rules"]}
        self.assertEqual(rules["attention_gate"]["rejects"], [])  # a product of something else
        self.assertEqual(rules["scan_norm"]["rejects"], [])
        self.assertIn("more than one token", rules["attend"]["rejects"][0]["reason"])
        text = self.good(*words)
        for rule in rules.values():  # fired or not
            for reject in rule["rejects"]:
                self.assertIn(f"not {reject['count']} x: {reject['reason']}", text)

    def test_verify_on_a_text(self):
        text = self.put("text.txt", "abc " * 100)
        checks = json.loads(self.good("verify", "-m", self.model, "-f", text, "--json"))[:-1]
        self.assertEqual(len(checks), 2)
        for check in checks:
            self.assertEqual((check["nmse"], check["kl_most"], check["same_top"], check["ok"]), (0, 0, 1, True))
        self.assertGreater(checks[0]["cases"], checks[1]["cases"])
        self.assertIn("KL divergence 0", self.good("verify", "-m", self.model, "-f", "-", stdin=b"a"))
        self.bad(base.INPUT, "verify", "-m", self.model, "-f", self.path("none.txt"), says="none.txt")
        self.bad(base.USAGE, "verify", "--ops", "-f", text, says="-m")

    def test_doctor(self):
        self.assertIn("cpu", self.good("doctor").lower())
        backends = {b["backend"]: b for b in json.loads(self.good("doctor", "--json"))}
        self.assertEqual(set(backends), {"cpu", "cuda", "webgpu"})
        self.assertTrue(backends["cpu"]["ready"])
        self.assertIn("Q4_K", backends["cpu"]["facts"]["weights"].split())
        self.assertIn("ref", backends["cpu"]["facts"]["kernels"])
        text = self.good("doctor")
        for backend in backends.values():
            self.assertEqual(bool(backend["facts"]), backend["ready"])
            if backend["backend"] == "cpu":
                self.assertGreater(backend["facts"]["cores"], 0)
            for need in backend["needs"]:
                shell = subprocess.run(["sh", "-n", "-c", need["install"]], capture_output=True, check=True)
                self.assertEqual(shell.stderr, b"")
                self.assertTrue(need["found"] or not backend["ready"] or "Vulkan" in need["name"])
                if not need["found"] and not backend["ready"]:
                    self.assertIn(need["install"], text)


if __name__ == "__main__":
    base.main()
