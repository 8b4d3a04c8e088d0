"""The database that a search keeps its state in: how it is opened, waited for, and what its errors say."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError

from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.search.plan import STORE, Plan

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds between tries of what must not be lost while a database is away: about a minute together."""

_SQLITE_WAIT = 60  # seconds that a write waits for others'

# What is wrong is said by our errors; Optuna would warn of every try.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def connect(plan: Plan, *, new: bool = False) -> Any:
    """Optuna's storage for a plan. Raises whatever SQLAlchemy, its drivers and Optuna do; see `told`.

    new: the file in the folder is filled at once and nobody else sees it before; `close` sees to it that it is there
    after a power cut, and not every write for itself, which takes three times as long.
    """
    url = plan.url()
    if not url.startswith("sqlite"):
        # A server may have closed a connection that was idle during a long epoch.
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    if plan.storage is not None:
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SQLITE_WAIT}})
    path = plan.folder / STORE

    def open_file() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_SQLITE_WAIT, check_same_thread=False)
        if new:
            connection.execute("PRAGMA synchronous = OFF")
        return connection

    # The name of a folder may hold what means something in a URL, so the file is opened without one.
    return optuna.storages.RDBStorage(f"sqlite:///{STORE}", engine_kwargs={"creator": open_file})


def close(storage: Any, plan: Plan) -> None:
    """Closes a new storage."""
    storage.remove_session()
    storage.engine.dispose()
    if plan.storage is None:
        with (plan.folder / STORE).open("rb") as file:
            os.fsync(file.fileno())


def file_of(plan: Plan) -> Path | None:
    """The file of a database that is one."""
    if plan.storage is None:
        return plan.folder / STORE
    kind, _, rest = plan.storage.partition("://")
    return Path(rest.partition("?")[0][1:]) if kind.startswith("sqlite") else None


def in_words(plan: Plan, error: Exception) -> OptionError:
    """An error of the database, or of what reaches it, in our words."""
    cause = error.__cause__ or error
    first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if isinstance(cause, ImportError):
        first += "; install the driver of this database: for PostgreSQL pip install 'psycopg[binary]', and begin the"
        first += " URL with postgresql+psycopg://"
    return OptionError(f"storage: {plan.place()}: {first}")


@contextmanager
def told(plan: Plan) -> Iterator[None]:
    """Raises OptionError for errors of the database and of Optuna."""
    try:
        yield
    except (ScrfdError, AssertionError):
        raise
    except Exception as error:  # of SQLAlchemy, its drivers and Optuna
        raise in_words(plan, error) from error


def surely(do: Callable[[], T]) -> T:
    """What `do` gives, which is tried again while the database is away. It must be right to do it twice."""
    for pause in PAUSES:
        try:
            return do()
        except StorageInternalError as error:
            if _is_damaged(error):
                raise
            time.sleep(pause)
    return do()


def _is_damaged(error: StorageInternalError) -> bool:
    """Whether waiting is no help, as an SQLite file is broken."""
    first = getattr(error.__cause__, "orig", None)
    return isinstance(first, sqlite3.DatabaseError) and not isinstance(first, sqlite3.OperationalError)
