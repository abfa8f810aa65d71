"""The goals of the performance page: which figure is compared with what. Pure."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Goal:
    section: str
    what: str
    part: str                         # of the measurement: canonical, whole_job, idle
    name: str                         # the figure's
    at_least: typing.Optional[float] = None
    at_most: typing.Optional[float] = None
    limit: typing.Optional[str] = None  # another figure of the same part; else the limit that basin-bench measured beside it
    inverse: bool = False             # the ratio is limit over figure: for times, where the other's is the longer one
    absolute: bool = False            # the figure itself is what the goal is about, there is no limit


@dataclasses.dataclass(frozen=True)
class Outcome:
    goal: Goal
    figure: typing.Optional[dict]     # the result, or None: not measured
    limit_name: str
    limit: typing.Optional[float]
    ratio: typing.Optional[float]     # of an absolute goal: the figure
    met: typing.Optional[bool]        # None: not measured


def tcp(section, prefix):
    """The goals of TCP on loopback, or of TCP between two network namespaces."""
    part = "canonical"
    for op in ("push", "pull"):
        for text, size, ratio in (("256 KiB", 262144, 1.0), ("1 MiB", 1048576, 1.1), ("4 MiB", 4194304, 1.0)):
            yield Goal(section, f"{op} of {text} variables", part, f"{prefix}tcp_{op}/bytes:{size}", at_least=ratio)
    yield Goal(section, "push-pull of 1 MiB variables, bytes both ways", part, f"{prefix}tcp_pushpull/bytes:1048576", at_least=0.95)
    yield Goal(section, "64 variables of 16 KiB in one call", part, f"{prefix}tcp_push/bytes:16384/call:64", at_least=0.9)
    yield Goal(section, "single pushes of 64 KiB, 16 MiB in flight", part, f"{prefix}tcp_push/bytes:65536", at_least=0.8)
    yield Goal(section, "pushes of 16 floats, 64 variables a call", part, f"{prefix}tcp_push_small/floats:16", at_least=1.0)
    yield Goal(section, "pushes of 16 floats, one a call", part, f"{prefix}tcp_push_small_single/floats:16", at_least=1.0)
    yield Goal(section, "blocking push of 64 B, p50", part, f"{prefix}tcp_push_latency/bytes:64", at_most=1.3)


def goals():
    yield from tcp("TCP", "")
    yield from tcp("TCP between two network namespaces", "netns_")
    section = "Shared memory"
    for op in ("push", "pull"):
        yield Goal(section, f"{op} of 4 MiB variables over 64 MiB", "canonical", f"shm_{op}/bytes:4194304", at_least=0.8)
    yield Goal(section, "blocking push of 64 B, p50, spinning", "canonical", "shm_push_latency/bytes:64/spin", at_most=1.0)
    yield Goal(section, "blocking push of 64 B, p50, without spinning", "canonical", "shm_push_latency/bytes:64", at_most=1.3)
    yield Goal(section, "an idle job, of one core", "idle", "idle_share_of_a_core", at_most=0.01, absolute=True)
    section = "Embedding tables, dim 16, SGD"
    for text, rows in (("10 thousand", 10_000), ("1 million", 1_000_000)):
        yield Goal(section, f"push, {text} rows, TCP", "canonical", f"tcp_table_push/rows:{rows}/dim:16", at_least=1.0)
        yield Goal(section, f"push, {text} rows, TCP between two network namespaces", "canonical",
                   f"netns_tcp_table_push/rows:{rows}/dim:16", at_least=1.0)
        yield Goal(section, f"push, {text} rows, in process", "canonical", f"table_push/rows:{rows}/dim:16", at_least=1.0)
        yield Goal(section, f"push, {text} rows, shared memory, of in process", "canonical", f"shm_table_push/rows:{rows}/dim:16",
                   at_least=0.7)
    section = "Apply, 64 MiB"
    for rule in ("sgd", "momentum", "adagrad", "adam"):
        yield Goal(section, rule, "canonical", f"apply/rule:{rule}/bytes:67108864", at_least=0.85)
    section = "The whole job"
    job = "whole_job"
    yield Goal(section, "examples a second, of two copies without a ps", job, "job_examples", at_least=0.8, limit="copies_examples")
    yield Goal(section, "steps a second, over TensorFlow's, one step a closure", job, "job_steps", at_least=4, limit="tensorflow_1_steps")
    yield Goal(section, "steps a second, over TensorFlow's, 20 steps a closure", job, "job_steps", at_least=2.5, limit="tensorflow_20_steps")
    yield Goal(section, "from submit to a test accuracy of 0.88, times sooner than TensorFlow", job, "job_until_target", at_least=8,
               limit="tensorflow_1_until_target", inverse=True)
    yield Goal(section, "first step after submit, s", job, "job_first_step", at_most=1.0, absolute=True)


def outcome(goal, parts):
    """parts: {part: {name: result}}."""
    results = parts.get(goal.part, {})
    figure = results.get(goal.name)
    if figure is None or figure.get("value") is None:
        return Outcome(goal, None, goal.limit or "", None, None, None)
    value = figure["value"]
    if goal.absolute:
        limit_name, limit, ratio = "", None, value
    else:
        other = results.get(goal.limit) if goal.limit else None
        limit_name, limit = (goal.limit, (other or {}).get("value")) if goal.limit else (figure.get("limit_name") or "", figure.get("limit"))
        ratio = None if not limit or not value else (limit / value if goal.inverse else value / limit)
    if ratio is None or figure.get("checked") is False:
        met = None if ratio is None else False
    else:
        met = ratio >= goal.at_least if goal.at_least is not None else ratio <= goal.at_most
    return Outcome(goal, figure, limit_name, limit, ratio, met)


def outcomes(parts):
    return [outcome(goal, parts) for goal in goals()]
