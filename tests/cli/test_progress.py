"""When the progress of a load is worth a line, and what the line says."""

import asyncio

from app.cli.progress import Display, Lines
from app.cli.terminal import console


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_comes_for_each_tenth_but_not_too_often() -> None:
    clock = Clock()
    lines = Lines(clock)
    printed = []
    for seconds, fraction in [(1, 0.5), (4, 0.05), (5, 0.1), (6, 0.9), (10, 0.19), (11, 0.2), (30, 0.21), (41, 0.21)]:
        clock.now = 100.0 + seconds
        if lines.due(fraction):
            printed.append(seconds)
    assert printed == [5, 11, 41]


def test_lines_tell_of_all_files_or_of_what_came() -> None:
    clock = Clock()
    bars: list[tuple[str, int]] = []

    async def watch() -> None:
        display = Display(4_000_000, lambda label, completed: bars.append((label, completed)), Lines(clock))
        for name in ("a.csv", "b.csv"):
            async with display.watching(name, 2_000_000):
                await asyncio.sleep(0)
        clock.now += 5
        display.show("b.csv", 3_960_000, "storing")

    with console.capture() as captured:
        asyncio.run(watch())
        known = Display(None, lambda label, completed: None, Lines(clock))
        clock.now += 5
        known.show("standard input", 12_345_678)
    assert captured.get() == "b.csv (storing): 99% of 4.0 MB\nstandard input: 12.3 MB\n"
    assert bars == [
        ("a.csv", 0),
        ("a.csv", 2_000_000),
        ("b.csv", 2_000_000),
        ("b.csv", 4_000_000),
        ("b.csv (storing)", 3_960_000),
    ]
