"""Progress bars and remarks on stderr; silent bars when the output is no terminal. Changes no output."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress(total: int | None, label: str, unit: str = "it", shown: bool = True) -> tqdm:
    """A bar with the time left; use it as a context and call `update`."""
    hidden = None if shown else True  # None: hidden where the output is no terminal
    return tqdm(total=total, desc=label, unit=unit, unit_scale=unit == "B", leave=False, dynamic_ncols=True, disable=hidden)


def say(text: str) -> None:
    """One line for the person who runs this."""
    tqdm.write(text, file=sys.stderr)
