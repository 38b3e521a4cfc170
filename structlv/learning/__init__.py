"""EM; estimators of gradients (`structlv.learning.estimators`); objectives, a Lightning module each;
training that can be interrupted and resumed exactly.

The objectives need pytorch-lightning: pip install 'structlv[train]'.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from structlv._extras import require
from structlv.learning.annealed import annealed_log_likelihood
from structlv.learning.compare import nats_per_event, num_parameters, padded, states_of_equal_parameters
from structlv.learning.em import (
    EMResult,
    MonteCarlo,
    NaiveBayesTables,
    Prior,
    Tied,
    fit_em,
    fit_stepwise_em,
    hmm_of_counts,
    hmm_of_symbols,
    hmm_of_vectors,
    random_bernoulli,
    random_categorical,
    random_gaussian,
)
from structlv.learning.evaluate import (
    active_units,
    evaluate,
    importance_log_likelihood,
    mutual_information,
    swapped_reconstruction,
)
from structlv.learning.gap import inference_gap
from structlv.learning.importance import importance_bound
from structlv.learning.latent_space import interpolate, nearest_neighbours, posterior_samples, prior_samples
from structlv.learning.refine import refine
from structlv.learning.selection import aic, bic, free_parameters, match_states, permuted

if TYPE_CHECKING:
    from structlv.learning.elbo import EvidenceLowerBound
    from structlv.learning.iwae import IWAE
    from structlv.learning.marginal_likelihood import MarginalLikelihood
    from structlv.learning.objective import SequenceObjective
    from structlv.learning.svi import SVI, SemiAmortized
    from structlv.learning.training import ExactResume, fit
    from structlv.learning.wake_sleep import ReweightedWakeSleep, WakeSleep

__all__ = [
    "IWAE",
    "SVI",
    "EMResult",
    "EvidenceLowerBound",
    "ExactResume",
    "MarginalLikelihood",
    "MonteCarlo",
    "NaiveBayesTables",
    "Prior",
    "ReweightedWakeSleep",
    "SemiAmortized",
    "SequenceObjective",
    "Tied",
    "WakeSleep",
    "active_units",
    "aic",
    "annealed_log_likelihood",
    "bic",
    "evaluate",
    "fit",
    "fit_em",
    "fit_stepwise_em",
    "free_parameters",
    "hmm_of_counts",
    "hmm_of_symbols",
    "hmm_of_vectors",
    "importance_bound",
    "importance_log_likelihood",
    "inference_gap",
    "interpolate",
    "match_states",
    "mutual_information",
    "nats_per_event",
    "nearest_neighbours",
    "num_parameters",
    "padded",
    "permuted",
    "posterior_samples",
    "prior_samples",
    "random_bernoulli",
    "random_categorical",
    "random_gaussian",
    "refine",
    "states_of_equal_parameters",
    "swapped_reconstruction",
]
_OF_LIGHTNING = {
    "EvidenceLowerBound": "elbo",
    "ExactResume": "training",
    "IWAE": "iwae",
    "MarginalLikelihood": "marginal_likelihood",
    "ReweightedWakeSleep": "wake_sleep",
    "SVI": "svi",
    "SemiAmortized": "svi",
    "SequenceObjective": "objective",
    "WakeSleep": "wake_sleep",
    "fit": "training",
}


def __getattr__(name: str) -> Any:
    """What needs Lightning is imported when it is asked for."""
    if name not in _OF_LIGHTNING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("pytorch_lightning", "train")
    return getattr(import_module(f"{__name__}.{_OF_LIGHTNING[name]}"), name)
