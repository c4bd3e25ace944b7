"""The names of the arrays in `results/<data>/attack/<arm>.npz`, for those who write and those who read them.

`<kind>/<attack>/<norm>/<eps>` with kind `correct` or `predicted`, each `[S, n]`: seeds by test images.
"""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


def ran_at(arrays: Arrays, norm: str, eps: str, kind: str = "correct") -> Arrays:
    """Attack name -> array `[S, n]` for all attacks that ran at this radius."""
    ending = f"/{norm}/{eps}"
    return {
        key.removeprefix(f"{kind}/").removesuffix(ending): value
        for key, value in arrays.items()
        if key.startswith(f"{kind}/") and key.endswith(ending)
    }


def points_of(arrays: Arrays) -> list[tuple[str, str]]:
    """All (norm, eps key) at which anything ran: L-infinity first, in rising order of eps."""
    seen = {tuple(key.split("/")[2:]) for key in arrays if key.startswith("correct/") and key.count("/") == 3}
    return sorted(seen, key=lambda point: (point[0] != "linf", float(point[1])))
