"""TorchScript: programs that `torch.jit` saved, on the CPU or on CUDA."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrfdkit.errors import ModelError
from scrfdkit.layout import head_names
from scrfdkit.runtime.base import Binding, Side
from scrfdkit.runtime.inputs import picture_input
from scrfdkit.runtime.torch_archive import load_script
from scrfdkit.runtime.torch_device import choose_device, num_threads, tensor_of
from scrfdkit.spec import ModelSpec
from scrfdkit.types import Floats


class ProgramRuntime:
    """A torch program that takes a blob and gives tensors. Any number of threads may call `run` at once.

    label: of the file, for messages. device: what really runs, "cpu" or "cuda". input_size, batch_size: as the file
    says, None for any. Raises ModelError for a file that finds faces by itself, or asks for more than can be run.
    """

    def __init__(
        self,
        label: str,
        program: Callable[[Tensor], Any],
        metadata: Mapping[str, str],
        device: str,
        threads: int | None,
    ) -> None:
        self.device = device
        self.metadata = dict(metadata)
        self.input_size, self.batch_size = picture_input(label, [_blob(metadata)], metadata)
        self._program = program
        self._threads = threads

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """blob: (B, 3, H, W) float32, normalised RGB, H and W multiples of 32.

        Raises ModelError for a blob of another shape, or where the program fails or gives other things than tensors.
        """
        given = tensor_of(blob)
        size = blob.shape[3], blob.shape[2]
        if self.input_size not in (None, size) or self.batch_size not in (None, len(blob)):
            wanted = f"{self.batch_size or 'any number of'} picture(s) of {self.input_size or 'any size'}"
            raise ModelError(f"blob: this file takes {wanted}, got {len(blob)} of {size}")
        try:
            with num_threads(self._threads), torch.inference_mode():
                found = self._program(given.to(self.device))
                return [output.float().cpu().numpy() for output in _tensors(found)]
        except ModelError:
            raise
        except Exception as error:  # torch has many kinds
            words = str(error).strip().splitlines()
            raise ModelError(
                f"torch cannot run it on a blob of {blob.shape}: {words[-1] if words else error}"
            ) from None


def open_model(path: str | Path, *, device: str = "auto", threads: int | None = None) -> ProgramRuntime:
    """Loads a TorchScript file: one that `scrfd export` wrote, or any that takes a blob and gives an SCRFD head.

    A TorchScript file is a program. It is looked through first (`runtime.torch_archive`), but open only what you trust.
    device: "cpu", "cuda", or "auto" for CUDA where it works; a device that does not work falls back to the CPU.
    On the CPU half-precision weights are turned into float32, because torch is slow with halves there. threads: of one
    run, None for torch's own setting. Raises ModelError, naming the file.
    """
    path = Path(path)
    chosen = choose_device(device)
    module, metadata = load_script(path, chosen)
    runtime = ProgramRuntime(str(path), module.float() if chosen == "cpu" else module, metadata, chosen, threads)
    takes = [a for a in module.forward.schema.arguments if a.name != "self"]
    if len(takes) != 1 or str(takes[0].type) != "Tensor":
        raise ModelError(f"{path}: one tensor (batch, 3, height, width) as input is needed; it has {len(takes)} inputs")
    return runtime


def bindings(path: str | Path) -> list[Binding]:
    """Inputs and outputs of a TorchScript file; shapes of outputs are found by running it. Raises ModelError."""
    module, metadata = load_script(Path(path))
    return bindings_of(path, module.float(), metadata)


def bindings_of(path: str | Path, program: Callable[[Tensor], Any], metadata: Mapping[str, str]) -> list[Binding]:
    """The bindings of a loaded program."""
    spec = _spec(metadata)
    blob = _blob(metadata)
    number, _, height, width = blob.shape
    if metadata.get("layout") == "end2end":
        points = spec.head.num_keypoints if spec else "?"
        columns = 5 + 2 * points if isinstance(points, int) else points
        most = _number(metadata.get("max_faces", ""))
        return [
            Binding("images", "input", "uint8", (number, height, width, 3)),
            Binding("score_threshold", "input", "float32", (1,)),
            Binding("nms_threshold", "input", "float32", (1,)),
            Binding("faces", "output", "float32", (number, "?" if most is None else most, columns)),
        ]
    runtime = ProgramRuntime(str(path), program, metadata, "cpu", None)
    size = runtime.input_size
    try:
        outputs = runtime.run(np.zeros((runtime.batch_size or 1, 3, *((size or (256, 256))[::-1])), np.float32))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    names = head_names(spec) if spec else []
    if len(names) != len(outputs):
        names = [f"output{i}" for i in range(len(outputs))]
    return [blob, *(_output(n, o.shape, number, size is not None) for n, o in zip(names, outputs, strict=True))]


def _blob(metadata: Mapping[str, str]) -> Binding:
    """The input, its sides fixed where the file says that it is for no other."""
    size = metadata.get("size", "").split("x")
    width, height = map(_number, size) if len(size) == 2 else (None, None)
    batch = _number(metadata.get("batch", ""))
    shape: tuple[Side, ...] = ("batch" if batch is None else batch, 3, "height", "width")
    if width is not None and height is not None:
        shape = (*shape[:2], height, width)
    return Binding("blob", "input", "float32", shape)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _output(name: str, shape: Sequence[int], batch: Side, fixed: bool) -> Binding:
    """Maps (B, C, h, w) or rows (B, N, C), whose sides are known only where the input's are."""
    sides: tuple[Side, ...] = tuple(shape[1:])
    if not fixed:
        sides = (shape[1], "?", "?") if len(shape) == 4 else ("?", *shape[2:])
    return Binding(name, "output", "float32", (batch, *sides))


def _spec(metadata: Mapping[str, str]) -> ModelSpec | None:
    try:
        return ModelSpec.from_json(metadata["spec"])
    except (KeyError, ValueError, RecursionError):
        return None


def _tensors(found: Any) -> list[Tensor]:
    outputs = list(found) if isinstance(found, tuple | list) else [found]
    if not all(isinstance(output, Tensor) for output in outputs):
        raise ModelError("the program gives something else than tensors")
    return outputs
