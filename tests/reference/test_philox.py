"""The counter-based generator: known answers, and what a draw may depend on."""

import pytest
import torch

from structlv.reference import philox

# Known answers published with Random123 (kat_vectors, philox4x32 10): counter, key, output.
KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN, ids=["zeros", "ones", "pi"])
def test_known_answers(counter, key, output):
    assert philox.philox(tuple(torch.tensor(c) for c in counter), tuple(key)).tolist() == output


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms(dtype):
    u = philox.uniform(2**63 - 1, 20, 30, 50, dtype, torch.device("cpu"))
    assert u.shape == (20, 30, 50)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 0.01
    assert abs(float(u.var()) - 1 / 12) < 0.002
    assert u.unique().numel() > 0.99 * u.numel()


def test_a_draw_depends_on_nothing_else():
    u = philox.uniform(5, 4, 3, 9, torch.float32, torch.device("cpu"))
    assert torch.equal(u[:2, :2, :6], philox.uniform(5, 2, 2, 6, torch.float32, torch.device("cpu")))
    assert not torch.equal(u, philox.uniform(5 + 2**32, 4, 3, 9, torch.float32, torch.device("cpu")))
