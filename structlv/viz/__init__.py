"""Pictures, one call each; matplotlib comes with the extra "plot", SVG and text need nothing."""

from structlv.viz.piano_roll import plot_piano_roll
from structlv.viz.transition import plot_transition
from structlv.viz.tree import plot_tree, tree_svg, tree_text

__all__ = ["plot_piano_roll", "plot_transition", "plot_tree", "tree_svg", "tree_text"]
