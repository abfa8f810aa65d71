"""Figures of one part of a measurement: kept as JSON, their medians, and tables in Markdown. Pure but for save and load.

A part is {"part", "machine", "rounds", "results": [{"name", "value", "unit", "values", ...}]}: the shape that
`basin-bench --json` writes, with the value of each round beside the median.
"""

import json
import os
import pathlib
import platform
import statistics


class Part:
    """Collects the values of each round; results stay in the order in which they first came."""

    def __init__(self, name):
        self.name = name
        self.rounds = 0
        self._results = {}

    def add(self, name, value, unit, checked=None, **more):
        result = self._results.setdefault(name, {"name": name, "unit": unit, "values": [], "checked": checked, **more})
        if result["unit"] != unit:
            raise ValueError(f"{name}: came in {result['unit']} and now in {unit}")
        result["values"].append(value)
        if checked is not None:
            result["checked"] = bool(checked) and result["checked"] is not False

    def document(self):
        results = [{**result, "value": statistics.median(result["values"])} for result in self._results.values()]
        return {"part": self.name, "machine": machine(), "rounds": self.rounds, "results": results}

    def keep_others(self, folder):
        """Takes over, from what was saved there before, the results that this time did not bring."""
        for name, result in load(folder, self.name).items():
            self._results.setdefault(name, result)

    def save(self, folder):
        """folder/NAME.json, made anew."""
        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.document(), indent=1) + "\n"
        (path / f"{self.name}.json").write_text(text, encoding="utf-8")
        return path / f"{self.name}.json"


def load(folder, name):
    """{result's name: result} of a part, or an empty one where it has not been measured."""
    path = pathlib.Path(folder) / f"{name}.json"
    if not path.exists():
        return {}
    return {result["name"]: result for result in json.loads(path.read_text(encoding="utf-8"))["results"]}


def machine():
    model = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "system": platform.system()}


def number(value):
    """Three digits that count, and a suffix for thousands and millions: 0.0253, 1.53, 14.6, 508, 14.6 k, 7.14 M."""
    if value is None:
        return "–"
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return number(value / (1e3 if size == 1e4 else size)) + suffix
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    digits = 2 if abs(value) >= 1 else 3
    if abs(value) >= 10:
        digits = 1
    if abs(value) < 0.1:
        digits = 4
    return f"{value:.{digits}f}"


def table(heads, rows):
    """A Markdown table; cells are texts, numbers (written by number()) or None (a dash)."""
    def text(cell):
        return (cell if isinstance(cell, str) else number(cell)).replace("|", "\\|")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(heads)}: {row}")
        lines.append("| " + " | ".join(text(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"
