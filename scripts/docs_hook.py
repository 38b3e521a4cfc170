"""A hook of mkdocs: asterisks are what shapes such as (*b, n, k) begin with, and never emphasis."""

from __future__ import annotations

from typing import Any

from markdown import Markdown
from markdown.extensions import Extension


class PlainAsterisks(Extension):
    """No emphasis; strong text is written with HTML where it must be."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.deregister("em_strong")


def on_config(config: Any) -> Any:
    """Called by mkdocs; docstrings are rendered with the same extensions as pages."""
    config["markdown_extensions"].append(PlainAsterisks())
    return config
