"""What was edited while a stage ran: DVC hashes afterwards, and would take it for what made the result."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from isorobust import tracking
from isorobust.common.params import Params
from isorobust.errors import UserError


class State(NamedTuple):
    """settings: the numbers that concern a stage, by name; code: the bytes of every code file of this checkout, by path."""

    settings: dict[str, str]
    code: dict[str, bytes]


def state(stage: str, arm: str | None, data: str) -> State:
    params = Params.read()
    shared = {"data.name": params.get("data", "name"), **{key: str(params.get(key)) for key in ("device", "threads")}}
    files = (path for folder in ("src", "stages") for path in Path(folder).rglob("*.py"))
    return State({**tracking.settings(stage, arm, data), **shared}, {str(path.resolve()): path.read_bytes() for path in files})


def check(before: State, after: State) -> None:
    """Errors: UserError naming the stage's numbers and the loaded code that differ, so that DVC records nothing."""
    loaded = {str(Path(module.__file__).resolve()) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    edited = [os.path.relpath(path) for path in sorted(loaded & before.code.keys()) if after.code.get(path) != before.code[path]]
    keys = sorted({*before.settings, *after.settings})
    edited += [f"params.yaml: {key}" for key in keys if before.settings.get(key) != after.settings.get(key)]
    if edited:
        raise UserError(
            f"{', '.join(edited)}: edited while this stage ran, so its result is recorded nowhere; run `dvc repro` again"
        )
