"""Searchable entries, split into words for the index columns; knows neither queries nor tables."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import tantivy

Rank = tuple[int, str, str]
"""Order of hits with the same score: short names first, then alphabetical; unique."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A searchable object. `folder_id` is the folder that contains it; `location` is the path of that folder, or of the
    folder itself."""

    kind: str
    id: str
    name: str
    namespace: str
    description: str | None = None
    folder_id: str | None = None
    location: str | None = None
    other_id: str | None = None
    rank: Rank = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", (len(words(self.name)), fold(self.name), f"{self.kind}:{self.id}"))

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.id


TEXTS = ("start", "name", "description", "location")
"""Columns of words; `start` has only the first word of the name."""
WHOLES = ("key", "kind", "ids", "folder", "parent")


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for name in TEXTS:
        builder.add_text_field(name, tokenizer_name="whitespace", index_option="position")
    for name in WHOLES:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("slot", fast=True)
    return builder.build()


SCHEMA = _schema()


def document(slot: int, entry: Entry) -> tantivy.Document:
    document = tantivy.Document()
    document.add_unsigned("slot", slot)
    texts = {"name": words(entry.name), "start": words(entry.name)[:1]}
    texts |= {"description": words(entry.description or ""), "location": words(entry.location or "")}
    for name, words_of in texts.items():
        document.add_text(name, " ".join(words_of))
    wholes: dict[str, Sequence[str]] = {
        "key": (f"{entry.kind}:{entry.id}",),
        "kind": (entry.kind,),
        "ids": (fold(entry.id), fold(entry.other_id or entry.id)) if entry.kind == "Audience" else (),
        "folder": (fold(entry.id if entry.kind == "Folder" else entry.folder_id or ""),),
        "parent": (fold(entry.folder_id or ""),),
    }
    for name, values in wholes.items():
        for value in sorted(set(values) - {""}):
            document.add_text(name, value)
    return document


# ---------------------------------------------------------------- words

_LETTERS = str.maketrans({"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"})
"""Letters that Unicode does not decompose into a base letter and a mark."""

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SYMBOLS = "\u2190-\u21ff\u2300-\u23ff\u2460-\u27bf\u2900-\u2bff\U0001f000-\U0001faff"
"""Emoji and similar symbols."""
WORDS = re.compile(rf"[{_IDEOGRAPHS}{_SYMBOLS}]|[^\W_{_IDEOGRAPHS}{_SYMBOLS}]+")


def fold(text: str) -> str:
    """Removes accents and case.

    >>> fold("Größe ÆRØ Ｃafé")
    'grosse aero cafe'
    """
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(each for each in apart if not unicodedata.combining(each)).translate(_LETTERS)


def words(text: str) -> list[str]:
    """Folded runs of letters and digits. Emoji, and scripts without spaces, yield one word per character.

    >>> words("Women's e-mail, 50% off"), words("上海 VIP🔥")
    (['women', 's', 'e', 'mail', '50', 'off'], ['上', '海', 'vip', '🔥'])
    """
    return WORDS.findall(fold(text))
