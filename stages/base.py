"""What every stage shares: one message for a person's mistake, one run at a time, one record in MLflow."""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

from isorobust import tracking
from isorobust.common.params import Params
from isorobust.errors import UserError, choose
from isorobust.progress import say
from isorobust.schema import validate
from stages import edits

STATE = ".isorobust"  # ignored folder: locks, finished units, verified downloads


def shared_state() -> Path:
    """Where units and downloads are kept; queued experiments use the main checkout's, which outlives them."""
    return Path(os.environ.get("DVC_ROOT") or ".") / STATE


def arguments(doc: str) -> list[str]:
    """The words behind `python -m stages.NAME`: as many as the usage in the module's `doc` has, or the stage ends with it."""
    usage = re.search("`(python -m [^`]*)`", doc)[1]
    wanted = usage.split()[3:]
    least = sum(not word.startswith("[") for word in wanted)
    if not least <= len(sys.argv) - 1 <= len(wanted):
        sys.exit(f"error: found {len(sys.argv) - 1} arguments; usage: {usage}")
    return sys.argv[1:]


def run(stage: str, arm: str | None, work: Callable[[], tracking.Record | None], names: Sequence[str] | str = ()) -> None:
    """Do the work of a stage once, then record it. A user's error ends with its message and status 1.

    `names`: what `arm` must be among, or the block of params.yaml whose keys it must be among, for a stage that would else
    write over another's file, or only that it skips what no recipe measures.
    All of params.yaml is checked first: a mistake anywhere in it stops the first stage that runs.
    """
    started = time.time()
    try:
        params = Params.read()
        validate(params)
        if isinstance(names, str):
            choose(params.get(names), arm, f"{params.name}: {names}")
        elif names:
            choose(dict.fromkeys(names), arm, f"stages.{stage}")
        data = arm if stage == "toys" else params.get("data", "name")
        start = tracking.Start(tracking.settings(stage, arm, data), tracking.git_tags())
        before = edits.state(stage, arm, data)
        with _alone(stage if arm is None else f"{stage}@{arm}"):
            record = work()
        edits.check(before, edits.state(stage, arm, data))
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or stage}: {error.strerror or error}")
    if record is not None:
        tracking.log(record, started, start=start)


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
