"""Regenerated numbers against the committed ones: `python -m isorobust.commands.verify [DATA]`, DATA a data set or a toy.

On another CPU the last bits of weights differ, so numbers are not equal there; each must lie inside
its committed 95 % interval. Exit status 0 only if all do. Committed numbers that no stage made anew here
are refused, since they would be compared with themselves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from isorobust.commands import cli, provenance
from isorobust.common import artifacts
from isorobust.common.params import Params
from isorobust.errors import UserError
from isorobust.schema import validate


def estimates(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """(path, {value, lo, hi}) of every estimate in a tree."""
    if isinstance(node, dict):
        if {"value", "lo", "hi"} <= node.keys():
            yield path, node
        else:
            for key, child in node.items():
                yield from estimates(child, f"{path}.{key}" if path else key)


def compare(committed: Any, regenerated: Any) -> list[tuple[str, dict[str, float], float | None, bool]]:
    """Per committed estimate: (path, estimate, new value, inside); a number that is gone is outside."""
    new = dict(estimates(regenerated))
    rows = []
    for path, old in estimates(committed):
        value = new[path]["value"] if path in new else None
        # The rounding of the files, 9 digits, is no difference.
        rows.append((path, old, value, value is not None and old["lo"] - 1e-9 <= value <= old["hi"] + 1e-9))
    return rows


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise UserError(f"verify: found {' '.join(argv)}; allowed: nothing, or one data set or toy")
    if not argv:
        validate(params := Params.read())
    data = argv[0] if argv else params.get("data", "name")
    file = cli.made_here(data)
    rows = compare(json.loads(provenance.git("show", f"HEAD:{file}")), artifacts.read_json(file))
    if not rows:
        raise UserError(f"{file}: the committed file holds no estimates")
    outside = [row for row in rows if not row[-1]]
    for path, old, value, _ in outside:
        told = "gone" if value is None else f"{value:.4f}"
        print(f"outside: {told:>8}, committed [{old['lo']:.4f}, {old['hi']:.4f}]  {path}")
    print(f"{data}: {len(rows) - len(outside)} of {len(rows)} numbers lie in their committed interval")
    return 1 if outside else 0


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
