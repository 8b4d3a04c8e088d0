"""The held-out part of the training data: pictures that no candidate learns from and all are scored on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scrfdkit import atomic
from scrfdkit.data import formats, pictures
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import LabelError
from scrfdkit.data.words import plural
from scrfdkit.errors import ImageError, OptionError
from scrfdkit.evaluate.labelled import HEIGHTS, findable, ground_truth

TRAIN, HELDOUT = "train.txt", "heldout.txt"

_NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Split:
    """train, heldout: label files (labelv2) of both parts. images: folder of the pictures of both. num_...: pictures,
    and faces that count, which are those that can be found and are not to be ignored. notes: what was not read."""

    train: Path
    heldout: Path
    images: Path
    num_train: int
    num_heldout: int
    num_train_faces: int
    num_heldout_faces: int
    notes: tuple[str, ...] = ()

    def words(self) -> str:
        """One line about it."""
        train = f"{plural(self.num_train, 'picture')} with {plural(self.num_train_faces, 'face')}"
        heldout = f"{plural(self.num_heldout, 'picture')} with {plural(self.num_heldout_faces, 'face')}"
        return f"{train} to train on, {heldout} held out"


def split(
    labels: Sequence[LabelledImage], share: float, seed: int, same: Mapping[str, str] = _NONE
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """The pictures to train on and those held out, each in the order of `labels`.

    A picture is held out if the hash of seed and path, as a number from 0 to 1, is below `share`. So neither the order
    nor other pictures matter: who adds some keeps the sides of all the others. The parts have that share only nearly.
    Pictures without faces are dealt out like others; a false alarm on them counts.

    same: path -> the path that decides for it, as `copies` finds them; others decide for themselves. Pictures that are
    merely alike may part. Their names do not tell them (WIDER FACE numbers an event's pictures in no order of time),
    and looks do so badly: of 2,325 of its pictures one pair was taken of the same scene at once, and the hash of looks
    (dHash) that finds it takes seven other pairs for copies too. Frames of one video should be thinned out before.

    Raises OptionError for a share that is not between 0 and 1, and where a part has no face that counts.
    """
    if not 0 < share < 1:
        raise OptionError(f"--holdout {share:g}: a share above 0 and below 1 is needed")
    train: list[LabelledImage] = []
    heldout: list[LabelledImage] = []
    for image in labels:
        (heldout if _place(same.get(image.path, image.path), seed) < share else train).append(image)
    for part, what in ((heldout, "held out"), (train, "left to train on")):
        if not _faces(part):
            raise OptionError(
                f"--holdout {share:g}: no face counts in the {len(part):,} of {plural(len(labels), 'picture')} that are"
                f" {what} with seed {seed}; take another share or seed, or label more pictures"
            )
    return train, heldout


def write(source: Path, format: str | None, images: Path | None, share: float, seed: int, folder: Path) -> Split:
    """Splits labels of any format, and writes folder/train.txt and folder/heldout.txt. Files of the same content stay
    on one side.

    source, format, images: labels, their format, and the folder of their pictures, the latter two found by themselves
    if None. Sizes that the labels do not tell are read from the pictures. Raises LabelError for labels that make no
    sense, ImageError for pictures that are missing or whose size is needed and cannot be read, OptionError as `split`,
    GroundTruthError where nothing could be scored on the held-out part, and ScrfdError where a file cannot be written.
    """
    reading = formats.scan(source, format=format, images=images, strict=True)
    if not reading.images:
        raise LabelError(f"{source}: holds no pictures")
    paths = [image.path for image in reading.images]
    place = pictures.complete_folder(source, paths, images)
    train, heldout = split(reading.images, share, seed, copies(paths, place))
    ground_truth(findable(heldout)[0], HEIGHTS)  # what scoring would refuse, before anything is trained
    for part, name in ((train, TRAIN), (heldout, HELDOUT)):
        formats.write([_sized(image, place) for image in part], folder / name, "labelv2")
    return Split(
        folder / TRAIN,
        folder / HELDOUT,
        place,
        len(train),
        len(heldout),
        _faces(train),
        _faces(heldout),
        (*reading.notes, *(f"not read: {number:,} x {what}" for what, number in reading.not_read.items())),
    )


def copies(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """Of all files below folder whose content another one has too: path -> the first path of that content, in the order
    of names. Only files of equal length are read. Raises ImageError where one cannot be."""
    by_length: dict[int, list[str]] = {}
    by_content: dict[str, list[str]] = {}
    path = ""
    try:
        for path in sorted(set(paths)):
            by_length.setdefault((folder / path).stat().st_size, []).append(path)
        for some in by_length.values():
            for path in some if len(some) > 1 else ():
                by_content.setdefault(atomic.sha256(folder / path), []).append(path)
    except OSError as error:
        raise ImageError(f"{folder / path}: cannot be read: {error.strerror or error}") from None
    return {path: some[0] for some in by_content.values() if len(some) > 1 for path in some}


def _place(path: str, seed: int) -> float:
    """From 0 to 1, the same on every machine. Names of old encodings are as the bytes they were."""
    data = f"{seed}\n".encode() + path.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") / 2**64


def _faces(labels: Sequence[LabelledImage]) -> int:
    """How many count."""
    return sum(int((~image.ignore).sum()) for image in findable(labels)[0])


def _sized(image: LabelledImage, folder: Path) -> LabelledImage:
    if image.width and image.height:
        return image
    width, height = pictures.size(folder / image.path)
    return replace(image, width=width, height=height)
