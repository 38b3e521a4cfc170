"""Pictures, one call each; matplotlib comes with the extra "plot", SVG and text need nothing."""

from structlv.viz.bias import plot_bias_variance
from structlv.viz.curves import plot_curves
from structlv.viz.graph import plot_transition_graph
from structlv.viz.piano_roll import plot_piano_roll
from structlv.viz.posterior import plot_posterior
from structlv.viz.svg import Svg, to_svg
from structlv.viz.transition import plot_transition
from structlv.viz.tree import plot_tree, tree_svg, tree_text

__all__ = [
    "Svg",
    "plot_bias_variance",
    "plot_curves",
    "plot_piano_roll",
    "plot_posterior",
    "plot_transition",
    "plot_transition_graph",
    "plot_tree",
    "to_svg",
    "tree_svg",
    "tree_text",
]
