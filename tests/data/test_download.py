"""Downloads against a server of this machine: kept, checked, and safe without a network."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("pooch")

from structlv.data import TREEBANKS, download, download_treebank, read_conllu
from structlv.data.download import Treebank

CONTENT = b"1\tHello\thello\tINTJ\t_\t_\t0\troot\t_\t_\n"
SHA = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "x.conllu").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_file_is_downloaded_once_and_then_offline(host: str, tmp_path: Path) -> None:
    found = download(f"{host}/x.conllu", SHA, folder=tmp_path / "cache")
    assert read_conllu(found)[0].words == ("hello",)
    (tmp_path / "served" / "x.conllu").unlink()
    assert download(f"{host}/x.conllu", SHA, folder=tmp_path / "cache") == found
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [found.name]


def test_other_contents_are_refused_and_not_kept(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the contents that were expected"):
        download(f"{host}/x.conllu", "0" * 64, folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_damaged_file_is_downloaded_again(host: str, tmp_path: Path) -> None:
    found = download(f"{host}/x.conllu", SHA, folder=tmp_path / "cache")
    found.write_bytes(CONTENT[:5])
    assert download(f"{host}/x.conllu", SHA, folder=tmp_path / "cache").read_bytes() == CONTENT


def test_without_a_network_the_error_says_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"not there, and http://127\.0\.0\.1:9/x cannot be downloaded"):
        download("http://127.0.0.1:9/x", SHA, folder=tmp_path / "cache")


def test_treebanks_have_names_parts_and_checksums(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in TREEBANKS.values():
        assert len(one.commit) == 40
        assert all(len(sha) == 64 for sha in one.parts.values())
    monkeypatch.setitem(TREEBANKS, "Toy", Treebank("UD/Toy", "abc", "toy", {"dev": SHA}))
    place = tmp_path / "served" / "UD" / "Toy" / "abc"
    place.mkdir(parents=True)
    (place / "toy-ud-dev.conllu").write_bytes(CONTENT)
    assert download_treebank("Toy", "dev", folder=tmp_path / "cache", host=host).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="no part 'train'; there are dev"):
        download_treebank("Toy", "train")
    with pytest.raises(ValueError, match="unknown treebank 'Klingon'"):
        download_treebank("Klingon", "train")
