"""What is written into a finished TFLite file: names, and a description of the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

METADATA = "scrfdkit"
"""Name of the file's metadata entry, a JSON object of strings."""

_ALIGNMENT = 16  # of constants, as TFLite's schema asks for; its Python packer leaves it out


def named(data: bytes, blob: str, outputs: Sequence[str]) -> bytes:
    """Gives the input and the outputs their names, in the signature and of the tensors."""

    def rename(model: Any) -> None:
        (signature,) = model.signatureDefs
        (graph,) = model.subgraphs
        for maps, names in ((signature.inputs, [blob]), (signature.outputs, outputs)):
            # The converter numbers them, and lists output_10 after output_1 where there are as many.
            maps.sort(key=lambda one: int(one.name.decode().rpartition("_")[2]))
            for one, name in zip(maps, names, strict=True):
                one.name = name
                graph.tensors[one.tensorIndex].name = name
        graph.inputs, graph.outputs = (
            [one.tensorIndex for one in maps] for maps in (signature.inputs, signature.outputs)
        )

    return _edited(data, rename)


def described(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Adds the metadata. The file is packed anew with its constants inside, where runtimes of all ages look."""
    from ai_edge_litert import schema_py_generated as schema

    def describe(model: Any) -> None:
        text = np.frombuffer(json.dumps(dict(metadata)).encode(), np.uint8)
        model.buffers.append(_Aligned(schema.BufferT(text)))
        model.metadata = [*(model.metadata or []), schema.MetadataT(METADATA, len(model.buffers) - 1)]
        model.description = "SCRFD face detector"

    return _edited(data, describe)


class Step(NamedTuple):
    """An operation of a graph: its kind, as the schema names it, and the tensors that it takes and gives."""

    kind: str
    takes: tuple[int, ...]
    gives: tuple[int, ...]


def steps(data: bytes) -> list[Step]:
    """The operations of a file, in the order in which they run."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = read(data)
    codes = [kinds[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    (graph,) = model.subgraphs
    return [Step(codes[step.opcodeIndex], tuple(step.inputs), tuple(step.outputs)) for step in graph.operators]


def marked(data: bytes, mark: str, places: set[int]) -> bytes:
    """Every tensor gets a name of its own, its number, with the mark before it for the places given."""

    def rename(model: Any) -> None:
        for place, tensor in enumerate(model.subgraphs[0].tensors):
            tensor.name = f"{mark if place in places else ''}{place}"

    return _edited(data, rename)


def read(data: bytes) -> Any:
    """A file as the schema's objects, its constants with the rest."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(data)


def _edited(data: bytes, edit: Callable[[Any], None]) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    model = read(data)
    model.buffers = [_Aligned(buffer) for buffer in model.buffers]
    edit(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


class _Aligned:
    """A constant that is packed on a multiple of 16 bytes."""

    def __init__(self, buffer: Any) -> None:
        self.data = buffer.data

    def Pack(self, builder: Any) -> int:
        from ai_edge_litert import schema_py_generated as schema

        place = None
        if self.data is not None and len(self.data):
            content = bytes(self.data)
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return int(schema.BufferEnd(builder))
