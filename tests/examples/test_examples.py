"""Every example runs, and shows what it claims."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

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


Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``main()`` of a script, where no corpora are: it prints, and writes its picture alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRUCTLV_DATA", str(tmp_path))

    def call(name: str, *, printing: str = "", **options: Any) -> Any:
        main = load(name).main
        if "picture" in signature(main).parameters:
            pytest.importorskip("matplotlib")
            options["picture"] = tmp_path / "picture.png"
        found = main(**options)
        printed = capsys.readouterr().out
        assert printed.strip()
        assert printing in printed
        assert list(tmp_path.iterdir()) == [x for x in (options.get("picture"),) if x is not None]
        assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
        return found

    return call


# Those of which nothing else runs here, and one that draws
@pytest.mark.parametrize("name", ["bert_crf", "gaussian_hmm", "latent_alignment"])
def test_it_runs_as_a_script(name: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "STRUCTLV_DATA": str(tmp_path)}
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_run() -> None:
    tests = Path(__file__).read_text()
    assert all(f'"{name}"' in tests for name in SCRIPTS)


def test_the_readme_names_them_all() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}.py`" in readme for name in SCRIPTS)


def test_they_follow_the_tutorial_as_its_companion_page_does() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    page = (EXAMPLES.parent / "docs" / "tutorial.md").read_text()
    rows = re.findall(r"^\| ([\d., ]+) \| `(\w+\.py)`", readme, flags=re.MULTILINE)
    assert len(rows) >= 15
    assert all(f"`examples/{name}`" in page for _, name in rows)
    for sections in ([row[0] for row in rows], re.findall(r"^\| ([\d., ]+) \w", page, flags=re.MULTILINE)):
        keys = [[int(part) for part in row.split(",")[0].split(".")] for row in sections]
        assert keys == sorted(keys)


def test_the_crf_learns(run: Run) -> None:
    assert run("crf_tagger") > 0.97


def test_the_samples_agree_with_the_exact_expectation(run: Run) -> None:
    exact, estimate = run("posterior_sampling")
    assert estimate == pytest.approx(exact, abs=0.15)


@pytest.mark.corpora
def test_the_geyser_reaches_the_published_likelihood(corpora: Path) -> None:
    assert load("gaussian_hmm").main() == pytest.approx(-243.594, abs=0.05)


def test_the_appliances_are_told_apart(run: Run) -> None:
    assert run("factorial_hmm") > 0.97


@pytest.mark.parametrize("name", ["latent_alignment", "structured_series", "structured_vae"])
def test_pictures_are_written_where_asked(name: str, run: Run) -> None:
    found = run(name, **({"steps": 40} if "structured" in name else {}))
    if name == "latent_alignment":  # unseen numbers are translated, whatever the attention is trained by
        assert set(found) == {"soft", "hard", "exact"}
        assert max(found.values()) < 0.1
    elif name == "structured_series":
        assert found[0] > -2.5  # what is standardised and independent has -2.84
    else:
        assert all(curve[-1] > curve[0] + 0.3 for curve in found.values())


def test_the_ambiguous_sentence_has_two_trees(run: Run) -> None:
    run("treebank_grammar", printing="has 2 trees")


@pytest.mark.parametrize("name", ["latent_directions", "mixtures", "text_vae", "topic_model"])
def test_flat_latent_variables_show_what_they_claim(name: str, run: Run) -> None:
    found = run(name)
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


def test_em_climbs_what_the_gradient_climbs(run: Run) -> None:
    found = run("em_hmm")
    em, gradient, stepwise = found.curves.values()
    assert all(later > earlier for earlier, later in pairwise(em))  # of EM alone this is promised
    assert stepwise[0] > em[0] + 0.01  # an M-step after every line
    assert gradient[-1] < em[-1] < gradient[-1] + 0.05
    assert stepwise[-1] == pytest.approx(em[-1], abs=0.02)
    assert found.here < 1e-9 < 1 < found.elsewhere


def test_estimators_have_the_bias_and_the_spread_that_they_claim(run: Run) -> None:
    found = run("gradient_estimators")
    assert found.gaussian["reparameterised"].spread < 0.5 * found.gaussian["score function"].spread
    for table in found.taggings.values():
        for name in ("score function", "score function, leave one out", "REBAR"):
            assert all(m.bias < 2 * m.chance for m in table[name].values()), name
        baseline, none = (
            table[name][None].spread for name in ("score function, leave one out", "score function")
        )
        assert baseline < none
        assert min(m.spread for m in table["REBAR"].values()) < baseline
        for name in ("Gumbel-softmax", "Gumbel-softmax, straight-through", "stochastic softmax"):
            spreads = [m.spread for m in table[name].values()]
            assert spreads == sorted(spreads, reverse=True), name
        marginals = table["straight-through marginals"][None]
        assert marginals.bias > 5 * marginals.chance
    alone, chain = found.taggings.values()
    biases = [m.bias for m in alone["Gumbel-softmax"].values()]
    assert biases == sorted(biases)
    assert biases[0] < 0.2 * biases[-1]
    for m, other in zip(*(alone[k].values() for k in ("Gumbel-softmax", "stochastic softmax")), strict=True):
        assert m == pytest.approx(other, rel=1e-3)  # without a chain they are the same
    assert chain["Gumbel-softmax"][0.2].bias > 5 * chain["Gumbel-softmax"][0.2].chance
    exact, score, hot, annealed = (curve[-1] for curve in found.curves.values())
    assert max(exact, score, annealed) < 0.1 < hot


def test_richer_posteriors_and_more_draws_tighten_the_bound(run: Run) -> None:
    found = run("tighter_bounds")
    approximation = [parts[0] for parts in found.families.values()]
    assert all(b < a - 0.02 for a, b in pairwise(approximation))
    assert all(-0.03 < parts[1] < 0.15 for parts in found.families.values())
    network, ascended, semi, alone = found.ascended.values()
    assert max(ascended, semi) < network - 0.1
    assert alone == pytest.approx(found.families["diagonal Gaussian"][0], abs=0.1)  # the same best one
    for row in found.weighted.values():
        assert all(b < a for a, b in pairwise(row))
        assert row[-1] > -0.02
    one, eight = found.weighted.values()
    assert eight[0] > one[0] + 0.5  # poor for a single draw,
    assert eight[1] < one[1] - 0.05  # better for those it learned with
    assert found.estimates["the wide one"] == pytest.approx(found.log_likelihood, abs=0.05)


def test_sleep_covers_and_the_elbo_keeps_inside(run: Run) -> None:
    found = run("wake_sleep")
    elbo, few, many, sleep = found.known.values()
    assert elbo.variances == pytest.approx(found.conditional, rel=0.1)
    assert sleep.variances == pytest.approx(found.marginal, rel=0.1)
    assert elbo.variances[0] < few.variances[0] < many.variances[0] < 1.05 * found.marginal[0]
    assert elbo.inside < 0.5 * sleep.inside
    assert sleep.covering < 0.5 * elbo.covering
    assert elbo.correlation < -0.7
    assert all(abs(outcome.correlation) < 0.15 for outcome in found.learned.values())


def test_the_crf_on_bert_learns() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    accuracy = load("bert_crf").main()
    assert accuracy > 0.97
