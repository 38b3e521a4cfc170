"""Curves of a training: a bound and its parts, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from structlv._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_curves(
    curves: Mapping[str, Sequence[float]],
    *,
    every: int = 1,
    unit: str = "nats per symbol",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw named curves over steps, such as {"bound": ..., "reconstruction": ..., "KL": ...}.

    A value is that of step 0, `every`, 2 `every`, ...; NaN leaves a gap. Draws into `ax`, or a new figure;
    returns the Axes. Raises ValueError where there is nothing to draw, MissingExtra without matplotlib.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    if not any(len(values) for values in curves.values()) or every < 1:
        sizes = {name: len(values) for name, values in curves.items()}
        raise ValueError(f"expected a value of some curve and every >= 1, found {sizes} and every={every}")
    if ax is None:
        ax = Figure(figsize=(6.0, 3.4), dpi=130, layout="constrained").add_subplot()
    for name, values in curves.items():
        steps = [every * i for i in range(len(values))]
        ax.plot(steps, [float(v) for v in values], label=name, marker="." if len(values) == 1 else None)
    ax.set_xlabel("step", fontsize=9)
    ax.set_ylabel(unit, fontsize=9)
    ax.grid(color="0.92", linewidth=0.6)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8, frameon=False)
    if title:
        ax.set_title(title, fontsize=11)
    return ax
