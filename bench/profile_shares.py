"""Where processor time went, from the lines of `perf report`. Pure."""

import re

# The first that fits a function or its file names the kind. Kernel symbols come with no file of ours.
KINDS = (
    ("copy between kernel and program", r"_copy_(from|to)_iter|copy_user|rep_movs|copyin|copyout|skb_copy"),
    ("kernel: network", r"\b(tcp|ip|skb|sock|net|inet|dev|nf|udp|napi|loopback|veth|eth|neigh|__ip|__tcp|__skb|sk)_|process_backlog|softirq|csum|local_bh"),
    ("kernel: waiting and waking", r"sched|wake|futex|epoll|ep_|poll|eventfd|timer|idle|spin_|rcu|switch|ktime|read_tsc|irqentry"),
    ("kernel: pages of memory", r"clear_page|page_fault|folio|\bpage|zap_|unmap|mmap|madvise|vma|alloc_pages|pte|charge"),
)
PROGRAM_KINDS = (
    ("training's own arithmetic", r"openblas|BatchBuffer|Gradients|sgemm|Softmax|Relu|CpuDevice|Dataset"),
    ("copy in the program", r"memcpy|memmove|memset"),
    ("apply and check", r"AdamLoop|SgdLoop|MomentumLoop|AdagradLoop|FtrlLoop|NonFinite|::Apply|Rule|crc"),
    ("ZeroMQ", r"libzmq|zmq::"),
    ("memory allocation", r"malloc|free\b|calloc|operator new|operator delete|mimalloc"),
    ("Basin: client, lane, messages", r"basin"),
)


def kind_of(function, file):
    if "kernel" in file or file.startswith("[k"):
        return next((kind for kind, pattern in KINDS if re.search(pattern, function)), "kernel: the rest")
    return next((kind for kind, pattern in PROGRAM_KINDS if re.search(pattern, f"{function} {file}")), "the rest")


def rows_of(report):
    """Lines of `perf report --sort pid,comm,dso,symbol --field-separator=TAB`: [{share, id, thread, file, function}], the
    largest first; id is the thread's number."""
    rows = []
    for line in report.splitlines():
        fields = [field.strip() for field in line.split("\t")]
        if line.startswith("#") or len(fields) < 5 or not re.fullmatch(r"[0-9.]+%", fields[0]):
            continue
        function = re.sub(r"^\[[.k]\] ", "", fields[4])
        rows.append({"share": float(fields[0][:-1]) / 100, "id": fields[1].split(":")[0], "thread": fields[2], "file": fields[3], "function": function})
    return sorted(rows, key=lambda row: -row["share"])


def of_basin_alone(rows):
    """Without the threads in which basin-bench measures the limit beside a figure: those that never ran the client library."""
    clients = {row["id"] for row in rows if "libbasin" in row["file"]}
    return [row for row in rows if row["thread"] != "basin-bench" or row["id"] in clients]


def functions_of(rows):
    """Shares of functions over all threads of one name, of all that is in rows, the largest first: [{share, thread, file, function}]."""
    total = sum(row["share"] for row in rows)
    sums = {}
    for row in rows:
        key = row["thread"], row["file"], row["function"]
        sums[key] = sums.get(key, 0.0) + row["share"] / total
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return [{"share": share, "thread": thread, "file": file, "function": function} for (thread, file, function), share in ordered]


def shares_of(rows):
    """{kind: share}, adding up to 1 where there is anything."""
    shares = {}
    for row in rows:
        kind = kind_of(row["function"], row["file"])
        shares[kind] = shares.get(kind, 0.0) + row["share"]
    total = sum(shares.values())
    return {kind: share / total for kind, share in sorted(shares.items(), key=lambda item: -item[1])} if total else {}
