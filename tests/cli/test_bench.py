"""bench: the grid of tests, and that each format is what it says."""
import contextlib
import csv
import io
import json
import os
import pty
import sqlite3
import math
import shutil
import statistics
import subprocess

import base

# What llama-bench's rows have (build 0c1e570 of llama.cpp), in its order; the lists are no columns.
FIELDS = """build_commit build_number cpu_info gpu_info backends model_filename model_type model_size model_n_params n_batch
n_ubatch n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe split_mode main_gpu no_kv_offload flash_attn
devices tensor_split tensor_buft_overrides load_mode lazy_mode embeddings no_op_offload no_host repack fit_target fit_min_ctx
n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts""".split()
OURS = "use_mmap build_version device act fuse plan_hash launches decode_bytes kv_bytes".split()


class Bench(base.Case):
    def bench(self, *words):
        return self.good("bench", "-m", self.model, "-r", "2", "-q", *words)

    def test_markdown(self):
        lines = self.bench("-p", "8", "-n", "3", "-t", "1").splitlines()
        self.assertEqual(lines[4], "")
        self.assertRegex(lines[5], r"^build: \w+ \(\d+\)$")
        lines = lines[:4]
        cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
        self.assertEqual(cells[0], ["model", "size", "params", "backend", "threads", "fuse", "test", "t/s"])
        self.assertEqual([row[6] for row in cells[2:]], ["pp8", "tg3"])
        self.assertEqual([row[4] for row in cells[2:]], ["1", "1"])
        for row in cells[2:]:
            mean, deviation = row[7].split(" ± ")
            self.assertGreater(float(mean), 0)
            self.assertGreaterEqual(float(deviation), 0)
        self.assertEqual(len({len(line) for line in lines}), 1)

    def test_options_that_are_not_default_have_a_column(self):
        head, _, row, *_ = self.bench("-p", "4", "-n", "0", "-ctk", "q8_0", "-ctv", "q8_0", "-fa", "1", "-ub", "8").splitlines()
        cells = dict(zip(*[[c.strip() for c in line.strip("|").split("|")] for line in (head, row)], strict=True))
        self.assertEqual({k: cells[k] for k in ("n_ubatch", "type_k", "type_v", "fa", "test")},
                         {"n_ubatch": "8", "type_k": "q8_0", "type_v": "q8_0", "fa": "1", "test": "pp4"})

    def test_fields_are_those_of_llama_bench(self):
        words = ["-p", "4", "-n", "2", "-o"]
        (row, _) = json.loads(self.bench(*words, "json"))
        self.assertEqual(list(row), FIELDS + ["samples_ns", "samples_ts"] + OURS)
        self.assertEqual((row["model_type"], row["backends"], row["n_batch"]), ("llama 0M unknown", "CPU", 2048))
        self.assertEqual(next(csv.reader(io.StringIO(self.bench(*words, "csv")))), FIELDS + OURS)

    def test_names_that_are_no_text(self):
        odd = os.fsdecode(os.fsencode(self.path("odd")) + b"\xff.gguf")
        shutil.copy(self.model, odd)
        words = ["bench", "-m", odd, "-p", "4", "-n", "0", "-r", "1", "-q", "-o"]
        (row,) = json.loads(self.good(*words, "json"))
        self.assertEqual(list(row), FIELDS + ["samples_ns", "samples_ts"] + OURS)
        self.assertEqual(row["model_filename"], self.path("odd\ufffd.gguf"))
        (row,) = csv.DictReader(io.StringIO(self.good(*words, "csv")))
        self.assertEqual(row["model_filename"], self.path("odd\ufffd.gguf"))

    def test_launches_are_those_of_the_plan_that_runs(self):
        def launches(phase):
            return json.loads(self.good("explain", "-m", self.model, "--json", "--phase", phase))["launches"]

        rows = json.loads(self.bench("-p", "1,4", "-n", "2", "-pg", "4,2", "-o", "json"))
        decode, prefill = launches("decode"), launches("prefill")
        self.assertNotEqual(decode, prefill)
        self.assertEqual([r["launches"] for r in rows], [decode, prefill, decode, prefill])

    def test_sql_fits_in_a_table_of_llama_bench(self):
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            for _ in range(2):
                db.executescript(self.bench("-p", "4", "-n", "2", "-o", "sql"))
            rows = db.execute("SELECT * FROM llama_bench")
            self.assertEqual([c[0] for c in rows.description], FIELDS)
            self.assertEqual([(r[FIELDS.index("n_prompt")], r[FIELDS.index("n_gen")]) for r in rows], [(4, 0), (0, 2)] * 2)

    def test_prompt_and_generation(self):
        rows = json.loads(self.bench("-p", "0", "-n", "0", "-pg", "4,2", "-pg", "6,3", "-o", "json"))
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in rows], [(4, 2), (6, 3)])
        self.assertAlmostEqual(rows[1]["samples_ts"][0], 9e9 / rows[1]["samples_ns"][0], delta=1e-3 * rows[1]["avg_ts"])
        self.assertIn("| pp4+tg2 |", " ".join(self.bench("-p", "0", "-n", "0", "-pg", "4,2").split()))
        for words in ("4", "4,2,1", "4,0"):
            self.bad(base.USAGE, "bench", "-m", self.model, "-pg", words, says="-pg")

    def test_ranges(self):
        rows = json.loads(self.bench("-p", "2-8*2,3", "-n", "0", "-d", "0-4+2", "-o", "json"))
        self.assertEqual([(r["n_depth"], r["n_prompt"]) for r in rows], [(d, p) for d in (0, 2, 4) for p in (2, 4, 8, 3)])
        for words in ("4-2", "1-8*1", "0-8*2", "1-8+0", "1-", "-4", "1-8/2", ""):
            self.bad(base.USAGE, "bench", "-m", self.model, "-p", words, says="-p")

    def test_options_of_llama_bench_that_cannot_be(self):
        for words, why in ((("-b", "512"), "-b is the backend"), (("-fa", "0"), "one kernel"), (("-ctk", "q8_0"), "one type")):
            self.bad(base.USAGE, "bench", "-m", self.model, *words, says=why)
        (row,) = json.loads(self.bench("-p", "4", "-n", "0", "-ngl", "0", "-fa", "auto", "-o", "json"))
        self.assertEqual((row["n_gpu_layers"], row["flash_attn"]), (0, -1))
        code, _, err = self.tenon("bench", "-m", self.model, "-p", "4", "-n", "0", "-r", "1", "-ngl", "99")
        self.assertEqual((code, err.count("\n")), (0, 1), err)
        self.assertIn("on the CPU", err)

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

    def compared(self, a, b, code=0):
        got, out, err = self.tenon("bench", "--compare", a, b, "--json")
        self.assertEqual(got, code, err)
        return json.loads(out)

    def compare(self, a, b, code=0):
        return self.compared(a, b, code)["tests"]

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
        told = self.compared(a, b, 1)  # one fusion in each file: it does not tell tests apart
        (row,) = told["tests"]
        self.assertEqual((row["test"], row["a"]["mean"]), ("tg2", 3.5))
        self.assertEqual((told["unlike"], told["missing"]), ({"fuse": ["all", "none"]}, ["tg1"]))
        (row,) = self.compare(a, self.result("c.json", ({"n_gen": 1, "fuse": "all"}, [1, 2]),
                                             ({"n_gen": 1, "fuse": "none"}, [1, 2])), 1)
        self.assertEqual((row["test"], row["a"]["n"]), ("tg1, fuse all", 4))  # here it does; rows of a test add up
        self.bad(base.INPUT, "bench", "--compare", b, self.result("d.json", ({"n_gen": 8}, [1, 2])), "-q",
                 says="no test in common")

    def test_compare_keeps_unlike_tests_apart(self):
        grid = [({"flash_attn": fa, "n_batch": n, "n_gpu_layers": 0}, [1 + fa, 1 + n]) for fa in (0, 1) for n in (16, 2048)]
        rows = self.compare(self.result("a.json", *grid), self.result("b.json", *grid))
        self.assertEqual([r["test"] for r in rows],
                         [f"tg9, flash_attn {fa}, n_batch {n}" for fa in (0, 1) for n in (16, 2048)])

    def test_compare_output(self):
        a = self.result("a.json", ({}, self.A))
        for words in (["--json"], ["-o", "json"]):
            self.assertEqual(len(json.loads(self.good("bench", "--compare", a, a, *words))["tests"]), 1)
        self.assertEqual(self.good("bench", "--compare", a, a, "-o", "md"), self.good("bench", "--compare", a, a))
        for form in ("csv", "jsonl", "sql"):
            self.bad(base.USAGE, "bench", "--compare", a, a, "-o", form, says="-o json")

    def test_compare_says_what_is_unlike(self):
        a = self.result("a.json", ({"model_type": "x Q4_0", "n_threads": 4}, self.A))
        b = self.result("b.json", ({"model_type": "x Q8_0", "n_threads": 4}, self.A))
        self.assertEqual(self.compared(a, b)["unlike"], {"model_type": ["x Q4_0", "x Q8_0"]})
        out = self.good("bench", "--compare", a, b)
        self.assertIn("A and B differ: model_type x Q4_0, x Q8_0\n", out)

    def test_compare_fails_where_a_test_is_missing(self):
        a = self.result("a.json", ({"n_gen": 1}, [1, 2]), ({"n_gen": 2}, [1, 2]))
        b = self.result("b.json", ({"n_gen": 1}, [1, 2]))
        self.assertEqual(self.compared(a, b, 1)["missing"], ["tg2"])
        code, out, err = self.tenon("bench", "--compare", a, b)
        self.assertEqual(code, 1)
        self.assertRegex(out, r"\| tg2 .*MISSING")
        self.assertIn("1 missing", err)
        self.assertIn("only in", self.tenon("bench", "--compare", b, a)[2])  # more than there was is no failure
        self.assertEqual(self.compared(b, a)["missing"], [])

    def test_compare_counts_all_tests_together(self):
        def rows(shift):
            return [({"n_gen": i + 1}, [v + shift * (i < 2) for v in self.A]) for i in range(9)]

        def welch(a, b):  # of equal sizes and variances
            n, v = len(a), statistics.variance(a) + statistics.variance(b)
            return base.student((statistics.mean(a) - statistics.mean(b)) / math.sqrt(v / n), 2 * n - 2)

        a, b = rows(0), rows(-2.5)
        chances = [welch(x[1], y[1]) for x, y in zip(a, b, strict=True)]
        self.assertLess(chances[0], 0.05)
        told = self.compare(self.result("a.json", *a), self.result("b.json", *b))
        for row, p in zip(told, base.holm(chances), strict=True):
            self.assertAlmostEqual(row["p"], p, places=7)
            self.assertEqual(row["verdict"], "noise")  # alone, two of them were slower

    def test_compare_processes(self):
        a = self.result("a.json", *[({}, [m, m + 1]) for m in (10, 11, 12)])
        b = self.result("b.json", *[({}, [m, m + 1]) for m in (20, 21, 22)])
        (row,) = self.compare(a, b)  # the means of three processes, not six runs
        self.assertEqual((row["a"]["n"], row["a"]["mean"], row["a"]["stddev"]), (3, 11.5, 1))
        (row,) = self.compare(a, self.result("c.json", ({}, [1, 2])), 1)
        self.assertEqual((row["a"]["n"], row["b"]["n"]), (6, 2))

    def test_compare_own_results(self):
        rows = self.put("own.json", self.bench("-p", "4", "-n", "2", "-d", "0,3", "-o", "json"))
        table = self.good("bench", "--compare", rows, rows).splitlines()
        self.assertEqual([line.split("|")[1].strip() for line in table[2:]], ["pp4", "tg2", "pp4 @ d3", "tg2 @ d3"])
        self.assertEqual({line.count("|") for line in table}, {7})
        rows = self.put("ablated.json", self.bench("-p", "0", "-n", "2", "--ablate", "-o", "json"))
        names = [t["test"] for t in self.compare(rows, rows)]
        self.assertEqual(names[:2], ["tg2, fuse all", "tg2, fuse none"])
        self.assertTrue(all(name.count(",") == 1 for name in names), names)

    def test_compare_needs_results(self):
        a = self.result("a.json", ({}, self.A))
        self.bad(base.USAGE, "bench", "--compare", a, says="two values")
        self.bad(base.INPUT, "bench", "--compare", a, self.path("none.json"), says="none.json")
        for text in ("[1]", "{}", '[{"n_prompt": 1, "n_gen": 2}]', "hello", "[", ""):
            self.bad(base.INPUT, "bench", "--compare", a, self.put("bad.json", text))

    def test_ablate(self):
        rows = json.loads(self.bench("-p", "4", "-n", "2", "--ablate", "-r", "12", "-o", "json"))
        for test in (lambda r: r["n_prompt"], lambda r: r["n_gen"]):
            mine = [r for r in rows if test(r)]
            self.assertEqual([r["fuse"] for r in mine[:2]], ["all", "none"])
            self.assertIn("-group", [r["fuse"] for r in mine])
            self.assertIn("group", [r["fuse"] for r in mine])
            self.assertNotIn("-delta_net", [r["fuse"] for r in mine])  # nothing to leave out
            self.assertEqual([len(r["samples_ts"]) for r in mine], [12] * len(mine))
            self.assertTrue(all(mine[0]["launches"] <= r["launches"] <= mine[1]["launches"] for r in mine))
        generations = [r for r in rows if r["n_gen"]]
        by_fuse = {r["fuse"]: r for r in generations}
        chances = []
        for r in generations:  # a rule alone against none, whatever else against all
            alone = r["fuse"] not in ("all", "none") and r["fuse"][0] != "-"
            with_it, without = (r, by_fuse["none"]) if alone else (by_fuse["all"], r)
            if r["fuse"] == "all":
                continue
            ratio, p = base.paired(with_it["samples_ns"], without["samples_ns"])
            self.assertAlmostEqual(r["gain"], ratio - 1, places=5)
            self.assertTrue(r["gain_low"] <= r["gain"] <= r["gain_high"])
            chances.append((p, r["p"]))
        for mine, p in zip(base.holm([p for p, _ in chances]), [p for _, p in chances], strict=True):
            self.assertAlmostEqual(mine, p, places=3)
        self.bad(base.USAGE, "bench", "-m", self.model, "--ablate", "--against", "x", says="exclude")
        table = self.bench("-p", "0", "-n", "2", "--ablate")
        self.assertIn("tg2", table)
        self.assertRegex(table, r"\| -group +\|.* % \(-\) \|")
        self.assertNotIn("nan", table)  # two rounds tell no range
        self.bad(base.USAGE, "bench", "-m", self.model, "--ablate", "--fuse", "none", says="--ablate")

    def ablated(self, *words):
        """The choices of rules that are measured, and what is said of others."""
        code, out, err = self.tenon("bench", "-m", self.model, "-r", "1", "--ablate", "--no-warmup", *words)
        self.assertEqual(code, 0, err)
        return [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")][2:], err

    def test_ablate_measures_no_plan_twice(self):
        def plan(fuse, phase):
            return json.loads(self.good("explain", "-m", self.model, "--json", "--phase", phase, "--fuse", fuse))

        rules = [r["name"] for r in plan("all", "decode")["rules"]]
        for phase, *words in (("decode", "-p", "0", "-n", "1"), ("prefill", "-p", "4", "-n", "0"), ("decode", "-p", "1", "-n", "0")):
            plans = {fuse: plan(fuse, phase)["plan_hash"] for fuse in ["all", "none", *rules, *("-" + r for r in rules)]}
            fuses, said = self.ablated(*words)
            for sign in ("", "-"):
                new = {plans["all"]: "all", plans["none"]: "none"}
                for rule in rules:
                    new.setdefault(plans[sign + rule], sign + rule)
                self.assertEqual([f for f in fuses[2:] if (f[0] == "-") == (sign == "-")], list(new.values())[2:])
            self.assertIn("norm", fuses)
            self.assertEqual(plans["scan_norm"], plans["norm"])  # which it needs
            self.assertIn("scan_norm = norm", said)

    def test_ablate_a_prompt_and_a_generation(self):
        prompt, _ = self.ablated("-p", "4", "-n", "0")
        generation, _ = self.ablated("-p", "0", "-n", "2")
        both, said = self.ablated("-p", "0", "-n", "0", "-pg", "4,2")
        ends, _ = self.ablated("-p", "5", "-n", "0", "-ub", "4")  # its last step has one token
        self.assertIn("attend", set(generation) - set(prompt))
        self.assertLessEqual(set(prompt) | set(generation), set(both))
        self.assertEqual(both, ends)
        self.assertNotIn("attend,", said.split("do not change")[1])

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
        _, talk = self.on_terminal("bench", "-m", self.model, "-p", "0", "-n", "12000", "-r", "1", "-t", "1")
        self.assertRegex(talk, r"\rtg12000 \[#* *\] +[1-9]\d* %")  # within a run, too
        out, talk = self.on_terminal(*words, "-q")
        self.assertEqual(talk, "")
        code, out, err = self.tenon(*words)
        self.assertEqual((code, err), (0, ""))

    def test_nothing_to_measure(self):
        for form in ("md", "csv", "json", "jsonl", "sql"):
            self.bad(base.USAGE, "bench", "-m", self.model, "-p", "0,0", "-n", "0", "-o", form, says="nothing to")

    def test_no_table_before_its_first_row(self):
        for form in ("md", "csv", "json", "jsonl", "sql"):
            self.bad(base.INPUT, "bench", "-m", self.path("nowhere.gguf"), "-o", form, says="nowhere.gguf")

    def test_rows_before_an_error_are_whole(self):
        models = f"{self.model},{self.path('nowhere.gguf')}"
        code, out, _ = self.tenon("bench", "-m", models, "-p", "4", "-n", "0", "-r", "1", "-o", "json")
        self.assertEqual(code, base.INPUT)
        self.assertEqual([r["n_prompt"] for r in json.loads(out)], [4])


if __name__ == "__main__":
    base.main()
