"""TorchScript files and exported programs, opened with as little of them run as torch allows.

Both are programs. What would run while torch reads them is refused before: compiled libraries, pickles that need more
than tensors, Python text in places that torch evaluates, code that restores objects. What they compute is held to a
list of operations (`runtime.torch_operations`) before any of it runs. That narrows what a hostile file can do; it is no
proof that one can do nothing.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from scrfdkit.errors import ModelError
from scrfdkit.runtime.torch_operations import check_graphs, check_script, check_target

EXTRA = "scrfdkit.json"
"""Where in an archive a file says what it is: a JSON object of text."""

_MOST_BYTES = 4 << 30
_HEAD = r"version|byteorder|\.data/\w+|extra/.+"
_SCRIPT_MEMBERS = re.compile(
    rf"{_HEAD}|(data|constants|traced_inputs)\.pkl|(data|constants|traced_inputs)/\d+|code/.+\.py(\.debug_pkl)?"
)
_PROGRAM_MEMBERS = re.compile(
    rf"{_HEAD}|archive_(format|version)|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_RESTORED = rb"\b__[gs]etstate__|torch\W{0,2}classes\b"
_LOADING_CODE = {
    ".pkl": re.compile(_RESTORED),
    ".py": re.compile(_RESTORED + rb"|(?<![.\w])ops\b(?!\s*:)(?!\.(?:aten|prim)\.\w)(?:\.\w+)?"),
}
"""What runs while torch reads the file, or may: restored objects, and operations that are not torch's own."""
_SIZE_WORDS = re.compile(
    r"[suz]\d+|Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|PythonMod|CeilDiv|CleanDiv|ModularIndexing"
    r"|Equality|Unequality|Eq|Ne|And|Or|Not|(Strict)?(Less|Greater)Than|positive|nonnegative|integer|real|finite"
    r"|[Tt]rue|[Ff]alse"
)
_loading = Lock()
"""torch keeps the program that it is deserialising in a global variable."""


def load_script(path: Path, device: str = "cpu") -> tuple[Any, dict[str, str]]:
    """A TorchScript module in eval mode on a device, and what the file says of itself. Raises ModelError."""
    data = _read(path, _SCRIPT_MEMBERS, "TorchScript file", needed="constants.pkl")
    for name, content in _members(path, data):
        pattern = _LOADING_CODE.get(Path(name).suffix)
        found = pattern.search(content) if pattern else None
        if found:
            word = found[0].decode(errors="replace")
            raise ModelError(f"{path}: its program uses {word!r}, which no face detector needs; it was not loaded")
    extra: dict[str, Any] = {EXTRA: ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            module = torch.jit.load(BytesIO(data), map_location=device, _extra_files=extra)  # type: ignore[no-untyped-call]
        check_script(module)
    except ModelError as error:
        raise ModelError(f"{path}: {error}; it was not run") from None
    except Exception as error:  # torch has many kinds
        raise _damaged(path, "TorchScript file", error) from None
    return module.eval(), metadata_of(extra[EXTRA])


def load_exported(path: Path) -> tuple[Any, dict[str, str]]:
    """A program of torch.export, and what the file says of itself. Raises ModelError."""
    data = _read(path, _PROGRAM_MEMBERS, "torch.export file", needed="models/model.json")
    members = dict(_members(path, data))
    try:
        _check_program(members)
        extra: dict[str, Any] = {EXTRA: ""}  # torch fills no empty one
        with _loading, _quiet():
            program = torch.export.load(BytesIO(data), extra_files=extra)
        check_graphs(program.graph_module)
    except ModelError as error:
        raise ModelError(f"{path}: {error}; it was not run") from None
    except Exception as error:  # torch has many kinds
        raise _damaged(path, "torch.export file", error) from None
    return program, metadata_of(extra.get(EXTRA, ""))


def metadata_of(text: str | bytes) -> dict[str, str]:
    """What a file says of itself; nothing where it is of somebody else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _read(path: Path, allowed: re.Pattern[str], kind: str, needed: str) -> bytes:
    """The bytes of an archive with no other members than these."""
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(BytesIO(data)) as archive:
            infos = archive.infolist()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _damaged(path, kind, error) from None
    names = [info.filename.partition("/")[2] for info in infos]
    odd = next((name for name in names if not allowed.fullmatch(name) or ".." in name), None)
    if needed not in names:
        raise ModelError(f"{path}: is no {kind}: it holds no {needed}")
    if odd is not None or len(set(names)) < len(names):
        what = "two members of one name" if odd is None else repr(odd)
        raise ModelError(f"{path}: holds {what}, which a {kind} of a network has no use for; it was not loaded")
    if sum(info.file_size for info in infos) > _MOST_BYTES:
        raise ModelError(f"{path}: would take more than {_MOST_BYTES} bytes; it was not loaded")
    return data


def _members(path: Path, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents as torch itself reads them: another reader might find others in a file that is made so."""
    try:
        reader = torch._C.PyTorchFileReader(BytesIO(data))
        for name in reader.get_all_records():
            if not re.fullmatch(r"(data|constants|traced_inputs)/\d+|data/\w+/(weight|tensor)_\d+", name):
                yield name, reader.get_record(name)
    except RuntimeError as error:
        raise _damaged(path, "torch archive", error) from None


def _check_program(members: Mapping[str, bytes]) -> None:
    """Raises ModelError for what would run code while the program is loaded."""
    for name, content in members.items():
        if not _PROGRAM_MEMBERS.fullmatch(name):
            raise ModelError(f"it holds {name!r}")
        if name.endswith("_config.json") and any(e.get("use_pickle") for e in json.loads(content)["config"].values()):
            raise ModelError("it holds pickled weights")
    try:
        torch.load(BytesIO(members["data/sample_inputs/model.pt"]), weights_only=True)
    except (pickle.UnpicklingError, KeyError):
        raise ModelError("its example inputs are more than tensors, and unpickling such could run any code") from None
    model = json.loads(members["models/model.json"])
    for node in _objects(model):
        if "target" in node:
            check_target(str(node["target"]))
        _check_size_text(str(node.get("expr_str", "")))
        for name in ("in_spec", "out_spec"):
            kinds = re.findall(r'"type": ?"([^"]*)"', str(node.get(name, "")))
            if any(kind not in ("builtins.tuple", "builtins.list", "builtins.dict") for kind in kinds):
                raise ModelError("its inputs or outputs are of kinds other than tuples, lists and dictionaries")
    for text in model["range_constraints"]:
        _check_size_text(text)


def _check_size_text(text: str) -> None:
    """A size is a formula that sympy evaluates as Python."""
    for word in re.findall(r"[^\W\d]\w*", text):
        if not _SIZE_WORDS.fullmatch(word):
            raise ModelError(f"one of its sizes is computed with {word[:40]!r}")
    if re.search(r"[^\w\s'(),=+*/<>-]", text):
        raise ModelError(f"one of its sizes is {text[:60]!r}, which is no formula")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs the reasons of its own failures as warnings, beside raising them."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _damaged(path: Path, kind: str, error: Exception) -> ModelError:
    words = str(error).strip().splitlines()
    return ModelError(f"{path}: is no {kind}, or damaged: {words[0] if words else type(error).__name__}")
