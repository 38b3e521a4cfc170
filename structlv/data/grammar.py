"""Weighted context-free grammars as the arrays that sparse rules are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from structlv.data.binarise import PART
from structlv.data.trees import Tree
from structlv.data.vocabulary import Vocabulary


class Terminal(NamedTuple):
    """A word in a rule, never equal to the nonterminal of the same spelling."""

    word: str


class Rule(NamedTuple):
    """parent -> children with a log weight. A child is a nonterminal (text) or a `Terminal`."""

    parent: str
    children: tuple[str | Terminal, ...]
    score: float = 0.0


class _First(NamedTuple):
    """The nonterminal that stands for the first children of a long rule."""

    children: tuple[str | Terminal, ...]


_Symbol: TypeAlias = "str | Terminal | _First"
_Pair: TypeAlias = "tuple[_Symbol, tuple[_Symbol, ...]]"  # parent and children of a rule


@dataclass(frozen=True, eq=False)
class Grammar:
    """A grammar whose rules have one or two children, in arrays. NT nonterminals, T preterminals, r rules.

    Symbols are numbered: nonterminals 0..NT-1, preterminals NT..NT+T-1; a word is emitted by a preterminal
    alone. A name may occur in both parts.

    index:     (r, 3) int64, rows (parent, left, right), right = -1 in a rule of one child; sorted
    scores:    (r,) log weights of the rules
    root:      (NT,) log weights of the symbol above the whole sentence
    vocabulary, emission (v, T): log weights of words; where None, each preterminal is its own only word
    """

    nonterminals: tuple[str, ...]
    preterminals: tuple[str, ...]
    index: Tensor
    scores: Tensor
    root: Tensor
    vocabulary: Vocabulary | None = None
    emission: Tensor | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names of all symbols, in the order of their numbers."""
        return self.nonterminals + self.preterminals

    def to(self, dtype: torch.dtype) -> Grammar:
        """The same grammar with all weights of another floating-point type."""
        emission = None if self.emission is None else self.emission.to(dtype)
        return replace(self, scores=self.scores.to(dtype), root=self.root.to(dtype), emission=emission)

    def unary(self, words: Sequence[str]) -> Tensor:
        """Log weights (n, T) of the preterminals at each word. A word that nothing emits has -inf alone."""
        if self.vocabulary is not None and self.emission is not None:
            return self.emission[self.vocabulary.encode(words)]
        number = {name: i for i, name in enumerate(self.preterminals)}
        rows = self.scores.new_full((len(words), len(self.preterminals)), -math.inf)
        for i, word in enumerate(words):
            if word in number:
                rows[i, number[word]] = 0.0
        return rows

    def batch(self, sentences: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """`unary` of several sentences, right-padded (b, n, T), and their lengths (b)."""
        rows = [self.unary(sentence) for sentence in sentences]
        return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])

    def tree(self, event: Tensor, words: Sequence[str] | None = None) -> Tree | None:
        """The tree of one event (m, 3), rows (first, last, symbol) in pre-order; None if impossible (all -1).

        With `words` they stand under the preterminals; without, these are the leaves. `unbinarise` and
        `expand_unary` take it from there. Raises ValueError where the rows are no tree over the words.
        """
        rows = [(i, j, k) for i, j, k in event.tolist() if i >= 0]
        if not rows:
            return None
        names, leaves = self.symbols, [k for _, _, k in rows if k >= len(self.nonterminals)]
        if words is None:
            rows = [row for row in rows if row[2] < len(self.nonterminals)]
            words = [names[k] for k in leaves]
        return Tree.from_spans(((i, j, names[k]) for i, j, k in rows), words)

    @classmethod
    def from_rules(cls, rules: Iterable[Rule], start: str) -> Grammar:
        """The grammar of rules of any length, by weights; its preterminals are the rules' terminals.

        In a rule of more than two children a nonterminal `|<B C>` stands for the first ones; it has that one
        rule, and all rules that begin alike share it. So derivations stay one to one, and `unbinarise`
        restores them. The weights of equal rules add up.

        Raises ValueError on a rule without children, or if `start` has no rule.
        """
        weights: dict[_Pair, float] = {}
        for parent, children, score in rules:
            if not children:
                raise ValueError(f"the rule of {parent!r} has no children: empty rules are not supported")
            head, *rest = _halves(parent, children)
            weights[head] = _log_add(weights[head], score) if head in weights else score
            weights.update(dict.fromkeys(rest, 0.0))
        if not any(parent == start for parent, _ in weights):
            raise ValueError(f"the start symbol {start!r} has no rule")
        return _arrays(weights, {start: 0.0})


def estimate_grammar(
    trees: Iterable[Tree], *, words: bool = True, min_count: int = 1, add: float = 0.0
) -> Grammar:
    """The treebank grammar: relative frequencies of the rules, roots and words of `trees`.

    A tree's phrases have one or two children (`collapse_unary`, `binarise`); its tags become preterminals.
    With `words`, those seen less than `min_count` times are `<unk>`, and each tag emits each word of the
    vocabulary, `<unk>` included, with `add` more counts. Without `words` the tags are the words
    ("delexicalised").

    Raises ValueError if there is no tree, a phrase has more children, a word has no tag or a tree no phrase.
    Source: Charniak (1996), Tree-bank grammars.
    """
    rules: Counter[_Pair] = Counter()
    roots: Counter[_Symbol] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for tree in trees:
        rules.update(_rules(tree))
        roots[tree.label] += 1
        pairs.update(zip(tree.tags, tree.words, strict=True))
    if not roots:
        raise ValueError("there must be at least one tree")
    parents: Counter[_Symbol] = Counter()
    for (parent, _), count in rules.items():
        parents[parent] += count
    grammar = _arrays(
        {rule: math.log(count / parents[rule[0]]) for rule, count in rules.items()},
        {symbol: math.log(count / roots.total()) for symbol, count in roots.items()},
    )
    return _with_lexicon(grammar, pairs, min_count, add) if words else grammar


def _halves(parent: str, children: tuple[str | Terminal, ...]) -> Iterator[_Pair]:
    """Rules of at most two children that together are the rule, the topmost first."""
    symbol: _Symbol = parent
    while len(children) > 2:
        first = _First(children[:-1])
        yield symbol, (first, children[-1])
        symbol, children = first, children[:-1]
    yield symbol, children


def _rules(tree: Tree) -> Iterator[_Pair]:
    """The rule at each phrase; tags take the place of terminals."""
    phrasal, sizes = tree.phrasal(), tree.sizes()
    if not phrasal[0]:
        raise ValueError(f"a tree must have a phrase above its words, found {tree}")
    for i, label in enumerate(tree.labels):
        if phrasal[i]:
            if tree.arity[i] > 2:
                raise ValueError(f"{label!r} has {tree.arity[i]} children, 2 at most fit (see `binarise`)")
            places = (i + 1, i + 1 + sizes[i + 1])[: tree.arity[i]]
            yield label, tuple(tree.labels[p] if phrasal[p] else Terminal(tree.labels[p]) for p in places)


def _arrays(weights: Mapping[_Pair, float], roots: Mapping[_Symbol, float]) -> Grammar:
    """Number the symbols by their names, and the rules by their symbols."""
    used = {*roots, *(s for parent, children in weights for s in (parent, *children))}
    inner = sorted((s for s in used if not isinstance(s, Terminal)), key=_name)
    outer = sorted(s for s in used if isinstance(s, Terminal))
    number = {symbol: i for i, symbol in enumerate([*inner, *outer])}
    rows = sorted(
        (number[parent], number[children[0]], number[children[1]] if len(children) == 2 else -1, weight)
        for (parent, children), weight in weights.items()
    )
    root = torch.full((len(inner),), -math.inf, dtype=torch.float64)
    for symbol, weight in roots.items():
        root[number[symbol]] = weight
    return Grammar(
        tuple(map(_name, inner)),
        tuple(s.word for s in outer),
        torch.tensor([row[:3] for row in rows], dtype=torch.int64),
        torch.tensor([row[3] for row in rows], dtype=torch.float64),
        root,
    )


def _with_lexicon(grammar: Grammar, pairs: Counter[tuple[str, str]], min_count: int, add: float) -> Grammar:
    """The grammar with emissions (v, T) estimated from counts of (tag, word)."""
    frequency: Counter[str] = Counter()
    for (_, word), count in pairs.items():
        frequency[word] += count
    kept = [word for word, count in frequency.items() if count >= min_count]
    vocabulary = Vocabulary(sorted(kept, key=lambda word: (-frequency[word], word)))
    number = {tag: i for i, tag in enumerate(grammar.preterminals)}
    counts = torch.full((len(vocabulary), len(number)), add, dtype=torch.float64)
    words = vocabulary.encode([word for _, word in pairs])
    tags = torch.tensor([number[tag] for tag, _ in pairs])
    values = torch.tensor(list(pairs.values()), dtype=torch.float64)
    counts.index_put_((words, tags), values, accumulate=True)
    return replace(grammar, vocabulary=vocabulary, emission=(counts / counts.sum(0)).log())


def _name(symbol: _Symbol) -> str:
    """The name of a nonterminal; terminals inside it are quoted."""
    if isinstance(symbol, _First):
        return f"{PART}{' '.join(map(_name, symbol.children))}>"
    return repr(symbol.word) if isinstance(symbol, Terminal) else symbol


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
