"""The weights that training starts from, and that an untrained network keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

from isorobust.common.runtime import derive_seed
from isorobust.common.workers import one_thread

Net = TypeVar("Net", bound=nn.Module)


def initial(make: Callable[[int], Net], seeds: Iterable[int]) -> list[Net]:
    """`make(number)` for every seed, with a number derived from it.

    On one thread: the bits of orthogonal weights depend on how many threads find them.
    """
    with one_thread():
        return [make(derive_seed(seed, "weights")) for seed in seeds]
