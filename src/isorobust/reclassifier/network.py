"""The plug-in as a module around any classifier that has features."""

from __future__ import annotations

import operator
from typing import Literal

import torch
from torch import Tensor, nn

from isorobust.networks.zoo import Network
from isorobust.reclassifier.prototypes import batch_prototypes, l2_logits, mixed, moved

Mode = Literal["fc", "ema", "soft", "ste"]
MODES: tuple[Mode, ...] = ("fc", "ema", "soft", "ste")
NO_PROTOTYPES = "no prototypes yet: call `observe` with a training batch that holds every class"


class HybridPrototypeReclassifier(nn.Module):
    """Pixels `[N, C, H, W]` to logits `[N, K]` by l2 distance to mixed prototypes, around a trained classifier.

    `base` gives representations by `features(x)` `[N, D]`; its last linear layer is its attribute `head`.
    `mode`: "ste", the method itself (hard assignments, gradients of soft ones); "soft", soft assignments;
    "ema", dataset-level prototypes alone, which makes a sample's logits independent of its batch (the
    frozen mode for deployment); "fc", the base's own logits. In "ste" and "soft" a batch is classified
    as a whole. `mix` is the weight of the dataset-level prototypes in [0, 1], `momentum` that of their
    past in `observe`, `temperature` multiplies squared distances and is a parameter.
    Prototypes `[K, D]` are a buffer; without them call `observe` before use.
    Source: arXiv 2606.01746. Errors: ValueError for an unknown mode, a mix or momentum outside [0, 1], a
    base without `features` or that layer or with another number of logits, prototypes of another number of
    classes; RuntimeError when a mode that needs prototypes has none yet.
    """

    def __init__(
        self,
        base: nn.Module,
        num_classes: int,
        *,
        head: str = "head",
        prototypes: Tensor | None = None,
        mix: float = 0.5,
        temperature: float = 1.0,
        momentum: float = 0.9,
        mode: Mode = "ste",
    ):
        super().__init__()
        try:
            num_classes = operator.index(num_classes)
        except TypeError:
            raise ValueError(f"num_classes must be a whole number, found {num_classes!r}") from None
        for name, value in (("mix", mix), ("momentum", momentum)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], found {value}")
        if prototypes is not None and (prototypes.ndim != 2 or len(prototypes) != num_classes):
            raise ValueError(f"prototypes must be [{num_classes}, D], found {list(prototypes.shape)}")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be above 0 and finite, found {temperature}")
        for name in ("features", head):
            if not callable(getattr(base, name, None)):
                raise ValueError(f"base must have `{name}`, found a {type(base).__name__} without it")
        logits = getattr(getattr(base, head), "out_features", num_classes)
        if num_classes < 1 or num_classes != logits:
            raise ValueError(f"num_classes must be that of the base's {logits} logits, found {num_classes}")
        self.base, self.num_classes, self.mix, self.momentum = base, num_classes, mix, momentum
        self._head = head
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())
        self.register_buffer("prototypes", prototypes)
        self.mode = mode

    @property
    def head(self) -> nn.Module:
        return getattr(self.base, self._head)

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        """Take the prototypes of a state even where there are none yet."""
        if self.prototypes is None and f"{prefix}prototypes" in state_dict:
            self.prototypes = torch.empty_like(state_dict[f"{prefix}prototypes"], device=self.log_temperature.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, found {mode!r}")
        self._mode = mode

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(features `[N, D]`, FC logits `[N, K]`) of pixels, from one pass."""
        if isinstance(self.base, Network):
            found = self.base.activations(x)
            return found.hidden[-1], found.logits
        features = self.base.features(x)
        return features, self.head(features)

    def features(self, x: Tensor) -> Tensor:
        return self.both(x)[0]

    def classify(self, features: Tensor, logits: Tensor) -> Tensor:
        """Logits `[..., N, K]` of batches of features `[..., N, D]` with their FC logits `[..., N, K]`, in the present mode."""
        if self.mode == "fc":
            return logits
        prototypes = self.prototypes
        if prototypes is None:
            raise RuntimeError(NO_PROTOTYPES)
        if self.mode != "ema":
            prototypes = mixed(prototypes, batch_prototypes(features, logits, self.mode), self.mix)
        return l2_logits(features, prototypes, self.log_temperature.exp())

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(*self.both(x))

    @torch.no_grad()
    def held(self, x: Tensor) -> HeldPrototypes:
        """The l2 classifier with the prototypes that the batch `x` gives: a sample's logits no longer depend on its batch.

        Assignments are hard in the mode "ste" and soft in "soft". Errors: ValueError in the modes "ema" and "fc", whose
        answers depend on no batch; RuntimeError without dataset-level prototypes.
        """
        if self.mode not in ("ste", "soft"):
            raise ValueError(f"mode must be ste or soft to hold a batch's prototypes, found {self.mode!r}")
        if self.prototypes is None:
            raise RuntimeError(NO_PROTOTYPES)
        features, logits = self.both(x)
        batch = batch_prototypes(features, logits, "hard" if self.mode == "ste" else "soft")
        return HeldPrototypes(self, mixed(self.prototypes, batch, self.mix))

    @torch.no_grad()
    def observe(self, x: Tensor, labels: Tensor) -> None:
        """Move the dataset-level prototypes towards the class means of one batch with labels `[N]`.

        Without prototypes the batch must hold every class and gives them. Errors: ValueError if it does not, for labels that
        are no classes or not as many as inputs, and for features that are not finite, which nothing would heal.
        """
        if labels.shape != x.shape[:1] or labels.is_floating_point() or not len(labels):
            raise ValueError(f"labels must be whole numbers [{len(x)}], at least one, found {labels.dtype} {list(labels.shape)}")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(f"labels must be from 0 to {self.num_classes - 1}, found {int(labels.min())} to {int(labels.max())}")
        labels = labels.long()  # of any whole kind
        features = self.features(x)
        if not features.isfinite().all():
            raise ValueError("features must be finite, found NaN or infinity")
        if self.prototypes is None:
            if len(labels.unique()) < self.num_classes:
                raise ValueError(f"the first batch must hold all {self.num_classes} classes, found {len(labels.unique())}")
            self.prototypes = moved(features.new_zeros(self.num_classes, features.shape[1]), features, labels, 0.0)
        else:
            self.prototypes = moved(self.prototypes, features, labels, self.momentum)


class HeldPrototypes(nn.Module):
    """Pixels `[N, C, H, W]` to l2 logits `[N, K]` with fixed prototypes `[K, D]`, each sample by itself."""

    def __init__(self, owner: HybridPrototypeReclassifier, prototypes: Tensor):
        super().__init__()
        self.owner = owner
        self.register_buffer("prototypes", prototypes)

    def forward(self, x: Tensor) -> Tensor:
        return l2_logits(self.owner.features(x), self.prototypes, self.owner.log_temperature.exp())
