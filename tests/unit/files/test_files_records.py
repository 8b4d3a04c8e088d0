"""Records, the journal that a run is resumed from, and whole files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrfdkit.atomic import AtomicFile, exists, is_file, is_folder, is_special, partial_path, save
from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.files.records import (
    Journal,
    Record,
    encode,
    failure_record,
    found_faces,
    frame_record,
    picture_record,
)
from scrfdkit.types import Detections

FACE = Detections(np.array([[1, 2, 3.456, 4]], np.float32), np.array([0.9], np.float32))


def picture(file: str) -> Record:
    return picture_record(file, 640, 480, FACE)


def lines(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def started(path: Path, *records: Record, resume: bool = False) -> Journal:
    journal = Journal(path, resume)
    for record in records:
        journal.add(record)
    return journal


def killed(path: Path, *records: Record, resume: bool = False) -> None:
    """What a run leaves that is killed after these records."""
    started(path, *records, resume=resume).close()


def test_records_have_the_promised_fields() -> None:
    face = {"box": [1.0, 2.0, 3.46, 4.0], "score": 0.9}
    assert picture("a") == {"file": "a", "width": 640, "height": 480, "faces": [face]}
    assert frame_record("v", 3, 0.123456, FACE) == {"file": "v", "frame": 3, "time": 0.1235, "faces": [face]}
    assert failure_record("b", "b: broken") == {"file": "b", "error": "b: broken"}


def test_only_faces_that_were_filled_in_say_so() -> None:
    two = Detections(np.repeat(FACE.boxes, 2, axis=0), np.repeat(FACE.scores, 2))
    record = frame_record("v", 3, 0.1, two, np.array([False, True]))
    assert [face.get("bridged") for face in record["faces"]] == [None, True]
    assert found_faces(record) == record["faces"][:1]
    assert all("bridged" not in face for face in frame_record("v", 3, 0.1, two)["faces"])


def test_any_file_name_survives() -> None:
    for name in ("grüße 😀.jpg", "new\nline \u2028.jpg", os.fsdecode(b"latin-\xe9.jpg")):
        line = encode(picture(name))
        assert line.count(b"\n") == 1
        assert json.loads(line)["file"] == name


def test_a_journal_ends_as_its_file(tmp_path: Path) -> None:
    path = tmp_path / "new/out.jsonl"
    journal = started(path, picture("a"), picture("b"))
    assert not path.exists(), "there is no file until it is whole"
    journal.finish()
    assert lines(path) == [picture("a"), picture("b")]
    assert names_in(path.parent) == ["out.jsonl"]


def test_what_a_killed_run_knew_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    killed(path, picture("b"), failure_record("c", "no"), picture("d"))
    with path.with_name("out.jsonl.partial").open("ab") as file:
        file.write(encode(picture("e"))[:-7])  # the line that was being written
    journal = Journal(path, resume=True)
    assert [name in journal for name in "abcde"] == [False, True, False, True, False]
    journal.add(picture("a"))
    assert journal.take("b") == [picture("b")]
    journal.add(picture("c"))
    assert journal.take("d") == [picture("d")]
    journal.finish()
    assert [r["file"] for r in lines(path)] == ["a", "b", "c", "d"]
    assert names_in(tmp_path) == ["out.jsonl"]


def test_nothing_is_lost_when_a_resumed_run_is_killed_too(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    started(path, picture("a"), picture("z")).finish()
    killed(path, picture("b"), resume=True)
    killed(path, picture("c"), resume=True)
    journal = Journal(path, resume=True)
    assert sorted(journal.remaining()) == ["a", "b", "c", "z"]
    journal.finish()
    assert sorted(r["file"] for r in lines(path)) == ["a", "b", "c", "z"]


def test_a_forgotten_input_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    started(path, picture("a"), picture("b")).finish()
    journal = Journal(path, resume=True)
    journal.forget("a")
    journal.add(picture_record("a", 1, 1, FACE))
    assert journal.peek("b") == journal.take("b")
    journal.finish()
    assert lines(path) == [picture_record("a", 1, 1, FACE), picture("b")]


def test_a_video_counts_once_something_follows_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    v, w = ([frame_record(name, i, i / 25, FACE) for i in range(3)] for name in "vw")
    killed(path, *v, picture("a"), *w)
    journal = Journal(path, resume=True)
    assert "v" in journal
    assert "w" not in journal
    assert journal.take("v") == v
    journal.close()


def test_a_video_that_broke_off_and_standard_input_are_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    killed(path, frame_record("v", 0, 0, FACE), failure_record("v", "torn"), picture("-"), picture("a"))
    journal = Journal(path, resume=True)
    assert journal.remaining() == ["a"]
    journal.close()


def test_without_resume_a_run_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    started(path, picture("a")).finish()
    killed(path, picture("b"))
    started(path, picture("c")).finish()
    assert lines(path) == [picture("c")]


@pytest.mark.parametrize("content", ['{"name":"a"}\n', "hello\n", "hello", '[1]\n{"file":"a","error":""}\n'])
def test_a_file_of_something_else_is_not_taken_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(OptionError, match=r"notes\.txt, line 1, is no record"):
        Journal(path, resume=True)
    assert path.read_text() == content
    assert names_in(tmp_path) == ["notes.txt"]


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = started(path, picture("a"))
    with pytest.raises(OptionError, match="being written by another run"):
        Journal(path, resume=False)
    first.finish()
    assert lines(path) == [picture("a")]


@given(
    cut=st.integers(0, 400),
    order=st.permutations(range(5)),
)
@settings(max_examples=60, deadline=None)
def test_resuming_from_any_byte_gives_the_unbroken_file(
    tmp_path_factory: pytest.TempPathFactory, cut: int, order: list[int]
) -> None:
    """Killed at any byte, with inputs found in any order the second time: the same lines as in one run."""
    folder = tmp_path_factory.mktemp("journal")
    whole, broken = folder / "whole.jsonl", folder / "broken.jsonl"
    records = [picture(f"{i}.jpg") for i in range(5)]
    killed(broken, *records)
    partial = broken.with_name("broken.jsonl.partial")
    partial.write_bytes(partial.read_bytes()[:cut])
    started(whole, *(records[i] for i in order)).finish()
    journal = Journal(broken, resume=True)
    for i in order:
        if f"{i}.jpg" in journal:
            assert journal.take(f"{i}.jpg") == [records[i]]
        else:
            journal.add(records[i])
    journal.finish()
    assert broken.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_save_replaces_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.bin"
    save(path, b"old")
    growing = AtomicFile(path)
    growing.write(b"new")
    assert path.read_bytes() == b"old"
    growing.discard()
    assert path.read_bytes() == b"old"
    save(path, b"new")
    assert path.read_bytes() == b"new"
    assert names_in(path.parent) == ["c.bin"]


def test_save_follows_links_and_writes_into_devices(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    save(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    save(Path("/dev/null"), b"gone")
    assert not Path("/dev/null").is_file()
    with pytest.raises(ScrfdError, match="/dev/full: cannot be written: No space left"):
        save(Path("/dev/full"), b"x")


def test_pipes_behind_links_are_written_to(tmp_path: Path) -> None:
    """/dev/stdout leads to a pipe, which has no path of its own."""
    read, write = os.pipe()
    link = tmp_path / "link"
    link.symlink_to(f"/proc/self/fd/{write}")
    save(link, b"through")
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"through"
    assert link.is_symlink()


def test_questions_about_paths_never_raise(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "a" / ("x" * 5000), Path("y" * 300)):
        assert not (exists(path) or is_file(path) or is_folder(path) or is_special(path))
        with pytest.raises(ScrfdError, match="cannot be written: File name too long"):
            save(path, b"x")


def test_a_name_of_the_greatest_length_can_be_saved(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".png")
    save(path, b"x")
    assert names_in(tmp_path) == [path.name]
    assert partial_path(path).parent == tmp_path
    assert partial_path(path, keep_suffix=True).suffix == ".png"
    assert partial_path(tmp_path / "a.mp4", keep_suffix=True).name == ".a.partial.mp4"


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match=r"file/x\.csv: cannot be written"):
        save(tmp_path / "file/x.csv", b"")
