"""What the rules make of every family's graph, letter by letter: tests/graphs/NAME.PHASE.txt is what `explain` says. A rule that
stops firing, a launch more, another kernel: each is a difference. scripts/update-graphs.sh writes the files anew."""
import difflib
import lzma
import os
import re
import sys

import base
import gguf

F32 = "llama-f32"
UPDATE = "--update" in sys.argv  # write the files in place of comparing them
if UPDATE:
    sys.argv.remove("--update")

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GRAPHS = os.path.join(TESTS, "graphs")
PHASES = ["decode", "prefill"]

# Models of tests/data/reference; each family has one, but for those of MADE. Those that are F32 there become Q8_0, so that
# the files show where activations are made int8; one stays as it is.
SMALL = {
    F32: "llama-a.F32",
    "llama": "llama-q.Q4_K-pure",
    "qwen3": "qwen3-q.Q4_K_M",
    "qwen3moe": "qwen3moe-a.Q8_0",
    "qwen35": "qwen35-a.Q8_0",
    "qwen35moe": "qwen35moe-a.F32",
    "gemma3": "gemma3-a.F32",
    "gemma4-ple": "gemma4-ple.F32",
    "gemma4-moe": "gemma4-moe.F32",
}
# Families that gguf.py makes a model of, which becomes Q8_0 too.
MADE = ["qwen2"]
# Launches with int8 in them: a norm's row in each file; in those of decode a row that an F32 router reads beside the int8 for
# the experts, and a gate.
NORM = r"(norm|row)\S* .* rms_norm, mul, quantize"
ROUTED = r"(norm|row)\S* +l0\.ffn_norm .*quantize"
GATED = r"\S*matmuls .* gelu, mul, quantize"
INT8 = {
    "qwen3moe": ROUTED,
    "qwen35moe": ROUTED,
    "gemma3": GATED,
    "gemma4-ple": GATED,
    "gemma4-moe": GATED,
}
# Backends that plan without a device. NAME.PHASE.BACKEND.txt is the end of what they say, from the launches on.
PLANNED = {"cuda": "cuda:plan", "webgpu": "webgpu:plan"}
# Models that are downloaded.
REAL = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf"}


class Graphs(base.Case):
    def explain(self, model, phase, backend):
        return self.good("explain", "-m", model, "-b", backend, "-t", "1", "--phase", phase)

    def same(self, name, got):
        path = os.path.join(GRAPHS, f"{name}.txt")
        if UPDATE:
            with open(path, "w", encoding="utf-8") as f:
                f.write(got)
            return
        with open(path, encoding="utf-8") as f:
            want = f.read()
        if got != want:
            both = want.splitlines(), got.splitlines()
            diff = difflib.unified_diff(*both, f"tests/graphs/{name}.txt", "explain", n=2, lineterm="")
            self.fail("the graph is another one (scripts/update-graphs.sh, if so it should be)\n" + "\n".join(diff))

    def compare(self, name, model):
        """On the kernels that every machine has, and one thread, so that no machine is told from another."""
        for phase in PHASES:
            with self.subTest(graph=f"{name}.{phase}"):
                self.same(f"{name}.{phase}", self.explain(model, phase, "cpu:ref"))
            for backend, variant in PLANNED.items():
                with self.subTest(graph=f"{name}.{phase}.{backend}"):
                    got = self.explain(model, phase, variant)
                    self.same(f"{name}.{phase}.{backend}", got[got.index("\nlaunches: ") + 1 :])

    def quantized(self, model):
        self.good("quantize", model, self.path("q8.gguf"), "Q8_0", "-q")
        return self.path("q8.gguf")

    def test_small_models(self):
        for name, model in SMALL.items():
            with lzma.open(os.path.join(TESTS, "data", "reference", model + ".gguf.xz")) as f:
                path = self.put("model.gguf", f.read())
            self.compare(name, self.quantized(path) if model.endswith(".F32") and name != F32 else path)

    def test_made_models(self):
        for name in MADE:
            gguf.write(self.path("model.gguf"), *gguf.tiny(name))
            self.compare(name, self.quantized(self.path("model.gguf")))

    def test_real_models(self):
        for name, model in REAL.items():
            path = os.path.join(base.OPTIONS.models, model)
            if not os.path.exists(path):
                self.skipTest(f"there is no {path}")
            self.compare(name, path)

    def test_every_file_has_its_model(self):
        ends = ["txt", *(f"{backend}.txt" for backend in PLANNED)]
        here = {f"{name}.{phase}.{end}" for name in [*SMALL, *MADE, *REAL] for phase in PHASES for end in ends}
        self.assertEqual(here, set(os.listdir(GRAPHS)))

    def test_what_they_must_say(self):
        """The files themselves: a wrong one is not to be taken over unseen."""
        for name in os.listdir(GRAPHS):
            with open(os.path.join(GRAPHS, name), encoding="utf-8") as f:
                text = f.read()
            parts = ["launches: ", " without fusion)", "\nnorms fused: "]
            if len(name.split(".")) == 3:
                parts += ["plain graph: ", "\nrules\n", " fired  "]
            for part in parts:
                self.assertIn(part, text, name)
            fused = re.search(r"^norms fused: (\d+) of (\d+)$", text, re.M)
            self.assertEqual(fused[1], fused[2], name)
            family, phase = name.split(".")[:2]
            launches = [] if family == F32 else [NORM]
            if phase == "decode" and family in INT8:
                launches.append(INT8[family])
            for launch in launches:
                self.assertTrue(re.search(r"^  " + launch, text, re.M), f"{name}: {launch}")
        with open(os.path.join(GRAPHS, "smollm2.decode.txt"), encoding="utf-8") as f:
            text = f.read()
        self.assertIn("\nlaunches: 153 (698 without fusion)\n", text)
        self.assertIn("\nnorms fused: 61 of 61\n", text)


if __name__ == "__main__":
    base.main()
