"""The TFLite runtime: files of all makes and types, threads, and files that are no networks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrfdkit import Detector, certificate
from scrfdkit.errors import ModelError
from scrfdkit.runtime.base import Binding

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from scrfdkit.runtime import tflite

SIZE = 64
LEVELS = ((8, 8), (4, 4), (2, 2))
FLOAT32, INT8, UINT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8, schema.TensorType.UINT8


class Made:
    """A graph of one picture input and a head whose score, box and key-point maps are slices of it and of each other's
    sums: enough to tell positions, channels and quantisation apart. Written tensor by tensor, as no converter would."""

    def __init__(self, *, first: bool = False, kind: int = FLOAT32, scale: float = 1 / 64, zero: int = 3) -> None:
        """first: channels first. kind: of all tensors. scale, zero: of their quantisation."""
        self.first, self.kind, self.scale, self.zero = first, kind, scale, zero
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.outputs = [], [], []
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []
        shape = [1, 3, SIZE, SIZE] if first else [1, SIZE, SIZE, 3]
        self.graph.inputs = [self.tensor("picture", shape)]

    def tensor(self, name: str, shape: list[int], data: Any = None, kind: int | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, shape, self.kind if kind is None else kind
        if data is not None:
            self.model.buffers.append(schema.BufferT(np.frombuffer(np.asarray(data).tobytes(), np.uint8)))
            made.buffer = len(self.model.buffers) - 1
        elif made.type != FLOAT32:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [self.scale], [self.zero]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def add(self, code: int, takes: list[int], shape: list[int], options: Any = None, name: str = "") -> int:
        kinds = [one.builtinCode for one in self.model.operatorCodes]
        if code not in kinds:
            made = schema.OperatorCodeT()
            made.builtinCode, made.version = code, 2 if code == schema.BuiltinOperator.SLICE else 1
            made.deprecatedBuiltinCode = min(code, 127)
            self.model.operatorCodes.append(made)
            kinds.append(code)
        step = schema.OperatorT()
        step.opcodeIndex, step.inputs = kinds.index(code), takes
        if options is not None:
            step.builtinOptions = options
            step.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        place = self.tensor(name, shape)
        step.outputs = [place]
        self.graph.operators.append(step)
        return place

    def slice(self, start: list[int], shape: list[int], name: str = "") -> int:
        """Of the input."""
        sides = [self.tensor("", [4], np.int32(side), schema.TensorType.INT32) for side in (start, shape)]
        return self.add(
            schema.BuiltinOperator.SLICE, [self.graph.inputs[0], *sides], shape, schema.SliceOptionsT(), name
        )

    def head(self, rows: bool = True) -> None:
        """Score, box and key-point outputs of every level, one anchor a cell: of the picture's top left corner."""
        for level, (down, across) in enumerate(LEVELS):
            for name, width in (("score", 1), ("bbox", 4)):
                cut = [1, 1, down * width, across] if self.first else [1, down * width, across, 1]
                start = [0, level, 0, 0] if self.first else [0, 0, 0, level]
                part = self.slice(start, cut)
                shape = [1, down * across, width] if rows else [1, down, across, width]
                if self.first and not rows:
                    shape = [1, width, down, across]
                options = schema.ReshapeOptionsT()
                options.newShape = shape
                self.graph.outputs.append(
                    self.add(schema.BuiltinOperator.RESHAPE, [part], shape, options, f"{name}_{8 << level}")
                )

    def save(self, path: Path) -> Path:
        path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))
        return path


def blob(seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0, 1, (1, 3, SIZE, SIZE)).astype(np.float32)


def expected(values: Any, level: int, width: int) -> Any:
    """What a `Made.head` gives of a blob, as rows."""
    down, across = LEVELS[level]
    return values[:, level, : down * width, :across].reshape(1, -1, width)


@pytest.mark.parametrize("first", [False, True], ids=["NHWC", "NCHW"])
def test_float_rows_without_a_signature(first: bool, tmp_path: Path) -> None:
    made = Made(first=first)
    made.head()
    opened = tflite.open_model(made.save(tmp_path / "a.tflite"), threads=1)
    assert (opened.device, opened.input_size, opened.batch_size, opened.metadata) == ("cpu", (SIZE, SIZE), 1, {})
    values = blob()
    outputs = opened.run(values)
    for index, output in enumerate(outputs):
        assert np.array_equal(output, expected(values, index // 2, (1, 4)[index % 2]))
    assert Detector(opened).layout.num_anchors == 1


@pytest.mark.parametrize("first", [False, True], ids=["NHWC", "NCHW"])
def test_maps_come_out_channels_first(first: bool, tmp_path: Path) -> None:
    made = Made(first=first)
    made.head(rows=False)
    outputs = tflite.open_model(made.save(tmp_path / "a.tflite")).run(values := blob())
    for index, output in enumerate(outputs):
        (down, across), width = LEVELS[index // 2], (1, 4)[index % 2]
        rows = expected(values, index // 2, width)
        last = np.moveaxis(rows.reshape(1, down, across, width), -1, 1)
        assert np.array_equal(output, rows.reshape(1, width, down, across) if first else last)


@pytest.mark.parametrize(("kind", "zero"), [(INT8, -64), (UINT8, 64)], ids=["int8", "uint8"])
def test_quantised_inputs_and_outputs(kind: int, zero: int, tmp_path: Path) -> None:
    made = Made(kind=kind, scale=1 / 128, zero=zero)
    made.head()
    path = made.save(tmp_path / "a.tflite")
    values = blob()
    values[0, 0, 0, :4] = (-5, 5, 0, 0.25)
    outputs = tflite.open_model(path).run(values)
    limits = ((-128, 127) if kind == INT8 else (0, 255), zero)
    whole = np.clip(np.rint(values * 128) + zero, *limits[0])
    for index, output in enumerate(outputs):
        wanted = (expected(whole, index // 2, (1, 4)[index % 2]) - zero) / 128
        assert output.dtype == np.float32
        assert np.array_equal(output, wanted.astype(np.float32))
    assert outputs[0].ravel()[2] == 0
    shown = tflite.bindings(path)
    assert shown[0] == Binding("picture", "input", "int8" if kind == INT8 else "uint8", (1, SIZE, SIZE, 3))


def test_names_of_a_signature(tmp_path: Path) -> None:
    made = Made()
    made.head()
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "detect", 0
    signature.inputs, signature.outputs = [schema.TensorMapT()], [schema.TensorMapT() for _ in range(6)]
    names = ["z", "y", "x", "c", "b", "a"]
    for one, name, place in zip(
        [*signature.inputs, *signature.outputs], ["blob", *names], [0, *made.graph.outputs], strict=True
    ):
        one.name, one.tensorIndex = name, place
    made.model.signatureDefs = [signature]
    path = made.save(tmp_path / "a.tflite")
    assert [(one.kind, one.name) for one in tflite.bindings(path)] == [
        ("input", "blob"),
        *(("output", name) for name in names),
    ]
    values = blob()
    for index, output in enumerate(tflite.open_model(path).run(values)):
        assert np.array_equal(output, expected(values, index // 2, (1, 4)[index % 2]))


def test_description_in_the_file_or_beside_it(tmp_path: Path) -> None:
    made = Made()
    made.head()
    path = made.save(tmp_path / "a.tflite")
    record = certificate.Certificate("tflite", "fp32", {}, {path.name: "0"}, 0, {"name": "beside"}, "", "")
    certificate.beside(path).write_text(record.to_json())
    assert tflite.open_model(path).metadata == {"name": "beside"}
    for text, wanted in (
        ('{"name": "inside"}', "inside"),
        ("[1]", "beside"),
        ("{", "beside"),
        ('{"name": 1}', "beside"),
    ):
        made.model.buffers.append(schema.BufferT(np.frombuffer(text.encode(), np.uint8)))
        made.model.metadata = [schema.MetadataT("scrfdkit", len(made.model.buffers) - 1)]
        assert tflite.open_model(made.save(path)).metadata == {"name": wanted}


def test_many_threads_and_no_mixed_up_pictures(tmp_path: Path) -> None:
    made = Made()
    made.head()
    opened = tflite.open_model(made.save(tmp_path / "a.tflite"), threads=1)
    blobs = [blob(seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for values, outputs in zip(blobs, pool.map(opened.run, blobs), strict=True):
            assert np.array_equal(outputs[1], expected(values, 0, 4))


def test_other_blobs_are_refused(tmp_path: Path) -> None:
    made = Made()
    made.head()
    opened = tflite.open_model(made.save(tmp_path / "a.tflite"))
    for shape in ((2, 3, SIZE, SIZE), (1, 3, SIZE, 32), (1, SIZE, SIZE, 3), (3, SIZE, SIZE)):
        with pytest.raises(ModelError, match=r"a\.tflite: takes \(1, 64, 64, 3\)"):
            opened.run(np.zeros(shape, np.float32))


@pytest.mark.parametrize("signature", [False, True], ids=["plain", "signature"])
def test_open_sides(signature: bool, tmp_path: Path) -> None:
    """A graph of one operation that does not care about sizes: its outputs are its input."""
    made = Made()
    given = made.graph.tensors[0]
    given.shape, given.shapeSignature = [1, 32, 32, 3], [-1, -1, -1, 3]
    place = made.add(schema.BuiltinOperator.RELU, [0], [1, 32, 32, 3], name="out")
    made.graph.tensors[place].shapeSignature = [-1, -1, -1, 3]
    made.graph.outputs = [place]
    if signature:
        made.model.signatureDefs = [
            schema.SignatureDefT([schema.TensorMapT("in", 0)], [schema.TensorMapT("out", place)], "run", 0)
        ]
    path = made.save(tmp_path / "a.tflite")
    opened = tflite.open_model(path)
    assert (opened.input_size, opened.batch_size) == (None, None)
    assert tflite.bindings(path)[0].shape == ("?", "?", "?", 3)
    for shape in ((1, 3, 32, 32), (2, 3, 64, 32), (1, 3, 32, 96)):
        values = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
        (output,) = opened.run(values)
        assert np.array_equal(output.ravel(), values.transpose(0, 2, 3, 1).ravel())


def two_inputs(made: Made) -> None:
    made.graph.inputs.append(made.tensor("more", [1]))


def grey(made: Made) -> None:
    made.graph.tensors[0].shape = [1, SIZE, SIZE, 1]


def unquantised(made: Made) -> None:
    made.graph.tensors[0].type = INT8


def huge(made: Made) -> None:
    made.graph.tensors[0].shape = [1, 1 << 20, 1 << 20, 3]


def too_few(made: Made) -> None:
    made.graph.operators[0].inputs = [0]


def later(made: Made) -> None:
    made.graph.operators[0].inputs[0] = made.graph.outputs[-1]


def mixed(made: Made) -> None:
    made.graph.tensors[made.graph.operators[0].outputs[0]].type = schema.TensorType.INT32


def far_apart(made: Made) -> None:
    for tensor in made.graph.tensors:
        if tensor.quantization is not None:
            tensor.quantization.scale = [1e-38]


@pytest.mark.parametrize("spoil", [too_few, later, mixed, far_apart])
def test_graphs_that_would_end_the_process(spoil: Callable[[Made], None], tmp_path: Path) -> None:
    """The first two do, the others may: TFLite counts on what converters write."""
    made = Made(kind=INT8)
    made.head()
    tflite.open_model(made.save(tmp_path / "a.tflite"))
    spoil(made)
    with pytest.raises(ModelError, match=r"a\.tflite: is damaged, or no SCRFD network: its (operation|tensor) \d+"):
        tflite.open_model(made.save(tmp_path / "a.tflite"))


def nothing_out(made: Made) -> None:
    made.graph.outputs = []


@pytest.mark.parametrize("spoil", [two_inputs, grey, unquantised, huge, nothing_out])
def test_foreign_networks_are_refused(spoil: Callable[[Made], None], tmp_path: Path) -> None:
    made = Made()
    if spoil is nothing_out:
        made.head()
    else:
        made.graph.outputs = [made.add(schema.BuiltinOperator.RELU, [0], [1, SIZE, SIZE, 3], name="out")]
    spoil(made)
    with pytest.raises(ModelError, match=r"a\.tflite: "):
        Detector.open(made.save(tmp_path / "a.tflite"))


def test_files_that_are_none(tmp_path: Path) -> None:
    made = Made()
    made.head()
    path = made.save(tmp_path / "a.tflite")
    whole = path.read_bytes()
    for data in (b"", b"TFL3", b"\0" * 5000, whole[:9], whole[: len(whole) // 2], whole[:-4], b"GGUF" + whole[4:]):
        path.write_bytes(data)
        for function in (tflite.open_model, tflite.bindings):
            with pytest.raises(ModelError, match=r"a\.tflite: "):
                function(path)
    with pytest.raises(ModelError, match=r"none\.tflite: cannot be read"):
        tflite.open_model(tmp_path / "none.tflite")


FLIPS = """
import sys
from pathlib import Path
import numpy as np
from scrfdkit.errors import ModelError
from scrfdkit.runtime.tflite import bindings, open_model
path = Path(sys.argv[1])
whole, random, outcomes = path.read_bytes(), np.random.default_rng(5), [0, 0]
for _ in range(150):
    data = bytearray(whole)
    data[random.integers(len(data))] ^= 1 << random.integers(8)
    path.write_bytes(data)
    try:
        opened = open_model(path, threads=1)
        opened.run(np.zeros((1, 3, *(opened.input_size or (64, 64))[::-1]), np.float32))
        outcomes[0] += 1
    except ModelError:
        outcomes[1] += 1
print(outcomes)
"""


def test_flipped_bits_end_in_an_error_or_a_run(tmp_path: Path) -> None:
    """In a process of its own, so that a crash is told from an error."""
    made = Made()
    made.head()
    path = made.save(tmp_path / "a.tflite")
    done = subprocess.run([sys.executable, "-c", FLIPS, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    fine, refused = json.loads(done.stdout)
    assert fine > 20
    assert refused > 20


def test_nothing_is_said_on_standard_error(tmp_path: Path) -> None:
    """The library greets at the first run of a process, below Python."""
    made = Made()
    made.head()
    path = made.save(tmp_path / "a.tflite")
    code = "import sys; from scrfdkit import Detector; Detector.open(sys.argv[1]); print('mine', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stderr == "mine\n"
