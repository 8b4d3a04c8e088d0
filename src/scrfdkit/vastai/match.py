"""Which result of `vamp` is of which picture: by name, by the number in its name, or by order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scrfdkit.data.pictures import by_stem
from scrfdkit.errors import ScrfdError

_NUMBERED = re.compile(r"(.*?)(\d{1,12})")


@dataclass(frozen=True)
class Pair:
    """file: of outputs. picture: its path below the folder of pictures, "event/name.jpg"."""

    file: Path
    picture: str


@dataclass(frozen=True)
class Pairs:
    """pairs: in the order of the list. how: "name", "number" or "order". missing: pictures on the list without
    outputs, by name. extra: files that are on no list, by name."""

    pairs: tuple[Pair, ...]
    how: str
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def read_list(path: Path) -> tuple[Path, ...]:
    """The paths on a list that `pack` or the published tools wrote. Raises ScrfdError, naming the line."""
    try:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise ScrfdError(f"{path}: cannot be read: {error.strerror or error}") from None
    found: dict[str, Path] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        entry = Path(line.strip())
        if entry.stem in found:
            raise ScrfdError(f"{path}:{number}: {entry.stem} is on the list twice")
        found[entry.stem] = entry
    if not found:
        raise ScrfdError(f"{path}: names no file; it must be the list that `vamp` was given")
    return tuple(found.values())


def match(listed: Sequence[Path], folder: Path, pictures: Path) -> Pairs:
    """Pairs the .npz files of a folder with pictures.

    Files that are called like an entry of the list are its results. Else they are taken by the numbers that their
    names end in, from 0 or from 1, or else in the order of their names, if there are as many as entries.
    pictures: folder of event folders, or one that holds it in images or val/images.
    Raises ScrfdError where that cannot be found out.
    """
    files = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if not files:
        raise ScrfdError(f"{folder}: holds no .npz files of outputs")
    names = {entry.stem: i for i, entry in enumerate(listed)}
    chosen = {names[file.stem]: file for file in files if file.stem in names}
    if chosen:
        how, extra = "name", tuple(file.name for file in files if file.stem not in names)
    else:
        (how, chosen), extra = _by_number(files, len(listed)), ()
    where = _places([listed[i] for i in chosen], pictures)
    pairs = tuple(Pair(chosen[i], where[listed[i].stem]) for i in sorted(chosen))
    missing = tuple(entry.stem for i, entry in enumerate(listed) if i not in chosen)
    return Pairs(pairs, how, missing, extra)


def _by_number(files: Sequence[Path], count: int) -> tuple[str, dict[int, Path]]:
    """How it was done, and files by their places on a list of so many entries."""
    found = [_NUMBERED.fullmatch(file.stem) for file in files]
    heads = {match[1] if match else None for match in found}
    numbers = {int(match[2]): file for match, file in zip(found, files, strict=True) if match}
    if heads == {None} or len(heads) > 1 or len(numbers) < len(files):
        if len(files) != count:
            raise _unclear(files, count, "their names tell nothing")
        return "order", dict(enumerate(files))
    if len(files) == count:
        return "number", {i: numbers[n] for i, n in enumerate(sorted(numbers))}
    first, last = min(numbers), max(numbers)
    start = 0 if first == 0 and last < count else 1 if first > 0 and last == count else None
    if start is None:
        raise _unclear(files, count, f"their numbers go from {first} to {last}")
    return "number", {n - start: file for n, file in numbers.items()}


def _unclear(files: Sequence[Path], count: int, reason: str) -> ScrfdError:
    return ScrfdError(
        f"{files[0].parent}: {len(files)} files of outputs for a list of {count}, and {reason}, {files[0].name} for"
        " one: it cannot be told which picture is whose; run `vamp` again on the whole list"
    )


def _places(entries: Sequence[Path], pictures: Path) -> dict[str, str]:
    """Path of every entry's picture, by name. Raises ScrfdError where there is none, or more than one."""
    root = picture_folder(pictures)
    known: dict[str, list[str]] = {}
    for stem, paths in by_stem(root).items():
        known.setdefault(Path(stem).name, []).extend(paths)
    found: dict[str, str] = {}
    for entry in entries:
        there = known.get(entry.stem, [])
        if len(there) > 1:  # a list whose files lie in event folders tells more
            there = [path for path in there if Path(path).parent.name == entry.parent.name] or there
        if len(there) != 1:
            what = f"{there[0]} and {there[1]} are both called so" if there else "there is no such picture"
            raise ScrfdError(f"{root}: {entry.stem} is on the list, and {what}")
        found[entry.stem] = there[0]
    return found


def picture_folder(data: Path) -> Path:
    """The folder of the event folders: data itself, or its val/images, WIDER_val/images or images."""
    places = (data / "val" / "images", data / "WIDER_val" / "images", data / "images")
    return next((place for place in places if place.is_dir()), data)
