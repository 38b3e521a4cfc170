"""Seeds, threads, the corpora, hypothesis, and the two backends that every query runs on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from structlv import _native

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `from tests.tolerance import ...`, however pytest was started

settings.register_profile(
    "structlv",
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("structlv")


def pytest_configure(config: pytest.Config) -> None:
    # torch's own forward mode and inductor use torch.jit, which torch itself deprecates
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.*is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    """Every test starts from the same seed and leaves the generator and the thread count as they were."""
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


@pytest.fixture
def corpora() -> Path:
    """The folder of the real corpora, or a skip that says where they were looked for."""
    place = Path(os.environ.get("STRUCTLV_DATA", ROOT.parent / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"no corpora at {place} (set STRUCTLV_DATA)")
    return place


@pytest.fixture
def native() -> None:
    """Skip where no kernels were compiled."""
    if not _native.available():
        pytest.skip("structlv._C was not compiled")


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled kernels, and the reference that stands in for them."""
    if request.param == "reference":
        monkeypatch.setattr(_native, "_C", None)
    elif not _native.available():
        pytest.skip("structlv._C was not compiled")
    return request.param
