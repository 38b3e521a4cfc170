"""Hidden Markov models as scikit-learn's and hmmlearn's users know them. (pip install 'structlv[sklearn]')

``fit(X, lengths)`` learns by EM, ``predict`` and its like decode; parameters and attributes have hmmlearn's
names (``startprob_``, ``transmat_``, ``means_``, ...). docs/migrating-from-hmmlearn.md says what is the same
and what is not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from structlv._extras import require

if TYPE_CHECKING:
    from structlv.sklearn.categorical import CategoricalHMM
    from structlv.sklearn.factorial import FactorialHMM
    from structlv.sklearn.gaussian import GaussianHMM
    from structlv.sklearn.mixture import GMMHMM
    from structlv.sklearn.poisson import PoissonHMM

__all__ = ["GMMHMM", "CategoricalHMM", "FactorialHMM", "GaussianHMM", "PoissonHMM"]
_MODULES = {
    "CategoricalHMM": "categorical",
    "FactorialHMM": "factorial",
    "GMMHMM": "mixture",
    "GaussianHMM": "gaussian",
    "PoissonHMM": "poisson",
}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for, so that what is missing is named."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("sklearn", "sklearn")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
