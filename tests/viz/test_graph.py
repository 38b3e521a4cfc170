"""The transition graph: an arrow for each transition that is probable enough."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")
from matplotlib.patches import Circle, FancyArrowPatch

from structlv.viz import plot_transition_graph


def test_arrows_and_states(tmp_path: Path) -> None:
    probabilities = torch.tensor([[0.9, 0.08, 0.02], [0.0, 0.5, 0.5], [0.3, 0.7, 0.0]], requires_grad=True)
    axes = plot_transition_graph(probabilities, ["a", "b", "c"], threshold=0.05, title="T")
    arrows = [p for p in axes.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) == 6
    assert len([p for p in axes.patches if isinstance(p, Circle)]) == 3
    assert max(arrows, key=lambda a: a.get_linewidth()) is arrows[0]  # a to a, the most probable
    written = {text.get_text() for text in axes.texts}
    assert {"a", "b", "c", ".90", ".08", ".30"} <= written
    assert ".02" not in written
    axes.figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_states_do_not_touch() -> None:
    """However many there are."""
    for k in (1, 2, 7, 30):
        axes = plot_transition_graph(torch.zeros(k, k), weights=torch.rand(k))
        circles = [p for p in axes.patches if isinstance(p, Circle)]
        assert len(circles) == k
        centres = torch.tensor([c.center for c in circles], dtype=torch.float64)
        gaps = torch.cdist(centres, centres) + 9 * torch.eye(k)
        assert float(gaps.min()) > 2 * circles[0].radius
        assert not [p for p in axes.patches if isinstance(p, FancyArrowPatch)]


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"expected probabilities \(k, k\)"):
        plot_transition_graph(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"expected weights \(k,\) = \(3,\)"):
        plot_transition_graph(torch.eye(3), weights=torch.ones(2))
