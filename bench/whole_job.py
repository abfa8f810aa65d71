#!/usr/bin/env python3
"""The whole job: Fashion-MNIST, MLP 784-256-10, Adam 0.001, batches of 128, 2 ps and 2 workers, beside two copies of the
same program without a ps, and beside TensorFlow's ParameterServerStrategy on the same cores.

usage: whole_job.py [--bin build/release/bin] [--rounds N] [--only PART]... [--out FOLDER]

parts: job       `basin submit` without an evaluator, 12 epochs: examples and steps a second of all workers
       copies    two `basin-worker --no-ps` at the same time, 6 epochs each: the same number of examples
       sooner    `basin submit` with an evaluator: time of the first step, and until a test accuracy of 0.88
       tensorflow-1, tensorflow-20     ParameterServerStrategy with so many steps a closure, until 0.88

Rounds run the parts in turn. With --out, FOLDER/whole_job.json keeps the figures; a part that is not run keeps those
that it had there.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

import figures  # noqa: E402
import processes_of_a_peer as peers  # noqa: E402

DATA = "/usr/share/datasets/fashion-mnist"
TARGET = 0.88
EPOCHS, EXAMPLES, BATCH = 12, 60_000, 128
LIMIT_S = 75  # of one run
JOB = """experiment: whole-job
entry_script: basin:mlp
script_params: {{--hidden: "256", --epochs: {epochs}, --batch-size: 128, --seed: {seed}{more}}}
inputs: [{{name: data, path: {data}}}]
compute_target: local
distributed_backend: ps
parameter_server_count: 2
worker_count: 2
evaluator_count: {evaluators}
training:
  rule: {{name: adam, learning_rate: 0.001}}
"""


class Submitted:
    """`basin submit` of a job, with the time since its start at which a line came into a task's log."""

    def __init__(self, programs, folder, **fields):
        self.folder = pathlib.Path(folder)
        job = self.folder / "job.yaml"
        job.write_text(JOB.format(data=DATA, **fields), encoding="utf-8")
        self.start = time.monotonic()
        self.process = subprocess.Popen([f"{programs}/basin", "submit", str(job), "--runs", str(self.folder / "runs")],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
        self._seen = {}

    def log(self, task):
        found = list(self.folder.glob(f"runs/whole-job/*/logs/{task}.txt"))
        return found[0].read_text(encoding="utf-8", errors="replace") if found else ""

    def await_line(self, tasks, pattern):
        """(seconds since the start, match) of the first line in one of the logs that fits."""
        while True:
            for task in tasks:
                match = re.search(pattern, self.log(task), re.M)
                if match:
                    return time.monotonic() - self.start, match
            if self.process.poll() is not None or time.monotonic() - self.start > LIMIT_S:
                sys.exit(f"whole_job.py: no line with {pattern!r} in the logs of {', '.join(tasks)}:\n{self.end()}")
            time.sleep(0.003)

    def new_lines(self, task):
        """Whole lines that have come since the last call."""
        text = self.log(task)
        text = text[:text.rfind("\n") + 1]
        seen = self._seen.get(task, 0)
        self._seen[task] = len(text)
        return text[seen:].splitlines()

    def end(self):
        """What it printed. Cancels it where it still runs, as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=30)[0]


def job(programs, part, round_number):
    with tempfile.TemporaryDirectory() as folder:
        run = Submitted(programs, folder, epochs=EPOCHS, seed=round_number + 1, more="", evaluators=0)
        text = run.process.communicate(timeout=LIMIT_S)[0]
        done = [re.search(r"done: (\d+) steps, (\d+) examples in ([0-9.]+) s", run.log(f"worker-{i}")) for i in (0, 1)]
        if run.process.returncode != 0 or not all(done):
            sys.exit(f"whole_job.py: the job failed:\n{text}")
        steps, examples = (sum(int(match.group(i)) for match in done) for i in (1, 2))
        seconds = max(float(match.group(3)) for match in done)
        model, = pathlib.Path(folder).glob("runs/whole-job/*/outputs/model.safetensors")
        # What it exported is worth what was trained: a process of its own looks at the file.
        evaluated = subprocess.run([f"{programs}/basin-worker", "--program", "mlp", "--hidden", "256", "--data", DATA, "--evaluate", str(model)],
                                   stdout=subprocess.PIPE, text=True, check=True, env=one_thread())
        accuracy = float(re.search(r"test accuracy ([0-9.]+)", evaluated.stdout).group(1))
        checked = examples == EPOCHS * EXAMPLES and accuracy > 0.86
        part.add("job_examples", examples / seconds, "examples/s", checked)
        part.add("job_steps", steps / seconds, "steps/s", checked)
        part.add("job_accuracy", accuracy, "test accuracy", checked)


def copies(programs, part, round_number):
    argv = [f"{programs}/basin-worker", "--no-ps", "--program", "mlp", "--hidden", "256", "--epochs", str(EPOCHS // 2), "--batch-size", str(BATCH),
            "--rule", "adam", "--learning-rate", "0.001", "--data", DATA]
    running = [subprocess.Popen([*argv, "--seed", str(2 * round_number + i)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=one_thread()) for i in (1, 2)]
    total, accuracies = 0, []
    for process in running:
        text = process.communicate(timeout=LIMIT_S)[0]
        steps, seconds = (float(x) for x in re.search(r"(\d+) steps in ([0-9.]+) s", text).groups())
        examples_s = float(re.search(r"\((\d+) examples/s\)", text).group(1))
        accuracies.append(float(re.search(r"test accuracy ([0-9.]+)", text).group(1)))
        if process.returncode != 0 or abs(examples_s * seconds - EXAMPLES * EPOCHS / 2) > 0.05 * EXAMPLES * EPOCHS:
            sys.exit(f"whole_job.py: a copy without ps ended with {process.returncode}, or trained on another number of examples:\n{text}")
        total += examples_s
    part.add("copies_examples", total, "examples/s", min(accuracies) > 0.86)


def sooner(programs, part, round_number):
    with tempfile.TemporaryDirectory() as folder:
        run = Submitted(programs, folder, epochs=40, seed=round_number + 1, more=", --evaluate-every: 0.25", evaluators=1)
        try:
            first_s, _ = run.await_line(("worker-0", "worker-1"), r"first step")
            while True:
                for line in run.new_lines("evaluator-0"):
                    match = re.search(r"step (\d+): .*test accuracy ([0-9.]+)", line)
                    if match and float(match.group(2)) >= TARGET:
                        reached_s = time.monotonic() - run.start
                        part.add("job_first_step", first_s, "s", True)
                        part.add("job_until_target", reached_s, "s", True, steps=int(match.group(1)))
                        part.add("job_training_until_target", reached_s - first_s, "s", True)
                        return
                if run.process.poll() is not None or time.monotonic() - run.start > LIMIT_S:
                    sys.exit(f"whole_job.py: no test accuracy of {TARGET} within {LIMIT_S} s:\n{run.log('evaluator-0')}")
                time.sleep(0.003)
        finally:
            run.end()


def tensorflow(steps_a_closure, part):
    python = peers.python_with(*peers.TENSORFLOW)
    script = str(HERE / "peers" / "tensorflow_job.py")
    addresses = [f"127.0.0.1:{port}" for port in peers.free_ports(5)]
    cluster = json.dumps({"chief": addresses[:1], "worker": addresses[1:3], "ps": addresses[3:]})
    start = time.time()
    with contextlib.ExitStack() as running:
        for role in ("ps", "worker"):
            for index in ("0", "1"):
                running.enter_context(peers.Server([python, script, role, index, cluster]))
        lines = peers.lines_of([python, script, "chief", "0", cluster, str(steps_a_closure), str(TARGET), str(LIMIT_S - 20), DATA], LIMIT_S)
    first, looks = lines[0], lines[1:]
    last = looks[-1]
    checked = last["accuracy"] >= TARGET
    if not checked:
        print(f"whole_job.py: TensorFlow has {last['accuracy']:.4f} after {last['steps']} steps; its time is a lower bound", file=sys.stderr)
    name = f"tensorflow_{steps_a_closure}"
    # The first closure holds the tracing; training without it is what the rate is about.
    rate = (last["steps"] - steps_a_closure) / (last["training_s"] - last["first_s"])
    part.add(f"{name}_steps", rate, "steps/s", checked)
    part.add(f"{name}_first_step", first["time"] - start, "s", checked)
    part.add(f"{name}_training_until_target", last["training_s"], "s", checked)
    part.add(f"{name}_until_target", last["time"] - start, "s", checked, steps=last["steps"])


def one_thread():
    return {**{name: value for name, value in os.environ.items() if name != "TF_CONFIG"}, "OPENBLAS_NUM_THREADS": "1"}


def parts_of(programs):
    return {"job": lambda part, n: job(programs, part, n), "copies": lambda part, n: copies(programs, part, n),
            "sooner": lambda part, n: sooner(programs, part, n), "tensorflow-1": lambda part, n: tensorflow(1, part),
            "tensorflow-20": lambda part, n: tensorflow(20, part)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(parts_of("")))
    parser.add_argument("--out")
    flags = parser.parse_args()
    if not pathlib.Path(DATA).is_dir():
        sys.exit(f"whole_job.py: no folder {DATA}; install Debian's dataset-fashion-mnist, as examples/quickstart.sh does")
    if not pathlib.Path(flags.bin, "basin").exists():
        sys.exit(f"whole_job.py: no program basin in {flags.bin}; build it (examples/quickstart.sh does), or give --bin")
    part = figures.Part("whole_job")
    for round_number in range(flags.rounds):
        for name, run in parts_of(flags.bin).items():
            if not flags.only or name in flags.only:
                run(part, round_number)
        part.rounds += 1
    if flags.out:
        part.keep_others(flags.out)
        print(part.save(flags.out), file=sys.stderr)
    for result in part.document()["results"]:
        print(f"{result['name']:36} {figures.number(result['value']):>8} {result['unit']}{'' if result['checked'] else '  (not reached)'}")


if __name__ == "__main__":
    main()
