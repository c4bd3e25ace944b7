"""Figures of a toy as PNG bytes, the same for the same numbers; networks are those of the first seed."""

from __future__ import annotations

import numpy as np

from isorobust.drawing import Figure, plt, png
from isorobust.toys import shapes
from isorobust.toys.study import ARMS, Study, kept, look

GRID = 160  # points per axis on which decision boundaries are drawn
SHOWN = 1.0  # distortion from which colours no longer change
POINT = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "s": 5, "linewidths": 0}
COLORS = {"input": "0.25", "isometric": "C0", "cross-entropy": "C3"}


def figures(study: Study) -> dict[str, bytes]:
    """File name -> PNG."""
    made = {"input": points(study), "representation": representations(study), "distances": distances(study)}
    made["distortion"] = distortion(study)
    return {f"{name}.png": png(figure) for name, figure in made.items()}


def points(study: Study) -> Figure:
    """The test points in space, coloured by the finest class."""
    figure = plt.figure(figsize=(5.4, 4.2))
    axis = figure.add_axes((0.0, 0.0, 0.94, 0.96), projection="3d")
    places = study.test.inputs
    axis.scatter(*places.T, c=study.truth[-1], **POINT, depthshade=False)
    axis.set(xlabel="$x_1$", ylabel="$x_2$", zlabel="$x_3$")
    for each in (axis.xaxis, axis.yaxis, axis.zaxis):
        each.set_major_locator(plt.MaxNLocator(4))
    axis.set_box_aspect(np.ptp(places, axis=0), zoom=1.05)
    figure.suptitle(f"{study.name}: {len(places)} test points, {int(study.truth[-1].max()) + 1} classes", fontsize=11)
    return figure


def representations(study: Study) -> Figure:
    """Rows arms (side by side for one level), columns levels: two principal components and their share of the variance."""
    count = len(study.truth)
    rows, columns = (1, len(ARMS)) if count == 1 else (len(ARMS), count)
    figure, axes = plt.subplots(rows, columns, figsize=(3.9 * columns + 0.4, 3.4 * rows + 0.4), layout="constrained")
    for row, arm in zip(axes.reshape(len(ARMS), count), ARMS):
        for level, (axis, labels) in enumerate(zip(row, study.truth)):
            places, share = _principal(study.seen[arm][0][level].representations)
            axis.scatter(*places.T, c=labels, **POINT)
            axis.set_aspect("equal", adjustable="datalim")
            axis.set_title(f"{arm}{_level(study, level)}\n{100 * share:.0f} % of the variance", fontsize=9)
            axis.set(xlabel="PC 1", ylabel="" if level else "PC 2")
    figure.suptitle(f"{study.name}: representations of the test points", fontsize=11)
    return figure


def _principal(x: np.ndarray) -> tuple[np.ndarray, float]:
    """(places `[N, 2]`, share of the variance)."""
    x = x.astype(float) - x.mean(axis=0)
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    # A component's sign is arbitrary; the first point decides it.
    places = left[:, :2] * values[:2] * np.where(left[0, :2] < 0, -1, 1)
    return places, float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-30))


def _level(study: Study, level: int) -> str:
    return "" if len(study.truth) == 1 else f", block {level + 1} ({int(study.truth[level].max()) + 1} classes)"


def distances(study: Study) -> Figure:
    """Per level the same-class distances: between inputs, and between both arms' representations at the scale that fits best."""
    count = len(study.truth)
    figure, axes = plt.subplots(1, count, figsize=(3.7 * count + 1.2, 3.4), squeeze=False, layout="constrained")
    for level, axis in enumerate(axes[0]):
        found = {arm: kept(study, arm, 0, level) for arm in ARMS}
        drawn = {"input": found[ARMS[0]].d_x, **{arm: one.fit.scale * one.d_r for arm, one in found.items()}}
        top = max(np.quantile(values, 0.995) for values in drawn.values())
        for name, values in drawn.items():
            axis.hist(
                values, np.linspace(0, top, 60), density=True, histtype="step", color=COLORS[name], label=name, linewidth=1.4
            )
        axis.set(xlabel="distance inside a class", title=_level(study, level).removeprefix(", "), yscale="log")
    axes[0][0].set_ylabel("density")
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{study.name}: distances between test points of a class", fontsize=11)
    return figure


def distortion(study: Study) -> Figure:
    """Local distortion over the manifold, decision boundaries drawn in: the torus unrolled, the rings in their planes."""
    flat = study.name == "rings"
    count = 2 if flat else len(study.truth)
    size = (3.9 * count + 1.4, 5.0 if flat else 6.8)
    figure, axes = plt.subplots(len(ARMS), count, figsize=size, squeeze=False, sharex="col", sharey="col", layout="constrained")
    for row, arm in zip(axes, ARMS):
        for column, axis in enumerate(row):
            values = kept(study, arm, 0, 0 if flat else column).distortion
            draw = _ring_plane if flat else _unrolled
            picture = draw(axis, study, arm, column, values)
    for axis in axes[-1]:
        axis.set_xlabel("$x_1$" if flat else "angle, long way round")
    figure.colorbar(picture, ax=axes, shrink=0.7, extend="max", label="local distortion: mean |s d_r / d_x - 1|")
    figure.suptitle(f"{study.name}: where distances inside a class are lost; black lines: decision boundaries", fontsize=11)
    return figure


def _unrolled(axis, study: Study, arm: str, level: int, values: np.ndarray):
    steps = np.linspace(0, shapes.TURN, GRID)
    angles = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)
    places = shapes.torus_points(angles.reshape(-1, 2), study.options)
    _boundaries(axis, *np.moveaxis(angles, 2, 0), look(study.networks[arm][0], places)[level].predicted)
    picture = axis.scatter(*study.test.angles.T, c=values, cmap="viridis", vmin=0, vmax=SHOWN, s=9, linewidths=0)
    ticks = [0, np.pi, shapes.TURN]
    axis.set(xticks=ticks, xticklabels=["0", "$\\pi$", "$2\\pi$"], yticks=ticks, yticklabels=["0", "$\\pi$", "$2\\pi$"])
    axis.set_title(f"{arm}{_level(study, level)}", fontsize=9)
    if level == 0:
        axis.set_ylabel("angle, short way round")
    return picture


def _ring_plane(axis, study: Study, arm: str, ring: int, values: np.ndarray):
    """The plane of one ring: z = 0 of the first, y = 0 of the second; the other ring goes through it at the crosses."""
    options, height = study.options, 2 - ring  # the coordinate that is 0 in the plane of this ring
    other = 1 + ring  # the coordinate beside the first in this plane
    reach = 1.25 * options.radius
    middle = options.offset / 2
    first, second = np.meshgrid(np.linspace(middle - 2 * reach, middle + 2 * reach, GRID), np.linspace(-reach, reach, GRID))
    places = np.zeros((GRID * GRID, 3))
    places[:, 0], places[:, other], places[:, height] = first.ravel(), second.ravel(), 0
    _boundaries(axis, first, second, look(study.networks[arm][0], places)[0].predicted)
    mine = study.test.labels == ring
    inputs = study.test.inputs[mine]
    picture = axis.scatter(inputs[:, 0], inputs[:, other], c=values[mine], cmap="viridis", vmin=0, vmax=SHOWN, s=12, linewidths=0)
    centre = options.offset if ring == 0 else 0.0
    axis.plot([centre - options.radius, centre + options.radius], [0, 0], "x", color="0.4", markersize=6)
    axis.set(aspect="equal", ylabel="$x_2$" if ring == 0 else "$x_3$")
    axis.set_title(f"{arm}, plane of ring {ring + 1} (crosses: the other ring)", fontsize=9)
    return picture


def _boundaries(axis, first: np.ndarray, second: np.ndarray, predicted: np.ndarray) -> None:
    for label in np.unique(predicted):
        inside = (predicted == label).reshape(first.shape).astype(float)
        if 0 < inside.mean() < 1:
            axis.contour(first, second, inside, [0.5], colors="black", linewidths=0.9)
