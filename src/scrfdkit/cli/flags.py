"""Messages of the library in the words of the command line: its options by their flags, and every text on one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import typer

from scrfdkit.errors import DeviceError, OptionError

RuntimeName: TypeAlias = Literal[
    "onnxruntime", "pytorch", "torchscript", "torchexport", "openvino", "opencv", "ncnn", "tflite", "tensorrt"
]
"""Runtimes that files can be asked to be run with; written out, as listing them must not load what knows them."""
DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "tensorrt"]

_FLAGS = {
    "score_threshold": "--score",
    "nms_threshold": "--nms",
    "input_size": "--size",
    "max_faces": "--max-faces",
    "max_pixels": "--max-pixels",
    "rank": "--rank",
    "tile": "--tile",
    "rotate": "--rotate",
    "device": "--device",
    "runtime": "--runtime",
    "threads": "--threads",
}
_THREADS_A_CORE = 4
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def as_flags(message: str) -> str:
    """The option's name that a message begins with, and `strict_device=True` in it, as the flags they come from."""
    name, colon, rest = message.partition(":")
    text = f"{_FLAGS.get(name, name)}{colon}{rest}"
    return text.replace("strict_device=True", "--strict-device")


@contextmanager
def flags_in_errors() -> Iterator[None]:
    """Errors about options or devices raised inside name flags."""
    try:
        yield
    except (OptionError, DeviceError) as error:
        raise type(error)(as_flags(str(error))) from None


def flag(panel: str, text: str, *names: str, **how: Any) -> Any:
    """An option of a command with so many that they stand in panels; whole numbers are called N."""
    if "min" in how:
        how.setdefault("metavar", "N")
    return typer.Option(*names, help=text, rich_help_panel=panel, **how)


def parse_size(text: str, flag: str = "--size") -> tuple[int, int]:
    """Width and height from words like 640x480. Raises OptionError, naming the flag."""
    match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text)
    if match is None:
        raise OptionError(f"{flag} {text}: WIDTHxHEIGHT in pixels is needed, such as 640x480")
    return int(match[1]), int(match[2])


def one_line(text: str) -> str:
    """Control characters, which file names may hold, as escapes: a message stays one line, and a terminal as it is."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def check_threads(threads: int) -> None:
    """Raises OptionError for so many threads that they would only wait for each other."""
    from scrfdkit.machine import usable_cores

    cores = usable_cores()
    if threads > _THREADS_A_CORE * cores:
        most = _THREADS_A_CORE * cores
        raise OptionError(f"--threads: {threads} are too many for {cores} cores; at most {most}, and {cores} is best")
