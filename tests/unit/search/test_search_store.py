"""The state of a search: who gets which candidate, how often, and what is left where a process is killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from search_processes import claim_all, claim_and_end, end, patch, plan_of_many, quick_disk, start, tiny_plan, together

from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.search import database, owner, store
from scrfdkit.search import plan as plans
from scrfdkit.search.candidate import Outcome
from scrfdkit.search.claim import Claim, LostClaim
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store
from scrfdkit.search.trials import SILENT

__all__ = ["quick_disk"]

pytestmark = pytest.mark.usefixtures("quick_disk")


def claimed(state: Store, retries: int = 2) -> Claim:
    claim = state.claim(retries)
    assert claim is not None
    return claim


def first(state: Store) -> Outcome:
    return state.outcomes()[0]


def states(plan: Plan) -> list[str]:
    return [outcome.state for outcome in Store(plan).outcomes()]


def elsewhere(monkeypatch: pytest.MonkeyPatch, name: str = "elsewhere") -> None:
    """From here on this is another machine."""
    monkeypatch.setattr(owner, "_place", lambda: name)


def test_a_candidate_from_waiting_to_done(tmp_path: Path) -> None:
    state = Store(tiny_plan(tmp_path / "s", 2))
    assert [o.state for o in state.outcomes()] == ["waiting", "waiting"]
    claim = claimed(state)
    assert claim.candidate.number == 1
    assert (first(state).state, first(state).tries) == ("running", 1)
    assert str(os.getpid()) in first(state).owner
    claim.epoch(1, 3)
    claim.look(1, {"ap": 20.0}, 20.0)
    assert (first(state).epochs, first(state).score, first(state).scores) == (1, 20.0, {"ap": 20.0})
    claim.epoch(2, 6)
    claim.done({"ap": 30.0}, 30.0)
    assert (first(state).state, first(state).epochs, first(state).score, first(state).owner) == ("done", 2, 30.0, "")
    assert claimed(state).candidate.number == 2
    assert state.claim() is None


def test_what_is_put_back_goes_on_and_does_not_count_as_a_failure(tmp_path: Path) -> None:
    state = Store(tiny_plan(tmp_path / "s", 1))
    for _ in range(5):
        claimed(state, retries=0).put_back()
        assert first(state).state == "waiting"
    assert first(state).tries == 5


def test_a_candidate_that_always_fails_is_given_up(tmp_path: Path) -> None:
    state = Store(tiny_plan(tmp_path / "s", 2))
    numbers = []
    while claim := state.claim(retries=2):
        numbers.append(claim.candidate.number)
        if claim.candidate.number == 1:
            claim.fail(f"no luck {len(numbers)}")
        else:
            claim.done({}, 1.0)
    assert numbers == [1, 2, 1, 1], "the others come first"
    assert (first(state).state, first(state).tries, first(state).error) == ("failed", 3, "no luck 4")


def test_who_was_interrupted_goes_on_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a search that is often interrupted has something that is done. What failed, or took its runner with it
    before anything was saved, comes last, and keeps nobody from the others."""
    state = Store(tiny_plan(tmp_path / "s", 5))
    claims = [claimed(state) for _ in range(4)]
    for claim in claims[1:]:
        claim.epoch(1, 3)
    claims[2].fail("no luck")
    claims[3].put_back()
    with monkeypatch.context() as patched:
        patched.setattr(owner, "_begun", lambda pid: None)  # the first two are gone
        state.take_over()
    assert [o.state for o in state.outcomes()] == ["waiting"] * 5
    assert [claimed(state).candidate.number for _ in range(5)] == [2, 4, 5, 1, 3]


def test_failing_at_the_same_later_epoch_ends_too(tmp_path: Path) -> None:
    """What counts is whether a try came further than was known before it, so this neither ends too early nor never."""
    state = Store(tiny_plan(tmp_path / "s", 1))
    for reached in (3, 3, 6):  # further, not further, further
        claim = claimed(state)
        claim.epoch(reached // 3, reached)
        claim.fail("no luck")
    for _ in range(3):
        assert first(state).state == "waiting"
        claim = claimed(state)
        claim.epoch(2, 6)  # what a resumed training saves again
        claim.fail("no luck")
    assert state.claim() is None
    assert (first(state).state, first(state).tries, first(state).epochs) == ("failed", 6, 2)


def test_runners_that_end_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines are taken away, so that is no failure at once; but a network may also take its runner with it."""
    state = Store(tiny_plan(tmp_path / "s", 1))
    monkeypatch.setattr(owner, "_begun", lambda pid: None)  # nobody is there any more
    for number in range(SILENT):
        claim = claimed(state)
        if number == 0:
            claim.epoch(1, 3)
    claimed(state)
    assert state.claim() is None
    assert (first(state).state, first(state).tries) == ("failed", SILENT + 1)
    assert "ended without a word" in first(state).error


def test_the_one_who_lost_a_candidate_can_do_no_harm(tmp_path: Path) -> None:
    state = Store(tiny_plan(tmp_path / "s", 1))
    for word in ("beat", "epoch", "look", "done", "stop", "fail", "put_back"):
        slow = claimed(state)
        state.study.tell(slow._trial.number, state=TrialState.FAIL)  # as a take-over does
        fast = claimed(state, 99)
        with pytest.raises(LostClaim):
            {
                "beat": slow.beat,
                "epoch": lambda claim=slow: claim.epoch(9, 99),
                "look": lambda claim=slow: claim.look(9, {}, 99.0),
                "done": lambda claim=slow: claim.done({}, 99.0),
                "stop": slow.stop,
                "fail": lambda claim=slow: claim.fail("mine"),
                "put_back": slow.put_back,
            }[word]()
        assert slow.lost
        assert (first(state).state, first(state).epochs, first(state).score) == ("running", 0, None)
        fast.put_back()
    claimed(state).done({}, 1.0)
    assert [o.score for o in state.outcomes()] == [1.0]


def test_a_candidate_that_was_put_back_twice_is_trained_once(tmp_path: Path) -> None:
    """As two machines without a common lock may do at the same moment."""
    state = Store(tiny_plan(tmp_path / "s", 1))
    again = store.waiting(state.plan.candidate(1))
    for _ in range(3):
        state.study.add_trial(again)
    claim = claimed(state, retries=0)
    assert state.claim() is None
    assert first(state).tries == 1
    claim.fail("no luck")
    assert state.claim(retries=0) is None, "those that were dropped are no second chance"
    assert first(state).state == "failed"


def test_a_runner_elsewhere_is_taken_over_when_it_stops_beating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.4)
    monkeypatch.setattr(store, "BEAT", 0.1)
    plan = tiny_plan(tmp_path / "s", 1)
    theirs = claimed(Store(plan))
    elsewhere(monkeypatch)
    here = Store(plan)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:  # three times the patience, but it beats
        theirs.beat()
        assert here.claim() is None
        time.sleep(0.05)
    assert here.others() == [], "it is seen to live, so nobody need wait for it"
    time.sleep(0.5)
    assert here.others(), "that was some time ago"
    looks = 1
    while (mine := here.claim()) is None:
        time.sleep(0.05)
        looks += 1
        assert looks < 100
    assert looks >= 4, "a look counts for a beat at most"
    with pytest.raises(LostClaim):
        theirs.done({}, 50.0)
    mine.done({}, 60.0)
    assert first(here).score == 60.0


def test_a_time_in_which_nobody_looked_is_no_sign_of_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The observer was suspended, or the database away for both: the other one is about to beat."""
    monkeypatch.setattr(store, "PATIENCE", 0.6)
    monkeypatch.setattr(store, "BEAT", 0.1)
    plan = tiny_plan(tmp_path / "s", 1)
    theirs = claimed(Store(plan))
    elsewhere(monkeypatch)
    here = Store(plan)
    assert here.claim() is None
    time.sleep(1.0)
    assert here.claim() is None
    theirs.beat()


def test_killed_right_after_the_claim_it_is_known_to_be_gone(tmp_path: Path) -> None:
    """A claim is two writes, the trial's state and the runner's name, under a lock."""
    state = Store(tiny_plan(tmp_path / "s", 1))
    state.study.ask()
    assert first(state).state == "running"
    assert claimed(state).candidate.number == 1
    assert first(state).tries == 1


def test_nobody_waits_for_runners_that_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    state = Store(plan)
    claimed(state)
    assert state.others() == []
    elsewhere(monkeypatch)
    assert [other.pid for other in state.others()] == [os.getpid()]


@pytest.mark.parametrize("number", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_any_write_nothing_is_lost_or_done_twice(number: int, tmp_path: Path) -> None:
    """A runner that trains nothing is killed before its first write, its second, and so on, until it comes through."""
    whole = plan_of_many(tmp_path / "whole", number)
    death, code = 0, -signal.SIGKILL
    while code:
        death += 1
        plan = plans.load(Path(shutil.copytree(whole.folder, tmp_path / f"killed {death}")))
        said = tmp_path / f"said {death}"
        said.touch()
        code = end(start(claim_all, plan.folder, said, death))
        assert code in (0, -signal.SIGKILL)
        if code:
            claim_all(plan.folder, said)
        assert states(plan) == ["done"] * number, f"killed before write {death}"
        trials = Store(plan).trials()
        complete = Counter(t.user_attrs["candidate"] for t in trials if t.state == TrialState.COMPLETE)
        assert complete == dict.fromkeys(range(1, number + 1), 1)
        assert all(t.state.is_finished() for t in trials), f"killed before write {death}"
        numbers = said.read_text().split()
        assert len(numbers) - len(set(numbers)) <= 1, "only the one at hand may come again"
    assert death > 10 * number


@pytest.mark.parametrize("number", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_six_processes_share_many_candidates(number: int, tmp_path: Path) -> None:
    plan = plan_of_many(tmp_path / "s", number)
    places = [tmp_path / f"said {n}" for n in range(6)]
    with together([start(claim_and_end, plan.folder, said) for said in places]) as processes:
        assert [end(process) for process in processes] == [0] * 6
    shares = [[int(line) for line in said.read_text().split()] for said in places]
    assert sorted(number for share in shares for number in share) == list(range(1, number + 1))
    assert all(shares), "every process had some"
    trials = Store(plan).trials()
    assert Counter(t.state for t in trials) == {TrialState.COMPLETE: number}
    assert [o.score for o in Store(plan).outcomes()] == [float(n) for n in range(1, number + 1)]


def test_a_suspended_runner_finds_that_it_was_replaced(tmp_path: Path) -> None:
    """One on another machine, as that could not be seen to live; suspended for longer than the patience."""
    plan = tiny_plan(tmp_path / "s", 1)
    words = {"store.PATIENCE": 0.5}
    said, ready = tmp_path / "said", tmp_path / "ready"
    with together([start(hold, plan.folder, said, ready)]) as (process,):
        while not ready.exists():
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        other = tmp_path / "other"
        assert end(start(claim_until_done, plan.folder, other, {**words, "place": 2})) == 0
        os.kill(process.pid, signal.SIGCONT)
        assert end(process) == 0
    assert other.read_text() == "1\n"
    assert said.read_text() == "lost\n"
    assert [(o.state, o.score, o.tries) for o in Store(plan).outcomes()] == [("done", 7.0, 2)]


def hold(folder: Path, said: Path, ready: Path) -> None:
    """Has a candidate and beats, until that is lost."""
    claim = claimed(Store(plans.load(folder)))
    try:
        while True:
            claim.beat()
            ready.touch()
            time.sleep(0.02)
    except LostClaim:
        said.write_text("lost\n")


def claim_until_done(folder: Path, said: Path, words: dict[str, float]) -> None:
    patch(words)
    state = Store(plans.load(folder))
    while not (claim := state.claim()):
        time.sleep(0.05)
    said.write_text(f"{claim.candidate.number}\n")
    claim.done({}, 7.0)


def test_the_worse_half_is_stopped(tmp_path: Path) -> None:
    """After 1, 2 and 4 looks, with planted scores; a resumed candidate counts once, and is reported once."""
    state = Store(tiny_plan(tmp_path / "s", 6))
    scores = {1: 50.0, 2: 60.0, 3: 40.0, 4: 60.0, 5: 60.5, 6: 10.0}
    halving = (1, 2)

    def look(claim: Claim, epoch: int) -> bool:
        score = scores[claim.candidate.number] + epoch
        return claim.look(epoch, {"ap": score}, score, halving)

    one = claimed(state)
    assert not look(one, 1), "the first to come has nobody to be compared with"
    for _ in range(4):  # interrupted again and again, also right after its look
        one.put_back()
        every = [state.claim() for _ in range(6)]
        (one,) = [claim for claim in every if claim and claim.candidate.number == 1]
        for claim in every:
            if claim and claim is not one:
                claim.put_back()
        assert not look(one, 1)
    own = [t for t in state.trials() if t.user_attrs["candidate"] == 1]
    assert len(own) > 4
    assert own[-1].intermediate_values == {1: 51.0}
    others = {claim.candidate.number: claim for claim in (claimed(state) for _ in range(5))}
    two, three, four, five, six = (others[n] for n in range(2, 7))
    assert not look(two, 1)
    assert look(three, 1), "50 and 60 are better than 40, and one of three goes on"
    three.stop()
    assert not look(four, 1), "as good as the best so far"
    assert not look(five, 1)
    assert look(six, 1)
    six.stop()
    assert not look(one, 2), "it was let go on by those that came before it, and is the first again"
    assert not look(two, 2)
    assert not look(two, 3), "nothing is decided after three"
    assert look(one, 3) is False
    assert not look(one, 4)
    assert not look(four, 4)
    assert look(one, 4), "of two, the better one"
    found = {o.candidate.number: (o.state, o.score) for o in state.outcomes()}
    assert found[3] == ("stopped", 41.0)
    assert found[6] == ("stopped", 11.0)
    values = [t.value for t in state.trials() if t.state == TrialState.PRUNED]
    assert values == [41.0, 11.0]
    assert state.claim() is None


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    state = Store(tiny_plan(tmp_path / "s", 1))
    for _ in range(4):  # the first of which came to an epoch
        claim = claimed(state)
        assert claim.look(1, {"ap": float("nan")}, float("nan"), (1, 2)), "and the worst of all"
        claim.done({"ap": float("nan")}, float("nan"))
    assert first(state).state == "failed"
    assert "no number" in first(state).error


def test_optunas_own_tools_read_the_study(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 3)
    state = Store(plan)
    for score in (20.0, 40.0):
        claim = claimed(state)
        claim.look(1, {"ap": score}, score)
        claim.done({"ap": score}, score)
    study = optuna.load_study(study_name=plan.study, storage=plan.url())
    assert study.best_value == 40.0
    assert study.best_trial.user_attrs["candidate"] == 2
    assert study.best_params == pytest.approx(dict(plan.candidate(2).traits))
    assert study.best_trial.intermediate_values == {1: 40.0}
    assert [t.state for t in study.trials][-1] == TrialState.WAITING
    assert plan.candidate(2).spec.to_json() == study.best_trial.user_attrs["spec"]
    summary = optuna.get_all_study_summaries(plan.url())[0]
    assert (summary.study_name, summary.n_trials) == (plan.study, 3)


@pytest.mark.parametrize("name", ["plain", "what? 100% #1 {x}", "a%41b", "ü'\""])
def test_any_folder_and_a_moved_one(name: str, tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / name / "s", 2)
    claimed(Store(plan)).done({}, 1.0)
    moved = tmp_path / "moved"
    plan.folder.rename(moved)
    assert not (tmp_path / name / "s").exists()
    plan = plans.load(moved)
    claimed(Store(plan)).done({}, 2.0)
    assert states(plan) == ["done", "done"]
    assert not (tmp_path / name / "s").exists()


def test_a_database_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared by copies of the folder, which then have one lock; and found from any folder."""
    monkeypatch.chdir(tmp_path)
    plan = tiny_plan(tmp_path / "a", 2, "sqlite:///mine.db")
    copy = plans.load(Path(shutil.copytree(plan.folder, tmp_path / "b")))
    monkeypatch.chdir(tmp_path / "a")
    claimed(Store(plan)).done({}, 1.0)
    assert states(copy) == ["done", "waiting"]
    with Store(plan).locked() as alone, (tmp_path / ".mine.db.scrfd-lock").open("w") as file:
        import fcntl

        assert alone
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "mine.db", ".mine.db.scrfd-lock"}


def test_what_is_wrong_with_a_database_is_told(tmp_path: Path) -> None:
    def refused(url: str) -> str:
        with pytest.raises(OptionError) as caught:
            tiny_plan(tmp_path / "new", 1, url)
        assert not (tmp_path / "new").exists()
        assert [path for path in tmp_path.iterdir() if "partial" in path.name] == []
        return str(caught.value)

    assert "gone when this command ends" in refused("sqlite://")
    assert "gone when this command ends" in refused("sqlite:///:memory:")
    assert "nowhere" in refused(f"sqlite:///{tmp_path}/nowhere/x.db")
    assert "storage: what:" in refused("what")
    said = refused("postgresql+psycopg://me:secret@127.0.0.1:1/x")
    assert "127.0.0.1" in said
    assert "secret" not in said
    said = refused("mysql+none://me:sec/ret:@127.0.0.1:1/x?password=secret")
    assert "sec" not in said
    pytest.importorskip("psycopg")
    said = refused("postgresql+pg8000://me@127.0.0.1:1/x")
    assert "pip install 'psycopg[binary]'" in said


def test_damaged_and_missing_stores(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    path = plan.folder / "store.db"
    kept = path.read_bytes()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(OptionError, match=r"store\.db: .*not a database"):
        Store(plan)
    path.write_bytes(kept[: len(kept) // 3])
    begun = time.monotonic()
    with pytest.raises(OptionError, match=r"storage: .*store\.db: .*"):
        Store(plan).claim()
    assert time.monotonic() - begun < 20, "waiting mends no file"
    path.write_bytes(b"")
    with pytest.raises(ScrfdError, match="has no study"):
        Store(plan)
    path.unlink()
    with pytest.raises(ScrfdError, match="is missing"):
        Store(plan)
    path.write_bytes(kept)
    assert states(plan) == ["waiting"]


def test_a_database_that_others_write_to_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAUSES", (0.1,) * 20)
    monkeypatch.setattr(database, "_SQLITE_WAIT", 0.05)
    plan = tiny_plan(tmp_path / "s", 1)
    state = Store(plan)
    claim = claimed(state)
    other = sqlite3.connect(plan.folder / "store.db", check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    claim.beat()
    claim.epoch(1, 3)
    import threading

    free = threading.Timer(0.5, other.rollback)
    free.start()
    claim.done({}, 3.0)
    free.join()
    other.close()
    assert [(o.state, o.score) for o in state.outcomes()] == [("done", 3.0)]


def test_a_database_that_stays_away_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAUSES", (0.1,) * 2)
    monkeypatch.setattr(database, "_SQLITE_WAIT", 0.05)
    plan = tiny_plan(tmp_path / "s", 1)
    state = Store(plan)
    claim = claimed(state)
    other = sqlite3.connect(plan.folder / "store.db")
    other.execute("BEGIN EXCLUSIVE")
    for act in (lambda: claim.done({}, 3.0), state.claim):
        with pytest.raises(OptionError, match=r"storage: .*store\.db: .*locked"):
            act()
    other.rollback()
    other.close()
    claim.done({}, 3.0)
    assert first(state).state == "done"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    (plan.folder / "lock").unlink(missing_ok=True)
    (plan.folder / "lock").mkdir()  # as root may write anywhere, something that nobody can write to
    with pytest.raises(ScrfdError, match="lock: cannot be written"):
        Store(plan).claim()
    assert states(plan) == ["waiting"], "reading needs no permission to write"
