"""The work that every peer is given, for those whose client is Python: measurement.h says the same for C++."""

import json
import time

PUSH_BYTES = (16 << 10, 64 << 10, 1 << 20, 4 << 20)
PULL_BYTES = (1 << 20, 4 << 20)
SMALL_BYTES = 64
TABLE_ROWS, TABLE_DIM, TABLE_BATCH = 1_000_000, 16, 10_000


def in_flight(size):
    """Calls under way for payloads of this size: 16 MiB, and at most 256 calls."""
    return min(max((16 << 20) // size, 2), 256)


def report(name, value, unit, checked):
    """One line for run.py."""
    print(json.dumps({"name": name, "value": value, "unit": unit, "checked": bool(checked)}), flush=True)


def repeat_for(seconds, do, first=4):
    """do(n) does n things. Warms up, finds an n that takes about `seconds`, and returns (things a second, all things done)."""
    do(first)
    done, n = first, first
    while True:
        start = time.perf_counter()
        do(n)
        took = time.perf_counter() - start
        done += n
        if took >= 0.6 * seconds:
            return n / took, done
        n = max(n + 1, int(n * min(20, seconds / max(took, 1e-6))))
