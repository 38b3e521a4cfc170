"""Every example runs as a script, and shows what it claims."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs_as_a_script(name: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "STRUCTLV_DATA": str(tmp_path),
    }  # as where no corpora are
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []


def test_the_readme_names_them_all() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}.py`" in readme for name in SCRIPTS)


def test_the_crf_learns() -> None:
    assert load("crf_tagger").main() > 0.97


def test_the_samples_agree_with_the_exact_expectation() -> None:
    exact, estimate = load("posterior_sampling").main()
    assert estimate == pytest.approx(exact, abs=0.15)


@pytest.mark.corpora
def test_the_geyser_reaches_the_published_likelihood(corpora: Path) -> None:
    assert load("gaussian_hmm").main() == pytest.approx(-243.594, abs=0.05)


def test_the_appliances_are_told_apart() -> None:
    assert load("factorial_hmm").main() > 0.97


@pytest.mark.parametrize("name", ["latent_alignment", "structured_series", "structured_vae"])
def test_pictures_are_written_where_asked(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = load(name).main(tmp_path / "picture.png", **({"steps": 40} if "structured" in name else {}))
    assert (tmp_path / "picture.png").stat().st_size > 5000
    if name == "latent_alignment":  # unseen numbers are translated, whatever the attention is trained by
        assert set(found) == {"soft", "hard", "exact"}
        assert max(found.values()) < 0.1
    elif name == "structured_series":
        assert found[0] > -2.5  # what is standardised and independent has -2.84
    else:
        assert all(curve[-1] > curve[0] + 0.3 for curve in found.values())


def test_the_ambiguous_sentence_has_two_trees(capsys: pytest.CaptureFixture[str]) -> None:
    load("treebank_grammar").main()
    assert "has 2 trees" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["latent_directions", "mixtures", "text_vae", "topic_model"])
def test_flat_latent_variables_show_what_they_claim(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = load(name).main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    if name == "mixtures":
        assert found["naive Bayes"] == 1.0
    elif name == "topic_model":
        assert found >= 5
    elif name == "latent_directions":
        alike, (encoder, best, weighted, annealed) = found
        assert alike > 0.95
        assert encoder < best + 0.02 < weighted + 0.04
        assert annealed == pytest.approx(weighted, abs=0.2)
    else:
        plain, remedied = found["plain"], found["with remedies"]
        assert plain.active_units == 0
        assert abs(plain.swapped.gap) < 0.05
        assert remedied.active_units > 1
        assert remedied.mutual_information.value > 1
        assert remedied.swapped.gap > 0.8


def test_the_crf_on_bert_learns() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    accuracy = load("bert_crf").main()
    assert accuracy > 0.97
