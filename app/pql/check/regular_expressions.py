"""Validates regular expressions for RE2 and counts their groups; knows nothing about PQL.

The engine matches with RE2, whose running time is linear. Python's `re` accepts a different syntax, so it cannot
validate patterns. The grammar is https://github.com/google/re2/wiki/Syntax; the limits on repetition follow RE2's
parser.
"""

import re
from typing import Final

MAXIMUM_REPEAT: Final = 1000
_COUNT: Final = re.compile(r"\{([0-9]+)(,([0-9]*))?\}")
_FLAGS: Final = re.compile(r"\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAMED: Final = re.compile(r"\?P?<([^>]*)>")
_POSIX: Final = re.compile(
    r"\[:\^?(alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)
_UNICODE: Final = re.compile(r"[pP](?:[CLMNPSZ]|\{\^?[A-Z][A-Za-z_]*\})")
_HEX: Final = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,8})\})")
_OCTAL: Final = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_CONTROL: Final = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


def groups(pattern: str) -> int:
    """The number of capturing groups. Raises `ValueError` with the reason if RE2 would reject the pattern.

    >>> groups("^(p[0-9]+)[.]([A-Za-z])@")
    2
    >>> groups("(a")
    Traceback (most recent call last):
    ValueError: its `(` at 1 is not closed
    """
    return _Reader(pattern).read()


class _Reader:
    """Reads a pattern from left to right. Open groups are kept on an explicit stack, so nesting depth is not
    limited."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.count = 0
        self.names: set[str] = set()
        self.open: list[tuple[int, int]] = []
        """For each open group: where it began, and the largest repetition seen before it at its level."""
        self.heaviest = 0
        """The largest repetition at the current level."""
        self.atom = 0
        """How often the last atom is repeated within itself; 0 if there is nothing to repeat."""
        self.repeated = False

    def read(self) -> int:
        """Reads the whole pattern and returns the number of groups. Raises `ValueError`."""
        while self.at < len(self.pattern):
            start, character = self.at, self.pattern[self.at]
            count = _COUNT.match(self.pattern, start) if character == "{" else None
            if count or character in "*+?":
                self._repeat(start, character, count)
            else:
                self.repeated = False
                self.at += 1
                self._piece(start, character)
        if self.open:
            raise ValueError(f"its `(` at {self.open[-1][0] + 1} is not closed")
        return self.count

    def _repeat(self, start: int, character: str, count: re.Match[str] | None) -> None:
        if not self.atom or self.repeated:
            what = "repeats nothing" if not self.atom else "repeats a repetition"
            self._refuse(f"`{character}` {what}", start)
        self.atom *= self._repetition(count)
        self.repeated = True
        if self.atom > MAXIMUM_REPEAT:
            self._refuse(f"more than {MAXIMUM_REPEAT} repetitions", start)
        self.heaviest = max(self.heaviest, self.atom)

    def _piece(self, start: int, character: str) -> None:
        """Reads one piece other than a repetition; its first character is already consumed."""
        match character:
            case "(":
                if self._group(start):
                    self.open.append((start, self.heaviest))
                    self.heaviest, self.atom = 1, 0
                return
            case ")":
                if not self.open:
                    self._refuse("`)` closes nothing", start)
                self.atom = self.heaviest
                self.heaviest = max(self.heaviest, self.open.pop()[1])
                return
            case "|":
                self.atom = 0
                return
            case "\\":
                self._escape(start, in_class=False)
            case "[":
                self._class(start)
        self.atom = 1
        self.heaviest = max(self.heaviest, 1)

    def _refuse(self, reason: str, at: int) -> None:
        raise ValueError(f"{reason} (at {at + 1})")

    def _repetition(self, count: re.Match[str] | None) -> int:
        """Consumes a repetition. Returns its upper bound, or the lower bound if it has no upper one."""
        start = self.at
        times = 1
        if count:
            least = int(count.group(1))
            most = int(count.group(3)) if count.group(3) else (0 if count.group(2) else least)
            if max(least, most) > MAXIMUM_REPEAT or (count.group(3) and most < least):
                self._refuse(f"`{count.group()}` is not a number of repetitions up to {MAXIMUM_REPEAT}", start)
            times = max(least, most, 1)
            self.at = count.end()
        else:
            self.at += 1
        if self.pattern.startswith("?", self.at):
            self.at += 1
        return times

    def _group(self, start: int) -> bool:
        """Consumes the opening of a group. Returns false if it only set flags."""
        if not self.pattern.startswith("?", self.at):
            self.count += 1
            return True
        named = _NAMED.match(self.pattern, self.at)
        if named:
            if not re.fullmatch(r"\w+", named.group(1)) or named.group(1) in self.names:
                self._refuse(f"`{named.group(1)}` is not a new name of a group", start)
            self.names.add(named.group(1))
            self.count += 1
            self.at = named.end()
            return True
        flags = _FLAGS.match(self.pattern, self.at)
        if not flags or (flags.group(3) == ")" and not flags.group(1) and not flags.group(2)):
            self._refuse(f"`{self.pattern[start : start + 4]}` is not supported", start)
            return False
        self.at = flags.end()
        return flags.group(3) == ":"

    def _escape(self, start: int, *, in_class: bool) -> int | None:
        """Consumes an escape. Returns its character; None if it stands for several characters or none."""
        rest = self.pattern[self.at : self.at + 1]
        if rest == "":
            self._refuse("`\\` ends it", start)
        if rest == "Q" and not in_class:
            end = self.pattern.find("\\E", self.at)
            self.at = len(self.pattern) if end < 0 else end + 2
            return None
        for shape in (_HEX, _OCTAL, _UNICODE):
            match = shape.match(self.pattern, self.at)
            if match:
                self.at = match.end()
                return self._code(shape, match, start)
        if rest in "dDsSwW" or (rest in "AbBCz" and not in_class):
            self.at += 1
            return None
        if rest in _CONTROL or (rest.isascii() and not rest.isalnum() and rest != "_"):
            self.at += 1
            return _CONTROL.get(rest, ord(rest))
        self._refuse(f"`\\{rest}` is not an escape that is supported", start)
        return None

    def _code(self, shape: re.Pattern[str], match: re.Match[str], start: int) -> int | None:
        if shape is _UNICODE:
            return None
        code = int(match.group(1) or match.group(2), 16) if shape is _HEX else int(match.group(), 8)
        if code > 0x10FFFF:
            self._refuse(f"`\\{match.group()}` is not a character", start)
        return code

    def _class(self, start: int) -> None:
        """Consumes the rest of `[…]`."""
        if self.pattern.startswith("^", self.at):
            self.at += 1
        first = True
        while first or not self.pattern.startswith("]", self.at):
            if self.at >= len(self.pattern):
                self._refuse("`[` is not closed", start)
            first = False
            low_at = self.at
            low = self._class_item(start)
            if self.pattern.startswith("-", self.at) and not self.pattern.startswith("-]", self.at):
                self.at += 1
                if self.at >= len(self.pattern):
                    self._refuse("`[` is not closed", start)
                high = self._class_item(start)
                if low is None or high is None or high < low:
                    self._refuse(f"`{self.pattern[low_at : self.at]}` is not a range of characters", low_at)
        self.at += 1

    def _class_item(self, start: int) -> int | None:
        if self.pattern.startswith("[:", self.at):
            named = _POSIX.match(self.pattern, self.at)
            if named:
                self.at = named.end()
                return None
            if self.pattern.find(":]", self.at) > 0:
                self._refuse("there is no such class of characters", self.at)
        character = self.pattern[self.at]
        self.at += 1
        if character == "\\":
            return self._escape(start, in_class=True)
        return ord(character)
