"""Interpolated n-gram models: the baselines that a language model is compared with."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

END = -1  # the end of the sentence; words are 0..V-1


class WittenBell:
    """An n-gram model with Witten-Bell smoothing, order 1 (unigram) or more, that scores the end of each
    sentence.

    p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h)), where t(h) is the number of distinct words seen
    after h and h' drops h's first word; the unigram falls back on the uniform distribution over the V words
    and the end.

    Source: Witten & Bell 1991; in this interpolated form Chen & Goodman 1998, section 2.5.
    """

    def __init__(self, order: int, vocab_size: int) -> None:
        if order < 1 or vocab_size < 1:
            raise ValueError(f"order and vocab_size must be at least 1, found {order} and {vocab_size}")
        self.order, self.vocab_size = order, vocab_size
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)

    def fit(self, sentences: Iterable[Sequence[int]]) -> WittenBell:
        """Count the n-grams of every order; returns the model itself."""
        for sentence in sentences:
            for context, word in self._events(sentence):
                for start in range(len(context) + 1):
                    self.counts[context[start:]][word] += 1
        self._totals = {context: sum(words.values()) for context, words in self.counts.items()}
        return self

    def prob(self, context: tuple[int, ...], word: int) -> float:
        """p(word | context), the context at most order-1 indices, END for the word also allowed."""
        shorter = self.prob(context[1:], word) if context else 1.0 / (self.vocab_size + 1)
        seen = self.counts.get(context)
        if not seen:
            return shorter
        return (seen[word] + len(seen) * shorter) / (self._totals[context] + len(seen))

    def log_prob(self, sentence: Sequence[int]) -> float:
        """log p in nats of one sentence and its end."""
        return sum(math.log(self.prob(context, word)) for context, word in self._events(sentence))

    def perplexity(self, sentences: Iterable[Sequence[int]]) -> float:
        """exp of minus the mean log probability of a symbol; the end of a sentence is one symbol."""
        total, symbols = 0.0, 0
        for sentence in sentences:
            total += self.log_prob(sentence)
            symbols += len(sentence) + 1
        return math.exp(-total / symbols)

    def _events(self, sentence: Sequence[int]) -> Iterable[tuple[tuple[int, ...], int]]:
        start = [END] * (self.order - 1)  # END doubles as the start: the two never stand in the same place
        padded = [*start, *sentence, END]
        for i in range(self.order - 1, len(padded)):
            yield tuple(padded[i - self.order + 1 : i]), padded[i]


class AdditiveBigram:
    """p(x_t | x_t-1) by counts plus a constant: (c(x_t-1 x_t) + a) / (c(x_t-1) + a V).

    The first symbol's predecessor is a start of its own; the end is not scored. Lidstone (1920).
    """

    def __init__(self, vocab_size: int, constant: float = 0.5) -> None:
        if vocab_size < 1 or constant <= 0:
            raise ValueError(f"expected vocab_size >= 1 and constant > 0, found {vocab_size} and {constant}")
        self.vocab_size, self.constant = vocab_size, constant
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._before: Counter[int] = Counter()

    def fit(self, sequences: Iterable[Sequence[int]]) -> AdditiveBigram:
        """Count the pairs; returns the model itself."""
        for sequence in sequences:
            self._pairs.update(zip((END, *sequence), sequence, strict=False))
            self._before.update((END, *sequence)[:-1])
        return self

    def log_prob(self, sequence: Sequence[int]) -> float:
        """log p in nats of a sequence, given its length."""
        a = self.constant
        return sum(
            math.log((self._pairs[pair] + a) / (self._before[pair[0]] + a * self.vocab_size))
            for pair in zip((END, *sequence), sequence, strict=False)
        )
