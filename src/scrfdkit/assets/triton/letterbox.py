"""Triton's Python backend: files of pictures to the blob that a network takes. Needs scrfdkit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from scrfdkit import image, steps
from scrfdkit.errors import OptionError
from scrfdkit.options import Options, parse_size
from scrfdkit.spec import Input, ModelSpec
from scrfdkit.types import Floats
from scrfdkit.views import decoding_target


class TritonPythonModel:
    """picture (B, 1) bytes of files -> blob (B, 3, H, W), and placement (B, 8) for the way back."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: what Triton says of the model, its configuration as JSON among it."""
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        (blob,) = (output for output in config["output"] if output["name"] == "blob")
        _, height, width = (int(side) for side in blob["dims"])
        self._fixed = (width, height) if width > 0 and height > 0 else None
        self._dtype = pb_utils.triton_string_to_numpy(blob["data_type"])
        self._spec = ModelSpec.from_json(given["spec"]).input
        self._input_size = given["input_size"]
        self._max_pixels = int(given["max_pixels"])
        self._max_side = int(given["max_side"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One answer a request. `input_size` among a request's parameters stands for that of the configuration."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        files = pb_utils.get_input_tensor_by_name(request, "picture").as_numpy()
        wanted = json.loads(request.parameters() or "{}").get("input_size", self._input_size)
        try:
            if self._fixed is not None and wanted != self._input_size:
                raise OptionError(f"input_size: this network takes {self._input_size} only")
            options = Options(input_size=parse_size(str(wanted), "input_size"), max_pixels=self._max_pixels)
            pictures = [bytes(file) for file in files[:, 0]]
            blob, placements = letterboxed(pictures, options, self._fixed, self._spec, self._max_side)
            tensors = (("blob", blob.astype(self._dtype, copy=False)), ("placement", placements))
            return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors])
        except ValueError as error:  # every ScrfdError is one
            return _refusal(str(error))
        except MemoryError:
            return _refusal("there is no memory for these pictures; send fewer, or smaller ones")


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))


def letterboxed(
    files: Sequence[bytes], options: Options, fixed: tuple[int, int] | None, spec: Input, max_side: int
) -> tuple[Floats, NDArray[np.float64]]:
    """The blob (B, 3, H, W) of pictures, and for each of them eight numbers: width and height on the canvas, of the
    canvas, scale across and down, width and height of the picture.

    max_side: of a canvas, unless it is fixed. Raises ImageError, or OptionError where the pictures would have larger
    canvases, or some of different sizes.
    """
    target = decoding_target(options, fixed)
    pictures = [
        image.load(file, max_pixels=options.max_pixels, target=target, name=f"picture {number}")
        for number, file in enumerate(files, 1)
    ]
    batch, *others = steps.plan(pictures, options, fixed, len(pictures))
    if others:
        raise OptionError(
            f"input_size: with {options.input_size!r} these pictures have canvases of different sizes; send them one"
            " by one, or ask for a fixed WIDTHxHEIGHT"
        )
    if fixed is None and max(batch.canvas) > max_side:
        size = "x".join(map(str, batch.canvas))
        raise OptionError(f"input_size: {size} is over the limit of {max_side}, max_side in the server's configuration")
    places = [view.placement for view in batch.views]
    rows = [
        (*place.size, *place.canvas, *place.scale, picture.width, picture.height)
        for place, picture in zip(places, pictures, strict=True)
    ]
    return steps.preprocess(batch, spec, None), np.array(rows, np.float64)
