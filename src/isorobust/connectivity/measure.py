"""How inputs of a class are connected in one arm's networks, and how adversarial ones are not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from isorobust.common.params import eps_key
from isorobust.common.runtime import derive_seed, generator
from isorobust.common.splits import Split
from isorobust.common.statistics import difference_of_own, mean, over_seeds, rate_of_own
from isorobust.common.workers import spread
from isorobust.connectivity.arms import recognised
from isorobust.connectivity.inputs import Pairs, chosen_tuples, cross_entropy, match_loss, synthesise
from isorobust.connectivity.paths import Bypassed, barrier, bypass, curve_features, path_losses
from isorobust.connectivity.settings import ConnectivitySettings
from isorobust.errors import UserError
from isorobust.progress import say
from isorobust.ranking import contrasts

CRITERIA = ("low", "level")  # of a path: its highest loss is at most a threshold; the rise above its higher end is
RANGES = {  # of what a loss curve is told by; losses have no upper end
    **{name: (0.0, np.inf) for name in ("height", "gap", "maxima", "area", "endpoint-loss")},
    **{name: (0.0, 1.0) for name in ("position", *CRITERIA)},
}


class Seen(NamedTuple):
    """One seed: per kind of pairs the barriers `[R + 1, P]` after each round and the straight paths' losses `[P, T]`.

    apart `[P]`: how far the ends lie apart, for the larger of their norms. ids `[P, 2]`: the test images of the kinds that
    are pairs of them. The rest for trained networks alone;
    component, by criterion: per class, the share of its images in the largest set that straight paths join.
    """

    heights: dict[str, np.ndarray]
    straight: dict[str, np.ndarray]
    apart: dict[str, np.ndarray]
    shown: Shown
    ids: dict[str, np.ndarray]
    component: dict[str, np.ndarray] | None = None
    against: Against | None = None


class Shown(NamedTuple):
    """One pair: A, B, B', C `[4, C, H, W]`, losses along A-C `[T]` and along A-B'-C `[2 T]`, the straight path's gap."""

    images: np.ndarray
    straight: np.ndarray
    around: np.ndarray
    gap: float


class Against(NamedTuple):
    """Losses `[P, T]` from the same real image to a real and to an adversarial one, `[P]`: which of these are matched,
    and how far they were changed, in L2 and L-infinity."""

    real: np.ndarray
    adversarial: np.ndarray
    matched: np.ndarray
    l2: np.ndarray
    linf: np.ndarray


def measure(
    models: list[tuple[int, nn.Module]],
    test: Split,
    options: ConnectivitySettings,
    device: torch.device,
    trained: bool,
    block: str = "connectivity",
    pairs_alone: bool = False,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(numbers, arrays) of the models (seed, network) of one arm; docs/results.md lists both.

    Pairs of test images are drawn anew for each seed, so that intervals over seeds are over pairs too. Networks that
    are not trained give real images no class, so their pairs are synthetic. Errors: UserError if a network gets too
    few images right for the `pairs` of the recipe's `block`. `pairs_alone`: without components and matched images.
    """
    whole = trained and not pairs_alone

    def look(i: int) -> Seen:
        seed, model = models[i]
        return _look(model.to(device).eval(), seed, test, options, device, trained, whole, block)

    seen = list(spread(look, range(len(models)), device))
    arrays: dict[str, np.ndarray] = {"seeds": np.array([seed for seed, _ in models])}
    numbers: dict[str, Any] = {"seeds": len(seen), "pairs": options.pairs, "kinds": {}}
    for kind in seen[0].heights:
        straight = np.stack([one.straight[kind] for one in seen])  # [S, P, T]
        heights = np.stack([one.heights[kind] for one in seen])  # [S, R + 1, P]
        ends = np.maximum(straight[..., 0], straight[..., -1])  # [S, P]
        gaps = heights - ends[:, None]
        apart = np.stack([one.apart[kind] for one in seen])  # [S, P]
        distinct = apart >= options.distinct
        arrays |= {f"heights/{kind}": heights, f"gaps/{kind}": gaps, f"ends/{kind}": ends, f"apart/{kind}": apart}
        arrays[f"straight/{kind}"] = straight[0].astype(np.float32)
        if kind in seen[0].ids:
            arrays[f"pairs/{kind}"] = np.stack([one.ids[kind] for one in seen])
        found = barrier(torch.from_numpy(straight))
        numbers["kinds"][kind] = {
            "low": _shares(heights, options),
            "level": _shares(gaps, options, distinct),
            "joined": _shares(heights, options, distinct, ends),
            "distinct": rate_of_own(distinct).as_dict(),
            "apart": over_seeds(apart.mean(1), 0.0, 2.0, apart.shape[1]),
            **{
                name: over_seeds(getattr(found, name).double().mean(1).numpy(), *RANGES[name], straight.shape[1])
                for name in ("height", "gap", "position")
            },
        }
    if whole:
        images = options.graph_images * seen[0].component["low"].size
        numbers["component"] = {
            criterion: mean(np.stack([one.component[criterion] for one in seen]), 0.0, 1.0, images).as_dict()
            for criterion in CRITERIA
        }
        numbers["against"], more = _against([one.against for one in seen], options.threshold)
        arrays |= more
    shown = max((one.shown for one in seen), key=lambda one: (len(one.around) > len(one.straight), one.gap))
    return numbers, arrays | {f"shown/{name}": np.float32(getattr(shown, name)) for name in ("images", "straight", "around")}


def _shares(
    values: np.ndarray, options: ConnectivitySettings, counted: np.ndarray | None = None, ends: np.ndarray | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """Threshold -> rounds done -> share of values `[S, R + 1, P]` at or below the threshold.

    Of the pairs that are `counted` `[S, P]`, or all; with `ends` `[S, P]` of those whose ends are at or below the threshold
    too. A threshold without such a pair is left out.
    """
    told = {}
    for threshold in options.thresholds:
        kept = np.ones(values[:, 0].shape, bool) if counted is None else counted
        if ends is not None:
            kept = kept & (ends <= threshold)
        if kept.any():
            told[eps_key(threshold)] = {
                str(done): rate_of_own(values[:, done] <= threshold, kept).as_dict() for done in range(values.shape[1])
            }
    return told


def _look(
    model: nn.Module, seed: int, test: Split, options: ConnectivitySettings, device, trained: bool, whole: bool, block: str
) -> Seen:
    images = torch.from_numpy(test.images).to(device).float().div_(255)
    labels = torch.from_numpy(test.labels).to(device)
    for weight in model.parameters():
        weight.requires_grad_(False)
    right = np.zeros(len(labels), dtype=bool)
    if trained:
        right[recognised(model, images, labels)] = True
    kinds, ids = _pairs(model, seed, images, labels, right, options, trained, block)
    losses = {kind: _straight(model, pairs, options) for kind, pairs in kinds.items()}
    paths = {kind: _around(model, pairs, losses[kind], options) for kind, pairs in kinds.items()}
    straight = {kind: values.cpu().numpy() for kind, values in losses.items()}
    heights = {kind: found.heights.cpu().numpy() for kind, found in paths.items()}
    apart = {kind: _apart(pairs).cpu().numpy() for kind, pairs in kinds.items()}
    first = next(iter(kinds))
    seen = Seen(heights, straight, apart, _shown(kinds[first], straight[first], paths[first]), ids)
    if not whole:
        return seen
    component = _components(model, images, labels, right, options)
    return seen._replace(component=component, against=_matched_pairs(model, seed, images, labels, right, options))


def _pairs(model, seed: int, images: Tensor, labels: Tensor, right: np.ndarray, options, trained: bool, block: str):
    """(kind -> pairs, kind -> test images `[P, 2]` of those that are pairs of them)."""
    classes, shape = int(labels.max()) + 1, images.shape[1:]
    wanted = torch.arange(2 * options.pairs, device=images.device) % options.pairs % classes
    made = synthesise(model, wanted, shape, options.synthesis, generator(seed, "synthesis"))
    half = options.pairs
    synthetic = Pairs(made[:half], made[half:], wanted[:half], wanted[half:])
    if not trained:
        order = (torch.arange(half, device=images.device) + 1) % half  # each image has a partner of its own, of the next class
        order[-1] += wanted[half:][order[-1]] == wanted[half - 1]  # where the round does not close, one of the first two
        between = Pairs(made[:half], made[half:][order], wanted[:half], wanted[half:][order])
        return {"synthetic": synthetic, "between-classes": between}, {}

    ids = {"real": "ss", "interpolated": "ssss", "between-classes": "so"}
    ids = {kind: _drawn(labels, right, classes, options.pairs, seed, kind, block) for kind, classes in ids.items()}

    def real(places: np.ndarray) -> Pairs:
        a, c = torch.from_numpy(places.T).to(images.device)
        return Pairs(images[a], images[c], labels[a], labels[c])

    first, second = real(ids["interpolated"][:, :2]), real(ids.pop("interpolated")[:, 2:])
    middle = Pairs((first.a + first.c) / 2, (second.a + second.c) / 2, first.class_a, second.class_a)
    kinds = {"real": real(ids["real"]), "interpolated": middle, "synthetic": synthetic}
    return {**kinds, "between-classes": real(ids["between-classes"])}, ids


def _drawn(labels: Tensor, right: np.ndarray, classes: str, count: int, seed: int, kind: str, block: str) -> np.ndarray:
    """A stream for each kind, so that arms that get the same images right look at the same pairs."""
    stream = np.random.default_rng(derive_seed(seed, "connectivity", kind))
    try:
        return chosen_tuples(labels.cpu().numpy(), right, classes, count, stream)
    except ValueError as error:
        raise UserError(f"{block}.pairs: seed {seed} gets too few test images right: {error}") from None


def _apart(pairs: Pairs) -> Tensor:
    """`[P]`: |A - C| over the larger of |A| and |C|; 0 where both are 0."""
    a, c = pairs.a.flatten(1).double(), pairs.c.flatten(1).double()
    return (a - c).norm(dim=1) / torch.maximum(a.norm(dim=1), c.norm(dim=1)).clamp(min=1e-12)


def _loss(model: nn.Module, pairs: Pairs):
    """Cross-entropy of the pair's class; between classes, of whichever of the two is nearer."""
    same = bool((pairs.class_a == pairs.class_c).all())

    def loss(x: Tensor, pair: Tensor) -> Tensor:
        first = cross_entropy(model, x, pairs.class_a[pair])
        return first if same else torch.minimum(first, cross_entropy(model, x, pairs.class_c[pair]))

    return loss


def _around(model: nn.Module, pairs: Pairs, straight: Tensor, options: ConnectivitySettings) -> Bypassed:
    """Around all barriers that rise by more than the least threshold above the higher end."""
    way = options.bypass
    return bypass(
        _loss(model, pairs),
        pairs.a,
        pairs.c,
        threshold=torch.maximum(straight[:, 0], straight[:, -1]) + min(options.thresholds),
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


def _shown(pairs: Pairs, straight: np.ndarray, found: Bypassed) -> Shown:
    """The pair with the widest gap, among those whose path was led over one point where there are any."""
    _, gaps, positions = barrier(torch.from_numpy(straight))
    once = found.path.segments(len(pairs.a)).cpu() == 2
    worst = int((torch.where(once, gaps, -1) if once.any() else gaps).argmax())
    a, c, position = pairs.a[worst], pairs.c[worst], float(positions[worst])
    mine = (found.path.pair == worst).nonzero().flatten()
    top = torch.lerp(a, c, position)
    over = found.path.end[mine[0]] if once[worst] else top
    around = found.path.losses[mine].flatten() if once[worst] else torch.from_numpy(straight[worst])
    return Shown(torch.stack([a, top, over, c]).cpu().numpy(), straight[worst], around.cpu().numpy(), float(gaps[worst]))


@torch.no_grad()
def _components(model, images: Tensor, labels: Tensor, right: np.ndarray, options: ConnectivitySettings) -> dict[str, np.ndarray]:
    """Per criterion and class the share of its first `graph_images` right images in the largest set that straight paths join."""
    shares: dict[str, list[float]] = {criterion: [] for criterion in CRITERIA}
    known = labels.cpu().numpy()
    for k in np.unique(known):
        chosen = torch.from_numpy(np.flatnonzero(right & (known == k))[: options.graph_images]).to(images.device)
        if not len(chosen):
            for values in shares.values():
                values.append(0.0)
            continue
        first, second = torch.triu_indices(len(chosen), len(chosen), 1, device=images.device)
        a, c = images[chosen[first]], images[chosen[second]]
        found = barrier(_straight(model, Pairs(a, c, labels[chosen[first]], labels[chosen[second]]), options))
        for criterion, values in (("low", found.height), ("level", found.gap)):
            joined = (values <= options.threshold).cpu().numpy()
            edges = (np.ones(joined.sum()), (first.cpu().numpy()[joined], second.cpu().numpy()[joined]))
            _, component = connected_components(csr_matrix(edges, shape=(len(chosen), len(chosen))), directed=False)
            shares[criterion].append(np.bincount(component).max() / len(chosen))
    return {criterion: np.array(values) for criterion, values in shares.items()}


def _matched_pairs(model, seed: int, images: Tensor, labels: Tensor, right: np.ndarray, options) -> Against:
    """Straight paths from real images to real ones, and to images of other classes made to match those ones' loss."""
    drawn = _drawn(labels, right, "sso", options.pairs, seed, "matched", "connectivity")
    a, c, other = torch.from_numpy(drawn.T).to(images.device)
    with torch.no_grad():
        target = cross_entropy(model, images[c], labels[c])
    made, matched = match_loss(model, images[other], labels[a], target, options.matched)
    curves = [_straight(model, Pairs(images[a], end, labels[a], labels[a]), options) for end in (images[c], made)]
    change = (made - images[other]).flatten(1)
    return Against(*(x.cpu().numpy() for x in (*curves, matched, change.norm(dim=1), change.abs().amax(1))))


def _features(losses: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    found = {name: values.numpy() for name, values in curve_features(torch.from_numpy(losses).double()).items()}
    return {**found, "level": (found["gap"] <= threshold).astype(float), "low": (found["height"] <= threshold).astype(float)}


def _against(seeds: list[Against], threshold: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Adversarial less real, over the matched pairs of every seed: mean features, differences, AUROC of each feature."""
    used = [one for one in seeds if one.matched.sum() > 1]
    kept = [tuple(_features(curves[one.matched], threshold) for curves in (one.real, one.adversarial)) for one in used]
    if not kept:
        say("connectivity: no adversarial image reached the loss of its real partner; its comparison is left out")
    told = contrasts(kept, RANGES)
    for name in CRITERIA if kept else ():
        real, adversarial = (
            np.stack([_features(getattr(one, side), threshold)[name] for one in used]) for side in ("real", "adversarial")
        )
        counted = np.stack([one.matched for one in used])
        told[name] |= {
            "real": rate_of_own(real, counted).as_dict(),
            "adversarial": rate_of_own(adversarial, counted).as_dict(),
            "difference": difference_of_own(adversarial, counted, real, counted).as_dict(),
        }
    matched = rate_of_own(np.stack([one.matched for one in seeds])).as_dict()
    change = {
        norm: over_seeds([getattr(one, norm)[one.matched].mean() for one in used], 0.0, np.inf, len(seeds[0].matched))
        for norm in ("l2", "linf")
        if used
    }
    first = seeds[0]
    arrays = {"against/real": first.real, "against/adversarial": first.adversarial, "against/matched": first.matched}
    return {"matched": matched, "change": change, "features": told}, arrays
