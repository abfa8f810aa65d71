#!/usr/bin/env python3
"""Measures every goal, the peers, and where the time goes, and writes docs/performance.md. Half an hour; the machine should
have nothing else to do.

usage: performance.py [--build build/release] [--rounds N] [--only PART]... [--out build/performance] [--no-install] [--page-only]

parts: transports  whether --transport does what it says, by the bytes of the loopback interface: figures named for a transport
                   that was not used are dropped
       canonical   basin-bench without a command: as root with TCP between two network namespaces; checks transports first
       idle        what a job that does nothing costs
       whole_job   bench/whole_job.py, beside TensorFlow
       peers       bench/peers/run.py
       profile     bench/where_time_goes.py

Each part leaves its figures as JSON in the folder of --out, so that one can be repeated alone; the page is made of what lies
there. bench/performance_notes.md, which people write, becomes the page's end.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

import figures  # noqa: E402
import performance_page  # noqa: E402
import transport_check  # noqa: E402

PEERS = ("basin", "grpc", "redis", "tensorflow", "torch", "torch-tcp")


def commands(flags):
    """{part: its command}, in the order in which they run."""
    build, out, rounds = flags.build, flags.out, str(flags.rounds)
    python = [sys.executable, "-B"]
    harness = [f"{build}/bin/basin-bench", "--rounds", rounds, "--duration", str(0.7 * flags.rounds)]
    return {
        "canonical": [*harness, "--json", f"{out}/canonical.json"],
        "idle": [*python, str(HERE / "idle.py"), "--build", build, "--out", out],
        "whole_job": [*python, str(HERE / "whole_job.py"), "--bin", f"{build}/bin", "--rounds", str(min(flags.rounds, 3)), "--out", out],
        "peers": [*python, str(HERE / "peers" / "run.py"), "--build", build, "--rounds", str(min(flags.rounds, 3)), "--out", out,
                  *(["--no-install"] if flags.no_install else [])],
        "profile": [*python, str(HERE / "where_time_goes.py"), "--build", build, "--out", out],
    }


def check_transports(flags):
    """Leaves transports.json: {transport: what is wrong with it, or an empty text}."""
    found = {}
    for transport in ("tcp", "shm"):
        results = transport_check.run(f"{flags.build}/bin/basin-bench", ["push", "--bytes=1MiB"], transport, 1.0)
        found[transport] = results if isinstance(results, str) else ""
        print(f"transport {transport}: {found[transport] or 'as said'}", file=sys.stderr)
    pathlib.Path(flags.out, "transports.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def write_page(flags):
    out = pathlib.Path(flags.out)
    parts = {name: figures.load(out, name) for name in ("canonical", "idle", "whole_job")}
    peers = {peer: figures.load(out, f"peers_{peer}") for peer in PEERS}
    path = out / "transports.json"
    transports = json.loads(path.read_text(encoding="utf-8")) if path.exists() else dict.fromkeys(("tcp", "shm"), "it was not checked")
    parts["canonical"], dropped = performance_page.without_false_names(parts["canonical"], transports)
    profile = json.loads((out / "profile.json").read_text(encoding="utf-8")) if (out / "profile.json").exists() else None
    notes = (HERE / "performance_notes.md").read_text(encoding="utf-8")
    measured = [path.stat().st_mtime for path in out.glob("*.json")]
    if not measured:
        sys.exit(f"performance.py: no figures in {out}; run it without --page-only")
    made = {"date": datetime.date.fromtimestamp(max(measured)).isoformat(), "machine": figures.machine()}
    page = pathlib.Path(flags.page)
    page.write_text(performance_page.page(parts, peers, profile, notes, {**made, "dropped": dropped}), encoding="utf-8")
    print(f"wrote {page}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=("transports", "canonical", "idle", "whole_job", "peers", "profile"))
    parser.add_argument("--out", default="build/performance")
    parser.add_argument("--no-install", action="store_true", help="install nothing; peers that are missing fail")
    parser.add_argument("--page", default=str(ROOT / "docs" / "performance.md"), help="the file to write")
    parser.add_argument("--page-only", action="store_true", help="measure nothing; write the page of the figures that are there")
    flags = parser.parse_args()
    failed = []
    if not flags.page_only:
        pathlib.Path(flags.out).mkdir(parents=True, exist_ok=True)
        if not flags.no_install:
            subprocess.run(["cmake", "--build", flags.build, "--target", "basin-bench", "basin-ps", "basin-worker", "basin"], check=True,
                           stdout=sys.stderr)
        # Figures whose transport nobody has looked at do not count.
        if not flags.only or {"transports", "canonical"} & set(flags.only):
            check_transports(flags)
        for part, command in commands(flags).items():
            if flags.only and part not in flags.only:
                continue
            print(f"== {part}: {' '.join(command)}", file=sys.stderr, flush=True)
            if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
                failed.append(part)
    write_page(flags)
    if failed:
        sys.exit(f"performance.py: parts that failed, as said above: {', '.join(failed)}. The page has their figures of an earlier time, or none.")


if __name__ == "__main__":
    main()
