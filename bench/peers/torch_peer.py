"""PyTorch RPC on the work of same_work.py.

usage: torch_peer.py ROLE PORT SECONDS any|tcp    ROLE: server or worker; tcp: without its shared memory

The server applies SGD in a function that the worker calls by RPC, with a lock a variable. 16 MiB in flight.
"""

import collections
import os
import sys
import threading
import time

import torch
import torch.distributed.rpc as rpc

import same_work

VARIABLES, LOCK = {}, threading.Lock()


class Variable:
    def __init__(self, shape):
        self.values, self.lock = torch.zeros(shape), threading.Lock()


def declare(name, shape):
    with LOCK:
        VARIABLES[name] = Variable(shape)


def push(name, gradient):
    variable = VARIABLES[name]
    with variable.lock:
        variable.values.sub_(gradient)


def pull(name):
    return VARIABLES[name].values


def push_rows(name, keys, gradient):
    variable = VARIABLES[name]
    with variable.lock:
        variable.values.index_add_(0, keys, gradient, alpha=-1)


def pull_rows(name, keys):
    return VARIABLES[name].values.index_select(0, keys)


def stream(seconds, window, call):
    """call(n) starts call number n and returns its future. (calls a second, all calls)."""
    under_way = collections.deque()
    start, warm, done, sent = time.perf_counter(), None, 0, 0
    while True:
        while len(under_way) < window:
            under_way.append(call(sent))
            sent += 1
        under_way.popleft().wait()
        now = time.perf_counter()
        if warm is None:
            warm = now if now - start > 0.1 * seconds else None
            continue
        done += 1
        if now - warm >= seconds:
            break
    for future in under_way:
        future.wait()
    return done / (now - warm), sent


def measure(seconds):
    def ask(function, *arguments):
        return rpc.rpc_async("server", function, args=arguments)

    def pushes(size):
        name, gradient = f"variable{size}", torch.ones(size // 4)
        ask(declare, name, [size // 4]).wait()
        rate, sent = stream(seconds, same_work.in_flight(size), lambda n: ask(push, name, gradient))
        return rate, bool((ask(pull, name).wait() == -float(sent)).all())

    for size in same_work.PUSH_BYTES:
        rate, checked = pushes(size)
        same_work.report(f"push/bytes:{size}", 1e-9 * rate * size, "GB/s", checked)
    for size in same_work.PULL_BYTES:
        rate, _ = stream(seconds, same_work.in_flight(size), lambda n, size=size: ask(pull, f"variable{size}"))
        same_work.report(f"pull/bytes:{size}", 1e-9 * rate * size, "GB/s", False)
    rate, checked = pushes(same_work.SMALL_BYTES)
    same_work.report("push_small_single/floats:16", rate, "pushes/s", checked)

    batches = same_work.TABLE_ROWS // same_work.TABLE_BATCH
    keys = [(torch.arange(same_work.TABLE_BATCH) + i * same_work.TABLE_BATCH) * 7919 % same_work.TABLE_ROWS for i in range(batches)]
    rows = torch.ones(same_work.TABLE_BATCH, same_work.TABLE_DIM)
    window = same_work.in_flight(rows.nbytes)
    ask(declare, "table", [same_work.TABLE_ROWS, same_work.TABLE_DIM]).wait()
    rate, sent = stream(seconds, window, lambda n: ask(push_rows, "table", keys[n % batches], rows))
    checked = float(ask(pull, "table").wait().sum(dtype=torch.float64)) == -float(sent * rows.numel())
    same_work.report("table_push/rows:1000000/dim:16", rate * same_work.TABLE_BATCH, "rows/s", checked)
    rate, _ = stream(seconds, window, lambda n: ask(pull_rows, "table", keys[n % batches]))
    same_work.report("table_pull/rows:1000000/dim:16", rate * same_work.TABLE_BATCH, "rows/s", False)


def main():
    role, port, seconds, transport = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
    torch.set_num_threads(1)
    chosen = {"_transports": ["uv"], "_channels": ["basic"]} if transport == "tcp" else {}
    options = rpc.TensorPipeRpcBackendOptions(num_worker_threads=4, **chosen)
    rpc.init_rpc(role, rank=0 if role == "server" else 1, world_size=2, rpc_backend_options=options)
    if role == "worker":
        measure(seconds)
    rpc.shutdown()


if __name__ == "__main__":
    main()
