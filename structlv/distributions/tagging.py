"""Which tags may follow one another in segmentation schemes, as evidence for ``LinearChain.condition``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_IOBES = {"S": "U", "E": "L"}
_PREFIXES = {"BIO": "BIO", "BILOU": "BILOU", "IOBES": "IOBES"}
_INSIDE = ("B", "I")  # a segment is open after these
_CONTINUES = ("I", "L")  # and these go on with it


class TaggingConstraints(NamedTuple):
    """Evidence for ``LinearChain.condition``: ``chain.condition(**tagging_constraints(labels)._asdict())``.

    Attributes:
        allowed_transitions: (k, k) bool, whether label j may follow label i.
        allowed_initial: (k) bool, whether a sequence may start with the label.
        allowed_final: (k) bool, whether a sequence may end with it.
    """

    allowed_transitions: Tensor
    allowed_initial: Tensor
    allowed_final: Tensor


def tagging_constraints(
    labels: Sequence[str], scheme: str = "BIO", *, device: torch.device | str | None = None
) -> TaggingConstraints:
    """The sequences of labels that are well-formed segmentations.

    Labels are "O" or a prefix, a hyphen and a type ("B-PER"; the type may be missing: "B"). In BIO (IOB2) a
    segment is B I*; in BILOU it is B I* L or U; IOBES is BILOU with E for L and S for U. (Ramshaw and
    Marcus 1995, section 4; Ratinov and Roth 2009, section 3.)

    Args:
        labels: the k label strings, in the order of the states.
        scheme: "BIO", "BILOU" or "IOBES".
        device: of the result.

    Raises:
        ValueError: an unknown scheme, or a label that is not of the scheme.
    """
    prefixes = _PREFIXES.get(scheme.upper())
    if prefixes is None:
        raise ValueError(f"scheme must be one of {', '.join(_PREFIXES)}, found {scheme!r}")
    tags = [_parsed(label, prefixes) for label in labels]
    closes = prefixes != "BIO"  # whether a segment must be closed by a tag of its own
    follows = [[_may_follow(a, b, closes) for b in tags] for a in tags]
    return TaggingConstraints(
        torch.tensor(follows, dtype=torch.bool, device=device).reshape(len(tags), len(tags)),
        torch.tensor([prefix not in _CONTINUES for prefix, _ in tags], dtype=torch.bool, device=device),
        torch.tensor(
            [not (closes and prefix in _INSIDE) for prefix, _ in tags], dtype=torch.bool, device=device
        ),
    )


def _parsed(label: str, prefixes: str) -> tuple[str, str]:
    """(prefix in the letters of BILOU, type)."""
    prefix, _, kind = label.partition("-")
    if len(prefix) != 1 or prefix not in prefixes or (prefix == "O" and label != "O"):
        raise ValueError(f"labels must be 'O' or one of {', '.join(prefixes)} with a type, found {label!r}")
    return (_IOBES.get(prefix, prefix) if prefixes == "IOBES" else prefix), kind


def _may_follow(first: tuple[str, str], second: tuple[str, str], closes: bool) -> bool:
    is_open = first[0] in _INSIDE
    if second[0] in _CONTINUES:
        return is_open and first[1] == second[1]
    return not (closes and is_open)
