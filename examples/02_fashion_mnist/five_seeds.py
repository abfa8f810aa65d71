#!/usr/bin/env python3
"""Trains the example with five seeds, as a job with parameter servers and in one process without, and prints the
accuracies as a Markdown table: what docs/fashion_mnist.md shows.

usage: five_seeds.py BIN      BIN: the folder of basin, basin-ps and basin-worker, such as build/release/bin
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile

SEEDS = (1, 2, 3, 4, 5)
DATA = "/usr/share/datasets/fashion-mnist"
HERE = os.path.dirname(os.path.abspath(__file__))


def accuracy(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    found = re.findall(r"^test accuracy ([0-9.]+)$", done.stdout, re.M)
    if done.returncode != 0 or not found:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return float(found[-1])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    programs = sys.argv[1]
    job, alone = [], []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as runs:
            job.append(accuracy([f"{programs}/basin", "submit", f"{HERE}/job.yaml", "--runs", runs, "--param", f"--seed={seed}"]))
        alone.append(accuracy([f"{programs}/basin-worker", "--no-ps", "--program", "mlp", "--hidden", "256", "--epochs", "15", "--batch-size", "128", "--schedule", "linear",
                               "--rule", "adam", "--learning-rate", "0.001", "--data", DATA, "--seed", str(seed)]))
        print(f"seed {seed}: job {job[-1]:.4f}, one process {alone[-1]:.4f}", file=sys.stderr)
    print("| | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean | spread (standard deviation) |")
    print("|---|" + "---|" * (len(SEEDS) + 2))
    for name, values in (("2 ps, 2 workers", job), ("one process, no ps", alone)):
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + f" | {statistics.mean(values):.4f} | {statistics.stdev(values):.4f} |")
    print(f"\nDifference of the means: {100 * (statistics.mean(job) - statistics.mean(alone)):+.2f} points.")


if __name__ == "__main__":
    main()
