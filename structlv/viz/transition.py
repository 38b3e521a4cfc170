"""The heat map of a transition matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from structlv._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_transition(
    probabilities: Tensor,
    labels: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw transition probabilities (k, k), rows the state before and columns the state after, as a heat map.

    `labels` name the k states (their numbers otherwise). The colour follows the square root of the
    probability, so that small ones can be told apart. Draws into `ax`, or a new figure of fitting size;
    returns the Axes (save with `ax.figure.savefig(path)`). Raises ValueError on wrong shapes, MissingExtra
    without matplotlib.
    """
    require("matplotlib", "plot")
    from matplotlib.colors import PowerNorm

    values, names = checked_transition(probabilities, labels)
    ax = _new_axes(len(names), max(map(len, names))) if ax is None else ax
    image = ax.imshow(
        values, cmap="magma_r", norm=PowerNorm(0.5, vmin=0.0, vmax=max(float(values.max()), 1e-3))
    )
    _label(ax, names)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.02)
    bar.set_label("probability of the next state", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if title:
        ax.set_title(title, fontsize=11)
    return ax


def checked_transition(probabilities: Tensor, labels: Sequence[str] | None) -> tuple[Any, list[str]]:
    """Probabilities (k, k) as a float64 array, and k names; ValueError where there are not so many."""
    k = probabilities.shape[-1]
    names = [str(i) for i in range(k)] if labels is None else list(labels)
    if probabilities.shape != (k, k) or len(names) != k:
        found = f"found {tuple(probabilities.shape)} and {len(names)} labels"
        raise ValueError(f"expected probabilities (k, k) and k labels, {found}")
    return probabilities.detach().cpu().double().numpy(), names


def _new_axes(k: int, width: int) -> Axes:
    """Axes in a figure of its own, without pyplot: no window, no global state."""
    from matplotlib.figure import Figure

    side = 2.0 + 0.24 * max(k, 6)
    figure = Figure(figsize=(side + 0.085 * width + 1.0, side + 0.085 * width), dpi=130, layout="constrained")
    axes: Axes = figure.add_subplot()
    return axes


def _label(ax: Axes, names: list[str]) -> None:
    style: dict[str, Any] = {"fontsize": 8}
    ax.set_xticks(range(len(names)), names, rotation=90, **style)
    ax.set_yticks(range(len(names)), names, **style)
    ax.set_xlabel("to state", fontsize=9)
    ax.set_ylabel("from state", fontsize=9)
    ax.set_xticks([i - 0.5 for i in range(1, len(names))], minor=True)
    ax.set_yticks([i - 0.5 for i in range(1, len(names))], minor=True)
    ax.grid(which="minor", color="0.88", linewidth=0.4)
    ax.tick_params(which="both", length=0)
