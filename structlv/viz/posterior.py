"""The heat map of a posterior over a sentence: how probable each state is at each word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from structlv._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_posterior(
    probabilities: Tensor,
    words: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    *,
    path: Sequence[int] | Tensor | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw p(z_t = i) (n, k), as `LinearChain.marginals().unary` has it, words across and states down.

    `words` name the n steps and `labels` the k states (their numbers otherwise); `path` are n states to be
    framed, such as the best sequence (none where they are negative). Draws into `ax`, or a new figure of
    fitting size; returns the Axes (save with `ax.figure.savefig(path)`). Raises ValueError on wrong shapes,
    MissingExtra without matplotlib.
    """
    require("matplotlib", "plot")
    from matplotlib.patches import Rectangle

    if probabilities.dim() != 2:
        raise ValueError(f"expected probabilities (n, k), found {tuple(probabilities.shape)}")
    n, k = probabilities.shape
    across = [str(t) for t in range(n)] if words is None else list(words)
    down = [str(i) for i in range(k)] if labels is None else list(labels)
    states = [] if path is None else [int(state) for state in path]
    if len(across) != n or len(down) != k or (path is not None and len(states) != n):
        found = f"{len(across)} words, {len(down)} labels"
        found += "" if path is None else f", a path of {len(states)}"
        raise ValueError(f"expected {n} words and {k} labels for probabilities ({n}, {k}), found {found}")
    ax = _new_axes(n, k, max(map(len, down), default=1)) if ax is None else ax
    values = probabilities.detach().cpu().double().numpy().T
    image = ax.imshow(values, cmap="magma_r", vmin=0.0, vmax=1.0, aspect="auto")
    for t, state in enumerate(states):
        if state >= 0:
            ax.add_patch(Rectangle((t - 0.5, state - 0.5), 1, 1, fill=False, edgecolor="tab:cyan", lw=1.5))
    ax.set_xticks(range(n), across, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(k), down, fontsize=8)
    ax.set_ylabel("state", fontsize=9)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.02)
    bar.set_label("posterior probability", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if title:
        ax.set_title(title, fontsize=11)
    return ax


def _new_axes(n: int, k: int, width: int) -> Axes:
    """Axes in a figure of its own, without pyplot: no window, no global state."""
    from matplotlib.figure import Figure

    size = (2.5 + 0.35 * max(n, 4) + 0.085 * width, 1.6 + 0.24 * max(k, 4))
    axes: Axes = Figure(figsize=size, dpi=130, layout="constrained").add_subplot()
    return axes
