"""`structlv evaluate`: perplexity, and agreement with the tags or trees of a file."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from structlv.cli import induce
from structlv.cli.saved import batches, in_order, load, read
from structlv.metrics import many_to_one, perplexity, unlabelled_f1, v_measure
from structlv.models import CompoundPCFG, NeuralHMM


def run(folder: Path, file: Path, json: bool, console: Console) -> None:
    """Print the numbers, as words or as JSON. Raises OSError and ValueError."""
    model = load(folder)
    found = of_hmm(model, file) if isinstance(model, NeuralHMM) else of_grammar(model, file)
    if json:
        print(json_.dumps(found))
        return
    for name, value in found.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
        console.print(f"{name.replace('_', ' ')}: {shown}", highlight=False)


@torch.no_grad()
def of_hmm(model: NeuralHMM, file: Path) -> dict[str, Any]:
    """Perplexity a word (and end of sentence); with gold tags many-to-one accuracy and V-measure."""
    sentences = read(file)
    assert model.vocabulary is not None
    encoded = [model.vocabulary.encode(s.words) for s in sentences]
    nats, symbols, rows = 0.0, 0, []
    for items, b in batches(encoded, 256):
        nats += float(model.log_prob(b.tokens, b.lengths).double().sum())
        symbols += int(b.lengths.sum()) + len(items) * model.scores_end
        rows.append((items, model.tag(b.tokens, b.lengths)))
    tokens = sum(map(len, encoded))
    unknown = sum(int((x == 0).sum()) for x in encoded)
    found = {
        "sentences": len(encoded),
        "words": tokens,
        "unknown_words": unknown,
        "nats_per_symbol": -nats / symbols,
        "perplexity": perplexity(nats, symbols),
    }
    if all(s.tags for s in sentences):
        states = [int(t) for row in in_order(len(encoded), rows) for t in row if t >= 0]
        gold = [tag for s in sentences for tag in s.tags]
        found |= {"many_to_one": many_to_one(states, gold), "v_measure": v_measure(states, gold)}
    return found


def of_grammar(model: Any, file: Path) -> dict[str, Any]:
    """Perplexity a word (for a compound grammar a bound); with gold trees unlabelled F1."""
    text = induce.plain(s.words for s in read(file)) if str(file) == "-" else induce.read(file)
    text = text.part([i for i, words in enumerate(text.sentences) if len(words) > 1])
    held_out = [model.vocabulary.encode(words) for words in text.sentences]
    corpus = induce.Corpus(model.vocabulary, [], held_out, text)
    evaluation = induce.evaluate(model, corpus, induce.Settings())
    name = "perplexity_at_most" if isinstance(model, CompoundPCFG) else "perplexity"
    found: dict[str, Any] = {
        "sentences": len(held_out),
        "words": sum(map(len, held_out)),
        name: evaluation.perplexity,
    }
    if text.trees is not None:
        f1 = unlabelled_f1(text.trees, [event.tolist() for event in evaluation.trees])
        found |= {"sentence_f1": f1.sentence_f1, "corpus_f1": f1.f1}
    return found
