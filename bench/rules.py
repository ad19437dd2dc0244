#!/usr/bin/env python3
"""What each rule of fusion saves in a step: rules.py TENON MODEL [decode|prefill] [-t N]

Launches (on the CPU each ends with a barrier) and the least bytes that the launches move, with all rules, with none, and with
each rule left out. The gain in time is `tenon bench --ablate`'s to tell."""
import argparse
import json
import subprocess

ap = argparse.ArgumentParser()
ap.add_argument("tenon")
ap.add_argument("model")
ap.add_argument("phase", nargs="?", default="decode", choices=["decode", "prefill"])
ap.add_argument("-t", default="2")
o = ap.parse_args()


def json_of(*words):
    done = subprocess.run([o.tenon, *words, "-m", o.model, "-t", o.t, "-q"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def step(fuse):
    tests = ["-p", "0", "-n", "2"] if o.phase == "decode" else ["-p", "512", "-n", "0", "-r", "1"]
    (row,) = json_of("profile", *tests, "--fuse", fuse, "--json")
    return row["plan_hash"], row["launches"], sum(r["bytes"] for r in row["regions"])


rules = [r["name"] for r in json_of("explain", "--phase", o.phase, "--format", "json")["rules"]]
plan, launches, size = step("all")
print(f"{o.phase}: all rules: {launches} launches, {size / 1e6:.2f} MB")
print("| left out | launches more | MB more |\n|---|---:|---:|")
for fuse in ["none"] + ["-" + r for r in rules]:
    other, n, b = step(fuse)
    if other != plan:
        print(f"| {'all' if fuse == 'none' else fuse[1:]} | {n - launches} | {(b - size) / 1e6:.2f} |", flush=True)
