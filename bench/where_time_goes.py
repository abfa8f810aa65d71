#!/usr/bin/env python3
"""Where processor time goes while Basin works: samples of all its processes, by kind of work and by function.

usage: where_time_goes.py [--build build/release] [--seconds S] [--out FOLDER] [--only CASE]...

Needs `perf` (Debian's linux-perf) and leave to use it; the clock of the processor is enough, so it works in virtual
machines. Without it the processor seconds a GB of basin-bench say how much, and not where.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

import profile_shares  # noqa: E402
import transport_check  # noqa: E402
import whole_job  # noqa: E402

SAMPLES_S = 997


def cases(build, seconds, folder):
    bench = [f"{build}/bin/basin-bench"]
    times = ["--rounds", "1", "--duration", str(seconds)]
    job = pathlib.Path(folder, "job.yaml")
    job.write_text(whole_job.JOB.format(data=whole_job.DATA, epochs=6, seed=1, more="", evaluators=0), encoding="utf-8")
    for transport in ("tcp", "shm"):
        for op in ("push", "pull"):
            yield f"{transport} {op}, 1 MiB", [*bench, op, "--transport", transport, "--bytes=1MiB", *times]
        yield f"{transport}, 16 floats a push", [*bench, "small", "--transport", transport, *times]
    yield "whole job", [f"{build}/bin/basin", "submit", str(job), "--runs", str(pathlib.Path(folder, "runs"))]


def measure(case, argv, folder, environment):
    """One case, or None where its program fails (a transport that this machine lacks)."""
    data = str(pathlib.Path(folder, "perf.data"))
    start = time.monotonic()
    done = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_S), "-o", data, "--", *argv], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, env=environment)
    wall_s = time.monotonic() - start
    if done.returncode != 0:
        print(f"where_time_goes.py: no profile of {case!r}: {' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-600:]}", file=sys.stderr)
        return None
    report = subprocess.run(["perf", "report", "-i", data, "--sort", "pid,comm,dso,symbol", "--field-separator=\t", "--stdio", "--percent-limit=0"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", check=True).stdout
    samples = re.search(r"# Event count \(approx\.\): (\d+)", report)
    rows = [row for row in profile_shares.rows_of(report) if row["thread"] not in ("perf", "perf-exec")]
    alone = profile_shares.of_basin_alone(rows)
    # The event is the processor's clock, in ns. Where a limit was measured in between, the time was not Basin's alone.
    busy = int(samples.group(1)) * 1e-9 / wall_s if samples and len(alone) == len(rows) else None
    return {"case": case, "cores_busy": busy, "shares": profile_shares.shares_of(alone), "functions": profile_shares.functions_of(alone)[:25]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", action="append", help="cases whose name begins so")
    parser.add_argument("--out", default="build/performance")
    flags = parser.parse_args()
    if not shutil.which("perf"):
        sys.exit("where_time_goes.py: no program perf; install Debian's linux-perf")
    found, checked = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for case, argv in cases(os.path.abspath(flags.build), flags.seconds, folder):
            if flags.only and not any(case.startswith(name) for name in flags.only):
                continue
            transport = case[:3] if case[:3] in ("tcp", "shm") else None
            if transport and transport not in checked:
                results = transport_check.run(f"{flags.build}/bin/basin-bench", ["push", "--bytes=1MiB"], transport, 1.0)
                checked[transport] = results if isinstance(results, str) else ""
            if transport and checked[transport]:
                print(f"where_time_goes.py: no profile of {case!r}: {checked[transport]}", file=sys.stderr)
                continue
            profile = measure(case, argv, folder, {**os.environ, "BASIN_TRANSPORT": transport} if transport else None)
            if profile:
                found.append(profile)
    how = (f"Samples of the processor's clock, {SAMPLES_S} a second and core, of all processes of a case (`bench/where_time_goes.py`); ps and workers share the cores. "
           "The start and the check at the end are in it; the threads in which basin-bench measures the limit beside a figure are not.")
    pathlib.Path(flags.out).mkdir(parents=True, exist_ok=True)
    pathlib.Path(flags.out, "profile.json").write_text(json.dumps({"how": how, "cases": found}, indent=1) + "\n", encoding="utf-8")
    for profile in found:
        busy = "" if profile["cores_busy"] is None else f"{profile['cores_busy']:.2f} cores busy; "
        print(f"{profile['case']}: {busy}"
              + ", ".join(f"{kind} {100 * share:.0f}%" for kind, share in profile["shares"].items()))


if __name__ == "__main__":
    main()
