"""What arguments mean, and what their outputs are called."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrfdkit.errors import OptionError
from scrfdkit.files.inputs import Source, expand
from scrfdkit.files.names import Guard, distinct, picture_name, stem


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names are what matters here: the files are never opened."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("in/b.jpg", "in/a.PNG", "in/notes.txt", "in/sub/c.webp", "in/sub/deep/d.mp4", "in/sub/deep/e.jpg"),
        *("in/.hidden.jpg", "in/.cache/f.jpg", "other/b.jpg", "in [1]/g.jpg", "7"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def files(*arguments: str, skip: tuple[str, ...] = ()) -> list[str]:
    return [source.file for source in expand(arguments, skip=[Path(s) for s in skip])]


def test_a_folder_is_searched_in_order(tree: Path) -> None:
    found = expand(["in"])
    assert [s.file for s in found] == [
        *("in/a.PNG", "in/b.jpg", "in/sub/c.webp", "in/sub/deep/d.mp4", "in/sub/deep/e.jpg")
    ]
    assert [str(s.relative) for s in found][2:4] == ["sub/c.webp", "sub/deep/d.mp4"]
    assert [s.kind for s in found] == ["picture", "picture", "picture", "video", "picture"]


def test_arguments_keep_their_order_and_nothing_comes_twice(tree: Path) -> None:
    assert files("other", "in/b.jpg", "in", "./in/b.jpg", str(tree / "in/b.jpg"))[:3] == [
        *("other/b.jpg", "in/b.jpg", "in/a.PNG")
    ]
    assert files("in/b.jpg", "in").count("in/b.jpg") == 1


def test_patterns(tree: Path) -> None:
    assert files("in/*.jpg") == ["in/b.jpg"]
    assert files("in/**/*.jpg") == ["in/b.jpg", "in/sub/deep/e.jpg"]
    assert files("in/**") == ["in/a.PNG", "in/b.jpg", "in/sub/c.webp", "in/sub/deep/d.mp4", "in/sub/deep/e.jpg"]
    assert files("in/*") == ["in/a.PNG", "in/b.jpg", "in/sub/c.webp", "in/sub/deep/d.mp4", "in/sub/deep/e.jpg"]
    assert files("in/*.txt") == ["in/notes.txt"], "a pattern that names a suffix means it"
    assert files("in [1]/*.jpg") == ["in [1]/g.jpg"], "a folder may be called like a pattern"
    assert files(str(tree / "i?/b.*")) == [str(tree / "in/b.jpg")]
    assert [str(s.relative) for s in expand(["in/**/*.jpg"])] == ["b.jpg", "sub/deep/e.jpg"]


def test_what_is_no_file(tree: Path) -> None:
    kinds = {s.file: s.kind for s in expand(["-", "0", "7", "rtsp://camera/one?x=1", "missing.jpg", "in/notes.txt"])}
    assert kinds == {
        "-": "stdin",
        "0": "camera",
        "7": "picture",  # there is a file of that name
        "rtsp://camera/one?x=1": "video",
        "missing.jpg": "picture",  # an input that will fail
        "in/notes.txt": "picture",  # so will this one, but it was named
    }
    assert str(expand(["rtsp://user@10.0.0.1/one?x=1"])[0].relative) == "user_10_0_0_1_one_x_1"


def test_arguments_without_inputs_say_so(tree: Path) -> None:
    found = expand(["empty", "in/*.gif"])
    assert [s.kind for s in found] == ["nothing", "nothing"]
    assert [s.problem for s in found] == [
        "empty: no pictures or videos in this folder",
        "in/*.gif: no picture or video matches this pattern",
    ]


def test_arguments_that_name_nothing(tree: Path) -> None:
    with pytest.raises(OptionError, match="empty name"):
        expand(["in", ""])
    (found,) = expand(["in/a.PNG\nin/b.jpg\n"])
    assert found.kind == "nothing"
    assert found.problem == "in/a.PNG ...: one argument of 2 lines, and no file is called that; leave out its quotes"
    (tree / "two\nlines.jpg").touch()
    assert [s.kind for s in expand(["two\nlines.jpg"])] == ["picture"]


def test_names_that_are_too_long_are_inputs_that_will_fail(tree: Path) -> None:
    long = "x" * 300
    assert [s.kind for s in expand([long, long + ".mp4", f"in/{long}/a.jpg"])] == ["picture", "video", "picture"]
    assert [s.kind for s in expand([f"{long}/*.jpg"])] == ["nothing"]


def test_a_link_to_itself_is_not_followed(tree: Path) -> None:
    (tree / "other/self").symlink_to(tree / "other/self")
    (tree / "other/self.jpg").symlink_to(tree / "other/self.jpg")
    assert files("other") == ["other/b.jpg", "other/self.jpg"]


def test_folders_of_outputs_are_not_searched(tree: Path) -> None:
    assert files("in", skip=("in/sub",)) == ["in/a.PNG", "in/b.jpg"]
    assert files("in/**/*.jpg", skip=("in/sub",)) == ["in/b.jpg"]
    assert files("in/sub", skip=("in/sub",))[0] == "in/sub/c.webp", "unless they are named"


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    (tree / "other/loop").symlink_to(tree / "other")
    (tree / "other/sub").symlink_to(tree / "in/sub/deep")
    assert files("other") == ["other/b.jpg", "other/sub/d.mp4", "other/sub/e.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_folder_that_may_not_be_read_is_told(tree: Path) -> None:
    (tree / "in/sub").chmod(0)
    try:
        problems = [s.problem for s in expand(["in"]) if s.kind == "nothing"]
    finally:
        (tree / "in/sub").chmod(0o755)
    assert problems == ["in/sub: cannot be searched: Permission denied"]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a/b.JPG", "picture", "a/b.JPG"),
        ("b.jpeg", "picture", "b.jpeg"),
        ("b.heic", "picture", "b.jpg"),
        ("b.gif", "picture", "b.png"),
        ("b", "picture", "b.png"),
        ("b.v2.tiff", "picture", "b.v2.tiff"),
        ("b.avi", "video", "b.mp4"),
        ("stdin", "stdin", "stdin.png"),
        ("camera0", "camera", "camera0.mp4"),
    ],
)
def test_names_of_pictures(name: str, kind: str, expected: str) -> None:
    assert str(picture_name(Source(name, kind, PurePosixPath(name)))) == expected  # type: ignore[arg-type]


def test_stems() -> None:
    assert str(stem(Source("x", "picture", PurePosixPath("a/b.c.jpg")))) == "a/b.c"
    assert str(stem(Source("x", "video", PurePosixPath("clip.mov")))) == "clip"


def test_names_that_collide() -> None:
    names = [PurePosixPath(n) for n in ("a.jpg", "b/a.jpg", "a.jpg", "A.jpg", "a-2.jpg", "a.jpg")]
    assert [str(n) for n in distinct(names)] == ["a.jpg", "b/a.jpg", "a-3.jpg", "A-4.jpg", "a-2.jpg", "a-5.jpg"]


@given(st.lists(st.sampled_from(["a.jpg", "A.jpg", "a-2.jpg", "a-3.jpg", "a-2-2.jpg", "b/a.jpg", "a"]), max_size=12))
def test_names_always_differ_and_the_first_keeps_its_own(texts: list[str]) -> None:
    names = [PurePosixPath(text) for text in texts]
    result = distinct(names)
    assert len({str(n).casefold() for n in result}) == len(names)
    assert all(a.parent == b.parent and a.suffix == b.suffix for a, b in zip(names, result, strict=True))
    seen: set[str] = set()
    for name, given_name in zip(names, result, strict=True):
        if str(name).casefold() not in seen:
            assert given_name == name
        seen.add(str(name).casefold())


def test_no_output_replaces_an_input_by_any_name(tree: Path) -> None:
    guard = Guard(expand(["in"]))
    (tree / "link.jpg").symlink_to(tree / "in/b.jpg")
    os.link(tree / "in/b.jpg", tree / "hard.jpg")
    assert guard.check(tree / "other/b.jpg", "--save-dir") == tree / "other/b.jpg"
    for name in ("in/b.jpg", "other/../in/b.jpg", "link.jpg", "hard.jpg"):
        with pytest.raises(OptionError, match=r"--save-dir: .* is one of the inputs"):
            guard.check(tree / name, "--save-dir")
