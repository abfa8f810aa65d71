#!/usr/bin/env python3
"""Trains the example with five seeds, as a job with parameter servers and in one process without, and a logistic regression on the
same features; prints the AUC on the test part as a Markdown table: what docs/wide_deep.md shows.

usage: five_seeds.py BIN      BIN: the folder of basin, basin-ps and basin-worker, such as build/release/bin

The logistic regression needs scikit-learn and PyYAML: they are installed into a virtual environment in ~/.cache/basin where it is missing.
"""

import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

SEEDS = (1, 2, 3, 4, 5)
PENALTY = "0.01"  # C of the logistic regression, found as docs/wide_deep.md says
REQUIREMENTS = ("scikit-learn==1.9.1", "PyYAML==6.0.4")
HERE = pathlib.Path(__file__).resolve().parent


def auc(argv):
    done = subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    found = re.findall(r"^test AUC ([0-9.]+)$", done.stdout, re.M)
    if done.returncode != 0 or not found:
        sys.exit(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return float(found[-1])


def python_with_sklearn():
    folder = pathlib.Path.home() / ".cache" / "basin" / "venv-sklearn-1.9.1"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdin=subprocess.DEVNULL)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS], check=True,
                       stdin=subprocess.DEVNULL)
        (folder / "complete").touch()
    return python


def flags_of_the_job(programs, csv):
    """What the job gives its workers, so that one process trains the same: the plan says it."""
    plan = subprocess.run([f"{programs}/basin", "submit", HERE / "job.yaml", "--input", f"data={csv}", "--dry-run", "--json"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    [argv] = [task["argv"] for task in json.loads(plan)["tasks"] if (task["role"], task["index"]) == ("worker", 0)]
    flags = dict(zip(argv[1::2], argv[2::2]))
    for launchers in ("--token-file", "--run-id", "--outputs"):
        del flags[launchers]
    return [word for flag in flags.items() for word in flag]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    programs = sys.argv[1]
    csv = HERE / "flights.csv"
    if not csv.exists():
        subprocess.run([sys.executable, HERE / "prepare.py", csv], check=True)
    regression = auc([python_with_sklearn(), HERE / "logistic_regression.py", csv, HERE / "schema.yaml", PENALTY])
    print(f"logistic regression {regression:.4f}", file=sys.stderr)
    flags = flags_of_the_job(programs, csv)
    job, alone = [], []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as runs:
            job.append(auc([f"{programs}/basin", "submit", HERE / "job.yaml", "--runs", runs, "--input", f"data={csv}", "--param",
                            f"--seed={seed}"]))
        alone.append(auc([f"{programs}/basin-worker", "--no-ps", *flags, "--schema", HERE / "schema.yaml", "--seed", seed]))
        print(f"seed {seed}: job {job[-1]:.4f}, one process {alone[-1]:.4f}", file=sys.stderr)
    print("| | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean | spread (standard deviation) |")
    print("|---|" + "---|" * (len(SEEDS) + 2))
    for name, values in (("2 ps, 2 workers", job), ("one process, no ps", alone)):
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in values)
              + f" | {statistics.mean(values):.4f} | {statistics.stdev(values):.4f} |")
    print("| logistic regression | " + " | ".join("" for _ in SEEDS) + f" | {regression:.4f} | |")
    print(f"\nDifference of the means: {statistics.mean(job) - statistics.mean(alone):+.4f}.")


if __name__ == "__main__":
    main()
