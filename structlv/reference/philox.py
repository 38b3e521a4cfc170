"""Philox4x32-10 in int64 arithmetic: random numbers as a function of (seed, item, sample, position) alone.

Source: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, sections 3.3 and 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structlv.reference.semiring import softmax, wide_dtype

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def _multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32-bit words of a 32 x 32 bit product; int64 overflow wraps, so all 64 bits are right."""
    product = x * constant
    return (product >> 32) & _MASK, product & _MASK


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """The four 32-bit output words (in int64), in a new last dimension, of broadcasting counter words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), -1)


def uniform(
    seed: int, samples: int, items: int, positions: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Uniforms in [0, 1) of shape ``(samples, items, positions)``, in the widest float of the device.

    The counter is ``(position >> 2, item, sample, 0)``, and a position takes word ``position & 3``.
    """
    block = torch.arange((positions + 3) // 4, device=device)
    return uniforms(seed, samples, items, block, 0, dtype).flatten(-2)[..., :positions]


def words(seed: int, samples: int, items: int, place: Tensor, stream: int) -> Tensor:
    """The four words (in int64) of each ``place (p)``: ``(samples, items, p, 4)``.

    The counter is ``(place, item, sample, stream)``, the key the two halves of ``seed`` in [0, 2^63).
    """
    item = torch.arange(items, device=place.device)[:, None]
    sample = torch.arange(samples, device=place.device)[:, None, None]
    counter = (place, item, sample, torch.full_like(place, stream))
    return philox(counter, key(seed))


def key(seed: int) -> tuple[int, int]:
    """The two halves of a seed in [0, 2^63)."""
    return seed & _MASK, seed >> 32


def uniforms(seed: int, samples: int, items: int, place: Tensor, stream: int, dtype: torch.dtype) -> Tensor:
    """Uniforms in [0, 1), four for each ``place (p)``: ``(samples, items, p, 4)``.

    A uniform is all 32 bits of a word where the potentials are float64, else its upper 24.
    """
    bits, wide = words(seed, samples, items, place, stream), wide_dtype(place.device)
    return bits.to(wide) * 2.0**-32 if dtype == torch.float64 else (bits >> 8).to(wide) * 2.0**-24


def gumbel(like: Tensor, event_dims: int, num_samples: int, seed: int, *, spans: bool = False) -> Tensor:
    """Independent Gumbel noise ``(num_samples, *like.shape)`` for parts ``(*b, *event)``.

    -log(-log(u)), u = (word + 1/2) 2^-32 from the open interval. Position is the place in the flattened
    event, stream 3; for ``spans (*b, n, n, labels)`` it is (j (j + 1) / 2 + i) labels + label, stream 4, so
    that it does not depend on n, and the noise of i > j is 0.
    """
    shape = like.shape[like.dim() - event_dims :]
    positions = torch.arange(shape.numel(), device=like.device).reshape(shape)
    if spans:
        n, _, labels = shape
        i, j, label = (torch.arange(size, device=like.device) for size in (n, n, labels))
        i, j = i[:, None, None], j[:, None]
        positions = torch.where(i <= j, (j * (j + 1) // 2 + i) * labels + label, 0)
    items, size = like.shape[: like.dim() - event_dims].numel(), int(shape.numel())
    place = torch.arange((size + 3) // 4, device=like.device)
    bits = words(seed, num_samples, items, place, 4 if spans else 3).flatten(-2)[..., positions.flatten()]
    noise = to_gumbel(bits)
    if spans:
        noise = torch.where((i <= j).expand(shape).flatten(), noise, 0.0)
    return noise.to(like.dtype).reshape(num_samples, *like.shape)


def to_gumbel(bits: Tensor) -> Tensor:
    """Words as Gumbel noise: -log(-log(u)), u = (word + 1/2) 2^-32 from the open interval."""
    u = (bits.to(wide_dtype(bits.device)) + 0.5) * 2.0**-32
    return -(-u.log()).log()


def draw(log_weights: Tensor, u: Tensor) -> Tensor:
    """The first index of the last dimension whose cumulative weight exceeds ``u`` times the total.

    0 where there is no weight.
    """
    cumulative = softmax(log_weights, -1).cumsum(-1)
    above = cumulative > u[..., None] * cumulative[..., -1:]
    return above.to(torch.uint8).argmax(-1)
