"""What every stage shares: one message for a person's mistake, one run at a time, one record in MLflow."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from isorobust import tracking
from isorobust.common.params import Params
from isorobust.errors import UserError
from isorobust.progress import say
from isorobust.schema import validate

STATE = ".isorobust"  # ignored folder: locks, finished units, verified downloads


def shared_state() -> Path:
    """Where units and downloads are kept; queued experiments use the main checkout's, which outlives them."""
    return Path(os.environ.get("DVC_ROOT") or ".") / STATE


def run(stage: str, arm: str | None, work: Callable[[], tracking.Record | None]) -> None:
    """Do the work of a stage once, then record it. A user's error ends with its message and status 1.

    All of params.yaml is checked first: a mistake anywhere in it stops the first stage that runs.
    """
    started = time.time()
    try:
        params = Params.read()
        validate(params)
        data = arm if stage == "toys" else params.get("data", "name")
        start = tracking.Start(tracking.settings(stage, arm, data), tracking.git_tags())
        before, code = {**start.settings, **_shared(params)}, _code()
        with _alone(stage if arm is None else f"{stage}@{arm}"):
            record = work()
        _check_unchanged(before, {**tracking.settings(stage, arm, data), **_shared(Params.read())}, code)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or stage}: {error.strerror or error}")
    if record is not None:
        tracking.log(record, started, start=start)


def _shared(params: Params) -> dict[str, str]:
    """What stages read besides their own blocks."""
    return {"data.name": params.get("data", "name"), **{key: str(params.get(key)) for key in ("device", "threads")}}


def _code() -> dict[str, bytes]:
    """The code files of this checkout as they are now."""
    return {str(path.resolve()): path.read_bytes() for folder in ("src", "stages") for path in Path(folder).rglob("*.py")}


def _check_unchanged(before: dict[str, str], after: dict[str, str], code: dict[str, bytes]) -> None:
    """DVC hashes code and parameters after a stage, and would take what was edited meanwhile for what made the result.

    Errors: UserError, so that DVC records nothing.
    """
    loaded = {str(Path(module.__file__).resolve()) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    edited = [os.path.relpath(path) for path in sorted(loaded & code.keys()) if _bytes(path) != code[path]]
    edited += [f"params.yaml: {key}" for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if edited:
        raise UserError(
            f"{', '.join(edited)}: edited while this stage ran, so its result is recorded nowhere; run `dvc repro` again"
        )


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes() if Path(path).exists() else b""


@contextmanager
def _alone(name: str):
    """A killed dvc leaves its stage running; a second one waits for it instead of writing beside it."""
    folder = Path(STATE) / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / name, "w")
    except OSError as error:
        raise UserError(f"{folder}: cannot write: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another process still runs this stage; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
