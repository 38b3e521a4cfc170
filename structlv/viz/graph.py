"""The graph of a transition matrix: states on a circle, arrows as thick as transitions are probable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from structlv._extras import require
from structlv.viz.transition import checked_transition

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RADIUS = 0.13  # of a state, the circle of states having radius 1 where there are few
Point = tuple[float, float]


def plot_transition_graph(
    probabilities: Tensor,
    labels: Sequence[str] | None = None,
    *,
    weights: Tensor | None = None,
    threshold: float = 0.05,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw transition probabilities (k, k), rows the state before and columns the state after, as a graph.

    An arrow's width and darkness follow its probability, which is written beside it; those under `threshold`
    are left out. `labels` name the k states (their numbers otherwise). `weights` (k), such as
    `hmm.stationary()`, colour them. For up to about 20 states; `plot_transition` draws more. Draws into `ax`,
    or a new figure; returns the Axes. Raises ValueError on wrong shapes, MissingExtra without matplotlib.
    """
    require("matplotlib", "plot")
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    values, names = checked_transition(probabilities, labels)
    k = len(names)
    if weights is not None and weights.shape != (k,):
        raise ValueError(f"expected weights (k,) = ({k},), found {tuple(weights.shape)}")
    size = max(1.0, k * RADIUS * 3 / (2 * math.pi))  # of the circle: states do not touch
    if ax is None:
        ax = Figure(figsize=(2.6 + 2.2 * size,) * 2, dpi=130, layout="constrained").add_subplot()
    angles = [math.pi / 2 - 2 * math.pi * i / k for i in range(k)]
    places = [(size * math.cos(a), size * math.sin(a)) for a in angles] if k > 1 else [(0.0, 0.0)]
    for i in range(k):
        for j in range(k):
            p = float(values[i, j])
            if p >= threshold and p > 0:
                _arrow(ax, places[i], places[j] if i != j else None, angles[i], p)
    shares = [0.0] * k if weights is None else [float(w) for w in weights]
    most = max(max(shares, default=0.0), 1e-12)
    for place, name, share in zip(places, names, shares, strict=True):
        _state(ax, place, name, colormaps["Blues"](0.08 + 0.55 * share / most))
    reach = size + 5.5 * RADIUS
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=11)
    return ax


def _state(ax: Axes, place: Point, name: str, colour: tuple[float, ...]) -> None:
    from matplotlib.patches import Circle

    ax.add_patch(Circle(place, RADIUS, facecolor=colour, edgecolor="0.25", linewidth=1.0, zorder=3))
    size = 10 if len(name) <= 4 else 8 if len(name) <= 7 else 6.5
    ax.text(*place, name, ha="center", va="center", fontsize=size, zorder=4)


def _arrow(ax: Axes, start: Point, end: Point | None, angle: float, p: float) -> None:
    """From state to state, bent so that the way back lies beside it; to itself (`end` None) outwards."""
    from matplotlib.patches import FancyArrowPatch

    if end is None:
        tips = [_moved(start, angle + turn, RADIUS) for turn in (0.5, -0.5)]
        bend, text = -2.2, _moved(start, angle, 3.6 * RADIUS)
    else:
        across = math.atan2(end[1] - start[1], end[0] - start[0])
        tips = [_moved(start, across + 0.35, RADIUS), _moved(end, across + math.pi - 0.35, RADIUS)]
        bend = -0.16
        middle = ((tips[0][0] + tips[1][0]) / 2, (tips[0][1] + tips[1][1]) / 2)
        length = math.dist(*tips)
        text = _moved(middle, across + math.pi / 2, 0.08 * length + 0.05)
    style = f"arc3,rad={bend}"
    colour = str(0.72 * (1 - p))
    ax.add_patch(
        FancyArrowPatch(
            tips[0],
            tips[1],
            connectionstyle=style,
            arrowstyle="-|>",
            mutation_scale=8 + 6 * p,
            linewidth=0.5 + 3 * p,
            color=colour,
            shrinkA=0,
            shrinkB=0,
            zorder=1 + p,
        )
    )
    style_of_text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": colour}
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4}
    ax.text(*text, f"{p:.2f}".lstrip("0"), **style_of_text, bbox=box, zorder=2.5)


def _moved(place: Point, angle: float, by: float) -> Point:
    return place[0] + by * math.cos(angle), place[1] + by * math.sin(angle)
