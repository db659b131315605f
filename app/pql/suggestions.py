"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable
from typing import Final

SUGGESTIONS: Final = 5


def nearest(name: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """The names most similar to a misspelled one: at most five, best first.

    >>> nearest("contry", ["city", "name", "country", "Contry"])
    ('Contry', 'country', 'city')
    """
    names = list(dict.fromkeys(candidates))
    same = [candidate for candidate in names if candidate.lower() == name.lower()]
    close = difflib.get_close_matches(name, names, n=SUGGESTIONS, cutoff=0.6)
    return tuple(dict.fromkeys([*same, *close]))[:SUGGESTIONS]


def did_you_mean(suggestions: tuple[str, ...]) -> str:
    """The end of a message that suggests names; empty if there are none."""
    if not suggestions:
        return ""
    return "; did you mean " + " or ".join(f"`{name}`" for name in suggestions) + "?"
