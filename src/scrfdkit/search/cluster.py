"""A search on a cluster: Ray starts the workers, each on one candidate, where cores and GPUs are free.

Which candidate a worker takes, and how it stands, is only in the store, as without Ray. So the order of the tasks
means nothing, a worker that dies leaves its candidate to the next one, and runners without Ray may help.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from scrfdkit.errors import MissingExtraError, OptionError, ScrfdError
from scrfdkit.machine import usable_cores
from scrfdkit.search.owner import this_process
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store
from scrfdkit.search.training import Training
from scrfdkit.search.turn import Turn, needs_one_machine, one_machine, turn
from scrfdkit.search.words import counts, line
from scrfdkit.search.work import End, Score
from scrfdkit.train.stop import stopping

_OWN = "local"  # Ray's word for a new cluster
_LOOK_AGAIN = 2.0  # seconds between two looks at the store
_OVERVIEW = 60.0  # seconds between two lines while no candidate ends
_REACH = 10.0  # seconds for a cluster, or a task that is over, to answer; Ray itself tries for minutes
_TOO_MANY = 10  # workers that died before they began with anything
_OBJECTS = 100 * 2**20  # bytes of Ray's store in its own cluster, through which only small results go


def run(
    plan: Plan,
    training: Training,
    score: Score,
    say: Callable[[str], None],
    address: str | None = None,
    gpus: float | None = None,
    cpus: float = 1.0,
    threads: int | None = None,
    **where: Any,
) -> Counter[End]:
    """Works as `runner.run` until nothing is left, or this process is asked to stop; how the candidates ended.

    address: of the cluster, as Ray has them; without it $RAY_ADDRESS, or a cluster of this machine, which ends with
    the search. gpus, cpus: of a candidate, may be shares of one; gpus None is one where the cluster has any. threads:
    of a network, instead of its cores. score: a function that can be sent. where: as of `training.settings`.

    Raises OptionError for a cluster that cannot be reached or used, ScrfdError for what would stop every candidate.
    """
    plan = replace(plan, folder=plan.folder.absolute())
    with _cluster(address) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if len(nodes) > 1 and needs_one_machine(plan):
            raise OptionError(one_machine(plan))
        device, share = place_of(where.pop("device", "auto"), gpus, any(node.get("GPU") for node in nodes))
        if not any(node.get("GPU", 0) >= share and node.get("CPU", 0) >= cpus for node in nodes):
            text = f"--cpus {cpus:g}, --gpus {share:g}: no machine of the cluster has that many"
            if _place(address) == _OWN:
                raise OptionError(text)
            say(f"{text} now; waits for one")  # clusters can grow
        cores = max(1, int(cpus))
        where |= {"device": device, "workers": where.get("workers") or cores}
        words = (plan.folder, plan.study, this_process().place, training, score, threads or cores, where)
        # Not Ray but the store counts the tries of a candidate, as a task may get another one the next time.
        task = ray.remote(num_cpus=cpus, num_gpus=share, max_retries=0)(turn)
        return _Driver(ray, Store(plan), training, lambda: task.remote(*words), say).go()


def place_of(device: str, gpus: float | None, any_gpu: bool) -> tuple[str, float]:
    """Device of a worker, and its GPUs, from what was asked for. Raises OptionError for what does not go together."""
    if device.startswith("cuda:"):
        raise OptionError(f"--device {device}: Ray deals out the GPUs; leave it out")
    if gpus is None:
        gpus = 1.0 if device == "cuda" or (device != "cpu" and any_gpu) else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise OptionError(f"--gpus {gpus:g}: a part of one, or whole ones")
    if (device == "cuda" and not gpus) or (device == "cpu" and gpus):
        raise OptionError(f"--device {device}: does not go with --gpus {gpus:g}")
    return ("cuda" if gpus else "cpu"), gpus


def _place(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or _OWN


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected."""
    place = _place(address)
    own = {"num_cpus": usable_cores(), "include_dashboard": False, "object_store_memory": _OBJECTS}
    _settle(place == _OWN)
    try:
        import ray
    except ImportError:
        raise MissingExtraError("searching on a cluster", "ray", "ray") from None
    _reach(place)
    try:
        ray.init(place, log_to_driver=False, logging_level="error", **(own if place == _OWN else {}))
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        hint = "; if it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" if ":" in place else ""
        raise OptionError(f"--address {place}: {text}{hint}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _settle(own: bool) -> None:
    """Ray's environment, which it reads when it is imported."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # it warns where nothing is said
    if own and "RAY_AUTH_MODE" not in os.environ:
        # A cluster of one's own lets nobody else in; without a token Ray would leave one in the home folder.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _reach(place: str) -> None:
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
    except (OSError, OverflowError) as error:
        raise OptionError(f"--address {place}: no cluster answers there: {error}") from None


@dataclass
class _Driver:
    """Has as many tasks at Ray as the store has candidates to work on. begin: starts one more."""

    ray: Any
    store: Store
    training: Training
    begin: Callable[[], Any]
    say: Callable[[str], None]
    tasks: list[Any] = field(default_factory=list)
    ends: Counter[End] = field(default_factory=Counter)
    lost: int = 0
    before: int = 0  # tries that were begun when this began
    waits: bool = False
    told: float = field(default_factory=time.monotonic)

    def go(self) -> Counter[End]:
        self.before = self._begun()
        with stopping(self.say) as asked:
            try:
                try:
                    while not asked and self._fill():
                        self._collect(_LOOK_AGAIN)
                except ScrfdError:
                    self.say("stops the other workers")
                    self._stop()
                    raise
                self._stop()
            except KeyboardInterrupt:  # asked twice
                for task in self.tasks:
                    self.ray.cancel(task, force=True)
        if asked:
            self.ends["asked"] = max(1, self.ends["asked"])
        else:
            del self.ends["asked"]  # a worker was, by others; its candidate went on
        return self.ends

    def _begun(self) -> int:
        return sum("owner" in trial.user_attrs for trial in self.store.trials())

    def _fill(self) -> bool:
        """Starts tasks for all that can be worked on. False: nothing is left, nor will be."""
        self.store.take_over(self.training.retries)
        outcomes = self.store.outcomes()
        states = Counter(outcome.state for outcome in outcomes)
        if states["waiting"]:
            self.waits = False
            # Some of those in training may be other runners', so a task too many comes back with nothing.
            self.tasks += [self.begin() for _ in range(states["waiting"] + states["running"] - len(self.tasks))]
        if time.monotonic() - self.told > _OVERVIEW:
            self._tell(counts(outcomes))
        if states["waiting"] or (states["running"] and self.tasks):
            return True
        if self.tasks:  # about to say that they are done, or there only to find that nothing is left
            self.ray.wait(self.tasks, num_returns=len(self.tasks), timeout=_REACH)
            return False
        others = self.store.others()
        if others and not self.waits:
            self._tell(f"waits to see whether {', '.join(map(str, others))} still work on theirs")
        self.waits = bool(others)
        return self.waits

    def _collect(self, seconds: float) -> None:
        """Waits for a task to end, and takes what it brings."""
        if not self.tasks:
            time.sleep(seconds)
            return
        ready, self.tasks = self.ray.wait(self.tasks, timeout=seconds)
        for task in ready:
            turn = self._result(task)
            if turn is not None and turn.error:
                raise ScrfdError(f"{turn.host}: {turn.error}")
            if turn is None or turn.end is None:
                continue
            self.ends[turn.end] += 1
            outcomes = self.store.outcomes()
            over = sum(outcome.state not in ("waiting", "running") for outcome in outcomes)
            here = line(outcomes[turn.number - 1], self.training)
            self._tell(f"{over}/{len(outcomes)}: {here}  ({turn.host})")

    def _result(self, task: Any) -> Turn | None:
        errors = self.ray.exceptions
        try:
            done: Turn = self.ray.get(task)
            return done
        except errors.TaskCancelledError:
            return None
        except errors.RayTaskError as error:
            if "failed to import" in str(error):
                raise ScrfdError("a worker cannot import scrfdkit: install it on all machines of the cluster") from None
            raise
        except errors.RayError as error:
            self.lost += 1
            if self.lost > _TOO_MANY + self._begun() - self.before:
                raise ScrfdError(f"workers of the cluster die before they begin: {error}") from None
            self._tell(f"a worker is gone, and its candidate goes on with another: {str(error).splitlines()[0]}")
            return None

    def _tell(self, text: str) -> None:
        self.told = time.monotonic()
        self.say(text)

    def _stop(self) -> None:
        """Asks the workers to stop, each with a checkpoint, and waits until they have put their candidates back."""
        for task in self.tasks:
            self.ray.cancel(task)
        while self.tasks:
            try:
                self._collect(_LOOK_AGAIN)
            except ScrfdError:  # the first one is being told
                continue
