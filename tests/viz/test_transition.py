"""The transition heat map."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

from structlv.viz import plot_transition


def test_it_draws_into_a_new_figure_or_given_axes(tmp_path: Path) -> None:
    probabilities = torch.rand(4, 4).softmax(-1).requires_grad_()
    axes = plot_transition(probabilities, ["a", "b", "c", "long label"], title="T")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b", "c", "long label"]
    assert axes.get_title() == "T"
    axes.figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
    fresh = plot_transition(torch.eye(2))
    assert plot_transition(torch.eye(3), ax=fresh) is fresh


def test_it_needs_no_pyplot() -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot_transition(torch.eye(3))
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 3, 3)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected probabilities \(k, k\)"):
        plot_transition(torch.zeros(shape))
    with pytest.raises(ValueError, match="and 2 labels"):
        plot_transition(torch.eye(3), ["a", "b"])
