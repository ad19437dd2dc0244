"""bench --against: a stand-in for llama-bench, what it is asked, and what is made of its answers."""
import json
import os

import base

PEER = """#!/bin/sh
echo "$@" >>"{log}"
echo noise >&2
echo '[{{"avg_ts": {speed}}}]'
"""


class Against(base.Case):
    def peer(self, speed):
        self.log = self.put("log", "")
        path = self.put("llama-bench", PEER.format(log=self.log, speed=speed))
        os.chmod(path, 0o755)
        return path

    def asked(self):
        with open(self.log) as f:
            return [dict(zip(words[::2], words[1::2])) for words in map(str.split, f)]

    def test_rounds(self):
        out = self.good("bench", "--against", self.peer(0.5), "-m", self.model, "-t", "1", "-p", "4", "-n", "2", "-d", "3",
                        "-r", "3", "--json", "-q")
        rows = json.loads(out)
        self.assertEqual([r["test"] for r in rows], ["pp4 @ d3", "tg2 @ d3"])
        for r in rows:
            self.assertEqual(r["peer_samples_ts"], [0.5] * 3)
            self.assertEqual(r["ts"], sorted(r["samples_ts"])[1])
            self.assertAlmostEqual(r["ratio"] * 0.5 / r["ts"], 1)
        self.assertEqual(rows[0]["share"], 0)
        self.assertGreater(rows[1]["share"], 0)
        asked = self.asked()
        self.assertEqual(len(asked), 6)
        for words, n_prompt, n_gen in [(asked[0], "4", "0"), (asked[5], "0", "2")]:
            self.assertEqual((words["-m"], words["-t"], words["-d"]), (self.model, "1", "3"))
            self.assertEqual((words["-p"], words["-n"], words["-r"], words["-o"]), (n_prompt, n_gen, "1", "json"))

    def test_slower(self):
        code, out, err = self.tenon("bench", "--against", self.peer(1e12), "-m", self.model, "-p", "4", "-n", "0", "-r", "1")
        self.assertEqual(code, 1)
        self.assertIn("slower than the peer in 1 tests", err)
        self.assertIn("| 1000000000000.0 |", out)

    def test_peers_that_are_none(self):
        for path, why in (("/bin/false", "failed (exit code 1)"), ("/bin/true", "no avg_ts"), ("/nope", "No such file")):
            code, _, err = self.tenon("bench", "--against", path, "-m", self.model, "-p", "4", "-n", "0", "-r", "1")
            self.assertEqual(code, 65, err)
            self.assertIn(why, err)


if __name__ == "__main__":
    base.main()
