"""Words to indices and back; what is not in the vocabulary is `<unk>`, index 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

UNKNOWN = "<unk>"


class Vocabulary:
    """An ordered set of words. Index 0 is `<unk>`: it stands for every word that is not in the set.

    Args: words without `<unk>`, most frequent first by convention. Raises ValueError on a duplicate.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words: tuple[str, ...] = (UNKNOWN, *(w for w in words if w != UNKNOWN))
        self._index = {word: i for i, word in enumerate(self.words)}
        if len(self._index) != len(self.words):
            twice = [w for w, n in Counter(self.words).items() if n > 1]
            raise ValueError(f"words must be distinct, found twice: {', '.join(twice[:5])}")

    @classmethod
    def build(
        cls, sentences: Iterable[Sequence[str]], *, min_count: int = 2, max_size: int | None = None
    ) -> Vocabulary:
        """The words seen at least `min_count` times, most frequent first (then alphabetical)."""
        counts = Counter(word for sentence in sentences for word in sentence)
        kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        return cls(kept if max_size is None else kept[: max(0, max_size - 1)])

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words)"

    def encode(self, words: Sequence[str]) -> Tensor:
        """Indices (n,), int64; unknown words become 0."""
        return torch.tensor([self._index.get(word, 0) for word in words], dtype=torch.int64)

    def decode(self, indices: Tensor) -> list[str]:
        """Words of a 1-D tensor of indices; negative ones (padding) are skipped."""
        return [self.words[i] for i in indices.tolist() if i >= 0]
