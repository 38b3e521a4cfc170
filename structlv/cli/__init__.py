"""The command line: `structlv` or `python -m structlv`. Needs typer and rich: pip install 'structlv[cli]'."""

from __future__ import annotations

import sys

from structlv._extras import MissingExtra, require


def main() -> None:
    """Run the command line on sys.argv; a missing extra is one sentence and exit status 1."""
    try:
        for module in ("typer", "rich"):
            require(module, "cli")
    except MissingExtra as error:
        sys.exit(f"structlv: {error}")
    from structlv.cli.app import app

    app(prog_name="structlv")
