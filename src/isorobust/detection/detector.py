"""A detector of adversarial inputs by the loss along paths from training images to them.

Source: Vrabel, Shem-Ur, Oz, Krueger, "Input space mode connectivity in deep neural networks",
arXiv 2409.05800. The scores that ignore the path, and what the fitted ones are made of, are our choice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from isorobust.connectivity.inputs import cross_entropy
from isorobust.connectivity.paths import at_once, curve_features, in_parts, linear_path
from isorobust.detection.scores import FPR, SCORES

FEATURES = ("height", "gap", "position", "maxima", "area", "endpoint-loss")
LOGARITHMIC = ("height", "gap", "area", "endpoint-loss")
FLOOR = 1e-6  # under the logarithm; losses of confident networks reach 0


class Seen(NamedTuple):
    """What scores are made of: per input the predicted class, its loss and probability `[N]`, features of the curves `[N, 6]`.

    barrier, ends `[N]`: the height, and the higher of both ends, averaged over references before any logarithm.
    """

    classes: np.ndarray
    loss: np.ndarray
    softmax: np.ndarray
    barrier: np.ndarray
    ends: np.ndarray
    features: np.ndarray


class BarrierDetector:
    """Scores inputs by the loss of the class that `model` gives them, along straight paths from images of that class.

    `model`: pixels `[N, C, H, W]` to logits `[N, K]`, in eval mode; `references` `[K, m, C, H, W]`: m
    images of each class. Errors: ValueError for fewer than two points or no references.
    Higher scores speak for an adversarial input:

    - `barrier`: the highest loss along a path, averaged over references;
    - `fitted`: log-odds of a logistic regression on height, gap, position of the barrier, number of local
      maxima, mean loss and the input's own loss (of losses the natural logarithm of the loss + 1e-6), averaged
      over references;
    - `ends`: the higher loss of both ends of a path, averaged over references; `endpoint-loss`, `max-softmax`,
      `fitted-loss`: the input's own loss, 1 - its probability, and a logistic regression on that loss, as above
      its logarithm; `unusual-loss`: how far that logarithm lies, above or below, from its median over clean images.
      They know nothing of what lies between.
    """

    def __init__(self, model: nn.Module, references: Tensor, points: int = 20):
        if points < 2 or references.ndim < 3 or not references.shape[1]:
            raise ValueError(f"needs at least 2 points and references [K, m, ...], found {points} and {list(references.shape)}")
        self.model, self.references, self.points = model, references, points
        self.fitted = self.fitted_loss = None
        self.usual: float | None = None  # log loss of a clean input
        self.thresholds: dict[str, float] = {}

    @torch.no_grad()
    def curves(self, x: Tensor, classes: Tensor) -> Tensor:
        """Losses `[N, m, T]` of `classes` along the paths from that class's references to x."""
        return self.differentiable_curves(x, classes)

    def differentiable_curves(self, x: Tensor, classes: Tensor) -> Tensor:
        start = self.references[classes]  # [N, m, C, H, W]
        count, m = start.shape[:2]
        ends = x.unsqueeze(1).expand_as(start)
        inputs = linear_path(start.flatten(0, 1), ends.flatten(0, 1), self.points).flatten(0, 1)
        wanted = classes.repeat_interleave(m * self.points)
        return cross_entropy(self.model, inputs, wanted).view(count, m, self.points)

    @torch.no_grad()
    def see(self, x: Tensor, batch: int | None = None) -> Seen:
        """Everything the scores need of inputs `[N, C, H, W]`, about `batch` points of paths at a time (None: 3 MB of them).

        Errors: ValueError for references of another shape or number of classes than the inputs.
        """
        if self.references.ndim != x.ndim + 1 or self.references.shape[2:] != x.shape[1:]:
            wanted = f"[K, m, *{list(x.shape[1:])}] for inputs [N, ...] of shape {list(x.shape)}"
            raise ValueError(f"references must be {wanted}, found {list(self.references.shape)}")
        size = at_once(x, self.references.shape[1] * self.points, batch)
        logits = in_parts(self.model, (x,), size).double()  # in float32 confident inputs would tie
        if logits.shape[1] != len(self.references):
            raise ValueError(f"found references of {len(self.references)} classes and {logits.shape[1]} logits")
        classes = logits.argmax(1)
        curves = in_parts(self.curves, (x, classes), size)
        seen = Seen(
            classes,
            loss=F.cross_entropy(logits, classes, reduction="none"),
            softmax=logits.softmax(1).amax(1),
            barrier=curves.amax(2).mean(1),
            ends=torch.maximum(curves[..., 0], curves[..., -1]).mean(1),
            features=features(curves),
        )
        return Seen(*(column.cpu().numpy() for column in seen))

    def fit(self, clean: Seen, adversarial: Seen) -> None:
        """Fit the two logistic regressions, before `set_thresholds`. Errors: ValueError without an input on either side."""
        if not len(clean.loss) or not len(adversarial.loss):
            raise ValueError(f"fitting needs both kinds, found {len(clean.loss)} clean and {len(adversarial.loss)} adversarial")
        truth = np.repeat([0, 1], [len(clean.loss), len(adversarial.loss)])
        # Balanced, because how many images fool a network is no property of the detector.
        curves, losses = (make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")) for _ in range(2))
        self.thresholds = {}  # those of an earlier fit would let through another share of clean inputs
        self.fitted = curves.fit(np.concatenate([clean.features, adversarial.features]), truth)
        self.fitted_loss = losses.fit(np.concatenate([_log(clean.loss), _log(adversarial.loss)])[:, None], truth)

    def scores(self, seen: Seen) -> dict[str, np.ndarray]:
        """Score -> `[N]`, without the fitted ones before `fit`, without `unusual-loss` before `set_thresholds`."""
        found = {"barrier": seen.barrier, "ends": seen.ends, "endpoint-loss": seen.loss, "max-softmax": 1 - seen.softmax}
        if self.fitted is not None:
            found["fitted"] = self.fitted.decision_function(seen.features)
            found["fitted-loss"] = self.fitted_loss.decision_function(_log(seen.loss)[:, None])
        if self.usual is not None:
            found["unusual-loss"] = np.abs(_log(seen.loss) - self.usual)
        return {name: found[name] for name in SCORES if name in found}

    def set_thresholds(self, clean: Seen) -> None:
        """Which loss is usual, and thresholds that 5 % of these clean inputs exceed. Errors: ValueError without an input."""
        if not len(clean.loss):
            raise ValueError("thresholds need clean inputs, found none")
        self.usual = float(np.median(_log(clean.loss)))
        self.thresholds = {name: float(np.quantile(values, 1 - FPR)) for name, values in self.scores(clean).items()}

    def linear(self, device: torch.device | str) -> tuple[Tensor, float]:
        """(weights `[6]` of the features, offset) of the fitted score, standardisation included, for gradients.

        Errors: RuntimeError before `fit`.
        """
        if self.fitted is None:
            raise RuntimeError("the detector has no fitted score yet; call `fit` first")
        scaler, model = self.fitted[0], self.fitted[1]
        weights = model.coef_[0] / scaler.scale_
        return torch.from_numpy(weights).to(device), float(model.intercept_[0] - weights @ scaler.mean_)


def features(curves: Tensor) -> Tensor:
    """`[N, 6]` of losses `[N, m, T]`: FEATURES, the losses' logarithms, averaged over the references."""
    found = curve_features(curves)
    columns = [(found[name] + FLOOR).log() if name in LOGARITHMIC else found[name] for name in FEATURES]
    return torch.stack([column.double().mean(1) for column in columns], dim=1)


def _log(loss: np.ndarray) -> np.ndarray:
    return np.log(loss + FLOOR)
