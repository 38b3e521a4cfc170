"""Readers on ordinary and odd files."""

from pathlib import Path

import pytest

from structlv.data import Sentence, read_conllu, read_sentences, read_text, tokenise

CONLLU = """# sent_id = 1
# text = Don't go.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\t_\t_\t0\troot\t_\t_
2\tn't\tnot\tPART\t_\t_\t1\tadvmod\t_\t_
2.1\tyou\tyou\tPRON\t_\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\t_\t_\t1\tx\t_\t_
4\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_

# sent_id = 2
1\tYes\tyes\tINTJ\t_\t_\t0\troot\t_\t_"""


def written(folder: Path, content: str | bytes, name: str = "x.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("The first-born, don't!", ("the", "first-born", ",", "don't", "!")),
        ("It cost 1,000.50 (or so).", ("it", "cost", "1,000.50", "(", "or", "so", ")", ".")),
        ("one,two", ("one", ",", "two")),
        ("a <unk> b", ("a", "<unk>", "b")),
        ("Ünïcode 語", ("ünïcode", "語")),
        ("   ", ()),
    ],
)
def test_tokenise(line: str, tokens: tuple[str, ...]) -> None:
    assert tokenise(line) == tokens


def test_tokenise_can_keep_case() -> None:
    assert tokenise("Ab C", lower=False) == ("Ab", "C")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end"])
def test_text_line_ends_empty_lines_and_no_final_newline(tmp_path: Path, end: str, last: str) -> None:
    path = written(tmp_path, "\ufeffA b" + end + end + "  " + end + "c" + (end if last else ""))
    assert read_text(path) == [Sentence(("a", "b")), Sentence(("c",))]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_conllu_skips_comments_ranges_and_empty_nodes(tmp_path: Path, end: str) -> None:
    sentences = read_conllu(written(tmp_path, CONLLU.replace("\n", end), "x.conllu"), lower=False)
    assert sentences == [
        Sentence(("Do", "n't", "go", "."), ("AUX", "PART", "VERB", "PUNCT")),
        Sentence(("Yes",), ("INTJ",)),
    ]


def test_conllu_without_tags_has_none(tmp_path: Path) -> None:
    assert read_conllu(written(tmp_path, CONLLU.splitlines()[-1].replace("INTJ", "_")))[0].tags == ()


def test_the_suffix_or_the_format_decides(tmp_path: Path) -> None:
    path = written(tmp_path, CONLLU, "x.CONLLU")
    assert len(read_sentences(path)) == 2
    assert len(read_sentences(path, format="text")) == len(CONLLU.splitlines()) - 1
    assert len(read_sentences(written(tmp_path, CONLLU, "y.txt"), format="conllu")) == 2
    with pytest.raises(ValueError, match="format must be 'text' or 'conllu'"):
        read_sentences(path, format="xml")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "x.txt", "no sentence in it"),
        ("\n \n", "x.txt", "no sentence in it"),
        ("# only a comment\n", "x.conllu", "no sentence in it"),
        (b"caf\xe9 au lait\n", "x.txt", "not UTF-8 text"),
        ("1\tword\tNOUN\n", "x.conllu", r"line 1: expected 10 tab-separated columns .* found 3"),
        ("\na\tword\t_\tNOUN\t_\t_\t_\t_\t_\t_\n", "x.conllu", "line 2: 'a' is not a CoNLL-U word index"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_file_name(
    tmp_path: Path, content: str | bytes, name: str, message: str
) -> None:
    path = written(tmp_path, content, name)
    with pytest.raises(ValueError, match=message) as caught:
        read_sentences(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_sentences(tmp_path / "nothing.txt")
    with pytest.raises(OSError):
        read_sentences(tmp_path)


def test_conllu_agrees_with_the_package_of_that_name(tmp_path: Path) -> None:
    conllu = pytest.importorskip("conllu")
    found = read_conllu(written(tmp_path, CONLLU, "x.conllu"), lower=False)
    expected = [
        [(t["form"], t["upos"]) for t in sentence if isinstance(t["id"], int)]
        for sentence in conllu.parse(CONLLU + "\n\n")
    ]
    assert [list(zip(s.words, s.tags, strict=True)) for s in found] == expected
