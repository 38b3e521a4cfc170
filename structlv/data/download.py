"""Files from the network, kept and checked: downloaded once, offline afterwards. Needs the extra data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from structlv._extras import require

HOST = "https://raw.githubusercontent.com"


class Treebank(NamedTuple):
    """A commit of a treebank's repository; SHA-256 of the files of its parts."""

    repository: str
    commit: str
    prefix: str
    parts: dict[str, str]

    def url(self, part: str, host: str = HOST) -> str:
        return f"{host}/{self.repository}/{self.commit}/{self.prefix}-ud-{part}.conllu"


# Commits rather than releases: they are what a checksum can be relied on for. Both CC BY-SA 4.0.
TREEBANKS = {
    "English-Atis": Treebank(
        "UniversalDependencies/UD_English-Atis",
        "d1b43fe134cae17f65147e69accdf57c521d8af8",
        "en_atis",
        {
            "train": "bf34cac75bf90593720fb7e06fcecb4f3fbaf325e7a2ceefbcca10771f56ac72",
            "dev": "ba9ed59a6cf862c695043b64053194277023270ac46ad7b5182b90baee7cfee0",
            "test": "5d076b73ee57d30170f8e43434e14012f472d3af323b4f04d49a57d44c38b59a",
        },
    ),
    "English-EWT": Treebank(
        "UniversalDependencies/UD_English-EWT",
        "15d613d8447b3478787d4c278730a1e48a945efb",
        "en_ewt",
        {
            "dev": "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
            "test": "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd",
        },
    ),
}


def download_treebank(name: str, part: str, *, folder: str | Path | None = None, host: str = HOST) -> Path:
    """A part ("train", "dev" or "test") of a treebank of `TREEBANKS`, in CoNLL-U, for `read_conllu`.

    Raises as `download`, and ValueError for an unknown treebank or part.
    """
    if name not in TREEBANKS:
        raise ValueError(f"unknown treebank {name!r}; there are {', '.join(TREEBANKS)}")
    treebank = TREEBANKS[name]
    if part not in treebank.parts:
        raise ValueError(f"{name}: no part {part!r}; there are {', '.join(treebank.parts)}")
    return download(treebank.url(part, host), treebank.parts[part], folder=folder)


def download(url: str, sha256: str, *, folder: str | Path | None = None) -> Path:
    """The file at `url` that has this SHA-256: from `folder` if it is there, else from the network.

    A file is written beside its place and renamed once it has been checked, so that what is there is whole.

    Args:
        folder: where files are kept; None for the user's cache (`pooch.os_cache("structlv")`).

    Raises: OSError, which says what was tried, where it is not there and cannot be downloaded; ValueError
    where its contents are others; MissingExtra.
    """
    pooch = require("pooch", "data")
    place = Path(pooch.os_cache("structlv") if folder is None else folder)
    name = f"{sha256[:12]}-{url.rpartition('/')[2]}"
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=name, path=place))
    except ValueError as error:
        raise ValueError(f"{url}: not the contents that were expected (SHA-256 {sha256}): {error}") from error
    except Exception as error:  # requests has many kinds, and none of them says which file was wanted
        raise OSError(f"{place / name}: not there, and {url} cannot be downloaded: {error}") from error
