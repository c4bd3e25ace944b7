"""One file per arm: the weights of all its seeds and the spec that rebuilds them. Safetensors, no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import nn

from isorobust.common import artifacts
from isorobust.common.params import check
from isorobust.common.splits import Split
from isorobust.errors import UserError, found
from isorobust.networks.settings import NetworkSettings
from isorobust.networks.zoo import Network, build

SPEC = ("network", "shape", "classes", "seeds")  # what every file of networks says of them


class Checkpoint:
    """spec (`network`, `shape` [C, H, W], `classes`, `seeds`, `objective`, `isometric`, `arm`, `data`) and tensors `[S, ...]`.

    An arm that a recipe does not use has a spec with `skipped: true` and no tensors.
    """

    def __init__(self, spec: dict[str, Any], tensors: dict[str, torch.Tensor], path: str = "checkpoint"):
        self.spec, self.tensors, self.path = spec, tensors, path

    @property
    def skipped(self) -> bool:
        return bool(self.spec.get("skipped"))

    @property
    def seeds(self) -> list[int]:
        return self.spec["seeds"]

    def save(self, path: Path | str) -> None:
        # One metadata key: safetensors writes several in no fixed order.
        artifacts.write_bytes(path, dump_tensors(self.tensors, {"spec": artifacts.canonical(self.spec)}))

    @classmethod
    def read(cls, path: Path | str) -> Checkpoint:
        """Errors: UserError when the file is missing, truncated, or no checkpoint of this project."""
        try:
            content = Path(path).read_bytes()
            tensors = load_tensors(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            spec = json.loads(header["__metadata__"]["spec"])
            if not isinstance(spec, dict) or not (spec.get("skipped") or all(key in spec for key in SPEC)):
                raise ValueError(f"its spec is {artifacts.canonical(spec)[:80]}, without {', '.join(SPEC)}")
            if not spec.get("skipped"):
                _check(spec, tensors)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; `dvc repro` writes it") from None
        except (SafetensorError, ValueError, KeyError, TypeError, OSError, OverflowError, RuntimeError) as error:
            raise UserError(
                f"{path}: damaged or foreign checkpoint ({error or type(error).__name__}); delete it and run `dvc repro`"
            ) from None
        return cls(spec, tensors, str(path))

    def network(self, seed: int, device: torch.device | str = "cpu") -> Network:
        """The network of one seed (the seed's value), in eval mode.

        Errors: UserError for a seed that is not in the file and for tensors that do not fit the architecture.
        """
        if self.skipped:
            raise UserError(f"{self.path}: holds no network: its recipe does not use this arm")
        options = check(NetworkSettings, self.spec["network"], f"{self.path}: network")
        network = build(options, tuple(self.spec["shape"]), self.spec["classes"], seed=0)
        self.fill(network, seed, options.name)
        return network.to(device).eval()

    def fill(self, network: nn.Module, seed: int, kind: str, prefix: str = "") -> None:
        """Give `network`, whose architecture is called `kind`, one seed's tensors, those whose names begin with `prefix`.

        Errors: see `network`.
        """
        if seed not in self.seeds:
            raise found(f"{self.path}: seed", seed, ", ".join(map(str, self.seeds)))
        own = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        expected = {name: list(t.shape) for name, t in network.state_dict().items()}
        seen = {name: list(t.shape[1:]) for name, t in own.items()}
        if seen != expected:
            odd = sorted(name for name in {*seen, *expected} if seen.get(name) != expected.get(name))
            raise UserError(
                f"{self.path}: checkpoint of another architecture: {prefix}{odd[0]} is {seen.get(odd[0])}, "
                f"{kind} needs {expected.get(odd[0])}"
            )
        index = self.seeds.index(seed)
        network.load_state_dict({name: t[index] for name, t in own.items()})

    def check_split(self, split: Split, path: Path | str) -> Split:
        """`split`, read from `path`, as it is; a skipped arm's file takes any.

        Errors: UserError for images of another shape than the networks read and for labels beyond their classes.
        """
        shape, most = list(split.images.shape[1:]), int(split.labels.max())
        if not self.skipped and (shape != self.spec["shape"] or most >= self.spec["classes"]):
            raise UserError(
                f"{path}: found images {shape} and labels up to {most}; allowed: images {self.spec['shape']} and labels up to "
                f"{self.spec['classes'] - 1}, as {self.path} was trained on; delete the odd one and run `dvc repro`"
            )
        return split

    def said(self, key: str) -> Any:
        """What the spec says under a key that not every file of networks has. Errors: UserError."""
        if key not in self.spec:
            raise UserError(f"{self.path}: found a checkpoint without {key!r}; allowed: the file of a trained arm")
        return self.spec[key]

    def model_hash(self, seed: int) -> str:
        """Content of one seed's network: its weights and all of the spec that shapes what it computes."""
        index = self.seeds.index(seed)
        parts = [artifacts.canonical({key: self.said(key) for key in ("network", "shape", "classes", "isometric")})]
        for name in sorted(self.tensors):
            parts += [name, np.ascontiguousarray(self.tensors[name][index].numpy()).tobytes()]
        return artifacts.digest(*parts)


def _check(spec: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Errors: ValueError for a spec whose values are of other kinds, or that is not that of the tensors."""
    shape, classes, seeds = spec["shape"], spec["classes"], spec["seeds"]
    counts = isinstance(shape, list) and len(shape) == 3 and all(type(number) is int and number > 0 for number in shape)
    numbered = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not counts or not numbered or type(classes) is not int or classes < 1:
        raise ValueError(f"its spec has shape {shape!r}, classes {classes!r}, seeds {seeds!r}")
    odd = [name for name, tensor in tensors.items() if not tensor.ndim or len(tensor) != len(seeds)]
    if odd:
        raise ValueError(f"{odd[0]} is {list(tensors[odd[0]].shape)}, for {len(seeds)} seeds")
    odd = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if odd:
        raise ValueError(f"{odd[0]} is not finite")
