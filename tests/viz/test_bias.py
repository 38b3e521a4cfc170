"""Estimators by bias and spread."""

import pytest

pytest.importorskip("matplotlib")

from structlv.viz import plot_bias_variance


def test_points_and_names() -> None:
    axes = plot_bias_variance(
        {"score": [(1, 0.0, 3.0), (4, 0.0, 1.5)], "relaxed": [(0.5, 0.2, 0.1)]}, title="T"
    )
    score, relaxed = axes.lines
    assert [line.get_label() for line in axes.lines] == ["score", "relaxed"]
    assert list(score.get_xdata()) == [1e-3, 1e-3]  # what is unbiased lies on the edge of a logarithmic axis
    assert list(score.get_ydata()) == [3.0, 1.5]
    assert list(relaxed.get_xdata()) == [0.2]
    assert [text.get_text() for text in axes.texts] == ["1", "4", "0.5"]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="expected a point"):
        plot_bias_variance({"score": []})
    with pytest.raises(ValueError, match="floor"):
        plot_bias_variance({"score": [(1, 0.1, 0.1)]}, floor=0.0)
