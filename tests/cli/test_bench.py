"""bench: the grid of tests, and that each format is what it says."""
import csv
import io
import json
import os
import pty
import subprocess

import base


class Bench(base.Case):
    def bench(self, *words):
        return self.good("bench", "-m", self.model, "-r", "2", "-q", *words)

    def test_markdown(self):
        lines = self.bench("-p", "8", "-n", "3", "-t", "1").splitlines()
        self.assertEqual(len(lines), 4)
        cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
        self.assertEqual(cells[0], ["model", "size", "params", "backend", "threads", "fuse", "test", "t/s"])
        self.assertEqual([row[6] for row in cells[2:]], ["pp8", "tg3"])
        self.assertEqual([row[4] for row in cells[2:]], ["1", "1"])
        for row in cells[2:]:
            mean, deviation = row[7].split(" ± ")
            self.assertGreater(float(mean), 0)
            self.assertGreaterEqual(float(deviation), 0)
        self.assertEqual(len({len(line) for line in lines}), 1)

    def test_grid(self):
        rows = json.loads(self.bench("-p", "0,4,8", "-n", "2", "-d", "0,5", "--fuse", "all,none", "-o", "json"))
        tests = [(r["n_prompt"], r["n_gen"], r["n_depth"], r["fuse"]) for r in rows]
        self.assertEqual(tests, [(p, n, d, f) for d in (0, 5) for p, n in ((4, 0), (8, 0), (0, 2))
                                 for f in ("all", "none")])
        for r in rows:
            self.assertEqual(len(r["samples_ts"]), 2)
            tokens = r["n_prompt"] + r["n_gen"]
            self.assertAlmostEqual(r["samples_ts"][0], 1e9 * tokens / r["samples_ns"][0], delta=1e-3 * r["avg_ts"])
        fused = {r["fuse"]: r for r in rows if r["n_gen"]}
        self.assertLess(fused["all"]["launches"], fused["none"]["launches"])
        self.assertNotEqual(fused["all"]["plan_hash"], fused["none"]["plan_hash"])
        self.assertGreater(fused["all"]["decode_bytes"], 0)

    def test_rules_are_one_value(self):
        rows = json.loads(self.bench("-p", "4", "-n", "0", "--fuse", "-norm", "-o", "json"))
        self.assertEqual([r["fuse"] for r in rows], ["-norm"])

    def test_lists_grow(self):
        rows = json.loads(self.bench("-p", "4", "-p", "6", "-n", "0", "-t", "1,2", "-o", "json"))
        self.assertEqual([(r["n_threads"], r["n_prompt"]) for r in rows], [(1, 4), (1, 6), (2, 4), (2, 6)])

    def test_models(self):
        rows = json.loads(self.bench("-m", self.model, "-p", "4", "-n", "0", "--json"))
        self.assertEqual([r["model_filename"] for r in rows], [self.model] * 2)

    def test_csv_and_json_lines_agree(self):
        words = ["-p", "4", "-n", "2"]
        table = list(csv.DictReader(io.StringIO(self.bench(*words, "-o", "csv"))))
        lines = [json.loads(line) for line in self.bench(*words, "-o", "jsonl").splitlines()]
        self.assertEqual(len(table), 2)
        for row, line in zip(table, lines, strict=True):
            self.assertEqual([k for k in line if not k.startswith("samples")], list(row))
            for key in ("n_prompt", "n_gen", "model_n_params", "plan_hash", "launches", "fuse", "type_k"):
                self.assertEqual(row[key], str(line[key]))

    # Two samples and what Welch's test says of them, by numerical integration of Student's t.
    A = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    B = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5, 24.4]
    P = 0.008071938

    def result(self, name, *rows, lines=False):
        """A file of results: rows are (fields, samples)."""
        rows = [dict({"n_prompt": 0, "n_gen": 9, "n_depth": 0}, **fields, samples_ts=samples)
                for fields, samples in rows]
        return self.put(name, "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))

    def compare(self, a, b, code=0, *words):
        got, out, err = self.tenon("bench", "--compare", a, b, "--json", *words)
        self.assertEqual(got, code, err)
        return json.loads(out)

    def test_compare(self):
        a, b = self.result("a.json", ({}, self.A)), self.result("b.json", ({}, self.B), lines=True)
        (faster,) = self.compare(a, b)
        self.assertAlmostEqual(faster["p"], self.P, places=8)
        self.assertEqual((faster["test"], faster["verdict"]), ("tg9", "faster"))
        self.assertAlmostEqual(faster["ratio"], sum(self.B) / sum(self.A))
        (slower,) = self.compare(b, a, 1)
        self.assertEqual(slower["verdict"], "SLOWER")
        self.assertEqual(self.compare(a, a)[0]["verdict"], "noise")
        (noise,) = self.compare(self.result("c.json", ({}, [1, 2])), self.result("d.json", ({}, [5, 7])))
        self.assertAlmostEqual(noise["p"], 0.0917103390, places=8)
        self.assertEqual(noise["verdict"], "noise")
        self.assertEqual(self.compare(self.result("e.json", ({}, [1])), b)[0]["p"], None)
        self.assertEqual(self.compare(self.result("f.json", ({}, [2, 2])), self.result("g.json", ({}, [1, 1])), 1)
                         [0]["p"], 0)

    def test_compare_matches_tests(self):
        a = self.result("a.json", ({"n_gen": 1, "fuse": "all"}, [1, 2]), ({"n_gen": 2, "fuse": "all"}, [3, 4]),
                        ({"n_gen": 1, "fuse": "all"}, [2, 3]))
        b = self.result("b.json", ({"n_gen": 2, "fuse": "none"}, [1, 2]), ({"n_gen": 3, "fuse": "none"}, [1, 2]))
        (row,) = self.compare(a, b)  # one fusion in each file: it does not tell tests apart
        self.assertEqual((row["test"], row["a"]["avg_ts"]), ("tg2", 3.5))
        (row,) = self.compare(a, self.result("c.json", ({"n_gen": 1, "fuse": "all"}, [1, 2]),
                                             ({"n_gen": 1, "fuse": "none"}, [1, 2])))
        self.assertEqual((row["test"], row["a"]["runs"]), ("tg1, fuse all", 4))  # here it does; rows of a test add up
        self.bad(base.INPUT, "bench", "--compare", b, self.result("d.json", ({"n_gen": 8}, [1, 2])), "-q",
                 says="no test in common")

    def test_compare_own_results(self):
        rows = self.put("own.json", self.bench("-p", "4", "-n", "2", "-d", "0,3", "-o", "json"))
        table = self.good("bench", "--compare", rows, rows).splitlines()
        self.assertEqual([line.split("|")[1].strip() for line in table[2:]], ["pp4", "tg2", "pp4 @ d3", "tg2 @ d3"])
        self.assertEqual({line.count("|") for line in table}, {7})

    def test_compare_needs_results(self):
        a = self.result("a.json", ({}, self.A))
        self.bad(base.USAGE, "bench", "--compare", a, says="two values")
        self.bad(base.INPUT, "bench", "--compare", a, self.path("none.json"), says="none.json")
        for text in ("[1]", "{}", '[{"n_prompt": 1, "n_gen": 2}]', "hello", "[", ""):
            self.bad(base.INPUT, "bench", "--compare", a, self.put("bad.json", text))

    def test_ablate(self):
        rows = json.loads(self.bench("-p", "4", "-n", "2", "--ablate", "-o", "json"))
        for test in (lambda r: r["n_prompt"], lambda r: r["n_gen"]):
            mine = [r for r in rows if test(r)]
            self.assertEqual([r["fuse"] for r in mine[:2]], ["all", "none"])
            self.assertTrue(all(r["fuse"].startswith("-") for r in mine[2:]))
            self.assertIn("-group", [r["fuse"] for r in mine])
            self.assertNotIn("-delta_net", [r["fuse"] for r in mine])  # nothing to leave out
            self.assertEqual([len(r["samples_ts"]) for r in mine], [2] * len(mine))
            self.assertTrue(all(mine[0]["launches"] <= r["launches"] <= mine[1]["launches"] for r in mine))
        table = self.bench("-p", "0", "-n", "2", "--ablate")
        self.assertIn("tg2", table)
        self.assertRegex(table, r"\| -group +\|")
        self.bad(base.USAGE, "bench", "-m", self.model, "--ablate", "--fuse", "none", says="--ablate")

    def on_terminal(self, *words):
        """stdout, and what is written to a stderr that is a terminal."""
        here, there = pty.openpty()
        with subprocess.Popen([base.OPTIONS.tenon, *words], stdout=subprocess.PIPE, stderr=there) as run:
            os.close(there)
            talk = b""
            try:
                while part := os.read(here, 65536):
                    talk += part
            except OSError:  # the other end is closed
                pass
            out = run.stdout.read()
        os.close(here)
        self.assertEqual(run.returncode, 0, talk)
        return out.decode(), talk.decode()

    def test_progress_on_a_terminal_only(self):
        words = ["bench", "-m", self.model, "-p", "64", "-n", "0", "-r", "4000", "-t", "1"]
        out, talk = self.on_terminal(*words)
        self.assertRegex(talk, r"\rpp64 \[#* *\] +\d+ %")
        self.assertTrue(talk.endswith("\r"))  # it goes away
        self.assertNotIn("\r", out)
        out, talk = self.on_terminal(*words, "-q")
        self.assertEqual(talk, "")
        code, out, err = self.tenon(*words)
        self.assertEqual((code, err), (0, ""))

    def test_nothing_to_measure(self):
        for form in ("md", "csv", "json", "jsonl"):
            self.bad(base.USAGE, "bench", "-m", self.model, "-p", "0,0", "-n", "0", "-o", form, says="nothing to")

    def test_no_table_before_its_first_row(self):
        for form in ("md", "csv", "json", "jsonl"):
            self.bad(base.INPUT, "bench", "-m", self.path("nowhere.gguf"), "-o", form, says="nowhere.gguf")

    def test_rows_before_an_error_are_whole(self):
        models = f"{self.model},{self.path('nowhere.gguf')}"
        code, out, _ = self.tenon("bench", "-m", models, "-p", "4", "-n", "0", "-r", "1", "-o", "json")
        self.assertEqual(code, base.INPUT)
        self.assertEqual([r["n_prompt"] for r in json.loads(out)], [4])


if __name__ == "__main__":
    base.main()
