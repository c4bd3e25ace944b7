"""One place for how a command ends when the person made a mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from isorobust.errors import UserError

METRICS, RESULTS = Path("metrics"), Path("results")


def run(command: Callable[[], int | None]) -> None:
    """Exit with the command's status; a UserError becomes its message and status 1."""
    try:
        sys.exit(command() or 0)
    except UserError as error:
        sys.exit(f"error: {error}")


def data_sets() -> list[str]:
    """Data sets with published results, by name."""
    return sorted(path.parent.name for path in METRICS.glob("*/compare.json"))
