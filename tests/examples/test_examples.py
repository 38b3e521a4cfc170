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


def test_the_ambiguous_sentence_has_two_trees(capsys: pytest.CaptureFixture[str]) -> None:
    load("treebank_grammar").main()
    assert "has 2 trees" in capsys.readouterr().out


def test_the_crf_on_bert_learns() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    accuracy = load("bert_crf").main()
    assert accuracy > 0.97
