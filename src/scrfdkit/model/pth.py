"""The tensors of a PyTorch checkpoint, without running any code that it holds."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scrfdkit.errors import MissingExtraError, WeightError
from scrfdkit.model.header import PathLike

if TYPE_CHECKING:
    from torch import Tensor

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how the files of every version of torch begin
_SCALARS = "?bhilqBHILQefd"  # numpy's letters of its number types


def require_torch(feature: str) -> Any:
    """torch. Raises MissingExtraError, naming the feature, without it or safetensors."""
    try:
        import torch
        import safetensors  # noqa: F401, isort: skip - the smaller loss is told second
    except ImportError as error:
        raise MissingExtraError(feature, "torch", error.name or "torch") from None
    return torch


def read_state(path: PathLike) -> dict[str, Tensor]:
    """The state dict in a `.pth` file, bare or under "state_dict", without a "module." prefix.

    Only tensors, plain values and numpy's numbers, which training tools put beside the weights, are unpickled.
    Raises WeightError, saying what the file is, where it holds anything else, and MissingExtraError without torch.
    """
    torch = require_torch("importing a .pth file")
    _check_beginning(path)
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise WeightError(f"{path}: not a PyTorch checkpoint, or damaged: {_first_words(error)}") from None
        raise WeightError(
            f"{path}: cannot be loaded safely: it holds a pickled {found[1]}, and unpickling any class but tensors and "
            "plain values could run any code. Where you trust the file, load it with weights_only=False and save "
            "its state_dict alone"
        ) from None
    except Exception as error:  # torch raises many kinds for files that are not checkpoints
        raise WeightError(f"{path}: not a PyTorch checkpoint, or damaged: {_first_words(error)}") from None
    state = data.get("state_dict", data) if isinstance(data, dict) else None
    if not (isinstance(state, dict) and state and all(isinstance(v, torch.Tensor) for v in state.values())):
        raise WeightError(f"{path}: holds no state dict: a dictionary of tensors, or one under 'state_dict', is needed")
    return {str(k).removeprefix("module."): v for k, v in state.items()}


def _check_beginning(path: PathLike) -> None:
    """Raises WeightError for a file that cannot be a checkpoint by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise WeightError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not start:
        raise WeightError(f"{path}: not a PyTorch checkpoint: the file is empty (zero bytes)")
    if start.startswith((_ZIP, _PICKLE)):
        return
    reason = f"it starts with {start[:16]!r}"
    if start.startswith(b"version https://git-lfs"):
        reason = "it is a pointer of Git LFS; fetch the file itself"
    elif re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        reason = "it is a web page, as a download that did not work leaves it; download the file again"
    raise WeightError(f"{path}: not a PyTorch checkpoint: {reason}")


def _numpy_numbers() -> list[Any]:
    """What numpy's pickled numbers and strings are rebuilt with; none of it runs code of the file."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(letter)) for letter in (*_SCALARS, "U", "S")}
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]  # before and since numpy 2
    return [np.dtype, *kinds, *((scalar, name) for name in names)]


def _first_words(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{text[0][:200]}" if text and not isinstance(error, KeyError) else type(error).__name__
