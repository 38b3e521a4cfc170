"""Tests on a GPU: skipped where there is none, unless STRUCTLV_REQUIRE_GPU says that there must be one."""

from __future__ import annotations

import os

import pytest
import torch

from structlv import _native


def why_not() -> str | None:
    """Why these tests cannot run here."""
    if not torch.cuda.is_available():
        return "no GPU that this torch can use"
    if not _native.available() or not torch._C._dispatch_has_kernel_for_dispatch_key(
        "structlv::chain_log_partition", "CUDA"
    ):
        return "structlv was installed without its CUDA kernels"
    return None


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    """The GPU; a skip with its reason, or under STRUCTLV_REQUIRE_GPU a failure."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("STRUCTLV_REQUIRE_GPU"):
            pytest.fail(f"STRUCTLV_REQUIRE_GPU is set, but {reason}")
        pytest.skip(reason)
    return torch.device("cuda")
