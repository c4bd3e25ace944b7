"""Reading what the stages train and attack wrote, here or in what is published: one ArmResults per arm in use."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isorobust.common import artifacts
from isorobust.errors import UserError

CURVES = {"val_accuracy": "val-accuracy.csv", "train_loss": "train-loss.csv"}  # column of an arm's curves -> file of all arms'
PUBLISHED = ("labels", "seeds", "parts/worst-case")  # of the arrays of an arm, besides `correct/...` and `fallen/...`


class ArmResults(NamedTuple):
    """trained, attacked, measured: the JSON of training, attacks and geometry; curves: rows by epoch; arrays: verdicts.

    No arrays: of a published arm the numbers alone are known.
    """

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


def read(results: Path, arms: list[str], published: Path | None = None) -> list[ArmResults]:
    """The arms that the recipe uses, in the order given; from `published`, a folder under metrics/, those that did not run here.

    Of those geometry is what was measured here, if it was. An arm in neither place is left out: the recipe has it since
    later. Errors: UserError for a missing or damaged file, and for geometry of other networks than the published ones.
    """
    used = []
    for arm in arms:
        if published and not ran(results, arm):
            known = _published(published, arm, ("train", "attack", "geometry"))
            used += [_measured_anew(results, one) for one in known] if remeasured(results, arm) else known
            continue
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


def ran(results: Path, arm: str) -> bool:
    """Whether an arm or a plug-in was attacked here, though it may have been skipped."""
    return (results / "attack" / f"{arm}.json").exists()


def remeasured(results: Path, arm: str) -> bool:
    """Whether geometry is all that was measured of an arm here."""
    return not ran(results, arm) and measured(results / "geometry" / f"{arm}.json")


def measured(place: Path) -> bool:
    """Whether a study's file, or one in its folder, was written here, and not because the recipe skips it."""
    files = sorted(place.glob("*.json")) if place.is_dir() else [place] * place.exists()
    return any(not artifacts.read_json(path).get("skipped") for path in files)


def _published(folder: Path, arm: str, parts: tuple[str, ...]) -> list[ArmResults]:
    """The arm as `compare` published it; none if it was skipped or is not among what was published."""
    if not (folder / "attack" / f"{arm}.json").exists():
        return []
    numbers = {part: artifacts.read_json(folder / part / f"{arm}.json") for part in parts}
    if numbers["attack"].get("skipped"):
        return []
    verdicts = folder / "attack" / f"{arm}.npz"
    arrays = published_verdicts(verdicts) if verdicts.exists() else {}
    by_column = {column: artifacts.read_csv(folder / name) for column, name in CURVES.items()}
    curves = [{"epoch": row["epoch"]} for row in by_column["val_accuracy"]]
    for column, rows in by_column.items():
        for row, own in zip(curves, rows):
            row[column] = own.get(arm, "")
    curves = [row for row in curves if all(row.values())]
    return [ArmResults(arm, numbers["train"], numbers["attack"], curves, arrays, numbers.get("geometry", {}))]


def _measured_anew(results: Path, known: ArmResults) -> ArmResults:
    """A published arm with the geometry of the same networks, trained here: their training came to the same numbers."""
    trained = results / "train" / f"{known.arm}.json"
    if artifacts.read_json(trained) != known.trained:
        raise UserError(
            f"{trained}: found other numbers than the published ones, so geometry here is of other networks; "
            f"allowed: the same ones, or `dvc repro attack@{known.arm}` beside geometry"
        )
    return known._replace(measured=artifacts.read_json(results / "geometry" / f"{known.arm}.json"))


def verdict_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """What is published of an arm's verdicts: who was right about which image, and what felled it; an npz.

    Flags of one shape `[S, n]` stand together as bits of `flags/<S>x<n>`, an image's own side by side: under like attacks
    they are mostly alike, and a quarter as large once compressed. By bzip2, of which there is one implementation, so
    that the same verdicts give the same bytes everywhere.
    """
    kept = {name: array for name, array in arrays.items() if name in PUBLISHED or name.startswith(("correct/", "fallen/"))}
    members = {"names": np.array(list(kept))}
    groups: dict[str, list[str]] = {}
    for name, array in kept.items():
        if name.startswith("correct/"):
            groups.setdefault("x".join(map(str, array.shape)), []).append(name)
        else:
            members[name] = array
    for shape, names in groups.items():
        members[f"names/{shape}"] = np.array(names)
        members[f"flags/{shape}"] = np.packbits(np.stack([kept[name] for name in names], axis=-1))
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, array in members.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_BZIP2)
    return memory.getvalue()


def published_verdicts(path: Path) -> dict[str, np.ndarray]:
    """The arrays that `verdict_bytes` kept, in their order. Errors: UserError for a damaged file."""
    members = artifacts.read_npz(path)
    for key in [name for name in members if name.startswith("flags/")]:
        shape = key.removeprefix("flags/")
        names, size = members[f"names/{shape}"].tolist(), tuple(map(int, shape.split("x")))
        flags = np.unpackbits(members[key], count=math.prod(size) * len(names)).reshape(*size, len(names)).astype(bool)
        members |= {name: flags[..., column] for column, name in enumerate(names)}
    return {name: members[name] for name in members["names"].tolist()}


def read_reclassifiers(results: Path, names: list[str], published: Path | None = None) -> list[ArmResults]:
    """The reclassifiers in use, as `read` does; geometry does not measure them.

    Errors: UserError for a missing or damaged file.
    """
    found = []
    for name in names:
        if published and not ran(results, name):
            found += _published(published, name, ("train", "attack"))
            continue
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
