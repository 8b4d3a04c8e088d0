"""The page of a search at every stage of it: nothing done, one done, some failed, all done; and in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_outcomes import candidate, done, networks, planted, summary

from scrfdkit.search.bootstrap import ranges
from scrfdkit.search.candidate import Outcome
from scrfdkit.search.choice import choose, front, points
from scrfdkit.search.report import page
from scrfdkit.search.summary import Summary

SECTIONS = {"winner", "progress", "cost", "traits", "spread", "candidates", "reading"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Outline(HTMLParser):
    """Tags with their attributes, and all words outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.heard: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.heard.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.heard))

    def count(self, kind: str) -> int:
        return sum(kind in (attrs.get("class") or "").split() for _, attrs in self.tags)


NETWORKS = networks(64)


def mixed() -> list[Outcome]:
    """Eight done, and some of every other state."""
    some = [replace(one, state="waiting", epochs=0, tries=0, scores={}, score=None) for one in NETWORKS[:20]]
    some[:8] = NETWORKS[:8]
    some[8] = replace(NETWORKS[8], state="stopped", epochs=20, score=90.0, scores={"easy": 95.0, "hard": 90.0})
    some[9] = replace(some[9], state="running", epochs=7, tries=2, owner="host 12", error="killed <i>once</i>")
    some[10] = replace(some[10], state="failed", tries=3, error="</span><script>alert(1)</script> & no memory")
    return some


def pages() -> dict[str, Summary]:
    empty = [Outcome(candidate(i, {"C2": 0.3})) for i in range(1, 4)]
    waiting = [Outcome(candidate(i, {"C2": 0.3})) for i in range(4, 7)]
    chosen = choose(NETWORKS, {one.candidate.number: 2 + one.candidate.number % 7 for one in NETWORKS}, "pareto")
    return {
        "none": summary([]),
        "nothing done": summary(empty),
        "one done": summary([done(1, 60.0, {"C2": 0.3}), *empty[1:]], winners=[1]),
        "three done": summary([*NETWORKS[:3], *waiting], winners=[1]),
        "mixed": summary(mixed(), timed=True, winners=[1]),
        "all done": summary(NETWORKS, timed=True, winners=[one.candidate.number for one in chosen]),
        "one network": summary(planted(20, 0.5), winners=[1]),
        "no traits": summary([done(i, 60.0 + i) for i in range(1, 6)], timed=True, winners=[5]),
        "all zero": summary([done(i, 0.0, {"C2": 0.1 * i}) for i in range(1, 6)], winners=[1]),
    }


PAGES = {name: page(search) for name, search in pages().items()}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_at_any_time(name: str) -> None:
    outline = Outline(PAGES[name])
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert set(ids) >= SECTIONS
    assert len(ids) == len(set(ids))
    links = [value for _, attrs in outline.tags for key, value in attrs.items() if key in ("href", "src") and value]
    assert {link[1:] for link in links if link != "data:,"} <= set(ids)
    assert "://" not in PAGES[name]
    drawings = [attrs for tag, attrs in outline.tags if tag == "svg"]
    assert all(attrs.get("aria-hidden") == "true" or len(attrs.get("aria-label") or "") > 10 for attrs in drawings)
    places = [value for _, attrs in outline.tags for value in attrs.values() if value]
    assert not any(re.search(r"\b(nan|inf)\b", value) for value in places)
    assert not re.search(r"\b(nan|inf|None)\b", outline.words.replace("None is chosen yet", ""))


def test_same_search_same_page() -> None:
    assert page(pages()["mixed"]) == PAGES["mixed"]


def test_nothing_done_says_so() -> None:
    words = Outline(PAGES["nothing done"]).words
    assert "No candidate has finished yet." in words
    assert "waiting 3 (100.0 %)" in words
    assert "scrfd search report DIR --latency" in words
    assert Outline(PAGES["nothing done"]).count("point") == 0


def test_three_done_have_charts_but_no_ranges() -> None:
    outline = Outline(PAGES["three done"])
    assert "Ranges need 4 finished candidates or more; there are 3." in outline.words
    assert outline.count("band") == 0
    assert outline.count("won") == 1 + 8 + 8, "against FLOPs, among the spans, and by each trait"


def test_all_done() -> None:
    search, outline = pages()["all done"], Outline(PAGES["all done"])
    names = list(NETWORKS[0].candidate.traits)
    kinds = 2  # samples of the marks, once for the costs and once for the traits
    assert outline.count("point") == 64 * (2 + len(names)) + 2 * kinds
    assert outline.count("band") == 2 * len(names)
    assert outline.count("curve") == 2 * kinds
    assert outline.count("front") == 2
    assert outline.count("speck") == 64 * len(names)
    best = front([search.gflops[i] for i in range(1, 65)], [points(one) for one in NETWORKS])
    assert f"the front, {', '.join(NETWORKS[i].candidate.name for i in best[:12])}" in outline.words
    found = ranges(NETWORKS)["C2"]
    row = re.search(r"<th[^>]*>C2</th>(.*?)</tr>", PAGES["all done"])
    assert row is not None
    shown = [float(value) for value in re.findall(r">([\d.]+)</td>", row[1])]
    assert shown[2:] == [round(100 * value, 2) for value in (found.low, found.median, found.high, found.best)]


def test_table_has_the_finished_first_and_best_on_top() -> None:
    body = PAGES["mixed"].split('id="candidates"')[1]
    order = [int(name) for name in re.findall(r'<th scope="row"[^>]*>(\d{4})', body)]
    assert sorted(order) == list(range(1, 21))
    assert order[:8] == [one.candidate.number for one in sorted(NETWORKS[:8], key=points, reverse=True)]
    assert order[8:10] == [9, 10], "the stopped one, then the one that runs"
    assert order[-1] == 11
    assert "(90.00)" in body, "a score of fewer epochs is in brackets, and never first"


def test_progress_counts_states_and_tells_errors() -> None:
    words = Outline(PAGES["mixed"]).words
    counted = "done 8 (40.0 %), stopped 1 (5.0 %), running 1 (5.0 %), waiting 9 (45.0 %), failed 1 (5.0 %)"
    assert counted in words
    assert "killed <i>once</i>" in words
    assert "<script>alert" not in PAGES["mixed"]
    assert "<i>" not in PAGES["mixed"]


def test_words_of_the_user_stay_words() -> None:
    bad = '<img src=x onerror="alert(1)">&'
    search = replace(
        summary(NETWORKS[:6], timed=True, winners=[1]),
        title=bad,
        facts={bad: bad},
        notes=[bad],
        latency_note=bad,
        names=dict.fromkeys(range(1, 7), bad),
    )
    text = page(search)
    assert "<img" not in text
    outline = Outline(text)
    assert not any("onerror" in attrs for _, attrs in outline.tags)
    assert outline.words.count(bad) >= 6


def test_networks_that_cost_the_same_are_not_drawn() -> None:
    text = PAGES["one network"]
    assert "All candidates cost the same, 2.532 GFLOPs" in text
    assert Outline(text).count("point") == 20 * 2


def test_missing_times_are_counted() -> None:
    search = summary(NETWORKS[:10], timed=True)
    some = {number: value for number, value in search.milliseconds.items() if number > 2}
    words = Outline(page(replace(search, milliseconds=some))).words
    assert "2 finished without a measured time, and so not shown: 0001, 0002." in words


def test_long_errors_are_cut() -> None:
    text = page(summary([replace(NETWORKS[0], state="failed", score=None, error="x" * 10_000)]))
    assert "x" * 600 + " ..." in text
    assert "x" * 601 not in text


def test_large_search_is_a_small_file() -> None:
    many = [replace(one, candidate=replace(one.candidate, number=64 * k + i)) for k in range(5)
            for i, one in enumerate(NETWORKS, 1)]  # fmt: skip
    assert len(page(summary(many, timed=True))) < 2_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_browser_runs_the_page_and_sorts(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    script = """
      const table = document.querySelector('#candidates table'), head = table.tHead.rows[0].cells;
      head[1].firstElementChild.click();
      document.body.dataset.seen = [...table.tBodies[0].rows].map((row) => row.cells[1].textContent).join();
    """
    path = tmp_path / "page.html"
    path.write_text(PAGES["mixed"].replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    quiet = "--headless --no-sandbox --disable-gpu --no-first-run --enable-logging=stderr --proxy-server=127.0.0.1:9"
    result = subprocess.run(
        [CHROMIUM, *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in result.stderr.decode(errors="replace")
    content = result.stdout.decode()
    assert 'data-ready="true"' in content
    seen = re.search(r'data-seen="([^"]*)"', content)
    assert seen is not None
    scores = sorted((points(one) for one in NETWORKS[:8]), reverse=True)
    assert seen[1].split(",")[:8] == [f"{score:.2f}" for score in scores]
