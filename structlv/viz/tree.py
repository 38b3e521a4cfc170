"""Pictures of trees: as SVG, with matplotlib, and as text."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from structlv._extras import require
from structlv.data import Tree
from structlv.viz.layout import TEXT, Place, layout
from structlv.viz.svg import Svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"phrase": "#1f4e79", "tag": "#6b6b6b", "word": "#111111", "wrong": "#c62828"}
LINE = "#9aa5b1"
MARGIN = 0.8  # em
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
TITLE = 2.5  # em above the tree
LARGEST = 30000  # pixels that a side of a matplotlib figure may have


def tree_svg(
    tree: Tree, *, gold: Tree | None = None, words_in_line: bool = True, font_size: float = 14.0
) -> Svg:
    """The tree as a self-contained SVG document: text for a file, which notebooks show as a picture.

    Phrases that `gold` does not have (same words and label) are red. With `words_in_line` all words stand
    at the bottom, so that the sentence can be read, else right below their tags. Nothing but text and lines:
    no fonts, no scripts.
    """
    places, width, height = layout(tree, words_in_line=words_in_line)
    size = f"{(width + 2 * MARGIN) * font_size:.0f}", f"{(height + 2 * MARGIN) * font_size:.0f}"
    box = f"{-MARGIN:g} {-MARGIN:g} {width + 2 * MARGIN:.2f} {height + 2 * MARGIN:.2f}"
    lines = " ".join(f"M{x:.2f} {y:.2f}L{u:.2f} {v:.2f}" for (x, y), (u, v) in _edges(places))
    colours = _colours(tree, places, gold)
    words = "\n".join(
        f'<text x="{p.x:.2f}" y="{p.y + 0.35:.2f}" fill="{colour}"{_weight(p)}>{escape(label)}</text>'
        for p, colour, label in zip(places, colours, tree.labels, strict=True)
    )
    return Svg(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" viewBox="{box}" '
        f'font-family="{FONT}" font-size="1" text-anchor="middle">\n'
        f'<rect x="{-MARGIN:g}" y="{-MARGIN:g}" width="100%" height="100%" fill="white"/>\n'
        f'<path d="{lines}" stroke="{LINE}" stroke-width="0.07" fill="none"/>\n{words}\n</svg>\n'
    )


def plot_tree(
    tree: Tree,
    *,
    gold: Tree | None = None,
    words_in_line: bool = True,
    ax: Axes | None = None,
    title: str | None = None,
    font_size: float = 9.0,
) -> Axes:
    """Draw the tree with matplotlib, as `tree_svg` does, into `ax` or a new figure that fits it.

    Returns the Axes (save with `ax.figure.savefig(path)`). Raises MissingExtra without matplotlib.
    """
    require("matplotlib", "plot")
    from matplotlib.collections import LineCollection

    places, width, height = layout(tree, words_in_line=words_in_line)
    if ax is None:
        ax = _new_axes(width + 2 * MARGIN, height + 2 * MARGIN, TITLE if title else 0.0, font_size)
    ax.add_collection(LineCollection(_edges(places), colors=LINE, linewidths=0.8, zorder=1))
    colours = _colours(tree, places, gold)
    for place, colour, label in zip(places, colours, tree.labels, strict=True):
        ax.text(
            place.x,
            place.y,
            label,
            color=colour,
            fontsize=font_size,
            weight="bold" if place.kind == "phrase" else "normal",
            ha="center",
            va="center",
            parse_math=False,
        )
    ax.set_xlim(-MARGIN, width + MARGIN)
    ax.set_ylim(height + MARGIN, -MARGIN)
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=font_size + 2)
    return ax


def tree_text(tree: Tree) -> str:
    """The tree in lines of box-drawing signs, a node a line, a word on the line of its tag.

    Fits any terminal that is as wide as the tree is deep, however long the sentence.
    """
    lines: list[str] = []
    stems: list[str] = []  # of each open node the text before its children
    rest: list[int] = []  # children that it waits for
    tag = False
    for label, n, phrase in zip(tree.labels, tree.arity, tree.phrasal(), strict=True):
        last = not rest or rest[-1] == 1
        if tag:
            lines[-1] += f" {label}"
        else:
            branch = "" if not rest else "└─ " if last else "├─ "
            lines.append(f"{stems[-1] if stems else ''}{branch}{label}")
        stems.append((stems[-1] + ("   " if last else "│  ")) if stems else "")
        rest.append(n)
        tag = n == 1 and not phrase
        while rest and rest[-1] == 0:
            rest.pop()
            stems.pop()
            if rest:
                rest[-1] -= 1
    return "\n".join(lines)


def _edges(places: list[Place]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """From below each parent's label to above the child's."""
    return [
        ((places[p.parent].x, places[p.parent].y + TEXT / 2), (p.x, p.y - TEXT / 2))
        for p in places
        if p.parent >= 0
    ]


def _colours(tree: Tree, places: list[Place], gold: Tree | None) -> list[str]:
    """A colour for each node; red where a phrase is not among those of the gold tree."""
    colours = [COLOURS[place.kind] for place in places]
    if gold is not None:
        known, spans = Counter(gold.phrases()), iter(tree.phrases())
        for i, place in enumerate(places):
            if place.kind == "phrase":
                span = next(spans)
                colours[i] = COLOURS["phrase" if known[span] > 0 else "wrong"]
                known[span] -= 1
    return colours


def _weight(place: Place) -> str:
    return ' font-weight="bold"' if place.kind == "phrase" else ""


def _new_axes(width: float, height: float, above: float, font_size: float) -> Axes:
    """Axes that fill a figure of their own but for `above`, without pyplot; an em is one of the font's."""
    from matplotlib.figure import Figure

    size = width * font_size / 72, (height + above) * font_size / 72
    figure = Figure(figsize=size, dpi=min(150.0, LARGEST / max(size)))
    axes: Axes = figure.add_axes((0.0, 0.0, 1.0, height / (height + above)))
    return axes
