"""Print the comparison of the data set that params.yaml names: `python -m isorobust.commands.show`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from isorobust.commands import cli
from isorobust.common import artifacts
from isorobust.common.params import Params
from isorobust.compare import tables
from isorobust.compare.report import primary_sentences
from isorobust.schema import validate


def main(argv: Sequence[str] = ()) -> None:
    cli.no_arguments("show", argv)
    params = Params.read()
    validate(params)
    folder = cli.METRICS / params.get("data", "name")
    tree = artifacts.read_json(folder / "compare.json")
    lines = [
        *primary_sentences(tree),
        "",
        tables.accuracy_table(tree),
        "",
        tables.counts_line(tree),
        "",
        f"Report: {folder / 'report.md'}",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
