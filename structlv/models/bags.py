"""Bags of words: counts of words, a recognition network that reads them, draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from structlv.models.families import GaussianFamily
from structlv.models.latent import require_tokens
from structlv.models.recurrent import all_lengths, inside


def counts(x: Tensor, lengths: Tensor | None, vocab_size: int, dtype: torch.dtype) -> Tensor:
    """How often each word stands in each sequence, (b, V): x (b, n), lengths (b)."""
    present = inside(all_lengths(x, lengths), x.shape[1])
    zero = torch.zeros(len(x), vocab_size, dtype=dtype, device=x.device)
    return zero.scatter_add(1, torch.where(present, x, 0), present.to(dtype))


@torch.no_grad()
def draw_words(log_probs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Words (b, n), 0 past the end, drawn independently from (b, V); and the lengths (b).

    Raises ValueError without lengths, on which such models are conditional, or on another shape of them.
    """
    if lengths is None or lengths.shape != log_probs.shape[:1]:
        found = "none" if lengths is None else f"shape {tuple(lengths.shape)}"
        raise ValueError(
            f"the model is conditional on the lengths: expected shape ({len(log_probs)},), found {found}"
        )
    n = max(1, int(lengths.max()))
    words = log_probs.exp().multinomial(n, replacement=True)
    return torch.where(inside(lengths, n), words, 0), lengths


class BagEncoder(nn.Module):
    """q(z | x) from relative frequencies of words: a hidden layer, then mean and log-variance."""

    def __init__(self, vocab_size: int, dim: int, latent: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.body = nn.Sequential(
            nn.Linear(vocab_size, dim), nn.Softplus(), nn.Linear(dim, dim), nn.Softplus()
        )
        self.gaussian = GaussianFamily(dim, latent)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Independent:
        require_tokens(x, lengths)
        found = counts(x, lengths, self.vocab_size, self.gaussian.head.weight.dtype)
        return self.gaussian(self.body(found / found.sum(-1, keepdim=True).clamp(min=1)))
