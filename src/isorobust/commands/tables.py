"""Result tables of README.md and docs/findings.md, from the committed metrics: `python -m isorobust.commands.tables [--check]`.

Fills every block between `<!-- results DATA -->` and `<!-- end -->`, the one of all claims after `<!-- claims -->`, and
that of the claims in short after `<!-- claims in short -->`. Everything else that was measured stands in the reports,
to which a block links.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from isorobust.commands import cli
from isorobust.commands.extend import STUDIES
from isorobust.commands.provenance import FILE
from isorobust.common import artifacts
from isorobust.compare import evidence, structure, tables
from isorobust.compare.report import ROBUST_FIGURE, primary_sentences
from isorobust.errors import UserError

README, FINDINGS = Path("README.md"), Path("docs/findings.md")  # the latter has a block for every data set
CHECKS = Path("docs/methods.md#checks-of-the-evaluation-on-itself")
SHOWN_HERE = ("Primary endpoint", "Accuracy")
BLOCK = re.compile(r"(<!-- (results|claims in short|claims) ?(\S*) -->\n).*?(<!-- end -->)", re.DOTALL)


def data_sets(findings: str) -> list[str]:
    """Names of the data sets and toys, in the order of their blocks."""
    return [name for _, kind, name, _ in BLOCK.findall(findings) if kind == "results"]


def filled(text: str, page: Path, names: list[str]) -> str:
    """A page's text with every block written anew, for the data sets and toys `names`. Errors: UserError without a block."""
    if not BLOCK.search(text):
        raise UserError(f"{page}: no block `<!-- results DATA -->` ... `<!-- end -->`")
    compared = [name for name in names if (cli.METRICS / name / "compare.json").exists()]
    trees = {name: artifacts.read_json(cli.METRICS / name / "compare.json") for name in compared}
    toys = {name: artifacts.read_json(cli.METRICS / name / "summary.json") for name in names if name not in compared}

    def block(match: re.Match) -> str:
        if match[2] == "claims":
            told = "\n\n".join([*_grounds(trees, page), evidence.table(trees, toys)]) + "\n"
        elif match[2] == "claims in short":
            told = "\n\n".join([evidence.main_table(trees), *_failures(trees, page)]) + "\n"
        else:
            told = structure.toy_table(toys[match[3]]) if match[3] in toys else data_set(cli.METRICS / match[3], page)
        return f"{match[1]}\n{told}\n{match[4]}"

    return BLOCK.sub(block, text)


def data_set(folder: Path, page: Path) -> str:
    """The Markdown of one data set, from `metrics/<data>`: accuracy under attack, and where all the rest is."""
    tree = artifacts.read_json(folder / "compare.json")
    failed = [f"{arm}: {', '.join(names)}" for arm, names in tree["primary"]["failed-checks"].items() if names]
    parts = [
        "\n".join(primary_sentences(tree)),
        tables.accuracy_table(tree),
        f"{tables.counts_line(tree)} Checks that failed: {'; '.join(failed) or 'none'}. All attacks and radii: "
        f"[CSV]({_link(folder / 'compare.csv', page)}).",
        f"![Robust accuracy on {tree['data']}]({_link(folder / ROBUST_FIGURE, page)})",
        f"In the report, with figures: {_contents(folder / 'report.md', page)}.",
    ]
    if (folder / FILE).exists():
        parts.append(_origin(tree, artifacts.read_json(folder / FILE), _link(folder / FILE, page)))
    return "\n\n".join(parts) + "\n"


def _origin(tree: dict[str, Any], record: dict[str, Any], link: str) -> str:
    """Which commits compared what, and on what machine; one that only drew what was there says so."""
    runtime, carried = record["runtime"], record.get("carried", [])
    on = f"on {runtime['device']}, {runtime['threads']} threads, torch {runtime['torch']}, torchattacks {runtime['torchattacks']}"
    measured = {*tree["arms"], *(study for study in STUDIES if tree.get(study))}
    new = (measured - {part for group in carried for part in group["kept"]}) | {*record.get("geometry", [])}
    told = f"{'Compared' if new else 'Drawn anew'} by commit `{record['commit'][:12]}` {on} ([provenance]({link}))"
    told += f", of these geometry alone: {', '.join(record['geometry'])}." if record.get("geometry") else "."
    for group in carried:
        code = f"before changes in {_few(group['changed'])}" if group["changed"] else "with the same code"
        told += f" Compared by commit `{group['commit'][:12]}`, {code}: {', '.join(group['kept'])}."
    return told


def _few(files: list[str]) -> str:
    """Names of files, or of more than five how many they are: the record has them all."""
    return ", ".join(files) if len(files) <= 5 else f"{len(files)} files"


def _contents(report: Path, page: Path) -> str:
    """Links to the sections of a report, but for those that the page shows itself."""
    titles = re.findall(r"^## (.*)$", report.read_text(encoding="utf-8"), re.MULTILINE)
    told = {title: re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    link = _link(report, page)
    return ", ".join(f"[{title}]({link}#{anchor})" for title, anchor in told.items() if title not in SHOWN_HERE)


def _link(file: Path, page: Path) -> str:
    """The path of a file as a page links it."""
    return Path(os.path.relpath(file, page.parent)).as_posix()


def _failures(trees: dict[str, Any], page: Path) -> list[str]:
    """What the mark beside a verdict means, if any has it."""
    told = evidence.failures(trees)
    meaning = f"{evidence.FAILED} An arm of the row failed checks of its evaluation ([what they are]({_link(CHECKS, page)}))."
    return [f"{meaning} {told}."] if told else []


def _grounds(trees: dict[str, Any], page: Path) -> list[str]:
    """What the columns of the table of all claims stand on."""
    return ["\n".join(f"- `{name}`: {tables.counts(tree)}." for name, tree in trees.items()), *_failures(trees, page)]


def main(argv: list[str]) -> int:
    if argv not in ([], ["--check"]):
        raise UserError(f"tables: found {' '.join(argv)}; allowed: nothing, or --check")
    pages = {}
    for page in (FINDINGS, README):
        if not page.exists():
            raise UserError(f"{page}: no such file; run from the folder that holds README.md")
        pages[page] = page.read_text(encoding="utf-8")
    names = data_sets(pages[FINDINGS])
    stale = {page: new for page, text in pages.items() if (new := filled(text, page, names)) != text}
    if "--check" in argv:
        for page in pages:
            print(f"{page}: tables are {'stale; run `make tables`' if page in stale else 'current'}")
        return int(bool(stale))
    for page, new in stale.items():
        artifacts.write_text(page, new)
    return 0


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
