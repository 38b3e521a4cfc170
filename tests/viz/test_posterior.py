"""The posterior heat map and the curves of a training."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

from structlv import LinearChain
from structlv.viz import plot_curves, plot_posterior


def test_it_draws_words_states_and_the_best_path(tmp_path: Path) -> None:
    chain = LinearChain(torch.randn(4, 3, requires_grad=True), torch.zeros(3, 3))
    probabilities = chain.marginals().unary
    words, labels = ["the", "dog", "sees", "it"], ["D", "N", "V"]
    axes = plot_posterior(probabilities, words, labels, path=chain.argmax(), title="T")
    assert [t.get_text() for t in axes.get_xticklabels()] == words
    assert [t.get_text() for t in axes.get_yticklabels()] == labels
    corners = [(p.get_x() + 0.5, p.get_y() + 0.5) for p in axes.patches]
    assert corners == list(enumerate(chain.argmax().tolist()))
    drawn = torch.as_tensor(axes.images[0].get_array().data.copy())
    torch.testing.assert_close(drawn.T, probabilities.detach().double())
    axes.figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
    assert not plot_posterior(probabilities, path=[-1] * 4).patches


def test_a_picture_shows_itself_in_a_notebook() -> None:
    from structlv.viz import Svg, to_svg

    def drawn() -> Svg:
        return to_svg(plot_posterior(torch.tensor([[0.25, 0.75]]), ["word"], ["D", "N"], title="Posterior"))

    picture = drawn()
    assert picture == drawn()
    assert picture._repr_svg_() == picture
    root = ET.fromstring(picture)
    assert root.tag.endswith("svg")
    assert "Posterior" in picture


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3, 3), {}, r"expected probabilities \(n, k\), found \(2, 3, 3\)"),
        ((2, 3), {"words": ["a"]}, "expected 2 words and 3 labels .* found 1 words, 3 labels"),
        ((2, 3), {"path": [0]}, "a path of 1"),
    ],
)
def test_wrong_shapes(shape: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_posterior(torch.zeros(shape), **options)


def test_curves() -> None:
    axes = plot_curves({"bound": [3.0, 2.0, math.nan, 1.0], "KL": [0.5]}, every=10, title="T")
    bound, kl = axes.get_lines()
    assert list(bound.get_xdata()) == [0, 10, 20, 30]
    assert list(kl.get_ydata()) == [0.5]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["bound", "KL"]
    with pytest.raises(ValueError, match=r"found \{'KL': 0\} and every=1"):
        plot_curves({"KL": []})
