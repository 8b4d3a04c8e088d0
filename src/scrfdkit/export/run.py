"""Export and verification, the same for every target: made aside, tried as users run it, then moved into place."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from scrfdkit import atomic, certificate
from scrfdkit.certificate import Certificate
from scrfdkit.errors import ModelError
from scrfdkit.export.measure import Trial, measure
from scrfdkit.export.order import Order, Target
from scrfdkit.export.source import Source


def export(
    source: Source,
    path: str | Path,
    target: Target,
    order: Order | None = None,
    trial: Trial | None = None,
    say: Callable[[str], None] = lambda _: None,
    given: str = "",
) -> Certificate:
    """Writes a file of the target's format and its certificate, or nothing.

    given: name of the weights; if left out, their path from the folder of the new file. say: is told what begins.
    A file that cannot be run here (an engine without its GPU) is written, and its certificate says so.
    Raises OptionError for what the target cannot do, ModelError where the file computes something else than PyTorch,
    ScrfdError where it cannot be written.
    """
    path = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    order, trial = replace(target.settle(order or Order()), say=say), trial or Trial()
    if path.suffix != target.suffix:
        raise ModelError(f"{path}: the name of {target.name} files must end in {target.suffix or 'no suffix'}")
    if atomic.exists(path) and atomic.exists(source.path) and path.samefile(source.path):
        raise ModelError(f"{path}: is the network that is exported; name another file")
    _check_folder(path)
    with _aside(path) as draft:
        say(f"writing {path.name}")
        told = target.write(source, draft, order)
        _check_neighbours(draft, path)
        made = Certificate(
            target=target.name,
            precision=order.precision,
            contract=order.to_dict(),
            files=_hashes(draft.parent),
            num_bytes=sum(f.stat().st_size for f in _files(draft.parent)),
            metadata={**source.info.to_metadata(), **(told or {})},
            source=given or os.path.relpath(source.path, path.parent),
            source_sha256=atomic.sha256(source.path) if atomic.is_file(source.path) else "",
        )
        # Formats that hold no description take it from there, while they are tried too.
        atomic.save(certificate.beside(draft), made.to_json().encode())
        outcome = measure(source, draft, target, order, trial, say)
        if outcome.complaints:
            raise ModelError(f"{path}: {'; '.join(outcome.complaints)}; nothing was written")
        certificate.beside(draft).unlink()
        made = replace(made, measured=outcome.measured, passed=outcome.passed)
        with _alone(path.parent):
            _check_folder(path)
            _check_neighbours(draft, path)
            _install(draft, path, made)
    return made


def verify(
    path: str | Path,
    source: Source,
    target: Target,
    trial: Trial | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """The certificate of a file with what measuring it again gives; its hashes are compared first.

    source: the weights that it was made from. Raises ModelError for a file without a certificate, one that was
    changed, or other weights.
    """
    path = Path(path)
    old = certificate.check(path)
    if old is None:
        raise ModelError(f"{path}: has no certificate beside it ({certificate.beside(path).name})")
    if old.source_sha256 and atomic.sha256(source.path) != old.source_sha256:
        raise ModelError(f"{source.path}: is not what {path.name} was made from: its sha256 is another")
    outcome = measure(source, path, target, Order.from_dict(old.contract, old.precision), trial or Trial(), say)
    return replace(old, measured={**outcome.measured, "complaints": outcome.complaints}, passed=outcome.passed)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside it, which goes away again whatever happens.

    Each process has its own, so that two exports to one place do not mix; those of processes that are gone go too.
    """
    start = atomic.partial_path(path)
    folder = start.with_name(f"{start.name}.{os.getpid()}")
    atomic.make_folder(path.parent)
    for left in path.parent.glob(f"{glob.escape(start.name)}.*"):
        if left == folder or not _alive(left.suffix[1:]):
            shutil.rmtree(left, ignore_errors=True)
    atomic.make_folder(folder)
    try:
        yield folder / path.name
    except OSError as error:
        raise atomic.write_error(path, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process moves files into a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_folder(path: Path) -> None:
    """Raises ModelError for a folder with files that no export made: it would be replaced with all that is in it."""
    if not atomic.is_folder(path):
        return
    known = _known(path)
    other = next((f for f in _files(path) if f.relative_to(path.parent).as_posix() not in known), None)
    if other is not None:
        raise ModelError(f"{path}: holds {other.relative_to(path)}, which no export wrote; name another folder")


def _known(path: Path) -> Mapping[str, str]:
    """The files that the certificate of what is there already names; none where it has no certificate."""
    old = certificate.read(path)
    return old.files if old is not None else {}


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file())


def _hashes(folder: Path) -> dict[str, str]:
    return {f.relative_to(folder).as_posix(): atomic.sha256(f) for f in _files(folder)}


def _check_neighbours(draft: Path, path: Path) -> None:
    """Raises ModelError where a companion would replace a file that is not of the same export."""
    known = _known(path)
    for member in draft.parent.iterdir():
        place = path.with_name(member.name)
        if member.name != draft.name and atomic.exists(place) and place.name not in known:
            raise ModelError(
                f"{place}: is there already, and no certificate says that it is of {path.name}; name another file"
            )


def _install(draft: Path, path: Path, made: Certificate) -> None:
    """Moves what was made into place, the main file after its companions, or puts back what was there.

    The old certificate stays until the new one replaces it: should all end in the middle, the mixture is refused.
    """
    old = draft.parent.with_name(f"{draft.parent.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    moved: list[Path] = []
    try:
        old.mkdir()
        for member in sorted(draft.parent.iterdir(), key=lambda one: one.name == draft.name):
            place = path.with_name(member.name)
            if atomic.is_folder(place):
                place.replace(old / place.name)
            elif atomic.exists(place):
                os.link(place, old / place.name)
            moved.append(place)
            member.replace(place)
        atomic.save(certificate.beside(path), made.to_json().encode())
    except BaseException:
        for place in moved:
            _put_back(old / place.name, place)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path, place: Path) -> None:
    if atomic.is_folder(place):
        shutil.rmtree(place)
    if atomic.exists(old):
        old.replace(place)
    else:
        place.unlink(missing_ok=True)
