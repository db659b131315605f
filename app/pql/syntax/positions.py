"""Converts text offsets into the lines and columns of diagnostics; knows nothing about the language."""

from bisect import bisect_right

from app.errors import Diagnostic, DiagnosticKind


class Positions:
    """Lines and columns of one text, both 1-based; columns count characters.

    >>> Positions("a and\\n b").line_and_column(7)
    (2, 2)
    """

    def __init__(self, text: str) -> None:
        self._starts = [0]
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def line_and_column(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def diagnostic(
        self, kind: DiagnosticKind, message: str, start: int, end: int, suggestions: tuple[str, ...] = ()
    ) -> Diagnostic:
        line, column = self.line_and_column(start)
        return Diagnostic(kind, message, line, column, max(0, end - start), suggestions)
