"""Objectives, one Lightning module each; EM; training that can be interrupted and resumed exactly.

Needs pytorch-lightning: pip install 'structlv[train]'.
"""

from structlv._extras import require

require("pytorch_lightning", "train")

from structlv.learning.compare import (  # noqa: E402
    nats_per_event,
    num_parameters,
    padded,
    states_of_equal_parameters,
)
from structlv.learning.elbo import EvidenceLowerBound  # noqa: E402
from structlv.learning.em import EMResult, fit_em  # noqa: E402
from structlv.learning.em_start import (  # noqa: E402
    random_bernoulli,
    random_categorical,
    random_gaussian,
)
from structlv.learning.m_step import Prior  # noqa: E402
from structlv.learning.marginal_likelihood import MarginalLikelihood  # noqa: E402
from structlv.learning.objective import SequenceObjective  # noqa: E402
from structlv.learning.training import ExactResume, fit  # noqa: E402

__all__ = [
    "EMResult",
    "EvidenceLowerBound",
    "ExactResume",
    "MarginalLikelihood",
    "Prior",
    "SequenceObjective",
    "fit",
    "fit_em",
    "nats_per_event",
    "num_parameters",
    "padded",
    "random_bernoulli",
    "random_categorical",
    "random_gaussian",
    "states_of_equal_parameters",
]
