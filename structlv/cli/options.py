"""Choices that several commands offer."""

from __future__ import annotations

from enum import Enum


class Format(str, Enum):
    text = "text"
    conllu = "conllu"


class Method(str, Enum):
    viterbi = "viterbi"
    mbr = "mbr"


class Tagging(str, Enum):
    viterbi = "viterbi"
    posterior = "posterior"


class Kind(str, Enum):
    """What `structlv train` trains: an HMM, or a grammar of a kind."""

    hmm = "hmm"
    pcfg = "pcfg"
    compound = "compound"
    lowrank = "lowrank"
    simple = "simple"
