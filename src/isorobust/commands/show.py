"""Print the comparison of the data set that params.yaml names: `python -m isorobust.commands.show`."""

from __future__ import annotations

from isorobust.commands import cli
from isorobust.common import artifacts
from isorobust.common.params import Params
from isorobust.compare import tables
from isorobust.compare.report import primary_sentences


def main() -> None:
    folder = cli.METRICS / Params.read().get("data", "name")
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
    cli.run(main)
