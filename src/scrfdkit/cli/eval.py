"""`scrfd eval`: how good a detector is, on WIDER FACE or own labelled pictures: any detector's results, or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scrfdkit.cli import closeups
from scrfdkit.cli.flags import DeviceName, RuntimeName
from scrfdkit.errors import OptionError

app = typer.Typer(help="Score detectors: average precision, intervals, curves, close-ups.", no_args_is_help=True)

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME|FILE", help="Network to run and score; again for several in one table."),
]
Stored = Annotated[
    list[Path] | None,
    typer.Option(
        "--detections",
        metavar="DIR|FILE.npz",
        help="Any detector's results: event/picture.txt files, or an .npz; again.",
    ),
]
ModeText = Annotated[
    str,
    typer.Option(
        "--mode",
        metavar="vga|original|N|WxH",
        help="What the network sees, as in published figures: vga is the long side 640 on 640x640.",
    ),
]
SaveTo = Annotated[
    Path | None,
    typer.Option("--save-detections", metavar="DIR|FILE.npz", help="Keep what the model finds, to be scored again."),
]
MissingPictures = Annotated[
    Literal["skip", "empty", "error"],
    typer.Option(help="Pictures without results: leave them out, count their faces as missed, or refuse."),
]
Resamples = Annotated[
    int,
    typer.Option(
        "--bootstrap",
        min=0,
        max=100_000,
        metavar="N",
        help="95 % intervals from N draws of pictures; 1000 is usual.",
        show_default="none",
    ),
]
CurveFiles = Annotated[
    list[Path] | None, typer.Option("--curves", metavar="FILE.svg|png", help="Draw precision over recall; again.")
]
Rough = Annotated[
    bool,
    typer.Option("--rough", help="Also score loose overlap, middle inside, large faces, and one answer a picture."),
]
Device = Annotated[DeviceName, typer.Option(help="Where the network runs.")]
Runtime = Annotated[RuntimeName | None, typer.Option(help="What runs the network.")]
Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Pictures at a time.", show_default="one a core")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command()
def widerface(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="WIDER FACE: pictures in DIR/val/images, DIR/images or DIR.")
    ] = None,
    gt: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the four .mat files.", show_default="gt in --data"),
    ] = None,
    model: Models = None,
    detections: Stored = None,
    mode: ModeText = "vga",
    save_detections: SaveTo = None,
    missing: MissingPictures = "skip",
    bootstrap: Resamples = 0,
    curves: CurveFiles = None,
    rough: Rough = False,
    device: Device = "auto",
    runtime: Runtime = None,
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Average precision by WIDER FACE's protocol: easy, medium, hard.

    Only pictures that are there are scored; how many, is told.
    """
    from scrfdkit.cli import scoring
    from scrfdkit.evaluate.run import gt_folder, wider_pictures
    from scrfdkit.evaluate.widerface import read_ground_truth

    scoring.check(model, detections, mode, save_detections, curves)
    if gt is None and data is None:
        raise OptionError("--gt: name the folder of WIDER FACE's .mat files, or the data set's with --data")
    if model and data is None:
        raise OptionError("--data: a model needs pictures to look at; name the data set's folder")
    truth = read_ground_truth(gt if gt is not None else gt_folder(data or Path()))
    names = scoring.names(detections, model)
    entries = scoring.read_all(detections, names)
    if model:
        assert data is not None
        images, files = wider_pictures(data, truth)
        for each in model:
            detector, run = scoring.run_reference(each, images, files, mode, jobs=jobs, device=device, runtime=runtime)
            entries.append(scoring.entry(names[len(entries)], detector, run))
            scoring.save(save_detections, run.results)
    board = scoring.board(truth, entries, missing, bootstrap)
    scoring.report(board, curves, rough=rough, as_json=as_json)


@app.command()
def labels(
    labels: Annotated[Path, typer.Option(metavar="FILE|DIR", help="Labels in any format that `scrfd data` knows.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the pictures.", show_default="beside the labels")
    ] = None,
    label_format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Format of the labels.", show_default="guessed")
    ] = None,
    model: Models = None,
    detections: Stored = None,
    mode: ModeText = "vga",
    save_detections: SaveTo = None,
    missing: MissingPictures = "skip",
    bootstrap: Resamples = 0,
    curves: CurveFiles = None,
    rough: Rough = False,
    coco: Annotated[bool, typer.Option("--coco", help="Also COCO's average precision, of each --model.")] = False,
    device: Device = "auto",
    runtime: Runtime = None,
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Average precision on your own labelled pictures; every face counts that is not marked to be ignored.

    Where labels and network have landmarks, their error is told too.
    """
    from scrfdkit.cli import scoring
    from scrfdkit.data import formats
    from scrfdkit.evaluate.coco import coco_map
    from scrfdkit.evaluate.labelled import ground_truth, picture_folder, present, read

    scoring.check(model, detections, mode, save_detections, curves)
    if label_format is not None:
        formats.find(label_format, "--format")
    if coco and not model:
        raise OptionError("--coco: needs a --model; result files hold no landmarks and no picture order of COCO's")
    every, notes = read(labels, label_format, images)
    truth = ground_truth(every)
    names = scoring.names(detections, model)
    entries, landmarks, by_coco = scoring.read_all(detections, names), {}, {}
    if model:
        there, files = present(every, picture_folder(every, labels, images))
        pictures = ground_truth(there).images
        for each, name in zip(model, names[len(entries) :], strict=True):
            detector, run = scoring.run_reference(
                each, pictures, files, mode, jobs=jobs, device=device, runtime=runtime
            )
            entries.append(scoring.entry(name, detector, run))
            scoring.save(save_detections, run.results)
            seen = [there[i] for i in run.places]
            landmarks[name] = scoring.landmarks(seen, run)
            if coco:
                # COCO's own 100 detections a picture would hide most of a crowd.
                by_coco[name] = coco_map(seen, run.detections, max_detections=1000)
    board = scoring.board(truth, entries, missing, bootstrap)
    scoring.report(board, curves, rough=rough, as_json=as_json, landmarks=landmarks, coco=by_coco, notes=notes)


app.command("close-ups")(closeups.command)
