"""The page of `scrfd analyze`: made by the command, read as text, and opened in a real browser without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner
from wider_files import FIRST, SECOND, write_ground_truth, write_pictures, write_results

from scrfdkit.cli import analyze
from scrfdkit.errors import ScrfdError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-quic", "--hide-scrollbars", "--enable-logging=stderr"),
    "--proxy-server=127.0.0.1:9",
)

app = typer.Typer()
app.command()(analyze.command)


def run(*words: object) -> str:
    """The command's output. Raises what it raises."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analyze")
    write_ground_truth(folder / "gt")
    write_pictures(folder / "images")
    write_results(folder / "first.npz", FIRST)
    write_results(folder / "second.npz", SECOND)
    return folder


def sources(place: Path) -> list[object]:
    return ["--gt", place / "gt", "--detections", place / "first.npz"]


@pytest.fixture(scope="module")
def page(place: Path) -> Path:
    """Two sets of results, one with a name that must not become part of the page's code."""
    path = place / "report.html"
    both = ["--detections", place / "second.npz", "--name", '<b>first</b> & "co"', "--images", place / "images"]
    output = run(*sources(place), *both, "--score", 0.5, "-o", path)
    assert "3 pictures" in output
    return path


def browse(page: Path, *options: str, size: tuple[int, int] = (1280, 900)) -> tuple[str, list[str]]:
    """What the browser prints, and what the page's console says. The network is a proxy that is not there."""
    assert CHROMIUM is not None
    profile = page.with_suffix(f".profile{time.monotonic_ns()}")
    blocked = "--host-resolver-rules=MAP * ~NOTFOUND"
    place = (f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}")
    result = subprocess.run(
        [CHROMIUM, *QUIET, blocked, *place, *options, page.as_uri()], capture_output=True, timeout=60, check=True
    )
    shutil.rmtree(profile, ignore_errors=True)
    console = [line for line in result.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return result.stdout.decode(), console


def with_script(page: Path, name: str, script: str) -> Path:
    """A copy of the page with more script at its end."""
    copy = page.with_name(name)
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    return copy


class Outline(HTMLParser):
    """Tags and attributes, ids, and the words between tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page_is_one_file(page: Path) -> None:
    text = page.read_text()
    outline = Outline(text)
    links = [value for _, attrs in outline.tags for key, value in attrs.items() if key in ("href", "src")]
    assert {link[:5] if link.startswith("data:") else "#" for link in links if link} == {"data:", "#"}
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_page_says_what_is_known(page: Path) -> None:
    text = page.read_text()
    words = " ".join(Outline(text).words)
    assert '<b>first</b> & "co"' in words
    assert "<b>first</b>" not in text
    assert "3 pictures with 5 labelled faces, of which 4 count" in re.sub(r"\s+", " ", words)
    assert "right 1 (16.7 %), duplicate 1 (16.7 %), badly placed 1 (16.7 %), background 1 (16.7 %), ignored 2" in words
    assert "found 1 (25.0 %), badly placed 1 (25.0 %), missed 2 (50.0 %)" in words
    assert "no detection · 40 px" in words


def test_pictures_have_alternative_words(page: Path) -> None:
    drawings = [attrs for tag, attrs in Outline(page.read_text()).tags if tag == "svg"]
    assert len(drawings) > 20
    assert all(attrs.get("aria-hidden") == "true" or len(attrs.get("aria-label") or "") > 10 for attrs in drawings)


def test_same_input_same_page(page: Path, place: Path) -> None:
    both = ["--detections", place / "second.npz", "--name", '<b>first</b> & "co"', "--images", place / "images"]
    run(*sources(place), *both, "--score", 0.5, "-o", place / "again.html")
    assert (place / "again.html").read_bytes() == page.read_bytes()


def test_one_run_and_no_pictures(place: Path) -> None:
    """No galleries, no comparison, and no sizes that would need the pictures'."""
    path = place / "plain.html"
    run(*sources(place), "-o", path)
    ids = {attrs["id"] for _, attrs in Outline(path.read_text()).tags if "id" in attrs}
    assert {"precision", "errors", "groups", "events", "scores", "by-pixels", "by-blur"} <= ids
    assert not ids & {"missed", "alarms", "only", "differences", "by-size"}


def test_pictures_without_results_are_told(place: Path, tmp_path: Path) -> None:
    part = write_results(tmp_path / "part.npz", {name: rows for name, rows in FIRST.items() if name != "0--Party/a"})
    output = run("--gt", place / "gt", "--detections", part, "-o", tmp_path / "part.html")
    told = "part: 1 of 3 pictures without results: their faces count as missed"
    assert f"warning: {told}" in output
    assert told in (tmp_path / "part.html").read_text()


def test_only_pictures_at_hand_are_analysed(place: Path, tmp_path: Path) -> None:
    """Results of the other pictures are no reason to warn: they are left out on purpose."""
    shutil.copytree(place / "images" / "0--Party", tmp_path / "0--Party")
    output = run(*sources(place), "--images", tmp_path, "-o", tmp_path / "two.html")
    assert "2 pictures" in output
    assert "warning" not in output
    assert "2 pictures with 4 labelled faces, of which 3 count" in (tmp_path / "two.html").read_text()


def test_model_looks_first(place: Path, tmp_path: Path) -> None:
    output = run(
        "--gt", place / "gt", "--images", place / "images", "--model", "scrfd_500m_kps", "-o", tmp_path / "m.html"
    )
    assert "3 pictures" in output
    assert "scrfd_500m_kps" in (tmp_path / "m.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--detections DIR|FILE.npz or --model"),
        (["--detections", "{place}/first.npz", "--detections", "{place}/first.npz"], "two sets of results are called"),
        (["--detections", "{place}/first.npz", "--name", "a", "--name", "b"], "2 names for 1 set of results"),
        (["--detections", "{place}/none.npz"], "none.npz: there is no such file"),
        (["--detections", "{place}/first.npz", "--images", "{place}/gt"], "none of the ground truth's pictures"),
        (["--detections", "{place}/first.npz", "--mode", "abc"], "--mode: 'abc'"),
        ([*("--detections", "{place}/first.npz") * 7], "7 sets of results; at most 6"),
        (["--model", "scrfd_500m_kps"], "--images DIR"),
        (["--detections", "{place}/first.npz", "--score", "nan"], "--score: nan"),
    ],
)
def test_mistakes_are_named(place: Path, tmp_path: Path, words: list[str], message: str) -> None:
    path = tmp_path / "x.html"
    with pytest.raises(ScrfdError, match=re.escape(message)):
        run("--gt", place / "gt", *(word.format(place=place) for word in words), "-o", path)
    assert not path.exists()


def test_mistakes_are_told_before_any_network_runs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a network ran")

    monkeypatch.setattr(analyze, "_look", never)
    words = ["--gt", place / "gt", "--images", place / "images", "--model", "scrfd_500m_kps"]
    with pytest.raises(ScrfdError, match="is a folder; name a file"):
        run(*words, "-o", tmp_path)
    with pytest.raises(ScrfdError, match="there is no such file"):
        run(*words, "--detections", tmp_path / "none.npz", "-o", tmp_path / "x.html")
    result = CliRunner().invoke(app, [*map(str, words), "--setting", "strict", "-o", str(tmp_path / "x.html")])
    assert result.exit_code == 2
    assert "--setting" in result.output


@pytest.mark.parametrize("size", [0, 600])
def test_pictures_that_cannot_be_read_are_left_out(place: Path, tmp_path: Path, size: int) -> None:
    """Without a header, or cut short after it: its faces are not judged, for any of the runs."""
    shutil.copytree(place / "images", tmp_path / "images")
    broken = tmp_path / "images/12--Group_Photo/c.jpg"
    broken.write_bytes(broken.read_bytes()[:size])
    words = ["--images", tmp_path / "images", "--model", "scrfd_500m_kps", "--mode", 320]
    output = run(*sources(place), *words, "-o", tmp_path / "x.html")
    assert "warning: " in output
    assert "left out: 1 picture that cannot be read, " in output
    assert "c.jpg" in output
    assert "x.html: 2 pictures" in output
    assert "2 pictures with 4 labelled faces" in (tmp_path / "x.html").read_text()


@needs_browser
def test_browser_runs_the_page_without_a_word(page: Path) -> None:
    content, console = browse(page, "--dump-dom")
    assert console == []
    assert 'data-ready="true"' in content


@needs_browser
def test_browser_would_have_complained(page: Path) -> None:
    """What the test above relies on: errors are seen, and the page's own policy stops any request."""
    _, console = browse(with_script(page, "throws.html", "missing.thing()"), "--dump-dom")
    assert any("missing is not defined" in line for line in console)
    script = "new Image().src = 'http://example.com/x.png'; fetch('http://example.com/').catch(() => {})"
    _, console = browse(with_script(page, "asks.html", script), "--dump-dom")
    assert sum("Content Security Policy" in line for line in console) >= 2


@needs_browser
def test_tables_sort(page: Path) -> None:
    script = """
      const table = document.querySelector('#by-blur ~ .scroll table');
      const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join();
      const seen = [order()];
      for (const i of [3, 3, 1, 0]) { table.tHead.rows[0].cells[i].firstElementChild.click(); seen.push(order()); }
      document.body.dataset.seen = seen.join(' ');
      document.body.dataset.sort = table.tHead.rows[0].cells[0].getAttribute('aria-sort');
    """
    content, console = browse(with_script(page, "sorts.html", script), "--dump-dom")
    assert console == []
    seen = re.search(r'data-seen="([^"]*)"', content)
    assert seen is not None
    # AP of the first run .5 and .5, nothing for normal, which stays last; then faces 2, 1, 2; then as it came.
    assert seen[1].split() == [
        "clear,normal,heavy",
        "clear,heavy,normal",
        "clear,heavy,normal",
        "clear,heavy,normal",
        "clear,normal,heavy",
    ]
    assert 'data-sort="ascending"' in content


@needs_browser
def test_phone_needs_no_sideways_scrolling(page: Path) -> None:
    """Wide tables scroll by themselves."""
    text = page.read_text()
    frame = page.with_name("frame.html")
    inner = page.with_name("inner.html")
    report = "parent.postMessage([document.documentElement.scrollWidth, innerWidth].join(), '*')"
    inner.write_text(text.replace("</body>", f"<script>{report}</script></body>"))
    frame.write_text(
        "<!DOCTYPE html><body><script>onmessage = (e) => { document.body.dataset.widths = e.data; }</script>"
        '<iframe src="inner.html" style="width:375px;height:800px;border:0"></iframe></body>'
    )
    content, _ = browse(frame, "--dump-dom")
    widths = re.search(r'data-widths="(\d+),(\d+)"', content)
    assert widths is not None
    assert int(widths[2]) == 375
    assert int(widths[1]) <= 375


@needs_browser
def test_tables_of_two_runs_fit_a_window(place: Path) -> None:
    """At 1200 pixels, whatever the runs are called."""
    path = place / "wide.html"
    names = ["--name", "scrfd_2.5g_kps_before", "--name", "a name that is quite long, with spaces"]
    run(*sources(place), "--detections", place / "second.npz", "--images", place / "images", *names, "-o", path)
    script = """
      const wide = [...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth);
      document.body.dataset.wide = wide.map((box) => box.ariaLabel).join() || 'none';
    """
    content, _ = browse(with_script(path, "widths.html", script), "--dump-dom", size=(1200, 900))
    wide = re.search(r'data-wide="([^"]*)"', content)
    assert wide is not None
    assert wide[1] == "none"


@needs_browser
@pytest.mark.parametrize(("scheme", "light"), [(1, True), (0, False)], ids=["light", "dark"])
def test_page_can_be_seen(page: Path, tmp_path: Path, scheme: int, light: bool) -> None:
    shot = tmp_path / "shot.png"
    browse(page, f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={scheme}", size=(1000, 1600))
    pixels = cv2.imread(str(shot))
    assert pixels.shape == (1600, 1000, 3)
    assert (np.median(pixels) > 200) == light
    assert (np.median(pixels) < 60) != light
    lines = pixels.reshape(1600, -1).std(axis=1) > 5
    assert lines.mean() > 0.4, "most of the page is not blank"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


def test_real_pictures(shared: Path, tmp_path: Path) -> None:
    """The 401 pictures: golden figures on top, galleries of real faces, below five megabytes, in seconds."""
    path, start = tmp_path / "real.html", time.monotonic()
    data = shared / "data"
    output = run(
        *("--gt", data / "widerface" / "gt", "--images", data / "widerface" / "val"),
        *("--detections", data / "detections" / "scrfd_500m_kps_val_q.npz", "--name", "500m", "-o", path),
    )
    assert time.monotonic() - start < 20
    assert "401 pictures" in output
    text = path.read_text()
    assert 500_000 < len(text) < 5_000_000
    words = " ".join(Outline(text).words)
    for ap in ("91.26", "88.96", "69.30"):
        assert ap in words
    assert text.count('class="shot"') == 48
