"""Objectives, one Lightning module each, and training that can be interrupted and resumed exactly.

Needs pytorch-lightning: pip install 'structlv[train]'.
"""

from structlv._extras import require

require("pytorch_lightning", "train")

from structlv.learning.elbo import EvidenceLowerBound  # noqa: E402
from structlv.learning.marginal_likelihood import MarginalLikelihood  # noqa: E402
from structlv.learning.objective import SequenceObjective  # noqa: E402
from structlv.learning.training import ExactResume, fit  # noqa: E402

__all__ = ["EvidenceLowerBound", "ExactResume", "MarginalLikelihood", "SequenceObjective", "fit"]
