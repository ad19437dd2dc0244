"""The shapes of published models, at few layers: every norm of theirs is part of a launch with more in it."""
import os

import base

# layers that hold each kind of layer once at least, and the norms over the residual stream that a layer has
PRESETS = {
    "llama-3.2-1b": (2, 2),
    "qwen3-1.7b": (2, 2),
    "qwen3.5-4b": (4, 2),
    "qwen3.6-35b-a3b": (4, 2),
    "gemma-4-e4b": (6, 5),
}


class Presets(base.Case):
    def test_all_norms_are_fused(self):
        """A file of 2 GB at most, of which only the header is read."""
        for preset, (layers, norms) in PRESETS.items():
            out = self.path("preset.gguf")
            self.good("synth", preset, "--layers", layers, "--type", "Q2_K", "-o", out)
            for backend in ("null", "cuda:plan"):
                for phase in ("decode", "prefill"):
                    with self.subTest(preset=preset, backend=backend, phase=phase):
                        text = self.good("explain", "-m", out, "-b", backend, "-c", "512", "--phase", phase)
                        stream = layers * norms + 1
                        self.assertIn(f"\nof the residual stream: {stream} of {stream}\n", text)
                        self.assertRegex(text, r"\nnorms fused: (\d+) of \1\n")
            os.remove(out)


if __name__ == "__main__":
    base.main()
