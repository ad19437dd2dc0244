#!/usr/bin/env python3
"""Time tenon and a peer's llama-bench in turn, in one run, and print the ratios.

    bench_against.py TENON LLAMA_BENCH MODEL [MODEL...] [-t THREADS] [-p 512] [-n 128] [-r ROUNDS]

Each round runs the peer and then tenon on each model (two repetitions each, warm-up apart), so that a machine that drifts drifts
for both. Prints every round as it comes, then the ratio of the medians. Exit code 1 where a ratio is below 1.
"""
import argparse
import json
import platform
import statistics
import subprocess
import sys


def rates(command):
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"prefill" if r["n_prompt"] else "decode": r["avg_ts"] for r in json.loads(out)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tenon")
    ap.add_argument("peer")
    ap.add_argument("models", nargs="+")
    ap.add_argument("-t", default="2")
    ap.add_argument("-p", default="512")
    ap.add_argument("-n", default="128")
    ap.add_argument("-r", type=int, default=3)
    o = ap.parse_args()
    sizes = ["-t", o.t, "-p", o.p, "-n", o.n, "-r", "2", "-o", "json"]
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"# {' '.join(sys.argv)}\n# {cpu}, {platform.system()}, threads {o.t}", flush=True)
    low = False
    for model in o.models:
        rounds = []
        for i in range(o.r):
            peer, ours = rates([o.peer, "-m", model, "-fa", "1", *sizes]), rates([o.tenon, "bench", "-m", model, "-q", *sizes])
            rounds.append((peer, ours))
            for what in ("prefill", "decode"):
                print(f"{model.split('/')[-1]} round {i + 1} {what}: peer {peer[what]:.1f}, tenon {ours[what]:.1f} t/s", flush=True)
        for what in ("prefill", "decode"):
            ratio = statistics.median(b[what] for _, b in rounds) / statistics.median(a[what] for a, _ in rounds)
            low |= ratio < 1
            print(f"{model.split('/')[-1]} {what}: tenon / peer = {ratio:.2f}", flush=True)
    sys.exit(1 if low else 0)


main()
