"""Bias against spread: what estimators of a gradient trade for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from structlv._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Estimate = tuple[float, float, float]


def plot_bias_variance(
    estimates: Mapping[str, Sequence[Estimate]],
    *,
    floor: float = 1e-3,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw estimators of a gradient by bias and spread, both relative to the norm of the exact gradient.

    `estimates` has for each estimator's name points (what is varied, bias, standard deviation of one
    estimate), joined by a line, each with the number that is varied (samples, a temperature) beside it. Axes
    are logarithmic; what is under `floor` is drawn there. Draws into `ax`, or a new figure; returns the Axes.
    Raises ValueError where there is nothing to draw, MissingExtra without matplotlib.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    if not any(len(points) for points in estimates.values()) or not floor > 0:
        raise ValueError(f"expected a point and floor > 0, found {list(estimates)} and floor={floor}")
    if ax is None:
        ax = Figure(figsize=(6.0, 4.4), dpi=130, layout="constrained").add_subplot()
    for name, points in estimates.items():
        x, y = ([max(point[q], floor) for point in points] for q in (1, 2))
        ax.plot(x, y, "o-", ms=4, lw=1, label=name)
        for (varied, _, _), a, b in zip(points, x, y, strict=True):
            ax.annotate(f"{varied:g}", (a, b), fontsize=6, xytext=(3, 3), textcoords="offset points")
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel(f"bias / norm of the exact gradient ({floor:g}: none found)", fontsize=8)
    ax.set_ylabel("spread of one estimate / that norm", fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    if title:
        ax.set_title(title, fontsize=10)
    return ax
