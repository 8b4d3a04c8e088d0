"""Configurations of Triton's models as plain data, and as the text of protocol buffers that config.pbtxt holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from scrfdkit.runtime.base import Binding

Message: TypeAlias = Mapping[str, Any]
"""Fields by name: a text, number or `Word`, another message, or a list of messages or of numbers."""

QUEUE_DELAY = 100
"""Microseconds that a request waits for others to share its run."""

TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "float64": "TYPE_FP64", "int64": "TYPE_INT64"}


class Word(str):
    """A value without quotes: one of an enumeration."""


@dataclass(frozen=True)
class Tensor:
    """An input or output. dims: without the batch axis, -1 where any will do. type: as Triton names it."""

    name: str
    dims: tuple[int, ...]
    type: str = "TYPE_FP32"

    @staticmethod
    def of(binding: Binding, name: str = "") -> Tensor:
        """What a file takes or gives, under another name if there is one."""
        dims = tuple(side if isinstance(side, int) else -1 for side in binding.shape[1:])
        return Tensor(name or binding.name, dims, TYPES[binding.dtype])

    def to_message(self) -> Message:
        """Its place in a configuration."""
        return {"name": self.name, "data_type": Word(self.type), "dims": list(self.dims)}


@dataclass(frozen=True)
class Model:
    """A model with a batch axis. max_batch: most pictures a run. runs_by: fields that say what runs it: backend,
    platform. kind: of the processors that it runs on; "" leaves all that runs it out, as for an ensemble.
    parameters: text by name, for it and for whoever asks.
    """

    name: str
    max_batch: int
    runs_by: Mapping[str, str]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    parameters: Mapping[str, str]
    kind: Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU", ""] = "KIND_AUTO"
    instances: int = 1
    batching: bool = False

    def to_message(self) -> dict[str, Any]:
        """The whole configuration."""
        message: dict[str, Any] = {
            "name": self.name,
            **self.runs_by,
            "max_batch_size": self.max_batch,
            "input": [tensor.to_message() for tensor in self.inputs],
            "output": [tensor.to_message() for tensor in self.outputs],
        }
        if self.kind:
            message["instance_group"] = [{"count": self.instances, "kind": Word(self.kind)}]
        if self.batching:
            message["dynamic_batching"] = {"max_queue_delay_microseconds": QUEUE_DELAY}
        message["response_cache"] = {"enable": False}
        message["parameters"] = [
            {"key": key, "value": {"string_value": value}} for key, value in self.parameters.items()
        ]
        return message


@dataclass(frozen=True)
class Step:
    """A model of an ensemble. inputs, outputs: names in the ensemble by its own."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def to_message(self) -> Message:
        """Its place in a configuration; whatever its newest version is runs."""

        def pairs(names: Mapping[str, str]) -> list[Message]:
            return [{"key": key, "value": value} for key, value in names.items()]

        return {
            "model_name": self.model,
            "model_version": -1,
            "input_map": pairs(self.inputs),
            "output_map": pairs(self.outputs),
        }


def ensemble(model: Model, steps: Sequence[Step]) -> Message:
    """The configuration of a model that is made of others."""
    return model.to_message() | {"ensemble_scheduling": {"step": [step.to_message() for step in steps]}}


def to_text(message: Message) -> str:
    """The text of a message."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        for one in value if isinstance(value, list) and not _plain(value) else [value]:
            if isinstance(one, Mapping):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            else:
                yield f"{name}: {_value(one)}"


def _plain(values: list[Any]) -> bool:
    """Whether it is a list of numbers, which fits a line."""
    return all(isinstance(value, int) for value in values)


def _value(value: Any) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"[ {', '.join(map(str, value))} ]" if isinstance(value, list) else str(value)


def _quoted(text: str) -> str:
    """In quotes, with what could end or change it escaped."""

    def byte(value: int) -> str:
        if value in b'"\\':
            return "\\" + chr(value)
        return chr(value) if 32 <= value < 127 else f"\\{value:03o}"

    return '"' + "".join(byte(value) for value in text.encode()) + '"'
