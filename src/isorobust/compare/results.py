"""Reading what the stages train and attack wrote: one ArmResults per arm in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isorobust.common import artifacts
from isorobust.errors import UserError


class ArmResults(NamedTuple):
    """trained, attacked, measured: the JSON of training, attacks and geometry; curves: rows by epoch; arrays: verdicts."""

    arm: str
    trained: dict[str, Any]
    attacked: dict[str, Any]
    curves: list[dict[str, str]]
    arrays: dict[str, np.ndarray]
    measured: dict[str, Any] = {}

    @property
    def seeds(self) -> list[int]:
        return self.arrays["seeds"].tolist()

    def flags(self, attack: str, norm: str, eps: str) -> np.ndarray | None:
        """Correctness `[S, n]` under an attack, None where it did not run."""
        return self.arrays.get(f"correct/{attack}/{norm}/{eps}")


def read(results: Path, arms: list[str]) -> list[ArmResults]:
    """The arms that the recipe uses, in the order given. Errors: UserError for a missing or damaged file."""
    used = []
    for arm in arms:
        trained = artifacts.read_json(results / "train" / f"{arm}.json")
        attacked = artifacts.read_json(results / "attack" / f"{arm}.json")
        if attacked.get("skipped") or trained.get("skipped"):
            continue
        arrays = artifacts.read_npz(results / "attack" / f"{arm}.npz")
        if "correct/clean" not in arrays:
            raise UserError(f"{results / 'attack' / f'{arm}.npz'}: holds no verdicts; delete it and run `dvc repro`")
        measured = artifacts.read_json(results / "geometry" / f"{arm}.json")
        curves = artifacts.read_csv(results / "train" / f"{arm}.csv")
        used.append(ArmResults(arm, trained, attacked, curves, arrays, measured))
    if not used:
        raise UserError(f"{results}: every arm is skipped; allowed: at least one arm in use")
    return used


def read_reclassifiers(results: Path, names: list[str]) -> list[ArmResults]:
    """The reclassifiers in use; geometry does not measure them. Errors: UserError for a missing or damaged file."""
    found = []
    for name in names:
        attacked = artifacts.read_json(results / "attack" / f"{name}.json")
        if not attacked.get("skipped"):
            trained = artifacts.read_json(results / "train" / f"{name}.json")
            curves = artifacts.read_csv(results / "train" / f"{name}.csv")
            found.append(ArmResults(name, trained, attacked, curves, artifacts.read_npz(results / "attack" / f"{name}.npz")))
    return found


def read_sweeps(results: Path, arms: list[str]) -> dict[str, dict[str, Any]]:
    """Tuned arm -> what the stage sweep wrote, with its cells as `table` (rows of text by column)."""
    folder = results / "sweep"
    return {
        arm: {**artifacts.read_json(folder / f"{arm}.json"), "table": artifacts.read_csv(folder / f"{arm}.csv")} for arm in arms
    }
