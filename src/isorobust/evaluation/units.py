"""Resumable pieces of work: one atomic file each, named by its content, so that a killed run goes on where it was."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from isorobust.common import artifacts
from isorobust.common.runtime import describe
from isorobust.common.workers import spread
from isorobust.errors import UserError
from isorobust.progress import progress
from isorobust.verdicts import Arrays

Place = TypeVar("Place", bound=Hashable)


class Unit(NamedTuple):
    """`key` holds everything the result depends on; `compute` makes the result."""

    key: dict[str, Any]
    compute: Callable[[], Arrays]


def runtime(device: torch.device) -> dict[str, str]:
    """What a unit depends on besides its settings: versions and device, but not the threads, for it has always one."""
    return {**describe(device), "threads": "1"}


class Store:
    """Results of units in a folder; a damaged file counts as missing."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def path(self, unit: Unit) -> Path:
        name = artifacts.digest(artifacts.canonical(unit.key))
        return self.folder / name[:2] / f"{name}.npz"

    def run(self, units: dict[Place, Unit], label: str) -> dict[Place, Arrays]:
        """The result of each unit, under the same name as `units` has it; only those not on file are computed."""
        results = {place: self._read(unit) for place, unit in units.items()}
        missing = [place for place, result in results.items() if result is None]
        # Attack objects are reference cycles that hold megabytes of images, but so few objects that
        # Python's collector sees no need to run; so it runs after each unit, all older objects set aside.
        gc.freeze()
        with progress(len(units), label, "unit") as bar:
            bar.update(len(units) - len(missing))
            for _ in spread(lambda place: self._compute(units[place]), missing):
                bar.update()
        gc.unfreeze()
        for place in missing:
            results[place] = artifacts.read_npz(self.path(units[place]))
        return results

    def _compute(self, unit: Unit) -> None:
        """Nothing is handed back: a small array kept from each unit splits a hole that the next one's images would
        have fitted into, and thousands of units then hold gigabytes."""
        artifacts.write_npz(self.path(unit), unit.compute())
        gc.collect()

    def _read(self, unit: Unit) -> Arrays | None:
        path = self.path(unit)
        if not path.exists():
            return None
        try:
            return artifacts.read_npz(path)
        except UserError:
            return None
