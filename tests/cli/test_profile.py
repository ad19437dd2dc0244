"""profile: the launches and their times add up; the trace is one that Perfetto reads."""
import json

import base


class Profile(base.Case):
    def profile(self, *words):
        return json.loads(self.good("profile", "-m", self.model, "-r", "2", "--json", *words))

    def test_phases(self):
        prefill, decode = self.profile("-p", "8", "-n", "3", "-d", "4")
        self.assertEqual([prefill["phase"], decode["phase"]], ["prefill", "decode"])
        self.assertEqual((prefill["n_tokens"], prefill["samples"], prefill["n_depth"]), (8, 2, 4))
        self.assertEqual((decode["n_tokens"], decode["samples"], decode["n_depth"]), (1, 3, 4))
        for phase in (prefill, decode):
            explained = json.loads(self.good("explain", "-m", self.model, "--json", "-c", "12", "--phase", phase["phase"]))
            self.assertEqual(phase["launches"], explained["launches"])
            self.assertEqual(phase["plan_hash"], explained["plan_hash"])
            regions = phase["regions"]
            self.assertEqual(sum(r["calls"] for r in regions), phase["launches"])
            self.assertAlmostEqual(sum(r["seconds"]["mean"] for r in regions), phase["launch_seconds"], places=9)
            self.assertAlmostEqual(sum(r["share"] for r in regions), 1, places=6)
            self.assertLessEqual(phase["launch_seconds"] + phase["begin_seconds"], phase["timed_seconds"])
            self.assertGreater(phase["begin_seconds"], 0)
            self.assertTrue(all(r["seconds"]["mean"] > 0 and r["bytes"] > 0 for r in regions))
            for r in regions:
                self.assertAlmostEqual(r["of_peak"], r["bytes_per_second"] / phase["peak_bytes_per_second"])
            times = [r["seconds"]["mean"] for r in regions]
            self.assertEqual(times, sorted(times, reverse=True))
        # every weight is read once for a token
        self.assertGreater(sum(r["bytes"] for r in decode["regions"]), explained["read_bytes"])

    def test_one_phase(self):
        self.assertEqual([p["phase"] for p in self.profile("-p", "0", "-n", "2")], ["decode"])
        self.assertEqual([p["phase"] for p in self.profile("-p", "6", "-n", "0", "-ub", "4")], ["prefill"])
        self.bad(base.USAGE, "profile", "-m", self.model, "-p", "0", "-n", "0", says="-p and -n")
        self.bad(base.USAGE, "profile", "-m", self.model, "-p", "5", "-ub", "4", says="one token")

    def test_bytes_grow_with_the_cache(self):
        def attention(depth):
            (decode,) = self.profile("-p", "0", "-n", "2", "-d", depth)
            return next(r["bytes"] for r in decode["regions"] if r["kind"] == "attend")

        few, more, most = (attention(depth) for depth in (1, 11, 21))
        self.assertAlmostEqual(most - more, more - few)
        self.assertGreater(more, few)

    def test_compare(self):
        fused, plain = self.profile("-p", "0", "-n", "12", "--compare")
        self.assertEqual((fused["fuse"], plain["fuse"]), ("all", "none"))
        self.assertEqual(sum(r["plain_calls"] for r in fused["regions"]), plain["launches"])
        seconds = sum(r["plain_seconds"]["mean"] for r in fused["regions"])
        self.assertAlmostEqual(seconds, plain["launch_seconds"], places=9)
        self.assertTrue(all(r["change"] > -1 for r in fused["regions"]))
        several = [r for r in fused["regions"] if r["calls"] < r["plain_calls"]]
        self.assertTrue(all(r["verdict"] in ("noise", "faster", "SLOWER") and 0 <= r["p"] <= 1 for r in several))
        single = [r for r in fused["regions"] if r["calls"] == r["plain_calls"]]  # nothing fused: nothing to judge
        self.assertTrue(several and single)
        self.assertEqual({(r["verdict"], r["p"]) for r in single}, {(None, None)})
        (same, _) = self.profile("-p", "0", "-n", "12", "--compare", "--fuse", "none")
        self.assertEqual({(r["verdict"], r["p"]) for r in same["regions"]}, {(None, None)})
        (few, _) = self.profile("-p", "0", "-n", "7", "--compare")  # 2^-6 for each of so many regions: nothing could be told
        self.assertEqual({r["verdict"] for r in few["regions"]}, {"too few runs", None})
        text = self.good("profile", "-m", self.model, "-p", "4", "-n", "2", "--compare")
        for part in ("pp4", "tg2", "of peak", "fused is", "by kind"):
            self.assertIn(part, text)

    def test_trace(self):
        trace = self.path("trace.json")
        (decode,) = self.profile("-p", "0", "-n", "3", "--trace", trace)
        with open(trace, encoding="utf-8") as f:
            events = json.load(f)["traceEvents"]
        slices = [e for e in events if e["ph"] == "X"]
        steps = [e for e in slices if e["name"].startswith("decode")]
        for track in {(e["pid"], e["tid"]) for e in slices}:  # slices nest, to the nanosecond
            spans = sorted((round(1000 * e["ts"]), -round(1000 * e["dur"])) for e in slices if (e["pid"], e["tid"]) == track)
            open_ends = []
            for begin, negative in spans:
                while open_ends and open_ends[-1] <= begin:
                    open_ends.pop()
                self.assertTrue(not open_ends or begin - negative <= open_ends[-1], (track, begin))
                open_ends.append(begin - negative)
        parts = [e["name"] for e in slices if e["pid"] == steps[0]["pid"] and e not in steps]
        self.assertEqual(parts, 3 * ["prepare and submit", "wait", "read back"])
        launches = [e for e in slices if "kernel" in e["args"]]
        layers = [e for e in slices if e["name"].startswith("layer ")]
        self.assertEqual(len(steps), 3)
        self.assertEqual(len(launches), 3 * decode["launches"])
        self.assertEqual({e["args"]["layer"] for e in layers}, {0, 1})
        for e in launches:  # on the host's axis: inside a step
            self.assertTrue(any(s["ts"] <= e["ts"] and e["ts"] + e["dur"] <= s["ts"] + s["dur"] + 1 for s in steps), e)
        named = " ".join(e["args"]["nodes"] for e in launches)
        self.assertIn("l0.attn_norm (rms_norm)", named)
        arrows = [e["id"] for e in events if e["ph"] == "s"]
        self.assertEqual(arrows, [e["id"] for e in events if e["ph"] == "f"])
        self.bad(base.INPUT, "profile", "-m", self.model, "-p", "0", "-n", "1", "--trace", "/nowhere/t.json", says="/nowhere")

    def test_backend_that_cannot(self):
        self.bad(base.UNAVAILABLE, "profile", "-m", self.model, "-b", "null", "-p", "0", "-n", "1", says="timed")
        for backend in ("webgpu:plan", "cuda:plan"):
            self.bad(base.UNAVAILABLE, "profile", "-m", self.model, "-b", backend, "-p", "0", "-n", "1", says="plan")
            self.bad(base.UNAVAILABLE, "verify", "--ops", "-b", backend, says="only plans")


if __name__ == "__main__":
    base.main()
