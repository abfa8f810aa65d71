#!/usr/bin/env python3
"""What users would pick instead, on the same work as Basin: one server and one worker process on loopback. One table.

usage: run.py [--build build/release] [--only PEER]... [--rounds N] [--seconds S] [--out FOLDER] [--no-install]

Peers: basin, grpc, redis, tensorflow, torch, torch-tcp (without its shared memory). What is missing is installed: Debian's
packages of the group `peers` in cmake/debian-packages.txt, PyPI's in environments under ~/.cache/basin. Every client
checks the sums of what it pushed, where the peer applies.

Rounds run the peers in turn. FOLDER/peers_PEER.json keeps the figures, and the table is made of all that lie there.
"""

import argparse
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import figures  # noqa: E402
import processes_of_a_peer as peers  # noqa: E402
import table_of_peers  # noqa: E402
import transport_check  # noqa: E402

LIMIT_S = 300


def install():
    """Debian's packages of the group peers, where they are missing."""
    listed = re.findall(r"^peers (\S+)$", (peers.ROOT / "cmake/debian-packages.txt").read_text(encoding="utf-8"), re.M)
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *listed], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, text=True, check=False)
    there = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    missing = [package for package in listed if package not in there]
    if missing:
        print(f"installing {' '.join(missing)}", file=sys.stderr)
        root = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*root, "apt-get", "-q", "update"], check=True, stdout=sys.stderr)
        subprocess.run([*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "install", "-y", "--no-install-recommends",
                        "-o", "DPkg::Lock::Timeout=300", *missing], check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL)


def build(folder, targets):
    subprocess.run(["cmake", "-S", str(peers.ROOT), "-B", folder, "-DBASIN_PEERS=ON"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", folder, "--target", *targets], check=True, stdout=sys.stderr)


def grpc(folder, seconds):
    with peers.Server([f"{folder}/bench/peer_grpc_server"], said=True) as server:
        return peers.lines_of([f"{folder}/bench/peer_grpc_client", server.first_line, str(seconds)], LIMIT_S)


def redis(folder, seconds):
    port, = peers.free_ports(1)
    with tempfile.TemporaryDirectory() as work:
        # redis-tools holds the server's program under another name, which it obeys by its argv[0]; the package
        # redis-server would start a service besides.
        argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", work]
        with peers.Server(argv, program="/usr/bin/redis-check-rdb"):
            end = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if time.monotonic() > end:
                        sys.exit("run.py: redis-server does not listen after 10 s; is Debian's redis-tools installed?")
                    time.sleep(0.02)
            return peers.lines_of([f"{folder}/bench/peer_redis_client", str(port), str(seconds)], LIMIT_S)


def tensorflow(_, seconds):
    python, script = peers.python_with(*peers.TENSORFLOW), str(HERE / "tensorflow_peer.py")
    cluster = {role: [f"127.0.0.1:{port}"] for role, port in zip(("chief", "worker", "ps"), peers.free_ports(3))}
    common = [json.dumps(cluster), str(seconds)]
    with peers.Server([python, script, "ps", *common]), peers.Server([python, script, "worker", *common]):
        return peers.lines_of([python, script, "chief", *common], LIMIT_S)


def torch(transport):
    def run(_, seconds):
        python, script = peers.python_with(*peers.TORCH), str(HERE / "torch_peer.py")
        common = [str(peers.free_ports(1)[0]), str(seconds), transport]
        with peers.Server([python, script, "server", *common]):
            return peers.lines_of([python, script, "worker", *common], LIMIT_S)
    return run


def basin(folder, seconds):
    lines = []
    for transport in ("tcp", "shm"):
        for arguments in table_of_peers.basin_bench_calls():
            results = transport_check.run(f"{folder}/bin/basin-bench", arguments, transport, seconds)
            if isinstance(results, str):
                print(f"run.py: {results}", file=sys.stderr)
            else:
                lines += [table_of_peers.in_plain_units(result) for result in results]
    return lines


PEERS = {"basin": (basin, ("basin-bench", "basin-ps")), "grpc": (grpc, ("peers",)), "redis": (redis, ("peers",)),
         "tensorflow": (tensorflow, ()), "torch": (torch("any"), ()), "torch-tcp": (torch("tcp"), ())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--only", action="append", choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--out", default="build/performance")
    parser.add_argument("--no-install", action="store_true", help="install and build nothing; use what is there")
    flags = parser.parse_args()
    chosen = [name for name in PEERS if not flags.only or name in flags.only]
    if not flags.no_install:
        targets = sorted({target for name in chosen for target in PEERS[name][1]})
        if "peers" in targets:
            install()
        if targets:
            build(flags.build, targets)
    parts = {name: figures.Part(f"peers_{name}") for name in chosen}
    for _ in range(flags.rounds):
        for name in chosen:
            print(f"{name} ...", file=sys.stderr, flush=True)
            for line in PEERS[name][0](flags.build, flags.seconds):
                parts[name].add(line["name"], line["value"], line["unit"], line["checked"])
            parts[name].rounds += 1
    for part in parts.values():
        part.save(flags.out)
    measured = {name: figures.load(flags.out, f"peers_{name}") for name in PEERS}
    pathlib.Path(flags.out, "peers.md").write_text(table_of_peers.markdown(measured), encoding="utf-8")
    print(table_of_peers.markdown(measured))
    wrong = table_of_peers.unchecked_pushes(measured)
    if wrong:
        sys.exit("run.py: sums that did not come out: " + ", ".join(f"{peer} {name}" for peer, name in wrong))


if __name__ == "__main__":
    main()
