"""The block `hierarchy` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from isorobust.common.params import Count, Settings
from isorobust.hierarchy.tree import parse_level, parse_tree
from isorobust.objectives.settings import Isometry

TAKEN = ("norm", "images", "seeds", "epochs")  # stand beside the trees in the files


def _accepted(parse):
    def check(written):
        parse(written)
        return written

    return AfterValidator(check)


Level = Annotated[str, _accepted(parse_level)]
Levels = Annotated[list[Level], Field(min_length=1), _accepted(parse_tree)]  # coarse first; single classes are implied


class BlockSettings(Settings):
    """The network: per level one block of `layers` tanh layers of `width` units, and a head."""

    width: Count
    layers: Count
    head: Literal["own", "shared"] = "own"  # shared: one head for all blocks, as in the published code


def _tree_name(name: str) -> str:
    if name in TAKEN or not all(c.isalnum() or c in "-_" for c in name):
        raise ValueError(f"letters, digits, '-' and '_', and none of {', '.join(TAKEN)}")
    return name


class HierarchySettings(Settings):
    trees: Annotated[dict[Annotated[str, AfterValidator(_tree_name)], Levels], Field(min_length=1)]
    network: BlockSettings
    epochs: Count  # batch size and learning rate are those of the recipe's block `training`
    isometry: Isometry  # of every block
