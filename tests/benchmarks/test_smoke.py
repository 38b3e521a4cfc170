"""The benchmark harness checks what it times, and its own reference agrees with enumeration."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cases, check, reference

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("query", ["logz", "dense_grad"])
def test_reference_agrees_with_enumeration(query):
    case = cases.Case(query, 2, 4, 3)
    inputs = cases.inputs(case)
    paths = np.array(list(itertools.product(range(3), repeat=4)))
    scores = np.stack([reference.score(np.tile(path, (2, 1)), **inputs) for path in paths], 1)
    log_z = np.logaddexp.reduce(scores, 1)
    marginals = np.einsum("bp,ptk->btk", np.exp(scores - log_z[:, None]), np.eye(3)[paths])
    found = reference.forward_backward(**inputs)
    np.testing.assert_allclose(found["log_z"], log_z, rtol=1e-13)
    np.testing.assert_allclose(found["unary"], marginals, atol=1e-13)
    np.testing.assert_allclose(found["transition"].sum(), 2 * 3, rtol=1e-13)
    np.testing.assert_allclose(reference.best_score(**inputs), scores.max(1), rtol=1e-13)


def test_wrong_answers_are_refused():
    case = cases.Case("logz", 2, 4, 3)
    inputs = cases.inputs(case)
    wanted = check.expected(case, inputs)
    check.require(check.errors(case, [wanted["log_z"]], inputs, wanted))
    for wrong in (wanted["log_z"] + 0.01, wanted["log_z"] * np.nan):
        with pytest.raises(check.Wrong):
            check.require(check.errors(case, [wrong], inputs, wanted))


def test_smoke_run_and_table(tmp_path):
    file = tmp_path / "smoke.json"
    command = [sys.executable, "-m", "benchmarks"]
    subprocess.run([*command, "run", "--smoke", "--out", str(file)], cwd=ROOT, check=True, timeout=300)
    for one in json.loads(file.read_text())["cases"]:
        for key, result in one["results"].items():
            assert "wall" in result, (one["case"], key, result)
    table = subprocess.run(
        [*command, "table", str(file)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "fastest peer" in table.stdout
