"""Results of an arm that the recipe does not use: written at once, without loading any network code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import serialize

from isorobust.common import artifacts
from isorobust.errors import UserError

MARK = {"skipped": True}


def _mark(metrics: Path) -> None:
    artifacts.write_json(metrics, MARK)
    print(f"{metrics.stem}: the recipe does not use it (`skip`); nothing was run", flush=True)


def write_trained(model: Path, metrics: Path, curves: Path) -> None:
    artifacts.write_bytes(model, serialize({}, {"spec": artifacts.canonical(MARK)}))
    _mark(metrics)
    artifacts.write_csv(curves, ["epoch"], [])


def write_swept(metrics: Path, table: Path) -> None:
    _mark(metrics)
    artifacts.write_csv(table, ["val_clean", "val_pgd", "chosen"], [])


def write_attacked(metrics: Path, verdicts: Path) -> None:
    _mark(metrics)
    artifacts.write_npz(verdicts, {"skipped": np.array(True)})


def write_measured(metrics: Path, arrays: Path) -> None:
    _mark(metrics)
    artifacts.write_npz(arrays, {"skipped": np.array(True)})


def is_skipped(model: Path) -> bool:
    """Whether a model file stands for an arm that is not used. Errors: UserError when it is missing or damaged."""
    try:
        with open(model, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return bool(json.loads(header["__metadata__"]["spec"]).get("skipped"))
    except FileNotFoundError:
        raise UserError(f"{model}: no such file; `dvc repro` writes it") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError) as error:
        raise UserError(f"{model}: damaged or foreign checkpoint ({error}); delete it and run `dvc repro`") from None
