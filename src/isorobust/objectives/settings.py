"""The blocks `arms.<arm>`: an objective and its numbers, or the twin of such an arm with the isometric term."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, field_validator

from isorobust.common.params import SKIP, Count, Positive, Settings, Several, check, radius
from isorobust.errors import UserError, found

PER_NETWORK = "may differ between the networks of a stack"  # marks the type of a number whose use takes a tensor `[S]` too
Weight = Annotated[float, Field(ge=0), PER_NETWORK]


class Isometry(Settings):
    """The isometric term (arXiv 2211.01236): weight `beta` and the options of `isometric_term`."""

    beta: Weight
    scale: Annotated[float, Field(gt=0), PER_NETWORK] = 1.0  # 1 asks for an isometry, 10 for a map that shrinks by 10
    reduction: Literal["paper", "pairs"] = "paper"
    neighbours: Count | None = None
    layers: Literal["last", "all"] = "last"
    pairs: Literal["same-class", "all"] = "same-class"
    distances: Literal["pixels", "features"] = "pixels"


class CrossEntropy(Settings):
    """Cross-entropy alone."""

    objective: Literal["cross-entropy"]


class Noise(Settings):
    """Cross-entropy on images with Gaussian noise of standard deviation `sigma`, not clipped."""

    objective: Literal["noise"]
    sigma: Positive  # in pixel units [0, 1]


class Jacobian(Settings):
    """Cross-entropy + weight / 2 * mean squared Frobenius norm of the input-Jacobian of the logits (arXiv 1908.02729)."""

    objective: Literal["jacobian"]
    weight: Weight
    projections: Count | Literal["exact"] = 1


class _InBall(Settings):
    norm: Literal["linf", "l2"]
    eps: float
    steps: Count
    step_size: Positive = 2.5  # times eps / steps

    @field_validator("eps", mode="before")
    @classmethod
    def _radius(cls, eps, info):
        return radius(info.data.get("norm", "linf"), eps)


class Trades(_InBall):
    """Cross-entropy + weight * KL between clean and worst nearby outputs (arXiv 1901.08573)."""

    objective: Literal["trades"]
    weight: Weight


class Adversarial(_InBall):
    """Cross-entropy on PGD images with a random start (Madry et al., arXiv 1706.06083)."""

    objective: Literal["adversarial"]


Objective = Annotated[CrossEntropy | Noise | Jacobian | Trades | Adversarial, Field(discriminator="objective")]


class Twin(Settings):
    """Another arm with the isometric term added; the other arm's numbers are not repeated."""

    twin_of: Annotated[str, Field(min_length=1)]
    isometry: Isometry


Choices = Several[Any]


class Tuned(Settings):
    """A twin whose numbers the stage `sweep` chooses on val, from all combinations of the lists."""

    twin_of: Annotated[str, Field(min_length=1)]
    grid: dict[str, Choices] = {}  # the other arm's own numbers
    isometry_grid: Annotated[dict[str, Choices], Field(min_length=1)]  # those of the isometric term


def _kind(block: Any) -> str:
    if isinstance(block, (Twin, Tuned)):
        return "a tuned twin" if isinstance(block, Tuned) else "a twin"
    if isinstance(block, dict) and "twin_of" in block:
        return "a tuned twin" if "isometry_grid" in block else "a twin"
    return "its own"


ArmSettings = Annotated[
    Annotated[Twin, Tag("a twin")] | Annotated[Tuned, Tag("a tuned twin")] | Annotated[Objective, Tag("its own")],
    Discriminator(_kind),
]


Where = Callable[..., str]  # from an arm and the keys below it to the name of the value in messages


class Arm(NamedTuple):
    """What one arm's training minimises: an objective, and the isometric term or none."""

    objective: Objective
    isometry: Isometry | None = None

    def term(self) -> dict[str, Any] | None:
        """The term's weight and options; None without one. The paper's own attack needs it."""
        return None if self.isometry is None else self.isometry.model_dump()


def twin_of(block: Any) -> str | None:
    """The arm whose twin an unchecked block describes; None for an arm of its own."""
    return block["twin_of"] if isinstance(block, dict) and "twin_of" in block else None


def checked(name: str, blocks: dict[str, Any], where: Where, kind: Any = ArmSettings) -> Any:
    """The block of arm `name` as settings. Errors: UserError."""
    return check(kind, blocks[name], lambda path: where(name, *path))


def base_of(name: str, blocks: dict[str, Any], where: Where) -> Objective:
    """The objective of the arm whose twin arm `name` is.

    Errors: UserError when that arm does not exist, is skipped or is a twin itself.
    """
    base = blocks[name]["twin_of"]
    others = [arm for arm, block in blocks.items() if block != SKIP and _kind(block) == "its own"]
    if base not in others:
        allowed = f"an arm that the recipe uses and that is no twin: {', '.join(others) or 'none'}"
        raise found(where(name, "twin_of"), base, allowed)
    return checked(base, blocks, where, Objective)


def resolve(name: str, blocks: dict[str, Any], where: Where, choice: dict[str, Any] | None = None) -> Arm:
    """Arm `name`, which the recipe uses.

    `choice` is what the sweep chose for a tuned arm: `objective` and `isometry`, each a mapping.
    Errors: UserError for a bad block, see `base_of`, and for a tuned arm without a choice.
    """
    block = checked(name, blocks, where)
    if isinstance(block, Twin):
        return Arm(base_of(name, blocks, where), block.isometry)
    if isinstance(block, Tuned):
        if choice is None:
            raise UserError(f"{where(name)}: its numbers are chosen by the stage sweep; run `dvc repro`")
        return with_choice(base_of(name, blocks, where), choice, where(name))
    return Arm(block)


def with_choice(base: Objective, choice: dict[str, Any], where: str) -> Arm:
    """`base` with the numbers of one cell of a grid. Errors: UserError for a number that is not allowed."""
    objective = check(Objective, {**base.model_dump(), **choice["objective"]}, f"{where}.grid")
    return Arm(objective, check(Isometry, choice["isometry"], f"{where}.isometry_grid"))


def cells(block: Tuned) -> list[dict[str, Any]]:
    """Every combination of a tuned arm's lists, the last named list running fastest."""
    own, term = ([dict(zip(lists, values)) for values in product(*lists.values())] for lists in (block.grid, block.isometry_grid))
    return [{"objective": mine, "isometry": other} for mine in own for other in term]


def in_common(options: Settings) -> dict[str, Any]:
    """The values that networks of one stack must share: all but those marked `PER_NETWORK`."""
    fields = type(options).model_fields
    return {name: getattr(options, name) for name, field in fields.items() if PER_NETWORK not in field.metadata}


def side_by_side(options: list[Settings], device: Any = None) -> Settings:
    """Settings of several networks trained in one stack: numbers that differ become tensors `[S]` on the device.

    Errors: UserError when anything differs that is not marked `PER_NETWORK`; such networks cannot share a stack.
    """
    import torch

    first = options[0]
    update = {}
    for name in type(first).model_fields:
        values = [getattr(one, name) for one in options]
        if any(value != values[0] for value in values):
            if name in in_common(first):
                raise UserError(f"networks that differ in {name} ({values[0]!r}, ...) cannot be trained in one stack")
            update[name] = torch.tensor(values, device=device)
    return first.model_copy(update=update)
