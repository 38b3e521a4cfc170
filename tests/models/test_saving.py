"""Saved models: round trip, damage, foreign files, interrupted writes."""

import json
from pathlib import Path

import pytest
import torch

from structlv.data import Vocabulary
from structlv.models import Model, NeuralHMM, folder


def model(seed: int = 0) -> NeuralHMM:
    torch.manual_seed(seed)
    hmm = NeuralHMM(3, 5, dim=4, layers=2, stop=False)
    hmm.vocabulary = Vocabulary(["the", "naïve", "<eos>", "x"])
    return hmm


def same(a: NeuralHMM, b: NeuralHMM) -> bool:
    state, other = a.state_dict(), b.state_dict()
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model().save(tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(saved: Path) -> None:
    loaded = NeuralHMM.load(saved)
    assert same(loaded, model())
    assert loaded.hyperparameters == model().hyperparameters
    assert loaded.vocabulary == model().vocabulary
    assert isinstance(Model.load(saved), NeuralHMM)
    x = torch.tensor([[0, 1, 2]])
    assert torch.equal(loaded.log_prob(x), model().log_prob(x))
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors", "vocab.json"]
    assert json.loads((saved / "config.json").read_text())["hyperparameters"]["num_states"] == 3


def test_saving_again_replaces_and_leaves_nothing_behind(saved: Path) -> None:
    model(1).save(saved)
    assert same(NeuralHMM.load(saved), model(1))
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_without_a_vocabulary_none_is_written(saved: Path) -> None:
    hmm = model()
    hmm.vocabulary = None
    hmm.save(saved)
    assert NeuralHMM.load(saved).vocabulary is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json"])
def test_truncated_files_are_named(saved: Path, name: str) -> None:
    path = saved / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        NeuralHMM.load(saved)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"[1, 2]", b'{"architectures": ["Bert"]}'])
def test_foreign_configurations_are_named(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        NeuralHMM.load(saved)


def test_a_pickle_in_place_of_the_weights_is_not_executed(saved: Path) -> None:
    torch.save({"a": torch.zeros(1)}, saved / "model.safetensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        NeuralHMM.load(saved)


def test_a_missing_part_and_a_missing_model(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no saved model there"):
        NeuralHMM.load(tmp_path / "nothing")
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        NeuralHMM.load(saved)


def test_weights_of_another_size_or_class(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    for change in ({"num_states": 4}, {"unheard_of": 1}, {"num_states": "many"}):
        changed = {**config, "hyperparameters": {**config["hyperparameters"], **change}}
        (saved / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="do not fit together"):
            NeuralHMM.load(saved)
    for change, message in ({"model": "Other"}, "holds a Other"), ({"version": 99}, "format version 99"):
        (saved / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            NeuralHMM.load(saved)


def test_a_write_that_fails_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_write", no_space)
    with pytest.raises(OSError, match="No space left"):
        model(1).save(saved)
    assert same(NeuralHMM.load(saved), model(0))
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_a_write_cut_off_between_its_renames_still_loads(saved: Path) -> None:
    saved.rename(saved.with_name(".model.previous"))
    assert same(NeuralHMM.load(saved), model(0))
    model(1).save(saved)
    assert same(NeuralHMM.load(saved), model(1))
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"no part of a model \(thesis\.tex\)"):
        model().save(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        model().save(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
