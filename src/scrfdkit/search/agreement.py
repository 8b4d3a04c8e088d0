"""All runners of a search train alike, also where each machine has a copy of its folder: the store remembers how."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from scrfdkit import atomic
from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.search.database import surely, told
from scrfdkit.search.holdout import HELDOUT, TRAIN
from scrfdkit.search.plan import Plan
from scrfdkit.search.training import DATA, PLACES, Training

if TYPE_CHECKING:
    from scrfdkit.search.store import Store

_WORD = "training"


def facts(plan: Plan, training: Training) -> dict[str, Any]:
    """What must be the same for all runners, as plain JSON values. Raises ScrfdError where labels are missing."""
    found = {name: value for name, value in asdict(training).items() if name not in PLACES}
    found["on_val"] = training.on_val
    for name in () if training.on_val else (TRAIN, HELDOUT):
        path = plan.folder / DATA / name
        try:
            found[name] = atomic.sha256(path)
        except OSError as error:
            raise ScrfdError(f"{path}: cannot be read: {error.strerror or error}") from None
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def agree(store: Store, ours: dict[str, Any]) -> None:
    """Raises OptionError, naming what differs, where other runners of the store have other `facts`. The first one to
    come says how it is done; two that come first together are told apart at their next claim."""
    with told(store.plan):
        known = surely(lambda: store.study.user_attrs).get(_WORD)
        if known is None:
            surely(lambda: store.study.set_user_attr(_WORD, ours))
            known = surely(lambda: store.study.user_attrs)[_WORD]
    differ = [name for name in ours if _differs(ours[name], known.get(name, ours[name]))]
    if differ:
        raise OptionError(
            f"{store.plan.folder}: other runners of this search have another {', '.join(differ)}; give every machine"
            " the same folder, or a copy made after the first run began"
        )


def forget(store: Store) -> None:
    """Lets another way of training be settled, where nothing has been trained yet."""
    with told(store.plan):
        if surely(lambda: store.study.user_attrs).get(_WORD) is not None:
            surely(lambda: store.study.set_user_attr(_WORD, None))


def _differs(one: Any, other: Any) -> bool:
    """A field that only one of them has is newer than the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        return any(_differs(one[name], other[name]) for name in one.keys() & other.keys())
    return bool(one != other)
