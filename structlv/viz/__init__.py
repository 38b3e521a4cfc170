"""Pictures, one call each; matplotlib comes with the extra "plot"."""

from structlv.viz.transition import plot_transition

__all__ = ["plot_transition"]
