"""What the documents say is true: their Python blocks run, and what they name exists."""

from __future__ import annotations

import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import structlv

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    "README.md",
    "HACKING.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "examples/README.md",
    "benchmarks/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
SUFFIXES = "py|h|cpp|c|md|toml|txt|json"
MADE = (
    "build/site",
    "structlv-demo/",
    "benchmarks/results",
    "benchmarks/.envs",
    ".venv/",
    "../shared/",
)  # by commands, or elsewhere
SAVED = {
    "config.json",
    "model.safetensors",
    "result.json",
    "run.json",
    "run.toml",
    "manifest.json",
}  # by a run, or for it


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> list[str]:
    return [
        code
        for language, code in re.findall(r"```(\w*)\n(.*?)```", read(name), re.DOTALL)
        if language in languages
    ]


def spans(name: str) -> Iterator[str]:
    """The pieces of text in backquotes."""
    for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", read(name), flags=re.DOTALL)):
        yield " ".join(span.split())


PYTHON = [(name, i) for name in DOCUMENTS for i in range(len(blocks(name, "python")))]


@pytest.mark.parametrize(("name", "index"), PYTHON)
def test_python_blocks_run(name: str, index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pyro" in blocks(name, "python")[index]:
        pytest.importorskip("pyro", reason="pyro is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(name, "python")[index], f"{name}, block {index}", "exec"), {"__name__": "__main__"})
    assert not list(tmp_path.iterdir())


def test_the_readme_has_a_short_example() -> None:
    lines = [line for line in blocks("README.md", "python")[0].splitlines() if line.strip()]
    assert len(lines) == 12


def named_files(name: str) -> set[str]:
    words = {word.rstrip(".,;:") for span in spans(name) for word in span.split()}
    pattern = re.compile(rf"[\w.*-]+/[\w./*-]*|[\w*-]+\.(?:{SUFFIXES})|LICENSE|Makefile|\.ci/run")
    return {word for word in words if pattern.fullmatch(word) and not word.startswith(MADE)} - SAVED


def exists(word: str, folder: Path) -> bool:
    """A path from the root or from the document, a pattern of such, or the name of a file of the sources."""
    if any((base / word).exists() for base in (ROOT, folder)):
        return True
    if "*" in word or "NAME" in word:
        return any(any(base.glob(word.replace("NAME", "*"))) for base in (ROOT, folder))
    sources = [ROOT / place for place in ("csrc", "structlv", "tests", "examples")]
    return "/" not in word and any(any(place.rglob(word)) for place in sources)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    assert not [word for word in sorted(named_files(name)) if not exists(word, (ROOT / name).parent)]


def test_targets_and_options_exist() -> None:
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for name in DOCUMENTS:
        text = " ".join([*spans(name), *blocks(name, "sh", "")])
        for rest in re.findall(r"\bmake ([^`#;]*)", text):
            words = re.sub(r'\w+=("[^"]*"|\S*)', "", rest).split()
            assert all(word in targets for word in words[:1]), f"{name}: make {rest}"
        variables = set(re.findall(r"\bmake [^`]*?\b([A-Z]+)=", text))
        assert all(
            re.search(rf"^{variable}\s*\?=", makefile, flags=re.MULTILINE) for variable in variables
        ), name


def test_environment_variables_are_read_somewhere() -> None:
    sources = "".join(
        path.read_text()
        for folder, pattern in (
            ("csrc", "*.cpp"),
            ("csrc", "*.h"),
            ("_build", "*.py"),
            ("tests", "conftest.py"),
        )
        for path in (ROOT / folder).rglob(pattern)
    )
    for name in DOCUMENTS:
        for variable in re.findall(r"\bSTRUCTLV_[A-Z_]+", read(name)):
            assert variable in sources, f"{name}: {variable}"


def test_names_in_the_readme_exist() -> None:
    """Its table of queries, every dotted name, and every extra."""
    methods = {"its": structlv.LinearChain, "`HMM`": structlv.HMM}
    for head, row in re.findall(r"^\| (its|`HMM`)[^|]*\|(.*)\|$", read("README.md"), flags=re.MULTILINE):
        names = set(re.findall(r"`([a-z_]+)`", row)) - {"lengths"}
        assert names
        assert not [name for name in names if not hasattr(methods[head], name)]
    for dotted in {
        span for name in DOCUMENTS for span in spans(name) if re.fullmatch(r"structlv(\.\w+)+", span)
    }:
        assert resolves(dotted), dotted
    declared = read("pyproject.toml").split("[project.optional-dependencies]")[1]
    extras = {a or b for a, b in re.findall(r"`\[(\w+)\]`|'\.\[(\w+)\]'", read("README.md"))}
    assert "cli" in extras
    assert extras <= set(re.findall(r"^(\w+) = \[", declared, flags=re.MULTILINE))


def resolves(dotted: str) -> bool:
    """Whether it is a module or an attribute of one."""
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, attribute = dotted.rpartition(".")
        return hasattr(importlib.import_module(module), attribute)
    return True


def test_the_ladder_is_described_with_the_constants_of_the_kernels() -> None:
    source, text = read("csrc/kernels/range.h"), " ".join(read("HACKING.md").split())
    (f_mild, d_mild), (f_wide, d_wide), (f_tiny, d_tiny), (f_huge, d_huge) = (
        re.findall(rf"\b{name} = ([\d.e-]+)f?\b", source) for name in ("mild", "wide", "tiny", "huge")
    )
    assert f"{f_mild} ({d_mild})" in text
    assert f"{f_wide} ({d_wide})" in text
    assert f"{f_tiny} ({d_tiny})" in text
    assert f"{f_huge} ({d_huge})" in text


def test_examples_in_docstrings_run() -> None:
    for path in sorted((ROOT / "structlv").rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            assert doctest.testmod(importlib.import_module(name)).failed == 0, name
