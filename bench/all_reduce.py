#!/usr/bin/env python3
"""Both backends of the built-in programs on this machine, as the Markdown tables of docs/mpi_all_reduce.md.

usage: all_reduce.py BIN steps|fusion|accuracy      BIN: the folder of basin and basin-worker, such as build/release/bin

steps: examples a second of a multi-layer perceptron on Fashion-MNIST, with all-reduce and with parameter servers
fusion: the same for sizes of buffers, with and without a thread for progress
accuracy: examples/02_fashion_mnist/job.yaml with `distributed_backend` ps, and with that one word changed to mpi
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile

DATA = "/usr/share/datasets/fashion-mnist"
HERE = os.path.dirname(os.path.abspath(__file__))
JOB = os.path.join(HERE, os.pardir, "examples", "02_fashion_mnist", "job.yaml")
BATCH = 128
ROUNDS = 3
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(argv):
    done = subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def mpirun(ranks):
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", ranks]


def worker(programs, hidden, steps):
    return [f"{programs}/basin-worker", "--program", "mlp", "--data", DATA, "--hidden", hidden, "--batch-size", BATCH, "--epochs", 1000,
            "--max-steps", steps]


def rates(argv):
    """Examples a second of each worker, median of the rounds for the sum."""
    sums = []
    for _ in range(ROUNDS):
        found = [float(rate) for rate in re.findall(r"done: .* \((\d+) examples/s\)", run(argv))]
        sums.append((sum(found), len(found)))
    return statistics.median(total for total, _ in sums), sums[0][1]


def row(name, argv):
    total, workers = rates(argv)
    return f"| {name} | {total:,.0f} | {1000 * BATCH * workers / total:.2f} |"


def steps(programs):
    for hidden, count in (("256", 600), ("512,512,512", 100)):
        print(f"\n`--hidden {hidden}`\n\n| | examples/s, all workers | ms a step of each |\n|---|---|---|")
        for ranks in (1, 2, 4):
            print(row(f"all-reduce, {ranks} {'rank' if ranks == 1 else 'ranks'}",
                      [*mpirun(ranks), *worker(programs, hidden, count), "--backend", "mpi"]))
        for ps, workers in ((1, 1), (2, 2), (2, 4)):
            print(row(f"{ps} ps, {workers} {'worker' if workers == 1 else 'workers'}",
                      [*mpirun(ps + workers), f"{programs}/basin", "exec", "--ps", ps, "--", *worker(programs, hidden, count * workers)]))


def fusion(programs):
    shapes = (("256", 500), ("512,512,512", 60))
    print("| 2 ranks, `--fusion-bytes` | " + " | ".join(f"`{hidden}`, ms a step | with the thread" for hidden, _ in shapes) + " |\n|---|---|---|---|---|")
    for size in (0, 64 << 10, 1 << 20, 2 << 20, 128 << 20):
        times = []
        for hidden, count in shapes:
            argv = [*mpirun(2), *worker(programs, hidden, count), "--backend", "mpi", "--fusion-bytes", size]
            times += [f"{1000 * BATCH * 2 / rates([*argv, *more])[0]:.2f}" for more in ([], ["--progress-thread"])]
        print(f"| {size} | {' | '.join(times)} |")


def accuracy(programs):
    print("| `distributed_backend` | seed 1 | seed 2 | seed 3 | time, seed 1 |\n|---|---|---|---|---|")
    with open(JOB, encoding="utf-8") as file:
        job = file.read()
    for backend in ("ps", "mpi"):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "job.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(job.replace("distributed_backend: ps", f"distributed_backend: {backend}"))
            texts = [run([f"{programs}/basin", "submit", path, "--runs", folder, "--param", f"--seed={seed}"]) for seed in (1, 2, 3)]
        found = [re.search(r"^test accuracy ([\d.]+)$", text, re.M).group(1) for text in texts]
        took = re.search(r"Completed after (\w+)", texts[0]).group(1)
        print(f"| {backend} | {' | '.join(found)} | {took} |")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("steps", "fusion", "accuracy"):
        sys.exit(__doc__)
    sys.stdout.reconfigure(line_buffering=True)
    {"steps": steps, "fusion": fusion, "accuracy": accuracy}[sys.argv[2]](sys.argv[1])
