"""Trees of classes: int64 `[L, K]`, the group of every class on each level, coarse first, single classes last."""

from __future__ import annotations

import numpy as np


def parse_level(text: str) -> list[int]:
    """The group of every class of a level such as "0 1 2 | 3 4", which gives [0, 0, 0, 1, 1].

    Errors: ValueError saying what is allowed, for words that are no classes, an empty group, a class
    missing or twice, one group alone, and single classes, which are the implied last level.
    """
    try:
        groups = [[int(word) for word in part.split()] for part in text.split("|")]
    except ValueError:
        raise ValueError('classes between spaces and groups between bars, as in "0 1 2 | 3 4"') from None
    if not all(groups):
        raise ValueError("no empty group")
    named = [label for group in groups for label in group]
    twice = sorted({label for label in named if named.count(label) > 1})
    if twice or min(named) < 0:
        raise ValueError(f"every class from 0 up once ({', '.join(map(str, twice)) or min(named)} is wrong)")
    missing = sorted(set(range(max(named))) - set(named))
    if missing:
        raise ValueError(f"every class from 0 to {max(named)} (missing: {', '.join(map(str, missing))})")
    if not 1 < len(groups) < len(named):
        raise ValueError("two groups or more, not all of them single classes (those are the implied last level)")
    member = {label: number for number, group in enumerate(groups) for label in group}
    return [member[label] for label in range(len(named))]


def parse_tree(levels: list[str]) -> np.ndarray:
    """The tree `[L, K]` of levels written as in `parse_level`, single classes added as the last.

    Errors: ValueError for a level that has other classes than the one before or does not split its groups.
    """
    rows = [parse_level(text) for text in levels]
    for number, (coarse, fine) in enumerate(zip(rows, rows[1:]), start=2):
        if len(coarse) != len(fine):
            raise ValueError(f"the same classes on every level (level {number} has {len(fine)}, the one before {len(coarse)})")
        first: dict[int, int] = {}
        for label, group in enumerate(fine):
            other = first.setdefault(group, label)
            if coarse[other] != coarse[label]:
                raise ValueError(f"levels that split groups of the one before (level {number} joins {other} and {label})")
        if len(set(fine)) == len(set(coarse)):
            raise ValueError(f"levels that are finer than the one before (level {number} is not)")
    return np.array([*rows, range(len(rows[0]))], dtype=np.int64)


def tree_distance(tree: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Levels up to the lowest common ancestor of two classes, elementwise: 0 the same class, 1 the same parent, L only the root.

    As each level splits the one before, that is the number of levels on which their groups differ.
    """
    return (tree[:, first] != tree[:, second]).sum(axis=0)
