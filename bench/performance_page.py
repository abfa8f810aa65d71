"""docs/performance.md from what was measured. Pure."""

import figures
import goals
import table_of_peers

COMMAND = "bench/performance.py"


def with_unit(value, unit):
    return None if value is None else f"{figures.number(value)} {unit}".strip()


def without_false_names(results, transports):
    """The results of basin-bench without those named for a transport that was not really used, and texts that say so.

    transports: {"tcp" or "shm": what is wrong with it, or an empty text}.
    """
    wrong = {transport: why for transport, why in transports.items() if why}
    kept = {name: result for name, result in results.items() if name.split("_")[0] not in wrong}
    return kept, [f"Figures named `{transport}_` are left out: {why}." for transport, why in sorted(wrong.items())
                  if any(name.split("_")[0] == transport for name in results)]


def goals_tables(outcomes):
    """One table a section, in the order of the goals. Sections without any figure are said to be not measured."""
    text = ""
    for section in dict.fromkeys(outcome.goal.section for outcome in outcomes):
        some = [outcome for outcome in outcomes if outcome.goal.section == section]
        text += f"### {section}\n\n"
        if all(outcome.figure is None for outcome in some):
            text += "Not measured yet.\n\n"
            continue
        rows = []
        for outcome in some:
            goal, figure = outcome.goal, outcome.figure or {}
            unit = figure.get("unit", "")
            sense, wanted = ("≥", goal.at_least) if goal.at_least is not None else ("≤", goal.at_most)
            rows.append([goal.what, with_unit(figure.get("value"), unit), with_unit(outcome.limit, unit), f"`{outcome.limit_name}`" if outcome.limit_name else "",
                         outcome.ratio, f"{sense} {wanted:g}", {True: "yes", False: "**no**", None: "not measured"}[outcome.met]])
        text += figures.table(["what", "figure", "limit", "of", "ratio", "goal", "met"], rows) + "\n"
    return text


def summary(outcomes):
    met = sum(outcome.met is True for outcome in outcomes)
    missed = [outcome for outcome in outcomes if outcome.met is False]
    unmeasured = sum(outcome.met is None for outcome in outcomes)
    text = f"Of {len(outcomes)} goals {met} are met"
    text += f", {len(missed)} are not" if missed else ""
    text += f", {unmeasured} are not measured" if unmeasured else ""
    text += ".\n"
    if missed:
        text += "\nFalling short, with what was tried [below](#notes):\n\n"
        text += "".join(f"- {outcome.goal.section}: {outcome.goal.what}: {figures.number(outcome.ratio)} of "
                        f"{outcome.goal.at_least if outcome.goal.at_least is not None else outcome.goal.at_most:g}\n" for outcome in missed)
    return text


def whole_job_table(results):
    if not results:
        return "Not measured yet.\n"
    rows = [("Basin, `basin submit`", "job_steps", "job_training_until_target", "job_until_target", "job_first_step")]
    rows += [(f"TensorFlow 2.21 ParameterServerStrategy, {text}", f"tensorflow_{n}_steps", f"tensorflow_{n}_training_until_target",
              f"tensorflow_{n}_until_target", f"tensorflow_{n}_first_step") for n, text in ((1, "1 step a closure"), (20, "20 steps a closure"))]
    return figures.table(["", "steps/s, all workers", "training until 0.88, s", "from start of processes, s", "first step, s"],
                         [[row[0], *(results.get(name, {}).get("value") for name in row[1:])] for row in rows])


def profile_tables(profile):
    """profile: the document of profile.json, or None."""
    if not profile:
        return "Not measured yet.\n"
    text = profile["how"] + "\n\n"
    cases = profile["cases"]
    kinds = list(dict.fromkeys(kind for case in cases for kind in case["shares"]))
    kinds.sort(key=lambda kind: -max(case["shares"].get(kind, 0) for case in cases))
    text += figures.table(["share of processor time", *(case["case"] for case in cases)],
                          [[kind, *(f"{100 * case['shares'].get(kind, 0):.0f}%" for case in cases)] for kind in kinds] +
                          [["cores busy", *(case["cores_busy"] for case in cases)]])
    for case in cases:
        text += f"\n{case['case']}, the ten largest functions:\n\n"
        text += figures.table(["share", "thread", "function", "in"],
                              [[f"{100 * row['share']:.1f}%", row["thread"], f"`{row['function']}`", row["file"]] for row in case["functions"][:10]])
    return text


def cpu_table(results):
    rows = [[f"`{name}`", result["value"], result["unit"], result["cpu_s_per_gb"], with_unit((result.get("peak_rss_bytes") or 0) / 2**20 or None, "MiB")]
            for name, result in results.items() if result.get("cpu_s_per_gb")]
    return figures.table(["figure", "value", "unit", "processor seconds a GB, ps and worker", "peak memory"], rows) if rows else "Not measured yet.\n"


def page(parts, peers, profile, notes, made):
    """parts: {part: {name: result}}; peers: {peer: {name: result}}; notes: Markdown; made: {date, machine, dropped}."""
    outcomes = goals.outcomes(parts)
    machine = made["machine"]
    return f"""# Performance

Made by `{COMMAND}` on {made["date"]}, on {machine.get("cores")} cores ({machine.get("cpu")}, {machine.get("system")} {machine.get("kernel")}); do not edit: the text under
[Notes](#notes) lies in `bench/performance_notes.md`. A figure counts only if the effect of the work was checked: sums of what was pushed, steps, accuracy. Limits are measured
in the same run, in turn with the figure; ratios are what to compare, since absolute figures of such machines drift by a third. One ps and one worker, SGD really applied, where
nothing else is said.

{summary(outcomes)}{"".join(chr(10) + text + chr(10) for text in made.get("dropped", []))}
## Goals

{goals_tables(outcomes)}## The whole job, beside TensorFlow

Fashion-MNIST, MLP 784-256-10, Adam 0.001, batches of 128, 2 ps and 2 workers on the same cores (`bench/whole_job.py`). TensorFlow's first closure, which traces, is not in its steps a second.
0.88 is reached at the first look with so much: TensorFlow is looked at every 200 steps, Basin every quarter of a second by an evaluator that shares the cores.

{whole_job_table(parts.get("whole_job", {}))}
## Peers

One server and one worker process on loopback, the same work (`bench/peers/run.py`); GB/s, and numbers a second. Each keeps 16 MiB in flight, as far as its interface lets it.
[bench/peers/README.md](../bench/peers/README.md) says how each was used.

{table_of_peers.markdown(peers)}
## Where the time goes

{profile_tables(profile)}
{cpu_table(parts.get("canonical", {}))}
## Notes

{notes.strip()}
"""
