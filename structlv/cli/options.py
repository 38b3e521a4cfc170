"""Choices that several commands offer."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import NamedTuple


class Format(str, Enum):
    text = "text"
    conllu = "conllu"


class Method(str, Enum):
    viterbi = "viterbi"
    mbr = "mbr"


class Tagging(str, Enum):
    viterbi = "viterbi"
    posterior = "posterior"


class Precision(str, Enum):
    """As Lightning names them; log Z is computed in float32 in both."""

    single = "32-true"
    mixed = "bf16-mixed"


class Kind(str, Enum):
    """What `structlv train` trains: an HMM, or a grammar of a kind."""

    hmm = "hmm"
    pcfg = "pcfg"
    compound = "compound"
    lowrank = "lowrank"
    simple = "simple"


class Sharding(NamedTuple):
    """Where `structlv tag` and `parse` put shards, how many sentences each has, and who makes them."""

    folder: Path
    size: int
    workers: int = 1
    ray: bool = False
