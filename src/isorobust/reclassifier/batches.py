"""The test images in the fixed whole batches in which a reclassifier is attacked and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import isorobust
from isorobust.attacks.perturb import Problem
from isorobust.common import artifacts
from isorobust.common.params import eps_key
from isorobust.common.runtime import derive_seed
from isorobust.common.splits import Split
from isorobust.errors import found
from isorobust.evaluation.evaluate import UNIT_CODE
from isorobust.evaluation.units import runtime
from isorobust.reclassifier.settings import ReclassifierAttack

CODE = (*UNIT_CODE, *(f"reclassifier/{name}.py" for name in ("network", "prototypes", "whole_batches")))


class Setup(NamedTuple):
    """The test images in the order in which they fill the batches; `place[i]` is the file's position of image i.

    The images under attack, the file's first, fill the first batches; a last batch may be smaller.
    """

    images: Tensor
    labels: Tensor
    place: np.ndarray
    classes: int
    options: ReclassifierAttack
    context: dict[str, Any]

    def batches(self) -> list[slice]:
        return [slice(start, start + self.options.batch) for start in range(0, len(self.labels), self.options.batch)]

    def attacked(self) -> Setup:
        """The images under attack alone."""
        count = self.options.images
        return self._replace(images=self.images[:count], labels=self.labels[:count], place=self.place[:count])

    def problem(self, model: nn.Module, part: slice, norm: str, eps: float, *seed: object) -> Problem:
        number = derive_seed(self.options.order, *seed, norm, eps_key(eps), part.start)
        return Problem(model, self.images[part], self.labels[part], norm, eps, number, self.classes)


def prepare(test: Split, classes: int, options: ReclassifierAttack, device: torch.device) -> Setup:
    """`classes`: how many the networks tell apart; the test images may hold fewer.

    Errors: UserError for more images than there are.
    """
    if options.images > len(test.labels):
        raise found("reclassifier-attack.images", options.images, f"at most {len(test.labels)} (the test images)")
    generator = torch.Generator().manual_seed(options.order)
    parts = [range(options.images), range(options.images, len(test.labels))]
    place = np.concatenate([part.start + torch.randperm(len(part), generator=generator).numpy() for part in parts])
    code = [(Path(isorobust.__file__).parent / name).read_bytes() for name in CODE]
    return Setup(
        torch.from_numpy(test.images[place]).to(device).float().div_(255),
        torch.from_numpy(test.labels[place]).to(device),
        place,
        classes,
        options,
        {"code": artifacts.digest(*code), "runtime": runtime(device), "classes": classes},
    )


@torch.no_grad()
def by_batch(model: nn.Module, images: Tensor, batches: list[slice]) -> np.ndarray:
    """Predicted classes `[n]`, int16, of images `[n, C, H, W]`, each batch as a whole."""
    return torch.cat([model(images[part]).argmax(1) for part in batches]).cpu().numpy().astype(np.int16)
