"""How well tagged spans (BIO and the like) agree with gold ones; and perplexity."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from structlv._extras import require


class SpanScore(NamedTuple):
    """Precision, recall and F1 of whole spans, 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float


def span_f1(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> SpanScore:
    """Micro-averaged over all spans: right are those whose kind and both ends are, as conlleval counts.

    Args: tags of each sentence, such as ["B-PER", "I-PER", "O"] (BIO or BILOU). Counted by seqeval (extra
    "metrics"); Tjong Kim Sang and De Meulder (2003), section 3.3.

    Raises: ValueError where sentences or their tags are not as many; MissingExtra.
    """
    lengths = [[len(tags) for tags in part] for part in (predicted, gold)]
    if lengths[0] != lengths[1]:
        raise ValueError("predicted and gold must have as many sentences, of as many tags each")
    seqeval = require("seqeval.metrics", "metrics")
    truth, found = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no spans at all: the scores are 0, as documented
        names = ("precision_score", "recall_score", "f1_score")
        return SpanScore(*(float(getattr(seqeval, name)(truth, found, zero_division=0)) for name in names))


def perplexity(nats: float, symbols: int) -> float:
    """exp(-nats / symbols), of a log-probability `nats` of that many symbols; inf where it is beyond floats.

    Raises ValueError where there are no symbols, or nats is NaN.
    """
    if symbols < 1 or math.isnan(nats):
        raise ValueError(f"expected a log-probability of at least one symbol, found {nats} of {symbols}")
    surprise = -nats / symbols
    return math.exp(surprise) if surprise < 709.0 else math.inf
