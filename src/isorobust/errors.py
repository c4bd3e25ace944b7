"""What a person did wrong, told in one message."""

from collections.abc import Mapping
from typing import Any


class UserError(Exception):
    """Bad parameters, files or arguments: shown without a traceback, exit status 1.

    The message names the key, file or argument, what was found and what is allowed.
    """


def found(where: str, value: object, allowed: str) -> UserError:
    """The standard wording: where, what was found, what is allowed."""
    return UserError(f"{where}: found {value!r}; allowed: {allowed}")


def choose(options: Mapping, name: object, where: str) -> Any:
    """Look `name` up in the mapping `options`; a failed look-up prints the valid names."""
    if name in options:
        return options[name]
    raise found(where, name, ", ".join(sorted(map(str, options))))
