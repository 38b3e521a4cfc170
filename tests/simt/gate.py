"""Do the checks of small shapes notice seeded bugs of the CUDA kernels?

``python -m tests.simt.gate PROGRAM...`` runs each program of mutants (``X_check_mutants`` and its like, see
``mutate.py``) with every bug switched on in turn, or with N of them drawn by ``--seed`` (``--sample N``), and
exits 1 if one goes unnoticed that ``unnoticed.json`` does not list with a reason. A program with a sanitizer
(``_asan``, ``_tsan``) is run with each that the list says that it notices. What was found is kept beside the
program: an interrupted run goes on where it was, as long as the program is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.simt.mutate import all_kernels, key

HERE = Path(__file__).resolve().parent

UNNOTICED = HERE / "unnoticed.json"
UNJUDGED = "not yet judged: a gap in the checks, or no bug"
SCHEDULES = ["1", "0", "2", "3", "4", "5"]
SANITIZERS = {"_asan": ("AddressSanitizer", ["1"]), "_tsan": ("ThreadSanitizer", ["small", "1"])}
SAYS = re.compile("(Address|Thread)Sanitizer|runtime error")  # the last is UndefinedBehaviorSanitizer
STOPPED = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL}
SHARED = {"log_sum.cuh": "factorial"}  # whose driver runs all of what structures share; else the chain's


def reasons() -> dict[str, str]:
    listed = json.loads(UNNOTICED.read_text()) if UNNOTICED.exists() else {}
    return {entry: reason for reason, entries in listed.items() for entry in entries}


def stale_of(everything: list[dict]) -> list[str]:
    return sorted(set(reasons()) - {key(m) for m in everything})


def structure(file: str) -> str:
    """Whose driver must notice the bugs of a file: the chain's for most of what all share."""
    drivers = [path.name.removesuffix("_check.cpp") for path in HERE.glob("*_check.cpp")]
    own = [name for name in drivers if file.startswith((f"{name}_", f"{name}."))]
    return SHARED.get(file, max(own, key=len, default="chain"))


class Driver:
    """A program of mutants, what it is called with, and the bugs that it was run with."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.structure, _, suffix = program.name.partition("_check_mutants")
        self.sanitizer, self.schedules = SANITIZERS.get(suffix, ("", SCHEDULES))
        self.log = program.with_name(program.name + ".noticed")
        digest = hashlib.sha256(program.read_bytes() + " ".join(self.schedules).encode()).hexdigest()
        text = self.log.read_text() if self.log.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # without one that an interrupt cut short
        if lines[:1] != [digest]:
            lines = [digest]
        self.log.write_text("".join(line + "\n" for line in lines))
        self.known: dict[int, bool] = {
            int(mutant): noticed == "1" for mutant, noticed in map(str.split, lines[1:])
        }

    def fails(self, mutant: int) -> bool:
        call = [str(self.program), str(mutant), *self.schedules]
        env = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
        done = subprocess.run(call, env=env, capture_output=True, text=True, errors="replace")
        if done.returncode in STOPPED:
            raise RuntimeError(f"{' '.join(call)} was stopped by signal {-done.returncode}")
        noticed = done.returncode != 0
        if self.sanitizer and mutant:  # it has to be the sanitizer that says so
            return noticed and SAYS.search(done.stdout + done.stderr) is not None
        return noticed

    def notices(self, mutants: list[int]) -> Iterator[tuple[int, bool]]:
        """Each with whether it is noticed, in the order in which that is known."""
        new = [m for m in mutants if m not in self.known]
        yield from ((m, self.known[m]) for m in mutants if m in self.known)
        with ThreadPoolExecutor(os.cpu_count()) as pool, self.log.open("a") as log:
            running = {pool.submit(self.fails, m): m for m in new}
            try:
                for done in as_completed(running):
                    self.known[running[done]] = done.result()
                    print(running[done], int(done.result()), file=log, flush=True)
                    yield running[done], done.result()
            finally:
                pool.shutdown(cancel_futures=True)


def draw(driver: Driver, everything: list[dict], options: argparse.Namespace) -> list[dict]:
    """The mutants that it is to be run with."""
    why = reasons()
    own = [m for m in everything if structure(m["file"]) == driver.structure and options.only in m["file"]]
    if driver.sanitizer:
        return [m for m in own if driver.sanitizer in why.get(key(m), "")]
    drawn = [m for m in own if options.listed or key(m) not in why]
    if options.sample:
        drawn = random.Random(options.seed).sample(drawn, min(options.sample, len(drawn)))
    return drawn


def run(driver: Driver, drawn: list[dict]) -> tuple[list[dict], list[dict]]:
    """Which are noticed, and which are not; says where that is not as listed."""
    from tqdm import tqdm

    why = {} if driver.sanitizer else reasons()
    names = {m["id"]: m for m in drawn}
    noticed: list[dict] = []
    unnoticed: list[dict] = []
    found = driver.notices(list(names))
    for number, seen in tqdm(found, driver.program.name, len(drawn), leave=False, disable=None):
        mutant = names[number]
        (noticed if seen else unnoticed).append(mutant)
        if seen and key(mutant) in why:
            tqdm.write(f"  listed but noticed: {key(mutant)}")
        elif not seen and key(mutant) not in why:
            tqdm.write(f"  survives: {key(mutant)}  (line {mutant['line']}, mutant {number})")
    print(f"{driver.program.name}: {len(noticed)} of {len(drawn)} noticed", flush=True)
    return noticed, unnoticed


def record(everything: list[dict], survivors: list[dict]) -> None:
    """Lists what goes unnoticed, to be judged, and takes out what is gone."""
    listed = json.loads(UNNOTICED.read_text())
    stale = stale_of(everything)
    kept = {reason: [x for x in entries if x not in stale] for reason, entries in listed.items()}
    kept[UNJUDGED] = sorted({*kept.get(UNJUDGED, []), *map(key, survivors)})
    UNNOTICED.write_text(json.dumps(kept, indent=1) + "\n")


def summary(everything: list[dict], noticed: dict[str, list[dict]], machine: dict) -> dict:
    """Counts for each file with kernels: its bugs, by what they are noticed, and how many are listed (those
    that a sanitizer notices are, too)."""
    why = reasons()
    rows = []
    for file in sorted({m["file"] for m in everything}):
        own = {key(m) for m in everything if m["file"] == file}
        by = {name or "checks": len(own & set(map(key, found))) for name, found in noticed.items()}
        rows.append({"file": file, "bugs": len(own), **by, "listed": len(own & set(why))})
    kinds = Counter(why.values())
    return {"machine": machine, "rows": rows, "listed": dict(kinds.most_common())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, nargs="+")
    parser.add_argument("--sample", type=int, default=0, help="so many, not all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="of the files whose names contain this")
    parser.add_argument("--listed", action="store_true", help="those too that are listed: still unnoticed?")
    parser.add_argument("--record", action="store_true", help=f"list what goes unnoticed in {UNNOTICED.name}")
    parser.add_argument("--results", type=Path, help="write counts for every file with kernels, as JSON")
    options = parser.parse_args()
    if options.results and (options.sample or options.only):
        parser.error("--results counts all bugs: not with --sample or --only")

    everything = all_kernels()[1]
    noticed: dict[str, list[dict]] = {"": []}
    survivors: list[dict] = []
    wrong = 0
    for program in options.program:
        written = json.loads((program.parent / "mutated" / "mutants.json").read_text())
        if written != everything:
            sys.exit(f"{program} was built from other kernels than those in csrc/cuda: build it again")
        driver = Driver(program)
        drawn = draw(driver, everything, options)
        if drawn and dict(driver.notices([0]))[0]:
            sys.exit(f"{program}: the kernels without a bug fail")
        seen, unseen = run(driver, drawn)
        noticed.setdefault(driver.sanitizer, []).extend(seen)
        listed = set() if driver.sanitizer else set(reasons())
        survivors += [m for m in unseen if key(m) not in listed]
        wrong += sum(key(m) in listed for m in seen)
    stale = stale_of(everything)
    for entry in stale:
        print(f"  listed but gone: {entry}")
    if options.results:
        from benchmarks import machine

        options.results.write_text(
            json.dumps(summary(everything, noticed, machine.describe()), indent=1) + "\n"
        )
    if options.record:
        record(everything, survivors)
        return 0
    return bool(survivors or wrong or stale)


if __name__ == "__main__":
    sys.exit(main())
