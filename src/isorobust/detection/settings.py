"""The block `detection` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from isorobust.attacks.settings import APGD, PGD, Square
from isorobust.common.params import Count, EpsLinf, Positive, Settings, Several
from isorobust.connectivity.settings import Matched


class Nearest(Settings):
    """Untargeted FAB, arXiv 1907.02044: the nearest adversarial image in L2."""

    steps: Count


class CW(Settings):
    """Carlini and Wagner's L2 attack, arXiv 1608.04644."""

    images: Count  # the first n of the block's
    weight: Positive  # of the margin against the squared distance, c in the paper
    steps: Count
    learning_rate: Positive


class DeepFool(Settings):
    """DeepFool, arXiv 1511.04599; a loop over images."""

    images: Count  # the first n of the block's
    steps: Count
    overshoot: Positive = 0.02


class Fitting(Settings):
    """What the fitted scores see: clean training images and FGSM images made of them."""

    images: Count  # training images, drawn among those that are no references
    eps: Several[EpsLinf]


class Unseen(Settings):
    """The attacks on which detectors are tested; none is used in fitting."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False)

    pgd: PGD
    apgd_ce: APGD = Field(alias="apgd-ce")
    square: Square
    fab: Nearest
    cw: CW
    deepfool: DeepFool
    matched: Matched

    @model_validator(mode="after")
    def _of_the_block(self) -> Unseen:
        for name in ("pgd", "apgd_ce", "square"):
            if odd := sorted({"eps", "images", "seeds", "batch"} & getattr(self, name).model_fields_set):
                raise ValueError(f"{name.replace('_', '-')} without {', '.join(odd)}; detection has its own eps and images")
        return self


class Adaptive(Settings):
    """Attacks that lower a detector's score while they fool the network."""

    images: Count  # the first n that the network gets wrong under pgd; too few: the first of the others too
    steps: Count
    classes: Count = 2  # wrong classes that are tried, the likeliest first


class DetectionSettings(Settings):
    arms: Several[str]  # those that the recipe measures, of the stage's
    seeds: Count | None = None  # the first n; null: all
    references: Count  # training images per class from which paths run to an input
    points: Annotated[int, Field(ge=3)]  # along a path
    images: Count  # the first n test images
    eps: EpsLinf  # L-infinity radius of pgd, apgd-ce, square and the adaptive attacks
    fitting: Fitting
    attacks: Unseen
    adaptive: Adaptive
