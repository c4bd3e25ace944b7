"""One place for how a command ends when the person made a mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from isorobust.common import artifacts
from isorobust.errors import UserError
from isorobust.toys.settings import Toys

METRICS, RESULTS = Path("metrics"), Path("results")


def run(command: Callable[[], int | None]) -> None:
    """Exit with the command's status; what is wrong with the arguments or a file becomes its message and status 1."""
    try:
        status = command() or 0
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"error: {error}")
    except UnicodeDecodeError as error:
        sys.exit(f"error: a file that was read is not UTF-8: {error}")
    except yaml.YAMLError as error:
        sys.exit(f"error: a YAML file is damaged: {' '.join(str(error).split())}")
    except BrokenPipeError:  # whoever reads has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        sys.exit(f"error: {error.filename or 'a file'}: {error.strerror or error}")
    sys.exit(status)


def no_arguments(name: str, argv: Sequence[str]) -> None:
    """Errors: UserError if the command was given any."""
    if argv:
        raise UserError(f"{name}: found {' '.join(argv)}; allowed: nothing")


def made_here(data: str) -> Path:
    """compare.json of a data set, summary.json of a toy, whose stages ran in this folder.

    Errors: UserError if they did not, as in a fresh clone.
    """
    toy = data in Toys.model_fields
    file = METRICS / data / ("summary.json" if toy else "compare.json")
    command = f"dvc repro toys@{data}" if toy else f"dvc exp run -S data.name={data}"
    if not file.exists():
        raise UserError(f"{file}: no results; run `{command}` first")
    written = [Path()] if toy else [Path("attack") / f"{arm}.json" for arm in artifacts.read_json(file)["arms"]]
    for path in written:
        if not (beside := RESULTS / data / path).exists():
            raise UserError(
                f"{file}: found no {beside} beside it, so these numbers were not made here; "
                f"run `make repro`, or `{command}`, first"
            )
    return file


def data_sets() -> list[str]:
    """Data sets with published results, by name."""
    return sorted(path.parent.name for path in METRICS.glob("*/compare.json"))
