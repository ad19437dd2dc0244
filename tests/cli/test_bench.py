"""bench: the grid of tests, and that each format is what it says."""
import csv
import io
import json

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
