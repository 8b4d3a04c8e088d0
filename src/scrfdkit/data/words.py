"""Numbers in messages."""

from __future__ import annotations


def plural(number: int, one: str, many: str = "") -> str:
    """A number of things: "1 face", "2,000 faces". many: where it is not `one` with an s, as in "2 boxes"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
