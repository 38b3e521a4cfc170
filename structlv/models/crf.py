"""The CRF layer of a tagger, with the interface of pytorch-crf's `torchcrf.CRF`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from structlv.data.packed import unpack
from structlv.distributions import LinearChain
from structlv.distributions.validation import describe, is_eager, require_floating, require_integer
from structlv.models.base import Model

REDUCTIONS = ("none", "sum", "mean", "token_mean")


class CRF(Model):
    """A conditional random field over tag sequences: p(tags | emissions), transitions learned here.

    A drop-in replacement of `torchcrf.CRF` (pytorch-crf 0.7.2): the same arguments, parameters,
    initialisation, state_dict, log-likelihoods and decodes. What differs: scores of -inf forbid tags exactly;
    emissions that are NaN, tags out of range and masks with holes raise ValueError (there they give wrong
    numbers, or an error of indexing); tags in the padding may hold anything, -100 too; emissions may be a
    `PackedSequence`.

    Every query costs O(b n k^2) time and O(b n k) memory. Lafferty, McCallum and Pereira (2001), section 3.

    Args:
        num_tags: k >= 1.
        batch_first: whether emissions are (b, n, k) and tags and masks (b, n), else (n, b, k) and (n, b).
        validate_args: whether to check values (NaN, tags, masks); None for structlv's default (on).

    Attributes:
        start_transitions: (k,) scores of the first tag.
        end_transitions: (k,) scores of the last tag.
        transitions: (k, k), [i, j] of tag i followed by tag j.

    Raises:
        ValueError: num_tags is not positive.
    """

    def __init__(
        self, num_tags: int, batch_first: bool = False, *, validate_args: bool | None = None
    ) -> None:
        if num_tags < 1:
            raise ValueError(f"num_tags must be a positive integer, found {num_tags!r}")
        super().__init__(num_tags=num_tags, batch_first=batch_first)
        self.num_tags, self.batch_first, self.validate_args = num_tags, batch_first, validate_args
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in [-0.1, 0.1], drawn in the order of the original."""
        for parameter in (self.start_transitions, self.end_transitions, self.transitions):
            nn.init.uniform_(parameter, -0.1, 0.1)

    def extra_repr(self) -> str:
        return f"num_tags={self.num_tags}, batch_first={self.batch_first}"

    def forward(
        self,
        emissions: Tensor | PackedSequence,
        tags: Tensor | PackedSequence,
        mask: Tensor | None = None,
        reduction: str = "sum",
    ) -> Tensor:
        """log p(tags | emissions) in nats: (b) for "none", else a scalar. Differentiable twice.

        Args:
            emissions: (n, b, k), or (b, n, k) if batch_first; or a PackedSequence of (k,).
            tags: (n, b) integers, or (b, n) if batch_first; or a PackedSequence, packed alike.
            mask: bool or integers, of the shape of `tags`: 1 at the steps of each sequence, from its first
                on, 0 in the padding after them; None where there is none.
            reduction: "sum", "mean" over sequences, "token_mean" over tokens, or "none".

        Raises:
            TypeError: an argument is not of the right kind.
            ValueError: shapes do not fit together, the reduction is unknown; a mask is 0 at a first step or
                has a hole, a tag is out of range, an emission NaN.
        """
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, found {reduction!r}")
        chain = self.distribution(emissions, mask)
        if isinstance(tags, PackedSequence):
            tags = unpack(tags).values
        else:
            require_integer("tags", tags)
            tags = tags if self.batch_first else tags.transpose(0, 1)
        if tags.shape != chain.unary.shape[:-1]:
            found, expected = (tuple(self._laid_out(x).shape) for x in (tags, chain.unary[..., 0]))
            raise ValueError(
                f"tags must have the first two dimensions of emissions, {expected}, found {found}"
            )
        nats = chain.log_prob(tags)
        if reduction == "none":
            return nats
        if reduction == "token_mean":
            return nats.sum() / (tags.numel() if chain.lengths is None else chain.lengths.sum())
        return nats.sum() if reduction == "sum" else nats.mean()

    def decode(self, emissions: Tensor | PackedSequence, mask: Tensor | None = None) -> list[list[int]]:
        """The best tags of each sequence (Viterbi), as a list without padding; -1 where none is possible."""
        chain = self.distribution(emissions, mask)
        best = chain.argmax().tolist()
        if chain.lengths is None:
            return best
        return [row[:length] for row, length in zip(best, chain.lengths.tolist(), strict=True)]

    def topk(
        self, emissions: Tensor | PackedSequence, k: int, mask: Tensor | None = None
    ) -> tuple[Tensor, list[list[list[int]]]]:
        """The `k` best tag sequences: log p (k, b), descending and differentiable; and for each sequence a
        list of up to k lists of tags, best first (fewer where fewer are possible; their log p is -inf).

        Raises as `forward`, and ValueError where k < 1.
        """
        chain = self.distribution(emissions, mask)
        scores, events = chain.topk(k)
        log_z = chain.log_partition()
        nats = scores - log_z.masked_fill(log_z == -torch.inf, 0.0)
        n = chain.unary.shape[-2]
        lengths = [n] * events.shape[1] if chain.lengths is None else chain.lengths.tolist()
        ranked, found = events.transpose(0, 1).tolist(), (scores > -torch.inf).sum(0).tolist()
        pairs = zip(ranked, lengths, found, strict=True)
        return nats, [[tags[:length] for tags in best[:count]] for best, length, count in pairs]

    def marginals(self, emissions: Tensor | PackedSequence, mask: Tensor | None = None) -> Tensor:
        """p(tag at step t | emissions), in the emissions' shape, 0 in the padding. Differentiable once."""
        return self._laid_out(self.distribution(emissions, mask).marginals().unary)

    def distribution(self, emissions: Tensor | PackedSequence, mask: Tensor | None = None) -> LinearChain:
        """p(tags | emissions), batch shape (b) whatever batch_first: for samples, entropy, constraints."""
        unary, lengths = self._padded(emissions, mask)
        potentials = (self.transitions, self.start_transitions, self.end_transitions)
        if unary.dtype != self.transitions.dtype:  # as addition would: of bfloat16 and float32, float32
            dtype = torch.promote_types(unary.dtype, self.transitions.dtype)
            unary, *potentials = (x.to(dtype) for x in (unary, *potentials))  # type: ignore[assignment]
        transition, initial, final = potentials
        return LinearChain(
            unary,
            transition,
            initial=initial,
            final=final,
            lengths=lengths,
            validate_args=self.validate_args,
        )

    # ---- helpers ---------------------------------------------------------------------------------------

    def _padded(self, emissions: Any, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores (b, n, k) and lengths (b), None where all are n."""
        if isinstance(emissions, PackedSequence):
            if mask is not None:
                raise ValueError("a PackedSequence has lengths of its own, expected no mask beside it")
            emissions, lengths = unpack(emissions)
            self._require_scores(emissions)
            return emissions, lengths
        self._require_scores(emissions)
        unary = emissions if self.batch_first else emissions.transpose(0, 1)
        return unary, None if mask is None else self._lengths(mask, emissions)

    def _require_scores(self, emissions: Any) -> None:
        require_floating("emissions", emissions)
        if emissions.dim() != 3 or emissions.shape[-1] != self.num_tags:
            layout = "(b, n, k)" if self.batch_first else "(n, b, k)"
            expected = f"{layout} with k = {self.num_tags}"
            raise ValueError(f"emissions must have shape {expected}, found {describe(emissions)}")

    def _lengths(self, mask: Tensor, emissions: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            require_integer("mask", mask)
            mask = mask.bool()
        if mask.shape != emissions.shape[:2]:
            expected, found = tuple(emissions.shape[:2]), tuple(mask.shape)
            raise ValueError(
                f"mask must have the first two dimensions of emissions, {expected}, found {found}"
            )
        steps = 1 if self.batch_first else 0
        n = mask.shape[steps]
        if n > 0 and self.validate_args is not False and is_eager(mask):
            if not bool(mask.select(steps, 0).all()):
                raise ValueError("mask must be 1 at the first step of every sequence, found a 0 there")
            if bool((mask.narrow(steps, 1, n - 1) & ~mask.narrow(steps, 0, n - 1)).any()):
                raise ValueError(
                    "mask must be 1 up to the end of a sequence and 0 after it, found a 1 after a 0"
                )
        return mask.sum(steps)

    def _laid_out(self, values: Tensor) -> Tensor:
        """(b, n, ...) in the layout of the arguments."""
        return values if self.batch_first else values.transpose(0, 1)
