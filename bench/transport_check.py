"""Whether a figure of basin-bench went the way that its name says: the bytes of the loopback interface tell, whatever the
harness and the library believe. A name alone does not: a transport that is asked for and not there, or one that is chosen by
itself, would score under another's name.
"""

import json
import os
import pathlib
import subprocess
import tempfile


def payload_bytes(results, seconds):
    """What the figures moved at least, warming up not counted. A small push and a row are 16 floats."""
    sizes = {"GB/s": 1e9, "M/s": 1e6 * 64, "k/s": 1e3 * 64}
    return sum(result["value"] * sizes.get(result["unit"], 0) * seconds for result in results)


def went_as_said(transport, results, seconds, loopback_bytes):
    """shm: hardly a byte over loopback. tcp: all of the payload, besides what the limits beside it streamed there."""
    payload = payload_bytes(results, seconds)
    if payload <= 0:
        return False
    if transport == "shm":
        return loopback_bytes < 0.1 * payload
    limits = {result["limit_name"]: result for result in results if str(result.get("limit_name") or "").startswith(("tcp_stream", "zmq_stream"))}
    streamed = sum(result["limit"] * 1e9 * seconds for result in limits.values())
    return loopback_bytes > 0.8 * (payload + streamed)


def loopback_bytes():
    for line in pathlib.Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise RuntimeError("/proc/net/dev: no interface lo")


def run(program, arguments, transport, seconds):
    """basin-bench's results, or a text that says why they count for nothing. Nothing else should use loopback meanwhile."""
    with tempfile.TemporaryDirectory() as work:
        argv = [program, *arguments, "--transport", transport, "--rounds", "1", "--duration", str(seconds), "--json", f"{work}/json"]
        before = loopback_bytes()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, "BASIN_TRANSPORT": transport},
                              timeout=300, check=False)
        moved = loopback_bytes() - before
        if done.returncode != 0:
            return f"{' '.join(argv)} ended with {done.returncode}"
        results = [result for result in json.loads(pathlib.Path(work, "json").read_text(encoding="utf-8"))["results"] if result["value"] is not None]
    if not went_as_said(transport, results, seconds, moved):
        return (f"{' '.join(arguments)} --transport {transport}: {payload_bytes(results, seconds) / 1e9:.2f} GB of payload and {moved / 1e9:.2f} GB over "
                f"loopback: it did not go over {transport}; its figures are dropped")
    return results
