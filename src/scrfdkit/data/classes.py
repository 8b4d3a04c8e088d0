"""Which of a data set's classes are the faces."""

from __future__ import annotations

from collections.abc import Iterable


def face_class(names: Iterable[str]) -> str | None:
    """The one called "face", in any case; else the only one there is; None where that leaves a choice."""
    known = sorted(set(names))
    called = [name for name in known if name.strip().lower() == "face"]
    if called:
        return called[0]
    return known[0] if len(known) == 1 else None


def no_choice(names: Iterable[str]) -> str:
    """What to say where `face_class` cannot choose."""
    few = sorted(set(names))
    shown = ", ".join(repr(name) for name in few[:5]) + (", ..." if len(few) > 5 else "")
    return f"several classes ({shown}) and none is called 'face': rename the one that is, or remove the others"
