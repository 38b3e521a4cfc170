"""F1 of constituents, without labels as in grammar induction and with labels as in supervised parsing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias, TypeVar

from structlv.data import Span, Tree

# tags of the punctuation that grammar induction takes out of its sentences
PUNCTUATION = frozenset((".", ",", ":", "``", "''", "-LRB-", "-RRB-"))

# a tree, or the rows (first word, last word, ...) of its nodes; negative ones are padding
Spans: TypeAlias = "Tree | Iterable[Sequence[int]]"
Labelled: TypeAlias = "Tree | Iterable[tuple[int, int, str]] | None"

Prediction = TypeVar("Prediction")


class BracketScore(NamedTuple):
    """Precision, recall and F1 over all constituents together (corpus level, "micro"); the mean of the
    sentences' own F1; the share of sentences without an error; the number of sentences that counted."""

    precision: float
    recall: float
    f1: float
    sentence_f1: float
    exact: float
    sentences: int


def unlabelled_f1(gold: Iterable[Tree], predicted: Iterable[Spans]) -> BracketScore:
    """Unlabelled F1 as the grammar-induction literature counts it.

    A prediction is a tree or the spans of its nodes, such as the rows of an event (`event.tolist()`); both
    are over the same words. Punctuation is to be taken out first: `tree.without_tags(PUNCTUATION)`.

    Spans of one word and of the whole sentence do not count, nor how often a span occurs: a chain of unary
    rules is one span. Sentences of one word are left out. A sentence's F1 is 1 if neither tree has a span
    that counts (so always with two words), and 0 if one of them alone has.

    Source: Kim, Dyer and Rush (2019), section 4.1 and the evaluation published with it; Drozdov et al. (2019)
    for the difference between `f1` (corpus) and `sentence_f1`. Raises ValueError if the two are not of one
    length, no sentence counts, or a span lies outside of its sentence.
    """
    rows = []
    for tree, prediction in _aligned(gold, predicted):
        n = tree.arity.count(0)
        if n > 1:
            rows.append(tuple(Counter(set(_counting(spans, n))) for spans in (tree, prediction)))
    return _score(rows)


def labelled_f1(
    gold: Iterable[Tree],
    predicted: Iterable[Labelled],
    *,
    ignore_labels: Collection[str] = ("TOP", "ROOT", "S1", ""),
    ignore_tags: Collection[str] = (),
    equivalent: Mapping[str, str] | None = None,
    unaries: bool = True,
    root: bool = True,
) -> BracketScore:
    """Labelled F1 as EVALB counts it: (first, last, label) of all phrases, as many times as they occur.

    A prediction is a tree, its labelled spans, or None where there is none: then all gold phrases are missed.

    ignore_labels: phrases that do not count, the artificial root by default
    ignore_tags:   words with these gold tags are taken out of both trees (`PUNCTUATION`)
    equivalent:    labels that are read as others, for instance {"PRT": "ADVP"} as in Collins' parameters
    unaries:       if False, of the phrases over one span only the topmost counts
    root:          if False, phrases over the whole sentence do not count

    Preterminals never count. Source: Black et al. (1991), as made precise by EVALB (Sekine and Collins 1997).
    Raises ValueError if the two are not of one length, there is no sentence, or a span lies outside of its
    sentence.
    """
    alias, rows = equivalent or {}, []
    for tree, prediction in _aligned(gold, predicted):
        tags = tree.tags if ignore_tags else ()
        kept = [tag not in ignore_tags for tag in tags] if ignore_tags else [True] * tree.arity.count(0)
        before = [0, *accumulate(kept)]  # words that stay, before each place
        both = []
        for side in (tree, prediction):
            found = _shifted(side, before, ignore_labels, alias)
            if not unaries:
                found = _topmost(found)
            both.append(Counter(s for s in found if root or s.last - s.first + 1 < before[-1]))
        rows.append(tuple(both))
    return _score(rows)


def _aligned(gold: Iterable[Tree], predicted: Iterable[Prediction]) -> Iterator[tuple[Tree, Prediction]]:
    """Gold tree and prediction of each sentence."""
    trees, guesses = list(gold), list(predicted)
    if len(trees) != len(guesses):
        raise ValueError(f"expected one prediction per gold tree, found {len(guesses)} for {len(trees)}")
    return zip(trees, guesses, strict=True)


def _counting(spans: Spans, n: int) -> Iterator[tuple[int, int]]:
    """First and last word of what counts: wider than a word, narrower than the sentence of n words."""
    for first, last, *_ in spans.nodes() if isinstance(spans, Tree) else spans:
        if first < 0:
            continue
        _inside(first, last, n)
        if 0 < last - first < n - 1:
            yield int(first), int(last)


def _shifted(
    side: Labelled, before: list[int], ignored: Collection[str], alias: Mapping[str, str]
) -> list[Span]:
    """The phrases that count, with words numbered as they are when some have been taken out."""
    spans = side.phrases() if isinstance(side, Tree) else side or ()
    found = []
    for first, last, label in spans:
        _inside(first, last, len(before) - 1)
        if label not in ignored and before[first] < before[last + 1]:
            found.append(Span(before[first], before[last + 1] - 1, alias.get(label, label)))
    return found


def _topmost(spans: list[Span]) -> list[Span]:
    """Of those over the same words, the first in pre-order."""
    seen: dict[tuple[int, int], Span] = {}
    for span in spans:
        seen.setdefault((span.first, span.last), span)
    return list(seen.values())


def _inside(first: int, last: int, n: int) -> None:
    if not 0 <= first <= last < n:
        raise ValueError(f"expected spans (first, last) within {n} words, found {(first, last)}")


def _score(rows: Sequence[tuple[Counter[Any], ...]]) -> BracketScore:
    """From the multisets (gold, predicted) of each sentence."""
    if not rows:
        raise ValueError("there must be at least one sentence to score")
    common = [(gold & predicted).total() for gold, predicted in rows]
    wanted, made = ([side.total() for side in sides] for sides in zip(*rows, strict=True))
    hits, gold_total, made_total = sum(common), sum(wanted), sum(made)
    mean = sum(map(_f1, common, wanted, made)) / len(rows)
    exact = sum(gold == predicted for gold, predicted in rows) / len(rows)
    precision = hits / made_total if made_total else 1.0
    recall = hits / gold_total if gold_total else 1.0
    return BracketScore(precision, recall, _f1(hits, gold_total, made_total), mean, exact, len(rows))


def _f1(common: int, gold: int, predicted: int) -> float:
    return 2 * common / (gold + predicted) if gold + predicted else 1.0
