"""Where the time of training goes, how fast it is as a whole, and on a GPU what each part of the fast step gains.

    python benchmarks/train_throughput.py [--data LABELS] [--model NAME]... [--size 640]... [--batch N] [--device auto]
        [--steps N] [--seconds 30] [--threads N] [--recipe fast] [--output FILE.json]

Three tables for every network and size, in one run:

- Loader: milliseconds of processor time for the samples of a batch (plan: windows, labels and targets; decoding;
  drawing), and of wall time for all of it, by all threads with nothing else at work. On a GPU also drawing from
  pictures in its memory, plainly and by the kernel.
- Step: milliseconds of forward, loss with its gradient, backward, update and average, on batches that lie ready; then
  the whole step, the pictures a second that this is, the processor time of all threads, and on a GPU the most memory
  that it needs besides its batches. For each way to compute a step; one that is replayed from a CUDA graph has no parts
  that could be timed.
- Training: `scrfdkit.train.run.train` itself, from its own log without the first line; the share of time that it
  waited for pictures; and how long the official schedule, 640 epochs of 12,880 pictures, would take.

Times are medians in milliseconds; compiling and warming up do not count. Without --data the pictures are synthetic:
blurred noise of 1024x768 pixels, with about as many faces of about the same sizes as in WIDER FACE. `others` is the
share of the machine's cores that other programs had in the meantime (Linux): above a few percent, wall times are too
long.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from train_parts import Listener, Setup, clean, drawing, lay_ready, loader, step_row, variants

from scrfdkit.data import formats
from scrfdkit.data.labels import LabelledImage
from scrfdkit.machine import machine, package_version, usable_cores
from scrfdkit.train import log, processes, recipes
from scrfdkit.train.prepare import prepare
from scrfdkit.train.recipe import Recipe
from scrfdkit.train.settings import Settings

OFFICIAL = Recipe().epochs * 12_880
"""Pictures that the official schedule looks at."""

STEPS = {"cpu": 5, "cuda": 50}
LOADED = 8
"""Batches that the loader is measured with: one thread makes them, too, and it takes long."""

LEAST = {"cpu": 8, "cuda": 300}
"""Steps of the training itself, which on CUDA tells its pace every hundred."""

ROADS = {"cpu": (("workers", False),), "cuda": tuple((r, f) for r in ("device", "workers") for f in (True, False))}
"""How pictures come, and whether the step is the fast one."""

KEY_POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
"""Of a synthetic face, as shares of its box."""


def training(setup: Setup, road: str, fast: bool, steps: int) -> dict[str, Any]:
    """The training as it is, from its log."""
    from scrfdkit.train.run import train

    clean(setup.device)
    torch.backends.cudnn.benchmark = False  # the training switches it on where it wants it
    heard = Listener()
    recipe = setup.settings.recipe.change({"steps": steps})
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"output": f"{folder}/run", "recipe": recipe, "road": road, "compile": fast}
        if not train(replace(setup.settings, **options), heard).finished:
            raise KeyboardInterrupt  # which the training took for itself
        lines = [line for line in log.read(Path(folder) / "run" / log.NAME) if line["kind"] == "train"]
    begins = [0, *(line["step"] for line in lines)]
    # The first line has all that is done once.
    counted = list(zip(begins, lines, strict=False))[1:] or [(0, lines[0])]
    number = sum(line["step"] - begin for begin, line in counted)
    seconds = [(line["step"] - begin) * recipe.batch / line["pictures_per_second"] for begin, line in counted]
    waited = sum(spent * line["waiting"] for spent, (_, line) in zip(seconds, counted, strict=True))
    pace = number * recipe.batch / sum(seconds)
    return {
        "road": road,
        "fast": fast,
        "steps": number,
        "step": 1000 * sum(seconds) / number,
        "pictures_per_second": pace,
        "waiting": waited / sum(seconds),
        "memory_gib": max(line["memory"] for line in lines) / 2**30,
        "official_hours": OFFICIAL / pace / 3600,
        "notes": heard.warnings() + (["the first steps count too"] if len(lines) == 1 else []),
    }


def synthetic(folder: Path, number: int) -> None:
    """Writes pictures, blurred noise with some grain, and their labels."""
    random = np.random.default_rng(0)
    width, height, labels = 1024, 768, []
    grain = random.normal(8, 1.5, (height, width, 3)).clip(0, 16).astype(np.uint8)
    (folder / "images").mkdir()
    for place in range(number):
        coarse = random.integers(0, 240, (48, 64, 3), np.uint8)
        picture = cv2.add(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), grain)
        cv2.imwrite(str(folder / "images" / f"{place}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
        labels.append(synthetic_faces(random, f"{place}.jpg", width, height))
    formats.write(labels, folder / "labelv2.txt", "labelv2")


def synthetic_faces(random: np.random.Generator, path: str, width: int, height: int) -> LabelledImage:
    """Numbers and sizes of faces are log-normal, the smaller the more there are, about as in WIDER FACE train."""
    count = int(np.clip(random.lognormal(1.34, 1.6), 1, 1000))
    usual = 4.9 - 0.54 * np.log(count) + random.normal(0, 0.68)
    side = np.exp(usual + random.normal(0, 0.27, count)).clip(4, 500)
    size = side[:, None] * (0.885, 1.13)
    corner = random.random((count, 2)) * ((width, height) - size)
    points = corner[:, None] + KEY_POINTS * size[:, None]
    points = np.concatenate([points, np.ones((count, 5, 1))], 2).astype(np.float32)
    points[side < 24] = -1  # WIDER FACE has key points for larger faces only
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return LabelledImage(path, width, height, boxes, np.zeros(count, bool), points)


@contextlib.contextmanager
def data_of(args: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """Labels, and the folder of their pictures if that was told."""
    if args.data is not None:
        yield str(args.data), None if args.images is None else str(args.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        synthetic(Path(folder), args.pictures)
        yield str(Path(folder) / "labelv2.txt"), str(Path(folder) / "images")


def setup_of(args: argparse.Namespace, model: str, size: int, data: tuple[str, str | None]) -> Setup:
    changes: dict[str, Any] = {"size": size, "accumulate": 1}
    if args.batch:
        changes["batch"] = args.batch
    recipe = recipes.find(args.recipe, model).change(changes)
    settings = Settings(
        model=model,
        data=data[0],
        images=data[1],
        output="",
        recipe=recipe,
        device=args.device,
        road="workers",
        compile=False,
        workers=args.workers,
        validate_every=0,
        save_minutes=0,
    )
    ready = prepare(settings, processes.start(args.device), lambda text: None, False)
    return Setup(settings, ready.processes, ready.source, ready.begin.net, args.workers or usable_cores(), args.repeat)


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, with the share that other programs had; where it fails the benchmark goes on without."""
    before = _cores_spent()
    try:
        row = work()
    except Exception as error:  # compilers and drivers raise many kinds
        traceback.print_exc()
        row = {"failed": f"{type(error).__name__}: {error}"}
    after = _cores_spent()
    if before and after:
        whole, busy, own = (b - a for a, b in zip(before, after, strict=True))
        row["others"] = max(0.0, busy - own) / whole
    return row


def _cores_spent() -> tuple[float, float, float] | None:
    """Seconds of all cores since the start, those at work, and those of this program."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    second = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / second, (sum(ticks) - ticks[3] - ticks[4]) / second, sum(os.times()[:4])


def network(setup: Setup, steps: int, seconds: float) -> dict[str, Any]:
    """Everything of one network at one size, printed as it comes."""
    kind = setup.device.type
    result: dict[str, Any] = {"loader": measured(lambda: loader(setup, min(steps, LOADED)))}
    tell("loader, ms a batch", result["loader"])
    if kind == "cuda":
        result["gpu"] = measured(lambda: drawing(setup))
        tell("pictures in the GPU's memory", result["gpu"])
    ways, result["notes"] = variants(setup)
    ready = lay_ready(setup)
    result["steps"] = []
    for way in ways:
        result["steps"].append({"way": way.name} | measured(lambda way=way: step_row(setup, way, ready, steps)))  # type: ignore[misc]
        tell("step, ms", result["steps"][-1])
    ready.clear()
    result["training"] = []
    for road, fast in ROADS[kind]:
        # Long enough for the log to have a few lines, at the pace of whichever is slower.
        paces = [row["step"] for row in result["steps"] if "step" in row]
        step = (min(paces) if fast else max(paces[:2])) if paces else 0.0
        pace = max(step, result["loader"].get("whole", 0.0) if road == "workers" else 0.0, 1.0)
        number = max(LEAST[kind], round(1000 * seconds / pace))
        result["training"].append(measured(lambda r=road, f=fast, n=number: training(setup, r, f, n)))  # type: ignore[misc]
        tell("training, ms", result["training"][-1])
    return result


def tell(what: str, row: dict[str, Any]) -> None:
    print(f"  {what}: " + ", ".join(f"{name} {_words(value)}" for name, value in row.items() if value not in ([], {})))


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_words(part)}" for name, part in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rounded(value: Any) -> Any:
    """Four digits are more than any of these numbers are good for."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def about(args: argparse.Namespace) -> dict[str, Any]:
    """The machine, and how it was used."""
    found: dict[str, Any] = machine() | {
        "load_average_before": os.getloadavg(),
        "torch_threads": torch.get_num_threads(),
    }
    found["packages"]["triton"] = package_version("triton")
    if torch.cuda.is_available() and args.device != "cpu":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["tf32_convolutions"] = torch.backends.cudnn.allow_tf32  # then "fp32" is not quite that
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="labels with key points; synthetic pictures if left out")
    parser.add_argument("--images", type=Path, help="folder of their pictures, by default beside the labels")
    parser.add_argument("--pictures", type=int, default=1024, help="number of synthetic pictures")
    parser.add_argument("--model", action="append", help="zoo name; scrfd_500m_kps and scrfd_2.5g_kps if left out")
    parser.add_argument("--size", type=int, action="append", help="side of the samples; 640 if left out")
    parser.add_argument("--batch", type=int, help="the recipe's if left out")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads of the network")
    parser.add_argument("--workers", type=int, default=0, help="threads that prepare pictures; one a core if left out")
    parser.add_argument("--steps", type=int, help="steps of one repetition; 5 on the CPU, 50 on CUDA if left out")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each training lasts, about")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> None:
    args = options()
    if args.threads:
        torch.set_num_threads(args.threads)
    record: dict[str, Any] = {"machine": about(args), "recipe": args.recipe, "results": []}
    print(json.dumps(record["machine"]))
    with data_of(args) as data:
        kind = "synthetic" if args.data is None else "real"
        for model in args.model or ["scrfd_500m_kps", "scrfd_2.5g_kps"]:
            for size in args.size or [640]:
                setup = setup_of(args, model, size, data)
                head: dict[str, Any] = {"model": model, "size": size, "batch": setup.settings.recipe.batch}
                width, height = (round(float(side)) for side in setup.source.faces.sizes.mean(0))
                head["pictures"] = f"{len(setup.source.faces)} {kind} of {width}x{height} pixels on average"
                head |= {"workers": setup.workers, "device": setup.device.type}
                print(", ".join(f"{name} {value}" for name, value in head.items()))
                steps = args.steps or STEPS[setup.device.type]
                record["results"].append(head | rounded(network(setup, steps, args.seconds)))
                if args.output:  # after each, so that a run that is cut off leaves something
                    args.output.write_text(json.dumps(record, indent=2) + "\n")
    if "failed" in json.dumps(record):
        sys.exit("something failed, see above")


if __name__ == "__main__":
    main()
