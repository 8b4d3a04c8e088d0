"""`scrfd detect` as its users run it: the real command, real pictures, real signals."""

from __future__ import annotations

import csv
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

COMMAND = [sys.executable, "-m", "scrfdkit", "detect"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def detect(
    *arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"", before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env=ENVIRONMENT,
        timeout=120,
        preexec_fn=before,
        check=False,
    )


def records(text: bytes) -> list[dict[str, Any]]:
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def album(tmp_path: Path, examples: Path) -> Path:
    """A folder of real pictures in several formats, one of them broken."""
    folder = tmp_path / "album"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(examples / "astronaut.jpg", folder / "b.jpg")
    shutil.copy(examples / "solvay_1927.jpg", folder / "sub/solvay.jpg")
    astronaut = Pillow.open(examples / "astronaut.jpg")
    astronaut.save(folder / "a.png")
    astronaut.crop((100, 0, 400, 300)).save(folder / "sub/a.gif")
    astronaut.crop((0, 300, 90, 400)).save(folder / "sub/nobody.bmp")
    (folder / "c.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder


@pytest.fixture
def many(tmp_path: Path, examples: Path) -> Path:
    """Forty names for one large picture, enough work to be interrupted."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        os.link(_once(tmp_path, examples), folder / f"{number:02d}.jpg")
    return folder


def _once(tmp_path: Path, examples: Path) -> Path:
    return (
        tmp_path / "solvay.jpg"
        if (tmp_path / "solvay.jpg").exists()
        else Path(shutil.copy(examples / "solvay_1927.jpg", tmp_path / "solvay.jpg"))
    )


ALBUM = ["a.png", "b.jpg", "c.jpg", "sub/a.gif", "sub/nobody.bmp", "sub/solvay.jpg"]


def test_a_picture_to_standard_output(examples: Path) -> None:
    done = detect(examples / "astronaut.jpg")
    assert (done.returncode, done.stderr) == (0, b"")
    (record,) = records(done.stdout)
    assert list(record) == ["file", "width", "height", "faces"]
    assert record["file"] == str(examples / "astronaut.jpg")
    (face,) = record["faces"]
    x1, y1, x2, y2 = face["box"]
    assert 0 < x1 < x2 < record["width"]
    assert 0 < y1 < y2 < record["height"]
    assert len(face["keypoints"]) == 5


def test_a_picture_on_standard_input(examples: Path) -> None:
    path = examples / "astronaut.jpg"
    done = detect("-", stdin=path.read_bytes())
    assert done.returncode == 0
    (record,) = records(done.stdout)
    assert record["file"] == "-"
    assert record["faces"] == records(detect(path).stdout)[0]["faces"]


def test_inputs_in_order_and_failures_told(album: Path) -> None:
    done = detect("missing.jpg", "album", album / "b.jpg", "album/sub/*.gif", cwd=album.parent)
    assert done.returncode == 3
    found = records(done.stdout)
    assert [r["file"] for r in found] == ["missing.jpg", *(f"album/{name}" for name in ALBUM)]
    assert {r["file"] for r in found if "error" in r} == {"missing.jpg", "album/c.jpg"}
    told = done.stderr.decode().splitlines()
    assert told[0] == "failed: missing.jpg: there is no such file"
    assert told[1].startswith("failed: album/c.jpg: ")
    assert told[2] == "2 of 7 inputs failed"
    assert [len(r.get("faces", ())) for r in found[1:5]] == [1, 1, 0, 1]
    assert found[5]["faces"] == []
    assert len(found[6]["faces"]) > 20


LONG = "x" * 300
FILES_AND_FOLDERS = ("--json", "--csv", "--coco", "--save-dir", "--crops", "--wider")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty"], "empty: no pictures or videos"),
        (["*.tiff"], "*.tiff: no picture or video matches"),
        (["album", "--size", "640x641"], "640x641"),
        (["album", "--size", "large"], "--size: 'large' is not 'auto'"),
        (["album", "--anonymize", "blur"], "add --save-dir"),
        (["album", "--resume"], "add --json FILE"),
        (["album", "--json", "x", "--csv", "x"], "--csv: x is also the file of --json"),
        (["album", "--json", "empty"], "--json: empty is a folder"),
        (["album", "--save-dir", "album/b.jpg"], "--save-dir: album/b.jpg is a file"),
        (["album", "--save-dir", "album"], "--save-dir: album/a.png is one of the inputs"),
        (["album", "--csv", "album/b.jpg"], "--csv: album/b.jpg is one of the inputs"),
        (["album", "--csv", "album/b.jpg/x"], "album/b.jpg/x: cannot be written"),
        (["album", "--wider", "/proc/no"], "/proc/no: cannot be written"),
        (["album", "--model", "resnet"], "resnet"),
        (["album", "--score", "2"], "--score"),
        ([""], "an input has an empty name"),
        (["album/a.png\nalbum/b.jpg"], "leave out its quotes"),
        (["album", "--csv", "-", "--coco", "-"], "--coco: standard output is taken by --csv already"),
        (["album", "--save-dir", "-"], "--save-dir: - is standard output"),
        (["album", "--json", "new/"], "--json: new/ is a folder"),
        (["album", "--csv", "new/"], "--csv: new/ is a folder"),
        (["album", "--json", ""], "--json: the name is empty"),
        (["album", "--tile", "3"], "--tile: 3 is neither"),
        (["album", "--device", "cuda", "--strict-device"], "--device: cuda was asked for"),
        *((["album", flag, LONG], "cannot be written: File name too long") for flag in FILES_AND_FOLDERS),
    ],
)
def test_wrong_usage_is_two_and_touches_nothing(album: Path, arguments: list[str], words: str) -> None:
    (album.parent / "empty").mkdir()
    before = tree(album.parent)
    done = detect(*arguments, cwd=album.parent)
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""
    assert tree(album.parent) == before


def test_names_that_are_too_long_are_failures_among_inputs(album: Path) -> None:
    pytest.importorskip("av", reason="needs PyAV: pip install 'scrfdkit[video]'")
    done = detect(LONG, LONG + ".mp4", "album/a.png", "--json", "o.jsonl", "--resume", cwd=album.parent)
    assert done.returncode == 3
    told = done.stderr.decode().splitlines()
    assert [line.rsplit(": ", 1)[1] for line in told[:2]] == ["File name too long"] * 2
    assert told[2:] == ["2 of 3 inputs failed"]


def test_a_message_is_one_line_whatever_the_file_is_called(album: Path) -> None:
    name = "two\nlines\x1b[31m.jpg"
    (album / name).write_bytes(b"no picture")
    done = detect(album / name, cwd=album)
    assert done.returncode == 3
    failed, summary = done.stderr.decode().splitlines()
    assert "two\\nlines\\x1b[31m.jpg: is not a picture" in failed
    assert summary == "1 of 1 inputs failed"
    assert records(done.stdout)[0]["file"] == str(album / name)


@pytest.mark.parametrize("flag", ["--csv", "--coco"])
def test_one_output_can_go_to_standard_output(album: Path, flag: str) -> None:
    done = detect("album/a.png", flag, "-", "--json", "o.jsonl", cwd=album.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert detect("album/a.png", flag, "file", cwd=album.parent).stdout == b""
    assert done.stdout == (album.parent / "file").read_bytes()
    assert records((album.parent / "o.jsonl").read_bytes())[0]["file"] == "album/a.png"
    assert not (album.parent / "-").exists()


@pytest.mark.parametrize("flag", ["--json", "--csv", "--coco"])
def test_standard_output_by_its_name_on_the_system(album: Path, flag: str) -> None:
    direct = detect("album/a.png", flag, "-", cwd=album.parent)
    named = detect("album/a.png", flag, "/dev/stdout", cwd=album.parent)
    assert (named.returncode, named.stdout) == (0, direct.stdout)


def test_a_device_that_is_not_there_is_told_by_its_flag(examples: Path) -> None:
    done = detect(examples / "astronaut.jpg", "--device", "cuda")
    if done.stderr:  # else there is one
        assert b"warning: --device: cuda was asked for" in done.stderr
        assert b"--strict-device makes this an error" in done.stderr
    assert done.returncode == 0


def test_jobs_beyond_all_measure_take_no_more_threads_than_there_are_cores(album: Path) -> None:
    def many_threads(jobs: str) -> int:
        """What the network is really opened with; its threads are gone again when the command is done."""
        program = (
            "import sys; from scrfdkit.cli import app; from scrfdkit.runtime import ort;"
            "real = ort.open_model;"
            "ort.open_model = lambda path, **how: print(how['threads']) or real(path, **how);"
            "app(sys.argv[1:], standalone_mode=False)"
        )
        command = [sys.executable, "-c", program, "detect", str(album / "a.png"), "--json", "/dev/null", "--jobs", jobs]
        done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=60, check=True)
        return int(done.stdout)

    cores = len(os.sched_getaffinity(0))
    assert many_threads("100000") == many_threads(str(cores)) == cores


def test_all_outputs_agree(album: Path) -> None:
    out = album.parent / "out"
    done = detect(
        *("album", "--json", "out/faces.jsonl", "--csv", "out/faces.csv", "--coco", "out/coco.json"),
        *("--wider", "out/wider", "--save-dir", "out/marked", "--crops", "out/crops", "--score", "0.6"),
        cwd=album.parent,
    )
    assert done.returncode == 3
    assert done.stdout == b""
    found = [r for r in records((out / "faces.jsonl").read_bytes()) if "faces" in r]
    boxes = [(r["file"], face["box"]) for r in found for face in r["faces"]]
    assert all(face["score"] >= 0.6 for r in found for face in r["faces"])

    with (out / "faces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["file"], [float(r[k]) for k in ("x1", "y1", "x2", "y2")]) for r in rows] == boxes

    coco = json.loads((out / "coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert list(names.values()) == [r["file"] for r in found]
    assert [(names[a["image_id"]], a["bbox"][:2]) for a in coco["annotations"]] == [(f, b[:2]) for f, b in boxes]

    labels = {name: text.decode().splitlines() for name, text in tree(out / "wider").items()}
    assert sorted(labels) == ["a.txt", "b.txt", "sub/a.txt", "sub/nobody.txt", "sub/solvay.txt"]
    for name, lines in labels.items():
        (record,) = [r for r in found if r["file"].startswith("album/" + name.removesuffix("txt"))]
        assert lines[0] == record["file"].removeprefix("album/")
        assert int(lines[1]) == len(lines) - 2 == len(record["faces"])

    marked = tree(out / "marked")
    assert sorted(marked) == ["a.png", "b.jpg", "sub/a.png", "sub/nobody.bmp", "sub/solvay.jpg"]
    before, after = cv2.imread(str(album / "a.png")), cv2.imread(str(out / "marked/a.png"))
    assert before.shape == after.shape
    assert 0.001 < (before != after).any(axis=2).mean() < 0.1

    crops = sorted(tree(out / "crops"))
    assert len(crops) == len(boxes)
    assert {"a_0.png", "b_0.png", "sub/a_0.png", "sub/solvay_0.png"} <= set(crops)
    for name in crops:
        assert cv2.imread(str(out / "crops" / name)).shape == (112, 112, 3)


def test_results_do_not_depend_on_jobs_or_on_the_kind_of_output(album: Path) -> None:
    one = detect("album", "--jobs", "1", cwd=album.parent).stdout
    assert detect("album", "--jobs", "3", cwd=album.parent).stdout == one
    assert detect("album", "--json", "-", "--csv", "x.csv", cwd=album.parent).stdout == one


@pytest.mark.parametrize("method", ["blur", "pixelate", "black"])
def test_anonymized_faces_are_not_found_again(album: Path, method: str) -> None:
    done = detect(album / "a.png", "--save-dir", album.parent / "out", "--anonymize", method)
    assert (done.returncode, done.stdout) == (0, b"")
    (again,) = records(detect(album.parent / "out/a.png").stdout)
    assert again["faces"] == []


def test_names_that_collide_are_kept_apart(album: Path, examples: Path) -> None:
    other = album.parent / "other"
    other.mkdir()
    shutil.copy(examples / "solvay_1927.jpg", other / "b.jpg")
    Pillow.open(examples / "astronaut.jpg").save(other / "a.gif")
    done = detect("album/a.png", "album/b.jpg", "other", "--save-dir", "out", "--crops", "crops", cwd=album.parent)
    assert done.returncode == 0
    assert sorted(tree(album.parent / "out")) == ["a-2.png", "a.png", "b-2.jpg", "b.jpg"]
    crops = set(tree(album.parent / "crops"))
    assert {"a_0.png", "a-2_0.png", "b_0.png", "b-2_0.png", "b-2_20.png"} <= crops


def test_outputs_inside_the_searched_folder_are_not_inputs_next_time(album: Path) -> None:
    arguments = ("album", "--save-dir", "album/marked", "--json", "-")
    first, second = detect(*arguments, cwd=album.parent), detect(*arguments, cwd=album.parent)
    assert first.stdout == second.stdout
    assert len(records(first.stdout)) == len(ALBUM)


def everything(folder: str) -> list[str]:
    return [
        *("many", "--size", "960", "--json", f"{folder}/a.jsonl", "--csv", f"{folder}/a.csv"),
        *("--coco", f"{folder}/a.json", "--wider", f"{folder}/wider"),
    ]


def start(arguments: Iterable[str], cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, f"{path} has not grown to {count} lines"
        time.sleep(0.01)


def test_killed_and_resumed_is_as_if_unbroken(many: Path) -> None:
    """Twice: the second kill hits a run that was itself resumed."""
    home = many.parent
    assert detect(*everything("whole"), cwd=home).returncode == 0
    for lines in (6, 17):
        running = start([*everything("broken"), "--resume"], home)
        wait_for_lines(home / "broken/a.jsonl.partial", lines)
        running.kill()
        running.communicate()
        assert not (home / "broken/a.jsonl").exists()
        assert not (home / "broken/a.csv").exists()
    kept = (home / "broken/a.jsonl.partial").read_bytes().count(b"\n")
    assert 17 <= kept < 40
    with (home / "broken/a.jsonl.partial").open("ab") as file:
        file.write(b'{"file":"many/39.jpg","wid')
    assert detect(*everything("broken"), "--resume", cwd=home).returncode == 0
    assert tree(home / "broken") == tree(home / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_leaves_whole_files_and_can_go_on(many: Path, number: signal.Signals) -> None:
    home = many.parent
    running = start(everything("out"), home)
    wait_for_lines(home / "out/a.jsonl.partial", 5)
    running.send_signal(number)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told == b"interrupted\n"
    found = records((home / "out/a.jsonl").read_bytes())
    assert [r["file"] for r in found] == [f"many/{i:02d}.jpg" for i in range(len(found))]
    assert 5 <= len(found) < 40
    assert [i["file_name"] for i in json.loads((home / "out/a.json").read_text())["images"]] == [
        r["file"] for r in found
    ]
    assert not [name for name in tree(home / "out") if "partial" in name]
    # The rest is found at once: the records that are there are not computed again.
    assert detect(*everything("out"), "--resume", cwd=home).returncode == 0
    assert len(records((home / "out/a.jsonl").read_bytes())) == 40
    assert len(json.loads((home / "out/a.json").read_text())["images"]) == 40


def test_interrupted_while_nothing_comes_in(tmp_path: Path) -> None:
    """A worker that waits for standard input for ever does not keep the command from ending."""
    running = subprocess.Popen(
        [*COMMAND, "-", "--json", "out.jsonl"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for_lines(tmp_path / "out.jsonl.partial", 0)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
    assert running.communicate()[1] == b"interrupted\n"
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_resume_looks_again_at_failures_and_at_lost_pictures(album: Path, examples: Path) -> None:
    arguments = ("album", "--json", "out.jsonl", "--save-dir", "marked", "--resume")
    assert detect(*arguments, cwd=album.parent).returncode == 3
    first = records((album.parent / "out.jsonl").read_bytes())
    pictures = tree(album.parent / "marked")
    shutil.copy(examples / "astronaut.jpg", album / "c.jpg")
    (album.parent / "marked/b.jpg").unlink()
    untouched = (album.parent / "marked/a.png").stat().st_mtime_ns
    assert detect(*arguments, cwd=album.parent).returncode == 0
    second = records((album.parent / "out.jsonl").read_bytes())
    assert [r["file"] for r in second] == [r["file"] for r in first]
    assert [r for r in second if r["file"] != "album/c.jpg"] == [r for r in first if "faces" in r]
    again = tree(album.parent / "marked")
    assert {name: again[name] for name in pictures} == pictures
    assert "c.jpg" in again
    assert (album.parent / "marked/a.png").stat().st_mtime_ns == untouched


def test_resume_keeps_records_of_other_inputs(album: Path) -> None:
    detect("album/b.jpg", "--json", "out.jsonl", cwd=album.parent)
    detect("album/a.png", "--json", "out.jsonl", "--csv", "out.csv", "--resume", cwd=album.parent)
    found = records((album.parent / "out.jsonl").read_bytes())
    assert [r["file"] for r in found] == ["album/a.png", "album/b.jpg"]
    assert len((album.parent / "out.csv").read_text().splitlines()) == 3


def limit(size: int) -> Callable[[], None]:
    """No file may grow beyond `size` bytes: what a full disk looks like to a program."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_while_records_are_written(many: Path) -> None:
    home = many.parent
    done = detect("many", "--json", "out.jsonl", cwd=home, before=limit(10_000))
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: ")
    assert "out.jsonl: cannot be written: File too large" in done.stderr.decode()
    found = records((home / "out.jsonl").read_bytes())
    assert 1 <= len(found) < 40
    assert detect("many", "--json", "out.jsonl", "--resume", cwd=home).returncode == 0
    assert [r["file"] for r in records((home / "out.jsonl").read_bytes())] == [f"many/{i:02d}.jpg" for i in range(40)]


def test_a_full_disk_while_pictures_are_written(album: Path) -> None:
    (album / "c.jpg").unlink()
    done = detect("album", "--json", "out.jsonl", "--save-dir", "out", cwd=album.parent, before=limit(100_000))
    assert done.returncode == 2
    assert "cannot be written: File too large" in done.stderr.decode()
    for name in tree(album.parent / "out"):
        assert cv2.imread(str(album.parent / "out" / name)) is not None
        assert not name.endswith(".partial")
    records((album.parent / "out.jsonl").read_bytes())


@pytest.mark.parametrize("flag", ["--json", "--csv", "--coco"])
def test_a_full_device(album: Path, flag: str) -> None:
    done = detect(album / "a.png", flag, "/dev/full")
    assert done.returncode == 2
    assert done.stderr.decode() == "error: /dev/full: cannot be written: No space left on device\n"
    assert not Path("/dev/full").is_file()


def test_standard_output_full(album: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, album / "a.png"], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False
        )
    assert done.returncode != 0
    assert b"standard output: cannot be written: No space left" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(album: Path) -> None:
    album.chmod(0o555)
    try:
        done = detect(album / "a.png", "--save-dir", album / "out")
    finally:
        album.chmod(0o755)
    assert done.returncode == 2
    assert "out: cannot be written: Permission denied" in done.stderr.decode()


def test_a_reader_that_goes_away(many: Path) -> None:
    running = start(["many", "--csv", "out.csv", "--json", "-"], many.parent)
    assert running.stdout is not None
    assert running.stdout.readline().startswith(b'{"file":"many/00.jpg"')
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == b""
    running.stderr.close()
    assert running.wait(60) == 141
    assert (many.parent / "out.csv").read_bytes().endswith(b"\n")


def test_a_terminal_gets_a_bar_and_standard_output_stays_clean(many: Path) -> None:
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*COMMAND, "many", "--size", "1920"],  # a bar comes only with a second of work
        cwd=many.parent,
        env={**ENVIRONMENT, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    assert running.stdout is not None
    found = records(running.stdout.read())
    running.stdout.close()
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # the other side is closed
    os.close(ours)
    assert running.wait(60) == 0
    assert len(found) == 40
    assert b"/40" in shown
    assert b"left" in shown


def test_what_finds_faces_is_loaded_only_to_find_faces() -> None:
    """Help is quick because nothing heavy is imported for it."""
    program = (
        "import sys, scrfdkit.cli.detect as d; heavy = {'torch', 'onnxruntime', 'cv2', 'numpy', 'rich.progress'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_help_names_every_option_in_groups() -> None:
    text = detect("--help").stdout.decode()
    for group in ("What to write", "How to look", "How to run"):
        assert group in text
    assert len(text.splitlines()) < 70


def test_options_reach_the_detector(examples: Path) -> None:
    solvay = examples / "solvay_1927.jpg"
    (record,) = records(detect(solvay, "--max-faces", "3", "--rank", "area", "--score", "0.3").stdout)
    assert len(record["faces"]) == 3
    (small,) = records(detect(solvay, "--size", "320x320").stdout)
    (merged,) = records(detect(solvay, "--size", "320", "--size", "1024").stdout)
    assert len(small["faces"]) < len(merged["faces"])
    (turned,) = records(detect(solvay, "--rotate", "180").stdout)
    assert len(turned["faces"]) < len(merged["faces"])
    done = detect(solvay, "--max-pixels", "1000")
    assert done.returncode == 3
    assert "--max-pixels" in records(done.stdout)[0]["error"]


def test_memory_does_not_grow_with_the_number_of_pictures(many: Path) -> None:
    """The fortieth picture needs no more than the eighth."""

    def peak(count: int) -> int:
        program = (
            "import resource, sys; from scrfdkit.cli import app;"
            "app(sys.argv[1:], standalone_mode=False);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        names = [str(many / f"{i:02d}.jpg") for i in range(count)]
        done = subprocess.run(
            [sys.executable, "-c", program, "detect", *names, "--save-dir", str(many.parent / "o"), "--jobs", "2"],
            capture_output=True,
            env=ENVIRONMENT,
            check=True,
        )
        return int(done.stdout)

    assert peak(40) < 1.15 * peak(8)


def test_every_picture_of_widerface_is_read_in_order(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/widerface/val/images"
    done = detect(folder / "0--Parade", folder / "1--Handshaking", "--json", tmp_path / "out.jsonl")
    assert done.returncode == 0
    found = records((tmp_path / "out.jsonl").read_bytes())
    expected = [p for name in ("0--Parade", "1--Handshaking") for p in sorted((folder / name).iterdir())]
    assert [r["file"] for r in found] == list(map(str, expected))
    assert np.mean([len(r["faces"]) > 0 for r in found]) > 0.9
