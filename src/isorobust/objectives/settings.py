"""The blocks `arms.<arm>` of a recipe: the objective's name and its numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from isorobust.params import Settings, radius


class _Arm(Settings):
    def isometric_term(self) -> dict | None:
        """Weight and options of the isometric term in the training loss; None without one. The paper's own attack needs it."""
        return None


class CrossEntropy(_Arm):
    """Cross-entropy alone."""

    objective: Literal["cross-entropy"]


class Isometric(_Arm):
    """Cross-entropy + beta * isometric term on the last hidden layer (arXiv 2211.01236)."""

    objective: Literal["isometric"]
    beta: Annotated[float, Field(ge=0)]
    scale: Annotated[float, Field(gt=0)] = 1.0
    reduction: Literal["paper", "pairs"] = "paper"
    neighbours: Annotated[int, Field(ge=1)] | None = None

    def isometric_term(self) -> dict:
        return self.model_dump(include={"beta", "scale", "reduction", "neighbours"})


class Adversarial(_Arm):
    """Cross-entropy on PGD images with a random start (Madry et al., arXiv 1706.06083)."""

    objective: Literal["adversarial"]
    norm: Literal["linf", "l2"]
    eps: float
    steps: Annotated[int, Field(ge=1)]
    step_size: Annotated[float, Field(gt=0)] = 2.5  # times eps / steps

    @field_validator("eps", mode="before")
    @classmethod
    def _radius(cls, eps, info):
        return radius(info.data.get("norm", "linf"), eps)


ArmSettings = Annotated[CrossEntropy | Isometric | Adversarial, Field(discriminator="objective")]
