#!/usr/bin/env python3
"""What a job that does nothing costs: one ps and one worker that has declared its model and pushed once, and then waits.

usage: idle.py [--build build/release] [--seconds 10] [--out FOLDER]
"""

import argparse
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers"), str(HERE.parent / "tests" / "install")]

import figures  # noqa: E402


def worker(library):
    """The client library in this process; says so once it is idle, and leaves when its standard input ends."""
    import python_process as abi
    basin = ctypes.CDLL(library)
    basin.basin_model_new.restype = ctypes.c_void_p
    status = abi.Status()

    def check(code, what):
        if code != abi.OK:
            sys.exit(f"idle.py: {what}: code {code}: {status.message.decode()}")
    options = abi.Options()
    basin.basin_options_from_environment(ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options)))
    client, call, identity = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint32()
    check(basin.basin_connect(ctypes.byref(options), ctypes.byref(client), ctypes.byref(status)), "connect")
    shape, f32 = (ctypes.c_int64 * 1)(1024), abi.DType(abi.FLOAT, 32, 1)
    model = ctypes.c_void_p(basin.basin_model_new())
    variable = abi.Variable(size=ctypes.sizeof(abi.Variable), name=b"w", ndim=1, shape=shape, dtype=f32, initializer=abi.Initializer(kind=abi.ZEROS))
    check(basin.basin_model_add_variable(model, ctypes.byref(variable), ctypes.byref(identity), ctypes.byref(status)), "variable")
    check(basin.basin_declare(client, model, ctypes.byref(status)), "declare")
    values = (ctypes.c_float * 1024)()
    push = abi.Tensor(data=ctypes.addressof(values), device=abi.Device(abi.CPU, 0), ndim=1, dtype=f32, shape=shape)
    item = abi.Item(variable=identity, push=ctypes.pointer(push))
    check(basin.basin_start(client, ctypes.byref(item), ctypes.c_size_t(1), ctypes.byref(call), ctypes.byref(status)), "start")
    check(basin.basin_call_wait(call, ctypes.c_double(60.0), ctypes.byref(status)), "push")
    basin.basin_call_free(call)
    print("idle", flush=True)
    sys.stdin.read()
    check(basin.basin_finish(client, None, ctypes.byref(status)), "finish")
    basin.basin_close(client)


def processor_seconds(pid):
    """Of all its threads, to the nanosecond: the ticks in /proc/PID/stat miss what wakes up for a moment."""
    return sum(int(path.read_text(encoding="utf-8").split()[0]) for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) * 1e-9


def measure(build, seconds):
    import processes_of_a_peer as peers
    ports = peers.free_ports(2)
    cluster = {"ps": [f"127.0.0.1:{ports[0]}"], "worker": [f"127.0.0.1:{ports[1]}"]}

    def start(argv, role, **pipes):
        config = json.dumps({"cluster": cluster, "task": {"type": role, "index": 0}})
        return subprocess.Popen(argv, env={**os.environ, "TF_CONFIG": config}, text=True, **pipes)
    ps = start([f"{build}/bin/basin-ps"], "ps", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = start([sys.executable, "-B", __file__, "worker", f"{build}/lib/libbasin.so"], "worker", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if client.stdout.readline().strip() != "idle":
            sys.exit(f"idle.py: the worker ended with {client.wait()} before it was idle")
        time.sleep(1)  # what the start leaves to do is not what is asked for
        before = processor_seconds(ps.pid), processor_seconds(client.pid)
        start_s = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - start_s
        spent = [after - first for after, first in zip((processor_seconds(ps.pid), processor_seconds(client.pid)), before)]
        client.communicate("", timeout=30)
        if client.returncode != 0 or ps.wait(timeout=30) != 0:
            sys.exit(f"idle.py: the run ended badly: worker {client.returncode}, ps {ps.returncode}")
        return [one / took for one in spent]
    finally:
        for process in (client, ps):
            if process.poll() is None:
                process.kill()
                process.wait()


def main():
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out")
    flags = parser.parse_args()
    ps, client = measure(flags.build, flags.seconds)
    part = figures.Part("idle")
    part.rounds = 1
    part.add("idle_share_of_a_core", ps + client, "of a core", True)
    part.add("idle_share_of_a_core/ps", ps, "of a core", True)
    part.add("idle_share_of_a_core/worker", client, "of a core", True)
    if flags.out:
        part.save(flags.out)
    for result in part.document()["results"]:
        print(f"{result['name']:32} {result['value']:.4f}")


if __name__ == "__main__":
    main()
