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


def test_streams_and_places_are_independent():
    """Four uniforms for each place of each stream; the first stream is that of ``uniform``."""
    place, cpu = torch.arange(3), torch.device("cpu")
    u = [philox.uniforms(5, 4, 2, place, stream, torch.float32) for stream in range(3)]
    assert u[0].shape == (4, 2, 3, 4)
    assert torch.equal(u[0].flatten(-2), philox.uniform(5, 4, 2, 12, torch.float32, cpu))
    assert torch.stack(u).unique().numel() == 3 * 4 * 2 * 3 * 4
    assert torch.equal(u[1][..., 2:, :], philox.uniforms(5, 4, 2, place[2:], 1, torch.float32))


def test_draw():
    weights = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]).expand(4, 5)
    u = torch.tensor([0.0, 0.26, 0.27, 1 - 2**-24])  # the first has 1 / (1 + e) = 0.269 of the weight
    assert philox.draw(weights, u).tolist() == [1, 1, 3, 3]
    assert philox.draw(torch.full((1, 3), -torch.inf), u[:1]).tolist() == [0]
