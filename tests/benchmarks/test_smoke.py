"""The benchmark harness checks what it times, and its own reference agrees with enumeration."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cases, chains, check, factorials, run, tree_reference, trees
from benchmarks import chain_reference as reference

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("query", ["logz", "dense_grad"])
def test_reference_agrees_with_enumeration(query):
    inputs = cases.Case(query, (2, 4, 3), "float64").inputs()
    paths = np.array(list(itertools.product(range(3), repeat=4)))
    scores = np.stack([reference.score(np.tile(path, (2, 1)), **inputs) for path in paths], 1)
    log_z = np.logaddexp.reduce(scores, 1)
    marginals = np.einsum("bp,ptk->btk", np.exp(scores - log_z[:, None]), np.eye(3)[paths])
    found = reference.forward_backward(**inputs)
    np.testing.assert_allclose(found["log_z"], log_z, rtol=1e-13)
    np.testing.assert_allclose(found["unary"], marginals, atol=1e-13)
    np.testing.assert_allclose(found["transition"].sum(), 2 * 3, rtol=1e-13)
    np.testing.assert_allclose(reference.best_score(**inputs), scores.max(1), rtol=1e-13)


def test_factorial_reference_agrees_with_enumeration():
    size = (1, 3, 2, 3)
    inputs = cases.Case("factorial_grad", size, "float64").inputs()
    matrices = factorials.transitions(inputs)
    paths = list(itertools.product(*[itertools.product(range(k), repeat=3) for k in size[2:]]))
    joint = np.array([[3 * a + b for a, b in zip(*path, strict=True)] for path in paths])
    scores = np.array([inputs["unary"][0, range(3), states].sum() for states in joint])
    edges = []
    for chain, matrix in enumerate(matrices):
        steps = np.array([list(itertools.pairwise(path[chain])) for path in paths])
        scores += matrix[steps[..., 0], steps[..., 1]].sum(-1)
        edges.append(np.eye(matrix.size)[steps[..., 0] * len(matrix) + steps[..., 1]].sum(1))
    log_z = np.logaddexp.reduce(scores)
    weight = np.exp(scores - log_z)
    wanted = factorials.expected("factorial_grad", inputs)
    answer = [
        np.array([log_z]),
        np.einsum("p,ptk->tk", weight, np.eye(6)[joint])[None],
        *(weight @ x for x in edges),
    ]
    found = factorials.errors("factorial_grad", size, answer, inputs, wanted, False)
    assert max(found.values()) < 1e-13, found


def brackets(i: int, j: int) -> list[list[tuple[int, int]]]:
    """Every binary tree over words i..j, as its spans in pre-order."""
    if i == j:
        return [[(i, i)]]
    pairs = ((left, right) for k in range(i, j) for left in brackets(i, k) for right in brackets(k + 1, j))
    return [[(i, j), *left, *right] for left, right in pairs]


def test_tree_reference_agrees_with_enumeration():
    inputs = cases.Case("tree_grad", (1, 4, 2, 2), "float64").inputs()
    scores, used = [], []
    for spans in brackets(0, 3):
        for labels in itertools.product(range(2), repeat=len(spans)):
            rows = [(i, j, label + 2 * (i == j)) for (i, j), label in zip(spans, labels, strict=True)]
            parts = tree_reference.counts(np.array([rows]), **inputs)
            used.append(parts)
            scores.append(sum((part * x).sum() for part, x in zip(parts, inputs.values(), strict=True)))
    assert len(scores) == 640
    log_z = np.logaddexp.reduce(scores)
    found = tree_reference.inside_outside(**inputs)
    np.testing.assert_allclose(found["log_z"], log_z, rtol=1e-13)
    for i, name in enumerate(inputs):
        mean = sum(np.exp(score - log_z) * parts[i] for score, parts in zip(scores, used, strict=True))
        np.testing.assert_allclose(found[name], mean, atol=1e-13)
    np.testing.assert_allclose(tree_reference.best_score(**inputs), max(scores), rtol=1e-13)
    assert (
        trees.errors(
            "tree_viterbi",
            (1, 4, 2, 2),
            used[int(np.argmax(scores))],
            inputs,
            {"best_score": np.array([max(scores)])},
            False,
        )["score"]
        < 1e-12
    )


def test_wrong_answers_are_refused():
    size = (2, 4, 3)
    inputs = cases.Case("logz", size).inputs()
    wanted = chains.expected("logz", inputs)

    def errors(log_z):
        return chains.errors("logz", size, [log_z], inputs, wanted, False)

    check.require(errors(wanted["log_z"]))
    for wrong in (wanted["log_z"] + 0.01, wanted["log_z"] * np.nan):
        with pytest.raises(check.Wrong):
            check.require(errors(wrong))


def test_what_gave_no_figures_is_named():
    results = {
        "right": {"wall": [1, 1, 1]},
        "wrong": {"status": "WRONG: log_z"},
        "not there": {"status": "unsupported: k best"},
        "slow": {"status": "no answer within 60 s"},
    }
    found = run.unanswered({"cases": [{"case": "logz 2,4,3", "results": results}]})
    assert found == ["logz 2,4,3, wrong: WRONG: log_z", "logz 2,4,3, slow: no answer within 60 s"]


def test_smoke_run_and_table(tmp_path):
    file = tmp_path / "smoke.json"
    command = [sys.executable, "-m", "benchmarks"]
    subprocess.run([*command, "run", "--smoke", "--out", str(file)], cwd=ROOT, check=True, timeout=300)
    for one in json.loads(file.read_text())["cases"]:
        for key, result in one["results"].items():
            assert "wall" in result or "unsupported" in result["status"], (one["case"], key, result)
    table = subprocess.run(
        [*command, "table", str(file)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "fastest peer" in table.stdout


def test_the_script_for_gpus_on_a_cpu(tmp_path):
    file = tmp_path / "gpu.json"
    small = ["--device", "cpu", "--batch", "4", "--states", "5", "--vocabulary", "30", "--rounds", "2"]
    command = [sys.executable, "-m", "benchmarks.gpu", *small, "--out", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    (one,) = json.loads(file.read_text())["cases"]
    assert one["size"]["states"] == 5
    assert one["errors"].keys() == {"log_z", "root", "transition", "unary"}
    assert one["forward"] > 0
