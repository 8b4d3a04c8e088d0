"""What a certificate says: an exported file, run by the runtime that users run it with, beside PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from scrfdkit import image
from scrfdkit.benchmark.latency import network
from scrfdkit.detector import Detector
from scrfdkit.errors import DeviceError, ImageError, OptionError
from scrfdkit.export.agreement import SCORE, Agreement, agreement
from scrfdkit.export.order import USUAL_SIZE, Order, Target
from scrfdkit.export.parity import Parity, blob_of, compare_heads, largest_gap, pictures, worst
from scrfdkit.export.reference import Reference
from scrfdkit.export.source import Source
from scrfdkit.image import Picture
from scrfdkit.machine import machine
from scrfdkit.runtime.base import Runtime, within
from scrfdkit.runtime.formats import open_runtime, version
from scrfdkit.types import Floats

Score: TypeAlias = Callable[[Detector], Mapping[str, float]]
"""Average precision by name, in percent, the one that decides last."""

TOLERANCES: Mapping[str, float | None] = {"fp32": 1e-3, "fp16": 0.1, "int8": None}
"""Largest difference from PyTorch that is allowed, of a face probability or of a distance in strides. int8 is judged by
the faces that it finds."""


_SOME = 16
"""Calibration pictures that are looked at, or up to twice as many."""
MOST_CHANGED = 0.01
"""Share of the faces that int8 may lose or add: rounding moves some over the threshold."""


@dataclass(frozen=True)
class Trial:
    """How a file is tried. pictures: files, to look for faces in; without any, a portrait that ships. score: with
    labelled pictures, for average precision. max_drop: of it, at most. repeat: runs that are timed. threads: of them.
    """

    pictures: Sequence[Path] = ()
    score: Score | None = None
    max_drop: float = 1.0
    repeat: int = 20
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """measured: plain data, as it goes into a certificate. complaints: what is not good enough. ran: False where no
    machine part or package is here to run the file with; then nothing is known of it."""

    measured: Mapping[str, Any]
    complaints: tuple[str, ...] = ()
    ran: bool = True

    @property
    def passed(self) -> bool | None:
        """None where it was not run."""
        return None if not self.ran else not self.complaints


def measure(
    source: Source, path: Path, target: Target, order: Order, trial: Trial, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Runs a file beside PyTorch on the cases of its contract, on pictures, and on labelled ones if there are any.

    say: is told what begins. Raises ModelError where the file cannot be run for a fault of its own.
    """
    path = target.inside(path) if target.inside else path
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    if order.contract.layout == "end2end" and target.compare is not None:
        if trial.score is not None or trial.pictures:
            raise OptionError(
                "--data and --pictures: an end2end file is compared on a portrait and noise, face by face; try the same"
                " network in another layout with them"
            )
        say("running it beside PyTorch")
        parity = target.compare(source, path, order)
        return Outcome({**facts, "parity": parity.to_dict()}, _told(parity.complaint()))
    try:
        runtime = open_runtime(path, threads=trial.threads, device="auto")
    except DeviceError as error:
        return Outcome({**facts, "not_run": str(error)}, ran=False)
    return _measure(source, path, runtime, order, trial, say, facts)


def _measure(
    source: Source, path: Path, runtime: Runtime, order: Order, trial: Trial, say: Callable[[str], None], facts: Any
) -> Outcome:
    spec = source.info.spec.input
    plain = Reference(source.net, source.info.to_metadata())
    say("running it beside PyTorch")
    cases = compare_heads(plain, runtime, order.contract, spec)
    parity = Parity(f"PyTorch {torch.__version__}", version(path), cases, TOLERANCES[order.precision])
    say("looking for faces")
    first, second = Detector(plain), Detector(runtime, path=path)
    found = agreement(first, second, _looked_at(trial, order))
    if not found.faces:  # without a face to find, the file would be judged by nothing
        found = agreement(first, second, [image.load(_portrait(), name="the portrait that ships")])
    complaints = [*_told(parity.complaint()), *_told(faces_complaint(found, order))]
    facts |= {
        "parity": parity.to_dict(),
        "faces": asdict(found),
        "batch_difference": _batch_difference(runtime, blob_of(pictures(within(runtime, USUAL_SIZE), 3), spec)),
        "device": runtime.device,
    }
    if trial.score is not None:
        say("scoring it on labelled pictures")
        ours, theirs = dict(trial.score(first)), dict(trial.score(second))
        facts |= {"ap": theirs, "ap_pytorch": ours}
        name = list(ours)[-1]
        drop = ours[name] - theirs[name]
        if not drop <= trial.max_drop:
            complaints.append(
                f"its AP ({name}) is {theirs[name]:.2f} and PyTorch's {ours[name]:.2f}: {drop:.2f} less, and"
                f" --max-ap-drop allows {trial.max_drop:g}"
            )
    say("timing it")
    size = within(runtime, USUAL_SIZE)
    blob = blob_of(pictures(size, runtime.batch_size or 1), spec)
    facts["latency"] = {
        "milliseconds": asdict(network(runtime, blob, repeat=trial.repeat)),
        "size": list(size),
        "batch": len(blob),
        "threads": trial.threads,
    }
    return Outcome(facts, tuple(complaints))


def _looked_at(trial: Trial, order: Order) -> list[Picture]:
    """The pictures to look for faces in; for int8 without any, some of those that it was calibrated with."""
    some = trial.pictures or order.calibration[:: max(1, len(order.calibration) // _SOME)]
    found = []
    for path in some:
        try:
            found.append(image.load(path))
        except ImageError:
            if trial.pictures:
                raise
    return found


def faces_complaint(found: Agreement, order: Order) -> str:
    """What is wrong with the faces that a file finds, "" if nothing is."""
    if not np.isfinite([found.boxes, found.keypoints, found.scores]).all():
        return "boxes, key points or scores of the faces that it finds are not numbers"
    allowed = MOST_CHANGED * found.faces if order.precision == "int8" else 0
    if found.missing + found.extra <= allowed:
        return ""
    return (
        f"{found.missing} of {found.faces} faces that PyTorch finds with a score of {SCORE} are missing, and"
        f" {found.extra} are found that PyTorch does not find; at most {int(allowed)} may be"
    )


def _batch_difference(runtime: Runtime, blob: Floats) -> float | None:
    """Largest difference between pictures in one run and each in a run of its own; None where a run has one only."""
    if runtime.batch_size is not None:
        return None
    together = runtime.run(blob)
    if together[0].ndim == 2:
        return None
    alone = zip(*(runtime.run(blob[i : i + 1]) for i in range(len(blob))), strict=True)
    return worst(largest_gap(np.concatenate(parts), whole) for whole, parts in zip(together, alone, strict=True))


def _told(complaint: str) -> tuple[str, ...]:
    return (complaint,) if complaint else ()


def _portrait() -> bytes:
    return (files("scrfdkit") / "assets" / "astronaut.jpg").read_bytes()
