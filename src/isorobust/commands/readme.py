"""The README's result tables, from the committed metrics: `python -m isorobust.commands.readme [--check]`.

Fills every block between `<!-- results DATA -->` and `<!-- end -->`, and the one of all claims after `<!-- claims -->`.
Everything else that was measured stands in the reports, to which a block links.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from isorobust.commands import cli
from isorobust.commands.provenance import FILE
from isorobust.common import artifacts
from isorobust.compare import evidence, structure, tables
from isorobust.compare.cells import ATTACK_TITLES
from isorobust.compare.report import ROBUST_FIGURE, primary_sentences
from isorobust.errors import UserError

README = Path("README.md")
CHECKS = "docs/methods.md#checks-of-the-evaluation-on-itself"
SHOWN_HERE = ("Primary endpoint", "Accuracy")
CLAIMS = re.compile(r"(<!-- claims -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- results (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(folder: Path) -> str:
    """The Markdown of one data set, from `metrics/<data>`: accuracy under attack, and where all the rest is."""
    if not (folder / "compare.json").exists():
        return structure.toy_table(artifacts.read_json(folder / "summary.json")) + "\n"
    tree = artifacts.read_json(folder / "compare.json")
    failed = [f"{arm}: {', '.join(names)}" for arm, names in tree["primary"]["failed-checks"].items() if names]
    parts = [
        "\n".join(primary_sentences(tree)),
        tables.accuracy_table(tree),
        f"{tables.counts_line(tree)} Checks that failed: {'; '.join(failed) or 'none'}. All attacks and radii: "
        f"[CSV]({folder / 'compare.csv'}).",
        f"![Robust accuracy on {tree['data']}]({folder / ROBUST_FIGURE})",
        f"In the report, with figures: {_contents(folder / 'report.md')}.",
    ]
    if (folder / FILE).exists():
        record = artifacts.read_json(folder / FILE)
        runtime = record["runtime"]
        told = (
            f"Compared by commit `{record['commit'][:12]}` on {runtime['device']}, {runtime['threads']} threads, "
            f"torch {runtime['torch']}, torchattacks {runtime['torchattacks']} ([provenance]({folder / FILE}))."
        )
        for group in record.get("carried", []):
            code = f"made before changes in {_few(group['changed'])}" if group["changed"] else "made with the same code"
            told += f" Carried over from the comparison by commit `{group['commit'][:12]}`, {code}: {', '.join(group['kept'])}."
        parts.append(told)
    return "\n\n".join(parts) + "\n"


def _few(files: list[str]) -> str:
    """Names of files, or of more than five how many they are: the record has them all."""
    return ", ".join(files) if len(files) <= 5 else f"{len(files)} files"


def _contents(report: Path) -> str:
    """Links to the sections of a report, but for those that the README shows itself."""
    titles = re.findall(r"^## (.*)$", report.read_text(encoding="utf-8"), re.MULTILINE)
    told = {title: re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    return ", ".join(f"[{title}]({report}#{anchor})" for title, anchor in told.items() if title not in SHOWN_HERE)


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
    parts = ["\n".join(_counts(name, tree) for name, tree in trees.items())]
    if failures := evidence.failures(trees):
        parts.append(
            f"{evidence.FAILED} An arm of the row failed checks of its evaluation ([what they are]({CHECKS})). {failures}."
        )
    return "\n\n".join([*parts, evidence.table(trees, toys)])


def _counts(name: str, tree: dict) -> str:
    """On how many images, pairs and seeds a data set's column is."""
    primary = tree["primary"]
    arm = tree["arms"][primary["reference"]]
    attack, points = primary["attack"], primary["eps"].values()
    seeds = arm["worst-case-seeds"] if attack == "worst-case" else arm["seeds"]
    told = [
        f"accuracy {arm['clean']['n']} test images, {arm['seeds']} seeds",
        f"{ATTACK_TITLES.get(attack, attack)} {max(point['n'] for point in points)}, {seeds}",
    ]
    for plug_in, parts in tree["reclassifiers"].items():
        mixed = next(iter(next(iter(parts["attacked"]["msa"].values())).values()))
        told.append(f"that of {plug_in} {mixed['n']}, {tree['arms'][plug_in]['worst-case-seeds']}")
    if geometry := tree["geometry"].get(primary["reference"]):
        told.append(
            f"geometry {geometry['distances']['correlation']['n']}, near boundaries {geometry['boundary']['correlation']['n']}"
        )
    if tree["hierarchy"]:
        told.append(f"hierarchies {tree['hierarchy']['images']}")
    for part, key, title in (
        ("connectivity", "pairs", "pairs of a kind and seed for paths"),
        ("detection", "images", "images for detection"),
    ):
        for numbers in list(tree[part].get("arms", {}).values())[:1]:
            told.append(f"{numbers[key]} {title}, {numbers['seeds']} seeds")
    return f"- `{name}`: {'; '.join(told)}."


def main(argv: list[str]) -> int:
    if not README.exists():
        raise UserError(f"{README}: no such file; run from the folder that holds it")
    text = README.read_text(encoding="utf-8")
    new = filled(text)
    if "--check" in argv:
        print("README.md: tables are current" if new == text else "README.md: tables are stale; run `make tables`")
        return int(new != text)
    artifacts.write_text(README, new)
    return 0


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
