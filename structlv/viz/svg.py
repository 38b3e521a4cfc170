"""Pictures that notebooks show by themselves."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from structlv._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Svg(str):
    """The text of an SVG document; as the last value of a notebook's cell it is shown as the picture."""

    def _repr_svg_(self) -> str:
        return str(self)


def to_svg(axes: Axes) -> Svg:
    """The figure of what a `plot_...` function returned, to be shown in a notebook or written to a file.

    The same picture has the same text. Raises ValueError where the Axes are in no figure, MissingExtra
    without matplotlib.
    """
    require("matplotlib", "plot")
    from matplotlib import rc_context

    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("expected Axes of a figure, found ones that were removed from theirs")
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "structlv"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return Svg(text.getvalue())
