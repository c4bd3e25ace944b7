"""The README's result tables, from the committed metrics: `python -m isorobust.commands.readme [--check]`.

Fills every block between `<!-- results DATA -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from isorobust import artifacts
from isorobust.commands import cli
from isorobust.commands.provenance import FILE
from isorobust.compare import tables
from isorobust.compare.report import primary_sentences
from isorobust.errors import UserError

README = Path("README.md")
BLOCK = re.compile(r"(<!-- results (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(folder: Path) -> str:
    """The Markdown of one data set, from `metrics/<data>`."""
    tree = artifacts.read_json(folder / "compare.json")
    failed = [f"{arm}: {', '.join(names)}" for arm, names in tree["primary"]["failed-checks"].items() if names]
    parts = [
        "\n".join(primary_sentences(tree)),
        tables.accuracy_table(tree),
        tables.counts_line(tree) + f" Checks that failed: {'; '.join(failed) or 'none'}. All attacks and radii: "
        f"[report]({folder / 'report.md'}), [CSV]({folder / 'compare.csv'}).",
        tables.verdict_table(tree),
        f"![Robust accuracy on {tree['data']}]({folder / 'robust-accuracy.png'})",
    ]
    if (folder / FILE).exists():
        record = artifacts.read_json(folder / FILE)
        runtime = record["runtime"]
        parts.append(
            f"Made by commit `{record['commit'][:12]}` on {runtime['device']}, {runtime['threads']} threads, "
            f"torch {runtime['torch']}, torchattacks {runtime['torchattacks']} ([provenance]({folder / FILE}))."
        )
    return "\n\n".join(parts) + "\n"


def filled(text: str) -> str:
    """README text with every block written anew. Errors: UserError without a block."""
    if not BLOCK.search(text):
        raise UserError(f"{README}: no block `<!-- results DATA -->` ... `<!-- end -->`")
    return BLOCK.sub(lambda m: f"{m[1]}\n{block(cli.METRICS / m[2])}\n{m[3]}", text)


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
