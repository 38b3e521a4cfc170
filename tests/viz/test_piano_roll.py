"""The piano roll: a box for each note, a band for each run of states."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

from matplotlib.patches import Rectangle

from structlv.viz import plot_piano_roll


def boxes(axes, above: float) -> list[tuple[float, float, float]]:
    """(left, right, middle height) of the boxes over or, negated, under a height."""
    found = [p for p in axes.patches if isinstance(p, Rectangle)]
    rows = [(p.get_x(), p.get_x() + p.get_width(), p.get_y() + p.get_height() / 2) for p in found]
    return [row for row in rows if (row[2] > above)]


def test_events_of_a_melody_and_runs_of_states(tmp_path: Path) -> None:
    pitches = torch.tensor([60, 60, 64, 67])
    states = torch.tensor([[0, 0, 1, 1], [2, 3, 3, 3]])
    axes = plot_piano_roll(pitches, states, title="T")
    notes = boxes(axes, 59)
    assert [round(middle) for _, _, middle in notes] == [60, 60, 64, 67]
    assert [round(left) for left, _, _ in notes] == [0, 1, 2, 3]
    bands = [box for box in boxes(axes, -100) if box[2] < 59]
    assert [(left, right) for left, right, _ in bands] == [(0, 2), (2, 4), (0, 1), (1, 4)]
    assert len({round(middle, 3) for _, _, middle in bands}) == 2
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "3"]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["C4", "D4", "E4", "F4", "G4", "chain 1", "chain 2"]
    axes.figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_held_notes_are_one_box_and_silence_is_none() -> None:
    pitches = torch.tensor([[72, 48], [72, 48], [-1, 48], [72, 50]])
    attacks = torch.tensor([[True, True], [False, False], [False, True], [True, True]])
    for given, expected in [
        (None, [(0, 2, 72), (3, 4, 72), (0, 3, 48), (3, 4, 50)]),
        (attacks, [(0, 2, 72), (3, 4, 72), (0, 2, 48), (2, 3, 48), (3, 4, 50)]),
    ]:
        found = boxes(plot_piano_roll(pitches, attacks=given), 0)
        assert [tuple(map(round, box)) for box in found] == expected


def test_given_axes_and_no_pyplot() -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    axes = plot_piano_roll(torch.tensor([60]))
    assert plot_piano_roll(torch.tensor([62, 63]), torch.tensor([[0, -1]]), ax=axes) is axes
    assert pyplot.get_fignums() == before


def test_wrong_shapes() -> None:
    pitches = torch.tensor([60, 62])
    with pytest.raises(ValueError, match="expected pitches"):
        plot_piano_roll(torch.tensor([-1, -1]))
    with pytest.raises(ValueError, match="expected pitches"):
        plot_piano_roll(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=r"expected states \(m, 2\), found \(1, 3\)"):
        plot_piano_roll(pitches, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="expected attacks"):
        plot_piano_roll(pitches, attacks=torch.ones(3, dtype=torch.bool))
