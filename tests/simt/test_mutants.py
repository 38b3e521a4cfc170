"""Seeded bugs: the list of those that may go unnoticed, and what runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simt import gate, mutate

ROOT = Path(__file__).resolve().parents[2]
ODD = """#!/bin/sh
echo "$@" >> "$0.calls"
exit $(($1 % 2))
"""


def program(folder: Path, text: str = ODD, name: str = "noise_check_mutants") -> Path:
    """What notices every bug of an odd number, and writes down what it was called with."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def calls(path: Path) -> list[int]:
    return sorted(int(line.split()[0]) for line in Path(f"{path}.calls").read_text().splitlines())


def test_what_is_listed_is_there() -> None:
    _, everything = mutate.all_kernels()
    assert gate.stale_of(everything) == []


def test_names_are_unique() -> None:
    """Else a reason for one bug would excuse another."""
    _, everything = mutate.all_kernels()
    assert len({mutate.key(m) for m in everything}) == len(everything)


def test_each_has_one_reason() -> None:
    listed = json.loads(gate.UNNOTICED.read_text())
    assert len(gate.reasons()) == sum(map(len, listed.values()))
    assert gate.UNJUDGED not in listed


def test_goes_on_where_it_was(tmp_path: Path) -> None:
    path = program(tmp_path)
    interrupted = gate.Driver(path).notices([1, 2, 3, 4, 5, 6, 7, 8])
    first = dict(next(interrupted) for _ in range(3))
    interrupted.close()
    with gate.Driver(path).log.open("a") as log:
        log.write("1")  # of "10 1"
    assert dict(gate.Driver(path).notices([1, 2, 3, 4, 5, 6, 7, 8])) == {m: m % 2 == 1 for m in range(1, 9)}
    done = calls(path)
    assert all(done.count(mutant) == 1 for mutant in first)
    assert set(gate.Driver(path).notices([1, 2])) == {(1, True), (2, False)}
    assert calls(path) == done


def test_another_program_begins_anew(tmp_path: Path) -> None:
    path = program(tmp_path)
    assert dict(gate.Driver(path).notices([1, 2])) == {1: True, 2: False}
    path = program(tmp_path, ODD.replace("% 2", "% 2 == 0"))
    assert dict(gate.Driver(path).notices([1, 2])) == {1: False, 2: True}


@pytest.mark.parametrize("suffix", ["", "_asan", "_tsan"])
def test_what_a_program_is_called_with(tmp_path: Path, suffix: str) -> None:
    driver = gate.Driver(program(tmp_path, name=f"chain_check_mutants{suffix}"))
    assert driver.structure == "chain"
    assert not driver.fails(4)
    assert driver.fails(5) is (suffix == "")  # where there is a sanitizer, it has to say so
    Path(f"{driver.program}.calls").unlink()
    assert not driver.fails(4)
    expected = {"": "4 1 0 2 3 4 5", "_asan": "4 1", "_tsan": "4 small 1"}[suffix]
    assert Path(f"{driver.program}.calls").read_text() == expected + "\n"


def test_what_stops_is_not_noticed(tmp_path: Path) -> None:
    path = program(tmp_path, "#!/bin/sh\nkill -TERM $$\n")
    with pytest.raises(RuntimeError, match="stopped by signal 15"):
        list(gate.Driver(path).notices([1, 2]))
    assert gate.Driver(path).known == {}


def test_exits_and_counts(tmp_path: Path) -> None:
    """All of the bugs of noise are noticed by what fails unless it is told to switch none on, none by a
    program that never fails, and nothing is shown by one that always does."""
    (tmp_path / "mutated").mkdir()
    (tmp_path / "mutated" / "mutants.json").write_text(json.dumps(mutate.all_kernels()[1]))

    def run(text: str, *options: str) -> tuple[int, str]:
        path = program(tmp_path, f"#!/bin/sh\n{text}\n")
        command = [sys.executable, "-m", gate.__name__, str(path), *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    results = tmp_path / "results.json"
    code, out = run("test $1 = 0", "--results", str(results))
    assert code == 0, out
    rows = {row["file"]: row for row in json.loads(results.read_text())["rows"]}
    noise = rows["noise_gumbel.cuh"]
    assert noise["bugs"] == noise["checks"] > 0
    code, out = run("exit 0", "--sample", "3")
    assert code == 1
    assert out.count("survives: noise_gumbel.cuh") == 3
    code, out = run("exit 1")
    assert code == 1
    assert "without a bug fail" in out
    (tmp_path / "mutated" / "mutants.json").write_text("[]")
    code, out = run("test $1 = 0")
    assert code == 1
    assert "other kernels" in out
