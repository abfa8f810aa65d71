"""The table of the peers, Basin's figures beside theirs. Pure."""

import figures

# Row: what is done, and the result's name.
ROWS = (
    ("push 16 KiB, GB/s", "push/bytes:16384"),
    ("push 64 KiB", "push/bytes:65536"),
    ("push 1 MiB", "push/bytes:1048576"),
    ("push 4 MiB", "push/bytes:4194304"),
    ("pull 1 MiB", "pull/bytes:1048576"),
    ("pull 4 MiB", "pull/bytes:4194304"),
    ("pushes of 64 B a second, many a call or step", "push_small/floats:16"),
    ("pushes of 64 B a second, one a call", "push_small_single/floats:16"),
    ("rows a second pushed, 10 k × 16 of 1 M rows", "table_push/rows:1000000/dim:16"),
    ("rows a second pulled", "table_pull/rows:1000000/dim:16"),
)
# Column: heading, peer, what stands before the result's name.
COLUMNS = (
    ("Basin, shared memory", "basin", "shm_"),
    ("Basin, TCP", "basin", "tcp_"),
    ("gRPC (C++)", "grpc", ""),
    ("Redis (SET, GET: nothing applied)", "redis", ""),
    ("TensorFlow 2.21 ParameterServerStrategy", "tensorflow", ""),
    ("PyTorch 2.15 RPC (shared memory)", "torch", ""),
    ("PyTorch RPC, TCP", "torch-tcp", ""),
)


def basin_bench_calls():
    """The arguments of basin-bench for one of Basin's columns; each call starts and ends its own ps and worker."""
    yield ["push", *(f"--bytes={size}KiB" for size in (16, 64, 1024, 4096))]
    yield ["pull", *(f"--bytes={size}KiB" for size in (1024, 4096))]
    yield ["small"]
    yield ["table", "--rows", "1000000", "--dim", "16"]


def in_plain_units(result):
    """A result of basin-bench as the peers' clients write theirs: millions a second as numbers a second."""
    scaled = {"M/s": (1e6, "1/s"), "k/s": (1e3, "1/s")}.get(result["unit"], (1, result["unit"]))
    # What basin-bench reports has been checked: it fails otherwise.
    return {"name": result["name"], "value": result["value"] * scaled[0], "unit": scaled[1], "checked": True}


def markdown(measured):
    """measured: {peer: {name: result}}. Peers that were not measured have no column; what is missing is a dash."""
    columns = [column for column in COLUMNS if any(name.startswith(column[2]) for name in measured.get(column[1], {}))]
    rows = [[text, *(measured[peer].get(prefix + name, {}).get("value") for _, peer, prefix in columns)] for text, name in ROWS]
    return figures.table(["", *(heading for heading, _, _ in columns)], rows)


def unchecked_pushes(measured):
    """Pushes of peers that apply whose sums did not come out: their figures count for nothing. [(peer, name)]"""
    return [(peer, name) for peer, results in sorted(measured.items()) for name, result in results.items()
            if peer != "redis" and "push" in name and not result.get("checked")]
