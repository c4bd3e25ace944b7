"""How inputs of a class are connected in one arm's networks, and how adversarial ones are not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from isorobust.connectivity.arms import recognised
from isorobust.connectivity.inputs import Pairs, between_classes, cross_entropy, match_loss, synthesise, within_classes
from isorobust.connectivity.paths import Bypassed, barrier, bypass, curve_features, path_losses
from isorobust.connectivity.settings import ConnectivitySettings
from isorobust.data.splits import Split
from isorobust.errors import UserError
from isorobust.params import eps_key
from isorobust.progress import say
from isorobust.ranking import contrasts
from isorobust.runtime import derive_seed, generator
from isorobust.statistics import mean_over_seeds, rate

KINDS = ("real", "interpolated", "synthetic", "between-classes")  # the last is the control
UNTRAINED_KINDS = ("synthetic", "between-classes")


class Seen(NamedTuple):
    """One seed: per kind of pairs the bypassed paths and the straight ones' losses `[P, T]`; the rest for trained networks."""

    paths: dict[str, Bypassed]
    straight: dict[str, np.ndarray]
    component: np.ndarray | None = None  # per class, the share of its images in the largest connected component
    against: Against | None = None
    images: np.ndarray | None = None  # A, B, B', C of the pair with the highest barrier


class Against(NamedTuple):
    """Losses `[P, T]` from the same real image to a real and to an adversarial one; which of these are matched, `[P]`."""

    real: np.ndarray
    adversarial: np.ndarray
    matched: np.ndarray


def measure(
    models: list[tuple[int, nn.Module]], test: Split, options: ConnectivitySettings, device: torch.device, trained: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(numbers, arrays) of the models (seed, network) of one arm; docs/results.md lists both.

    Networks that are not trained give real images no class, so their pairs are synthetic. Errors:
    UserError if no class has two images that a network gets right.
    """
    seen = [_look(model.to(device).eval(), seed, test, options, device, trained) for seed, model in models]
    arrays: dict[str, np.ndarray] = {"seeds": np.array([seed for seed, _ in models])}
    numbers: dict[str, Any] = {"seeds": len(seen), "pairs": options.pairs, "kinds": {}}
    for kind in seen[0].paths:
        straight = np.stack([one.straight[kind] for one in seen])  # [S, P, T]
        ends = np.maximum(straight[..., 0], straight[..., -1])[:, None]
        gaps = np.stack([one.paths[kind].heights.cpu().numpy() for one in seen]) - ends  # [S, R + 1, P]
        arrays[f"gaps/{kind}"] = gaps
        arrays[f"straight/{kind}"] = straight[0].astype(np.float32)
        found = barrier(torch.from_numpy(straight))
        connected = {
            eps_key(threshold): {
                str(done): rate(gaps[:, done] <= threshold).as_dict() for done in range(options.bypass.rounds + 1)
            }
            for threshold in options.thresholds
        }
        numbers["kinds"][kind] = {
            "connected": connected,
            **{name: _over_seeds(getattr(found, name).double().mean(1).numpy()) for name in ("height", "gap", "position")},
        }
    if trained:
        numbers["component"] = _over_seeds(np.array([one.component.mean() for one in seen]))
        numbers["against"], more = _against([one.against for one in seen], options.threshold)
        arrays |= more
    if seen[0].images is not None:
        arrays["images"] = seen[0].images.astype(np.float32)
    return numbers, arrays


def _over_seeds(values: np.ndarray) -> dict[str, float]:
    return dict(zip(("value", "lo", "hi"), map(float, mean_over_seeds(values))))


def _look(model: nn.Module, seed: int, test: Split, options: ConnectivitySettings, device, trained: bool) -> Seen:
    stream = np.random.default_rng(derive_seed(seed, "connectivity"))
    images = torch.from_numpy(test.images).to(device).float().div_(255)
    labels = torch.from_numpy(test.labels).to(device)
    for weight in model.parameters():
        weight.requires_grad_(False)
    kinds = _pairs(model, seed, images, labels, options, stream, trained)
    losses = {kind: _straight(model, pairs, options) for kind, pairs in kinds.items()}
    paths = {kind: _around(model, pairs, losses[kind], options) for kind, pairs in kinds.items()}
    straight = {kind: values.cpu().numpy() for kind, values in losses.items()}
    first = next(iter(kinds))
    shown = _shown(kinds[first], straight[first], paths[first])
    if not trained:
        return Seen(paths, straight, images=shown)
    right = recognised(model, images, labels)
    component = _components(model, images, labels, right, options)
    return Seen(paths, straight, component, _matched_pairs(model, images, labels, right, options, stream), shown)


def _pairs(model, seed: int, images: Tensor, labels: Tensor, options, stream, trained: bool) -> dict[str, Pairs]:
    classes, shape = int(labels.max()) + 1, images.shape[1:]
    wanted = torch.arange(2 * options.pairs, device=images.device) % options.pairs % classes
    made = synthesise(model, wanted, shape, options.synthesis, generator(seed, "synthesis"))
    half, kinds = options.pairs, {}
    kinds["synthetic"] = Pairs(made[:half], made[half:], wanted[:half], wanted[half:])
    if not trained:
        other = (wanted[half:] + 1) % min(classes, half)  # the classes of fewer pairs than classes are the first
        order = torch.cat([(wanted[half:] == k).nonzero().flatten()[:1] for k in other])
        kinds["between-classes"] = Pairs(made[:half], made[half:][order], wanted[:half], wanted[half:][order])
        return kinds
    right = recognised(model, images, labels)
    known = labels.cpu().numpy()[right]
    if not len(known) or np.bincount(known).max() < 2:
        raise UserError(f"connectivity: seed {seed} gets no two test images of a class right; allowed: a trained network")

    def real(chooser) -> Pairs:
        a, c = (torch.from_numpy(right[place]).to(images.device) for place in chooser(known, options.pairs, stream))
        return Pairs(images[a], images[c], labels[a], labels[c])

    first, second = real(within_classes), real(within_classes)
    between = Pairs((first.a + first.c) / 2, (second.a + second.c) / 2, first.class_a, second.class_a)
    return {"real": first, "interpolated": between, **kinds, "between-classes": real(between_classes)}


def _loss(model: nn.Module, pairs: Pairs):
    """Cross-entropy of the pair's class; between classes, of whichever of the two is nearer."""
    same = bool((pairs.class_a == pairs.class_c).all())

    def loss(x: Tensor, pair: Tensor) -> Tensor:
        first = cross_entropy(model, x, pairs.class_a[pair])
        return first if same else torch.minimum(first, cross_entropy(model, x, pairs.class_c[pair]))

    return loss


def _around(model: nn.Module, pairs: Pairs, straight: Tensor, options: ConnectivitySettings) -> Bypassed:
    """Around all barriers that rise by more than the block's threshold above the higher end."""
    way = options.bypass
    return bypass(
        _loss(model, pairs),
        pairs.a,
        pairs.c,
        threshold=torch.maximum(straight[:, 0], straight[:, -1]) + options.threshold,
        rounds=way.rounds,
        points=options.points,
        steps=way.steps,
        learning_rate=way.learning_rate,
        closeness=way.closeness,
        smoothness=way.smoothness,
    )


def _straight(model: nn.Module, pairs: Pairs, options: ConnectivitySettings) -> Tensor:
    everyone = torch.arange(len(pairs.a), device=pairs.a.device)
    return path_losses(_loss(model, pairs), pairs.a, pairs.c, everyone, options.points)


def _shown(pairs: Pairs, straight: np.ndarray, found: Bypassed) -> np.ndarray:
    """A, highest point B of the straight path, point B' that the bypass leads over, C, of the pair with the widest gap."""
    _, gap, position = barrier(torch.from_numpy(straight))
    worst = int(gap.argmax())
    top = torch.lerp(pairs.a[worst], pairs.c[worst], float(position[worst]))
    mine = (found.path.pair == worst).nonzero().flatten()
    over = found.path.end[mine[len(mine) // 2 - 1]] if len(mine) > 1 else top
    return torch.stack([pairs.a[worst], top, over, pairs.c[worst]]).cpu().numpy()


@torch.no_grad()
def _components(model, images: Tensor, labels: Tensor, right: np.ndarray, options: ConnectivitySettings) -> np.ndarray:
    """Per class the share of its first `graph_images` right images in the largest set joined by straight paths that connect."""
    shares = []
    known = labels.cpu().numpy()[right]
    for k in np.unique(known):
        chosen = torch.from_numpy(right[known == k][: options.graph_images]).to(images.device)
        first, second = torch.triu_indices(len(chosen), len(chosen), 1, device=images.device)
        a, c = images[chosen[first]], images[chosen[second]]
        pairs = Pairs(a, c, labels[chosen[first]], labels[chosen[second]])
        low = (barrier(_straight(model, pairs, options)).gap <= options.threshold).cpu().numpy()
        edges = (np.ones(low.sum()), (first.cpu().numpy()[low], second.cpu().numpy()[low]))
        _, component = connected_components(csr_matrix(edges, shape=(len(chosen), len(chosen))), directed=False)
        shares.append(np.bincount(component).max() / len(chosen))
    return np.array(shares)


def _matched_pairs(model, images: Tensor, labels: Tensor, right: np.ndarray, options, stream) -> Against:
    """Straight paths from real images to real ones, and to images of other classes made to match those ones' loss."""
    known = labels.cpu().numpy()[right]
    a, c = (torch.from_numpy(right[place]).to(images.device) for place in within_classes(known, options.pairs, stream))
    other = [right[stream.choice(np.flatnonzero(known != int(k)))] for k in labels[a]]
    with torch.no_grad():
        target = cross_entropy(model, images[c], labels[c])
    made, matched = match_loss(model, images[torch.tensor(other, device=images.device)], labels[a], target, options.matched)
    curves = [_straight(model, Pairs(images[a], end, labels[a], labels[a]), options) for end in (images[c], made)]
    return Against(*(x.cpu().numpy() for x in (*curves, matched)))


def _features(losses: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    found = {name: values.numpy() for name, values in curve_features(torch.from_numpy(losses).double()).items()}
    return {**found, "connected": (found["gap"] <= threshold).astype(float)}


def _against(seeds: list[Against], threshold: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Adversarial less real, over the matched pairs of every seed: mean features, differences, AUROC of each feature."""
    used = [one for one in seeds if one.matched.sum() > 1]
    kept = [tuple(_features(curves[one.matched], threshold) for curves in (one.real, one.adversarial)) for one in used]
    if not kept:
        say("connectivity: no adversarial image reached the loss of its real partner; its comparison is left out")
    told = contrasts(kept)
    matched = rate(np.stack([one.matched for one in seeds])).as_dict()
    first = seeds[0]
    arrays = {"against/real": first.real, "against/adversarial": first.adversarial, "against/matched": first.matched}
    return {"matched": matched, "features": told}, arrays
