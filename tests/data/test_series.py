"""CSV files of numbers."""

from pathlib import Path

import pytest
import torch

from structlv.data import read_series


def written(folder: Path, text: str) -> Path:
    path = folder / "x.csv"
    path.write_bytes(text.encode())
    return path


def test_one_sequence_with_what_is_missing(tmp_path: Path) -> None:
    (x,) = read_series(written(tmp_path, '\ufeffa,"b, c"\r\n1,2\r\n-3.5e1, NA\r\n'))
    assert x.dtype == torch.float64
    assert torch.equal(x.nan_to_num(nan=9.0), torch.tensor([[1.0, 2.0], [-35.0, 9.0]]).double())


def test_empty_lines_and_a_column_tell_sequences_apart(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,2\n\n\n3,4\n5,6\n")
    assert [x.tolist() for x in read_series(path)] == [[[1, 2]], [[3, 4], [5, 6]]]
    path = written(tmp_path, "who,t,x\nann,1,7\nann,2,8\nbob,1,9\n")
    assert [x.tolist() for x in read_series(path, group="who", columns=["x"])] == [[[7], [8]], [[9]]]
    assert [tuple(x.shape) for x in read_series(path, group="who")] == [(2, 2), (1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1\n", "line 2: expected 2 cells, found 1"),
        ("a\n1\nx\n", "line 3, column a: 'x' is not a number"),
        ("a\n", "no row of numbers"),
        ("", "no row of numbers"),
        ("b\n1\n", "no column 'a'; there are b"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_series(written(tmp_path, text), columns=["a"] if "column" in message else None)
