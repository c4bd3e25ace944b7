"""What a unit of work computes: the images that an attack makes, judged by the model it was made against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from isorobust.attacks.perturb import Problem, compose, perturb
from isorobust.networks.zoo import predict


def judge(name: str, problem: Problem, attack: Any) -> dict[str, np.ndarray]:
    """One attack: `predicted` `[N]` int16, `still` `[N]` (left as they were), `excess` (how far it left the ball)."""
    result = perturb(name, problem, attack)
    guess = predict(problem.model, result.images).cpu().numpy().astype(np.int16)
    still = (result.images == problem.images).flatten(1).all(dim=1).cpu().numpy()
    return {"predicted": guess, "still": still, "excess": np.float64(result.excess)}


def judge_worst_case(problems: list[Problem], parts: dict[str, Any], standing: np.ndarray) -> dict[str, np.ndarray]:
    """The composition at rising radii on those `standing` `[E, N]`: `fallen` `[E, N]` int8 as `compose` has it, `excess`."""
    result = compose(problems, parts, torch.from_numpy(standing.copy()).to(problems[0].images.device))
    return {"fallen": result.fallen.cpu().numpy().astype(np.int8), "excess": np.float64(result.excess)}
