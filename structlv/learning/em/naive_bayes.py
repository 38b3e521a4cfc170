"""EM of Naive Bayes: a mixture whose components draw the tokens of a sequence independently."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from structlv.distributions.parameters import Tensors
from structlv.distributions.validation import require_integer, require_labels
from structlv.learning.em.m_step import Prior, check_fixed, log_ratio, weighted
from structlv.learning.em.problem import Expectation, Problem, Sequences, plus


class NaiveBayesTables(Tensors):
    """The two tables of Naive Bayes: p(x) = sum_z p(z) prod_t p(x_t | z), the length given.

    Args: ``prior_logits`` (K), of the classes; ``word_logits`` (K, V), of the tokens of each. They are
    normalised here. Raises ValueError where the shapes do not fit.

    Source: Kim, Wiseman & Rush 2018, section 3.1.
    """

    def __init__(self, prior_logits: Tensor, word_logits: Tensor) -> None:
        if word_logits.dim() != 2 or prior_logits.shape != word_logits.shape[:1] or 0 in word_logits.shape:
            found = f"{tuple(prior_logits.shape)} and {tuple(word_logits.shape)}"
            raise ValueError(f"expected prior_logits (K) and word_logits (K, V), found {found}")
        self.prior_logits, self.word_logits = prior_logits.log_softmax(-1), word_logits.log_softmax(-1)

    def log_joint(self, x: Tensor, observed: Tensor) -> Tensor:
        """log p(z, x), (b, K), for tokens (b, n) of which those are observed: O(b n K)."""
        rows = self.word_logits.T[torch.where(observed, x, 0).long()]  # (b, n, K)
        return torch.where(observed.unsqueeze(-1), rows, 0.0).sum(1) + self.prior_logits

    def log_prob(self, x: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """log p(x), (b), for tokens (b, n), right-padded, False in ``mask`` where one is missing."""
        return self.log_joint(x, Sequences(x, 0, lengths, mask).observed).logsumexp(-1)


class NaiveBayesCounts(NamedTuple):
    """Expected counts: of sequences by class (K), of tokens by class (K, V). No multinomial coefficient."""

    classes: Tensor
    words: Tensor


class NaiveBayesProblem(Problem):
    """Token sequences of any lengths, and Naive Bayes to explain them, in float64.

    The M-step is words[z, v] = sum_n q_n(z) c_nv / sum_n q_n(z) T_n: long sequences weigh more. (Dividing
    by T_n inside the sum is not EM unless all lengths are equal.)
    """

    def __init__(
        self,
        like: NaiveBayesTables,
        x: Tensor,
        lengths: Tensor | None,
        mask: Tensor | None,
        *,
        prior: Prior,
        fixed: Collection[str] = (),
        evidence: Mapping[str, Tensor] | None = None,
    ) -> None:
        prior.check()
        require_integer("x", x)
        self.prior, self.fixed = prior, check_fixed(fixed, ("prior", "words"))
        if not set(evidence or ()) <= {"classes"}:
            raise ValueError(f"evidence must be 'classes', found {', '.join(evidence or ())}")
        known = {name: _per_step(value, x) for name, value in (evidence or {}).items()}
        self.data = Sequences(x, 0, lengths, mask, known)
        classes, words = like.word_logits.shape
        require_labels("x", torch.where(self.data.observed, self.data.x, 0), 0, words - 1)
        for value in known.values():
            require_labels("classes", value, -1, classes - 1)
        self.dtype = like.word_logits.dtype
        self.items, self.steps = len(self.data), self.data.steps

    def begin(self, model: NaiveBayesTables) -> NaiveBayesTables:
        return NaiveBayesTables(model.prior_logits.detach().double(), model.word_logits.detach().double())

    def finished(self, model: NaiveBayesTables) -> NaiveBayesTables:
        return self.restored(model, [x.to(self.dtype) for x in self.tensors(model)])

    @torch.no_grad()
    def e_step(self, model: NaiveBayesTables, carry: Any = None, items: Tensor | None = None) -> Expectation:
        classes, words = model.word_logits.shape
        zero = model.word_logits.new_zeros
        counts, value = NaiveBayesCounts(zero(classes), zero(classes, words)), 0.0
        for part in self.data.chunks(items):
            joint = model.log_joint(part.x, part.observed)
            if "classes" in part.evidence:
                label = part.evidence["classes"][:, :1]
                open_ = (label == -1) | (label == torch.arange(classes, device=label.device))
                joint = torch.where(open_, joint, -torch.inf)
            log_p = joint.logsumexp(-1, keepdim=True)
            if not bool((log_p > -torch.inf).all()):
                raise ValueError(
                    "the model gives a sequence probability 0: begin with parameters that allow it, or "
                    "give a prior"
                )
            q, value = (joint - log_p).exp(), value + float(log_p.sum())
            row = torch.arange(len(q), device=q.device).unsqueeze(-1).expand_as(part.observed)
            tokens = zero(words, classes).index_add_(0, part.x[part.observed].long(), q[row[part.observed]])
            counts = plus(counts, NaiveBayesCounts(q.sum(0), tokens.T))
        return Expectation(counts, value)

    def m_step(self, model: NaiveBayesTables, counts: NaiveBayesCounts) -> NaiveBayesTables:
        prior, words = model.prior_logits, model.word_logits
        if "prior" not in self.fixed:
            prior = log_ratio(counts.classes, prior, self.prior.initial)
        if "words" not in self.fixed:
            words = log_ratio(counts.words, words, self.prior.emission)
        return NaiveBayesTables(prior, words)

    def log_prior(self, model: NaiveBayesTables) -> float:
        of_words = weighted(self.prior.emission, model.word_logits)
        return weighted(self.prior.initial, model.prior_logits) + of_words

    def tensors(self, model: NaiveBayesTables) -> list[Tensor]:
        return [model.prior_logits, model.word_logits]

    def restored(self, model: NaiveBayesTables, tensors: list[Tensor]) -> NaiveBayesTables:
        new = NaiveBayesTables(model.prior_logits, model.word_logits)
        new.prior_logits, new.word_logits = tensors  # to the bit: they are normalised already
        return new

    def fingerprint(self) -> str:
        return f"{self.data.checksum()}:{self.prior.fingerprint()}:{sorted(self.fixed)}"


def _per_step(classes: Tensor, x: Tensor) -> Tensor:
    """The label of each sequence at each of its steps."""
    require_integer("classes", classes)
    return classes.unsqueeze(-1).expand(x.shape)
