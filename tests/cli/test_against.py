"""bench --against: a stand-in for llama-bench, what it is asked, and what is made of its answers."""
import csv
import io
import json
import os
import shutil

import base

PEER = """#!/bin/sh
echo "$@" >>"{log}"
echo noise >&2
echo x >>"{log}.runs"
echo '[{{"avg_ts": '$(($(wc -l <"{log}.runs") * {speed}))'}}]'
"""


class Against(base.Case):
    def peer(self, speed):
        self.log = self.put("log", "")
        self.put("log.runs", "")
        path = self.put("llama-bench", PEER.format(log=self.log, speed=speed))
        os.chmod(path, 0o755)
        return path

    def asked(self):
        with open(self.log) as f:
            return [dict(zip(words[::2], words[1::2])) for words in map(str.split, f)]

    def test_rounds(self):
        out = self.good("bench", "--against", self.peer(2), "-m", self.model, "-t", "1", "-p", "4", "-n", "2", "-d", "3",
                        "-r", "7", "--json", "-q")
        rows = json.loads(out)
        self.assertEqual([r["test"] for r in rows], ["pp4 @ d3", "tg2 @ d3"])
        pairs = [base.paired(r["peer_samples_ts"], r["samples_ts"]) for r in rows]
        for r, (ratio, _), p in zip(rows, pairs, base.holm([p for _, p in pairs]), strict=True):
            self.assertAlmostEqual(r["ratio"] / ratio, 1, places=6)
            self.assertAlmostEqual(r["p"], p, places=6)
            self.assertEqual(r["verdict"], "faster" if p < 0.05 else "noise")
            self.assertTrue(r["ratio_low"] <= r["ratio"] <= r["ratio_high"])
        self.assertEqual([r["peer_samples_ts"] for r in rows], [list(range(2, 16, 2)), list(range(16, 30, 2))])
        self.assertEqual(rows[0]["share"], 0)
        self.assertGreater(rows[1]["share"], 0)
        self.assertAlmostEqual(rows[1]["share"], sorted(rows[1]["share_samples"])[3])
        asked = self.asked()
        self.assertEqual(len(asked), 14)
        for words, n_prompt, n_gen in [(asked[0], "4", "0"), (asked[13], "0", "2")]:
            self.assertEqual((words["-m"], words["-t"], words["-d"]), (self.model, "1", "3"))
            self.assertEqual((words["-p"], words["-n"], words["-r"], words["-o"]), (n_prompt, n_gen, "1", "json"))
            self.assertEqual([words[k] for k in ("-ctk", "-ctv", "-ngl", "-dev")], ["f16", "f16", "0", "none"])

    def test_is_asked_for_the_same(self):
        self.good("bench", "--against", self.peer(1), "-m", self.model, "-p", "0", "-n", "0", "-pg", "4,2", "-r", "1", "--kv-type",
                  "q8_0", "-ub", "64", "--no-warmup", "-q")
        with open(self.log) as f:
            asked = f.read()
        for part in ("-p 0 -n 0 -pg 4,2 ", "-ctk q8_0 -ctv q8_0", "-ub 64", "--no-warmup"):
            self.assertIn(part, asked)

    def test_formats(self):
        words = ["bench", "--against", self.peer(1), "-m", self.model, "-p", "4", "-n", "2", "-r", "2", "-q", "-o"]
        rows = [json.loads(line) for line in self.good(*words, "jsonl").splitlines()]
        table = list(csv.DictReader(io.StringIO(self.good(*words, "csv"))))
        self.assertEqual([r["n_prompt"] for r in rows], [4, 0])
        self.assertEqual([r["test"] for r in table], ["pp4", "tg2"])
        self.assertEqual([k for k, v in rows[0].items() if not isinstance(v, list)], list(table[0]))
        theirs = self.good("bench", "--against", self.peer(1), "-m", self.model, "-p", "4", "-n", "0", "-r", "1", "-q", "-o", "sql")
        self.assertIn("avg_ts", theirs)
        self.assertNotIn("verdict", theirs)  # llama-bench's columns and no more

    def test_own_results_can_be_compared(self):
        rows = self.put("rows.json", self.good("bench", "--against", self.peer(1), "-m", self.model, "-p", "4", "-n", "2", "-r", "1",
                                               "-q", "-o", "json"))
        told = json.loads(self.good("bench", "--compare", rows, rows, "--json"))
        self.assertEqual([t["test"] for t in told["tests"]], ["pp4", "tg2"])

    def test_names_that_are_no_text(self):
        odd = os.fsdecode(os.fsencode(self.path("odd")) + b"\xff.gguf")
        shutil.copy(self.model, odd)
        (row,) = json.loads(self.good("bench", "--against", self.peer(1), "-m", odd, "-p", "4", "-n", "0", "-r", "1", "-q", "-o", "json"))
        self.assertEqual(row["model_filename"], self.path("odd\ufffd.gguf"))

    def test_slower(self):
        words = ["bench", "--against", self.peer(10**12), "-m", self.model, "-p", "4", "-n", "0", "-r"]
        code, out, err = self.tenon(*words, "6")
        self.assertEqual(code, 1)
        self.assertIn("slower than the peer in 1 of 1 tests", err)
        self.assertIn("| 3500000000000.0 ± ", out)
        self.assertRegex(out, r"\| +pp4 \|.*\| +0\.0312 \| SLOWER ")
        code, out, _ = self.tenon(*words, "6", "-o", "json")
        self.assertEqual((code, [r["verdict"] for r in json.loads(out)]), (1, ["SLOWER"]))
        code, out, err = self.tenon(*words, "6", "-p", "5")  # two tests: 2 x 2 / 2^6 is more than 5 %
        self.assertEqual((code, out.count("too few runs")), (0, 2))
        self.assertIn("7 rounds", err)
        code, _, err = self.tenon(*words, "7", "-p", "5")
        self.assertEqual(code, 1)
        self.assertIn("in 2 of 2 tests", err)
        code, _, err = self.tenon(*words, "1")  # one round says nothing
        self.assertEqual(code, 0)
        self.assertIn("6 rounds", err)

    def test_rows_before_an_error_are_whole(self):
        models = f"{self.model},{self.path('nowhere.gguf')}"
        code, out, _ = self.tenon("bench", "--against", self.peer(1), "-m", models, "-p", "4", "-n", "0", "-r", "1", "-o", "json")
        self.assertEqual(code, base.INPUT)
        self.assertEqual([r["n_prompt"] for r in json.loads(out)], [4])

    def test_peers_that_are_none(self):
        for path, why in (("/bin/false", "failed (exit code 1)"), ("/bin/true", "no avg_ts"), ("/nope", "No such file")):
            code, _, err = self.tenon("bench", "--against", path, "-m", self.model, "-p", "4", "-n", "0", "-r", "1")
            self.assertEqual(code, 65, err)
            self.assertIn(why, err)


if __name__ == "__main__":
    base.main()
