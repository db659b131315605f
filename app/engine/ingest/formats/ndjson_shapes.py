"""Counts the kinds of values at each place of a file; knows no SQL."""

from collections import Counter
from dataclasses import dataclass, field

from app.engine.ingest.formats.ndjson_values import NUMBERS, WHOLE, allowed_kinds
from app.pql.schema import Scalar, Type

JsonStructure = str | list["JsonStructure"] | dict[str, "JsonStructure"]
"""The output of DuckDB's `json_structure`: names of kinds in lists and objects."""


@dataclass(slots=True)
class Shape:
    """The values of one place: how many of each kind, and the shapes below.

    `unclear` if DuckDB found different kinds in one array without naming them.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    fields: dict[str, "Shape"] = field(default_factory=dict)
    element: "Shape | None" = None
    unclear: bool = False

    def add(self, structure: JsonStructure, count: int) -> None:
        """Counts values with this structure (the output of `json_structure`)."""
        match structure:
            case dict():
                self.kinds["OBJECT"] += count
                for name, below in structure.items():
                    self.fields.setdefault(name, Shape()).add(below, count)
            case list():
                self.kinds["ARRAY"] += count
                self.element = self.element or Shape()
                for below in structure:
                    self.element.add(below, count)
            case "JSON":
                self.unclear = True
            case "NULL":
                pass
            case kind:
                self.kinds[kind] += count

    def include(self, other: "Shape") -> None:
        self.kinds += other.kinds
        self.unclear = self.unclear or other.unclear
        for name, below in other.fields.items():
            self.fields.setdefault(name, Shape()).include(below)
        if other.element is not None:
            self.element = self.element or Shape()
            self.element.include(other.element)

    def any_field(self) -> "Shape":
        """The combined shapes of all fields, for an object whose names are the keys of a map."""
        together = Shape()
        for below in self.fields.values():
            together.include(below)
        return together

    def kind(self, expected: Type | None) -> str:
        """OBJECT, ARRAY, or the empty text for scalars and nothing."""
        hoped = {"OBJECT", "ARRAY"} & allowed_kinds(expected) if expected is not None else set()
        counts = {kind: self.kinds.get(kind, 0) for kind in ("OBJECT", "ARRAY")}
        counts[""] = self.kinds.total() - sum(counts.values())
        return next((kind for kind in hoped if counts[kind]), max(counts, key=lambda kind: counts[kind]))

    def scalar_counts(self) -> dict[str, int]:
        """The number of values of each scalar kind, as text, the most frequent first."""
        words = Counter[str]()
        for kind, count in self.kinds.items():
            word = "numbers" if kind in NUMBERS else {"BOOLEAN": "true or false", "VARCHAR": "texts"}.get(kind)
            words.update({word: count} if word else {})
        return dict(words.most_common())

    def scalar(self, expected: Type | None) -> Scalar | None:
        """The type of the scalars; several kinds become text, or the expected numbers."""
        found = self.kinds.keys() - {"OBJECT", "ARRAY"}
        if not found:
            return None
        if expected in (Scalar.INTEGER, Scalar.NUMBER):
            found = found & set(NUMBERS) or found
        if found <= set(WHOLE):
            return Scalar.INTEGER
        if found <= set(NUMBERS):
            return Scalar.NUMBER
        return Scalar.BOOLEAN if found == {"BOOLEAN"} else Scalar.STRING
