"""The README's result tables, from the committed metrics: `python -m isorobust.commands.readme [--check]`.

Fills every block between `<!-- results DATA -->` and `<!-- end -->`, and the one of all claims after `<!-- claims -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from isorobust.commands import cli
from isorobust.commands.provenance import FILE
from isorobust.common import artifacts
from isorobust.compare import evidence, structure, tables
from isorobust.compare.publish import (
    CONNECTIVITY_FIGURE,
    DETECTION_FIGURE,
    FACTORIAL_FIGURE,
    GEOMETRY_FIGURE,
    PERCOLATION_FIGURE,
    RECLASSIFIER_FIGURE,
    ROBUST_FIGURE,
)
from isorobust.compare.report import (
    HIERARCHY_NOTE,
    connectivity_parts,
    detection_parts,
    percolation_parts,
    primary_sentences,
    reclassifier_parts,
)
from isorobust.errors import UserError

README = Path("README.md")
CLAIMS = re.compile(r"(<!-- claims -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- results (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(folder: Path) -> str:
    """The Markdown of one data set, from `metrics/<data>`."""
    if not (folder / "compare.json").exists():
        return structure.toy_table(artifacts.read_json(folder / "summary.json")) + "\n"
    tree = artifacts.read_json(folder / "compare.json")
    failed = [f"{arm}: {', '.join(names)}" for arm, names in tree["primary"]["failed-checks"].items() if names]
    parts = [
        "\n".join(primary_sentences(tree)),
        tables.accuracy_table(tree),
        tables.counts_line(tree) + f" Checks that failed: {'; '.join(failed) or 'none'}. All attacks and radii: "
        f"[report]({folder / 'report.md'}), [CSV]({folder / 'compare.csv'}).",
        tables.verdict_table(tree),
        f"![Robust accuracy on {tree['data']}]({folder / ROBUST_FIGURE})",
        *_factorial(tree, folder),
        *_geometry(tree, folder),
        *([structure.hierarchy_table(tree), structure.mistakes_table(tree), HIERARCHY_NOTE] if tree.get("hierarchy") else []),
        *_reclassifiers(tree, folder),
        *_connectivity(tree, folder),
        *_percolation(tree, folder),
        *_detection(tree, folder),
    ]
    if (folder / FILE).exists():
        record = artifacts.read_json(folder / FILE)
        runtime = record["runtime"]
        parts.append(
            f"Made by commit `{record['commit'][:12]}` on {runtime['device']}, {runtime['threads']} threads, "
            f"torch {runtime['torch']}, torchattacks {runtime['torchattacks']} ([provenance]({folder / FILE}))."
        )
    return "\n\n".join(parts) + "\n"


def _factorial(tree: dict, folder: Path) -> list[str]:
    """What the isometric term adds to each regulariser; nothing for results from before there were twins."""
    if not tree.get("twins"):
        return []
    chosen = ["\n".join(tables.sweep_lines(tree["sweeps"]))] if tree["sweeps"] else []
    return [
        tables.factorial_table(tree),
        *chosen,
        f"![What the isometric term adds on {tree['data']}]({folder / FACTORIAL_FIGURE})",
    ]


def _geometry(tree: dict, folder: Path) -> list[str]:
    if not tree.get("geometry"):
        return []
    return [structure.geometry_table(tree), f"![Geometry of the representations on {tree['data']}]({folder / GEOMETRY_FIGURE})"]


def _reclassifiers(tree: dict, folder: Path) -> list[str]:
    if not tree.get("reclassifiers"):
        return []
    return [
        *reclassifier_parts(tree["reclassifiers"]),
        f"![The l2-reclassifier on {tree['data']}]({folder / RECLASSIFIER_FIGURE})",
    ]


def _connectivity(tree: dict, folder: Path) -> list[str]:
    if not tree.get("connectivity"):
        return []
    figure = f"![Loss along paths between inputs of {tree['data']}]({folder / CONNECTIVITY_FIGURE})"
    return [*connectivity_parts(tree["connectivity"]), figure]


def _percolation(tree: dict, folder: Path) -> list[str]:
    if not tree.get("percolation"):
        return []
    figure = f"![Connection by input size on {tree['data']}]({folder / PERCOLATION_FIGURE})"
    return [*percolation_parts(tree["percolation"]), figure]


def _detection(tree: dict, folder: Path) -> list[str]:
    if not tree.get("detection"):
        return []
    figure = f"![Detecting adversarial images of {tree['data']}]({folder / DETECTION_FIGURE})"
    return [*detection_parts(tree["detection"]), f"Every attack: [report]({folder / 'report.md'}).", figure]


def filled(text: str) -> str:
    """README text with every block written anew. Errors: UserError without a block."""
    if not BLOCK.search(text):
        raise UserError(f"{README}: no block `<!-- results DATA -->` ... `<!-- end -->`")
    text = BLOCK.sub(lambda m: f"{m[1]}\n{block(cli.METRICS / m[2])}\n{m[3]}", text)
    return CLAIMS.sub(lambda m: f"{m[1]}\n{claims([name for _, name, _ in BLOCK.findall(text)])}\n\n{m[2]}", text)


def claims(names: list[str]) -> str:
    """The table of all claims, from the data sets and toys that the README shows."""
    compared = [name for name in names if (cli.METRICS / name / "compare.json").exists()]
    trees = {name: artifacts.read_json(cli.METRICS / name / "compare.json") for name in compared}
    toys = {name: artifacts.read_json(cli.METRICS / name / "summary.json") for name in names if name not in compared}
    return evidence.table(trees, toys)


def main(argv: list[str]) -> int:
    text = README.read_text(encoding="utf-8")
    new = filled(text)
    if "--check" in argv:
        print("README.md: tables are current" if new == text else "README.md: tables are stale; run `make tables`")
        return int(new != text)
    artifacts.write_text(README, new)
    return 0


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
