"""conformance_table.py [--write]: which target passes which case of the conformance suite, as the table of docs/targets.md.

Without --write it fails where the page has another table.
"""

import os
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).parents[2]
os.environ.setdefault("BASIN_SOURCE_DIR", str(ROOT))
os.environ.setdefault("BASIN_BINARY_DIR", str(ROOT / "build" / "release"))

import conformance  # noqa: E402  (it wants the variables)

PAGE = ROOT / "docs" / "targets.md"
TARGETS = ("local", "podman", "ssh", "slurm", "kubernetes")


def cases(target):
    """Case -> "yes", or "own" where the target has a twin of its own for it."""
    found = {}
    for suite in conformance.CASES[target]:
        for name in unittest.defaultTestLoader.getTestCaseNames(suite):
            where = next(base for base in suite.__mro__ if name in vars(base))
            with_mpi = "Mpi" in suite.__name__
            is_twin = where.__module__ == f"conformance_{target}" and any(name in vars(base) for base in where.__mro__[1:])
            found[with_mpi, name] = "own" if is_twin else "yes"
    return found


def table():
    by_target = {target: cases(target) for target in TARGETS}
    lines = ["| case | " + " | ".join(TARGETS) + " |", "|---|" + "---|" * len(TARGETS)]
    for with_mpi, name in dict.fromkeys(case for target in TARGETS for case in by_target[target]):
        text = ("mpi: " if with_mpi else "") + name.removeprefix("test_").replace("_", " ")
        lines.append(f"| {text} | " + " | ".join(by_target[target].get((with_mpi, name), "") for target in TARGETS) + " |")
    lines.append("| cases | " + " | ".join(str(len(by_target[target])) for target in TARGETS) + " |")
    return "\n".join(lines) + "\n"


def main():
    page = PAGE.read_text()
    begin = page.index("| case |")
    end = page.index("\n\n", begin) + 1 if "\n\n" in page[begin:] else len(page)
    if "--write" in sys.argv:
        PAGE.write_text(page[:begin] + table() + page[end:])
    elif page[begin:end] != table():
        sys.exit(f"the table of {PAGE} is not the suite's; run {sys.argv[0]} --write")


if __name__ == "__main__":
    main()
