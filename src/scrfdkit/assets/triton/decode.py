"""Triton's Python backend: the head's tensors to faces in pixels of the pictures. Needs scrfdkit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from scrfdkit import decode, letterbox
from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.layout import identify, levels_of
from scrfdkit.letterbox import Placement
from scrfdkit.options import Options
from scrfdkit.types import Detections


class TritonPythonModel:
    """The head's tensors and placement (B, 8) -> boxes (B, M, 4), scores (B, M), keypoints (B, M, K, 2) and
    counts (B, 1), M being the largest count. What lies behind a picture's count is 0."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: what Triton says of the model, its configuration as JSON among it."""
        config = json.loads(args["model_config"])
        self._given = {name: value["string_value"] for name, value in config["parameters"].items()}
        self._heads = [tensor["name"] for tensor in config["input"] if tensor["name"] != "placement"]
        self._logits = self._given["logits"] == "true"

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One answer a request, whose parameters stand for those of the configuration."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        def tensor(name: str) -> NDArray[Any]:
            array: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            return array

        try:
            options = _options(self._given | json.loads(request.parameters() or "{}"))
            found = faces([tensor(name) for name in self._heads], tensor("placement"), options, self._logits)
        except ScrfdError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in padded(found).items()])


def _options(given: dict[str, Any]) -> Options:
    """Raises OptionError. Clients may send numbers as text."""
    try:
        return Options(
            score_threshold=float(given["score_threshold"]),
            nms_threshold=float(given["nms_threshold"]),
            max_faces=int(given["max_faces"]),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"parameters: {error}") from None


def faces(
    outputs: Sequence[NDArray[Any]], placements: NDArray[np.float64], options: Options, logits: bool
) -> list[Detections]:
    """Faces of each picture, best first. placements: as the letterbox gives them. Raises ModelError."""
    canvas = (int(placements[0, 2]), int(placements[0, 3]))
    layout = replace(identify(outputs, canvas), logits=logits)
    answers = []
    for index, (across, down, _, _, x, y, width, height) in enumerate(placements.tolist()):
        place = Placement((int(across), int(down)), canvas, (x, y))
        found = decode.decode(levels_of(outputs, layout, canvas, index), options.score_threshold, logits=logits)
        found = decode.suppress(letterbox.unplace(found, place), options.nms_threshold)
        answers.append(decode.keep_best(found, options.max_faces, options.rank, int(width), int(height)))
    return answers


def padded(answers: Sequence[Detections]) -> dict[str, NDArray[Any]]:
    """The outputs by name, rows of zeros added where another picture has more faces."""
    counts = np.array([len(found) for found in answers], np.int64)

    def stack(parts: list[NDArray[Any]]) -> NDArray[Any]:
        whole = np.zeros((len(parts), counts.max(initial=0), *parts[0].shape[1:]), np.float32)
        for row, part in zip(whole, parts, strict=True):
            row[: len(part)] = part
        return whole

    named = {"boxes": stack([found.boxes for found in answers]), "scores": stack([found.scores for found in answers])}
    points = [found.keypoints for found in answers if found.keypoints is not None]
    return named | ({"keypoints": stack(points)} if points else {}) | {"counts": counts[:, None]}
