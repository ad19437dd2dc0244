"""What the tests of the command line share: the binary, a folder for each test, a tiny model."""
import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gguf

USAGE, INPUT, UNAVAILABLE = 2, 65, 69

OPTIONS = None


class Case(unittest.TestCase):
    """Each class has a folder with tiny.gguf in it, and works there."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="tenon-cli-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = cls.path("tiny.gguf")
        gguf.write(cls.model, *gguf.tiny())

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    def put(self, name, content):
        with open(self.path(name), "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())
        return self.path(name)

    def tenon(self, *words, stdin=b"", text=True):
        """Exit code, stdout, stderr."""
        done = subprocess.run([OPTIONS.tenon, *map(str, words)], input=stdin, capture_output=True, timeout=240,
                              cwd=self.folder.name)
        err = done.stderr.decode()
        self.assertNotIn("Sanitizer", err)
        return done.returncode, done.stdout.decode() if text else done.stdout, err

    def good(self, *words, **how):
        """stdout of a run that must succeed."""
        code, out, err = self.tenon(*words, **how)
        self.assertEqual(code, 0, err)
        return out

    def bad(self, code, *words, says=(), **how):
        """A run that must fail with one line on stderr and nothing on stdout."""
        got, out, err = self.tenon(*words, **how)
        self.assertEqual(got, code, err)
        self.assertEqual(out, "")
        self.assertRegex(err, r"\Atenon: [^\n]+\n\Z")
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, err)
        return err


def student(t, freedom):
    """The chance of a |t| as large as this or larger: Student's density, integrated by Simpson's rule over x = sqrt(freedom) tan(a)."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    n, first, last = 20000, math.atan(abs(t) / math.sqrt(freedom)), math.pi / 2
    at = [math.cos(first + (last - first) * i / n) ** (freedom - 1) for i in range(n + 1)]
    return 2 * scale * (last - first) / n / 3 * (at[0] + at[-1] + 4 * sum(at[1:-1:2]) + 2 * sum(at[2:-1:2]))


def paired(a, b):
    """The median of b / a, and the chance of Wilcoxon's test of the logarithms: all choices of signs, one by one."""
    logs = sorted((math.log(y / x) for x, y in zip(a, b, strict=True)), key=abs)
    positive = sum(i for i, v in enumerate(logs, 1) if v > 0)
    low = min(positive, sum(range(len(logs) + 1)) - positive)
    sums = [sum(i for i in range(1, len(logs) + 1) if signs >> i & 1) for signs in range(0, 2 << len(logs), 2)]
    return math.exp(statistics.median(logs)), min(1, 2 * sum(s <= low for s in sums) / len(sums))


def holm(chances):
    order, least, out = sorted(range(len(chances)), key=lambda i: chances[i]), 0, list(chances)
    for rank, i in enumerate(order):
        out[i] = least = max(least, min(1, (len(chances) - rank) * chances[i]))
    return out


def main():
    global OPTIONS
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenon", required=True)
    parser.add_argument("--models", required=True)
    OPTIONS, rest = parser.parse_known_args()
    OPTIONS.tenon, OPTIONS.models = map(os.path.abspath, (OPTIONS.tenon, OPTIONS.models))
    unittest.main(module="__main__", argv=[sys.argv[0], *rest], verbosity=2)
