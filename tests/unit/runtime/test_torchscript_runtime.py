"""The runtimes of TorchScript files and exported programs: what they open, and what they refuse to load."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_files import SPECS, noise, sparse, write
from torch import Tensor, nn

from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError
from scrfdkit.export.contract import Contract
from scrfdkit.export.parity import blob_of
from scrfdkit.export.torch_modules import trace
from scrfdkit.runtime.formats import bindings, open_runtime
from scrfdkit.runtime.torch_archive import load_exported
from scrfdkit.spec import ModelSpec

SPEC = SPECS["basic, bn"]
SUFFIXES = {"torchscript": ".torchscript", "torchexport": ".pt2"}

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("torch")
    return {to: write(sparse(SPEC), folder / f"net{suffix}", Contract(), to) for to, suffix in SUFFIXES.items()}


def bare(path: Path, folder: Path, suffix: str = "") -> Path:
    """A copy without its certificate."""
    return Path(shutil.copy(path, folder / f"bare{suffix or path.suffix}"))


def blob(batch: int = 1, width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    return blob_of(noise(batch, width, height, seed), SPEC.input)


@pytest.mark.parametrize("to", SUFFIXES)
def test_it_says_what_it_is(made: dict[str, Path], tmp_path: Path, to: str) -> None:
    path = bare(made[to], tmp_path)
    opened = open_runtime(path, threads=1)
    assert (opened.device, opened.input_size, opened.batch_size) == ("cpu", None, None)
    assert ModelSpec.from_json(opened.metadata["spec"]) == SPEC
    assert (opened.metadata["licence"], opened.metadata["layout"]) == ("mine", "reference")
    assert Detector.open(path).num_keypoints == 5
    assert [o.shape for o in opened.run(blob(3))] == [
        (3, 2 * 96 * 64 // s**2, c) for c in (1, 4, 10) for s in (8, 16, 32)
    ]


@pytest.mark.parametrize("to", SUFFIXES)
def test_bindings(made: dict[str, Path], to: str) -> None:
    first, *rest = bindings(made[to])
    assert (first.name, first.dtype, first.shape) == ("blob", "float32", ("batch", 3, "height", "width"))
    assert [b.name for b in rest] == [f"{k}_{s}" for k in ("score", "bbox", "kps") for s in (8, 16, 32)]
    assert (rest[0].shape, rest[-1].shape) == (("batch", "?", 1), ("batch", "?", 10))


@pytest.mark.parametrize("to", SUFFIXES)
def test_end_to_end_files_are_told_apart(to: str, tmp_path: Path) -> None:
    path = write(sparse(SPEC), tmp_path / f"net{SUFFIXES[to]}", Contract("end2end", size=(96, 64), batch=2), to)
    with pytest.raises(ModelError, match="is an end-to-end export"):
        Detector.open(path)
    shapes = {b.name: b.shape for b in bindings(path)}
    assert shapes["images"] == (2, 64, 96, 3)
    assert shapes["score_threshold"] == shapes["nms_threshold"] == (1,)
    assert shapes["faces"] == (2, 300, 15)


@pytest.mark.parametrize("to", SUFFIXES)
def test_threads_share_it(made: dict[str, Path], to: str) -> None:
    opened = open_runtime(made[to], threads=1)
    blobs = [blob(1 + i % 2, 64 + 32 * (i % 3), seed=i) for i in range(6)]
    wanted = [opened.run(b) for b in blobs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, right in zip(pool.map(opened.run, blobs), wanted, strict=True):
                assert all(np.abs(a - b).max() <= 1e-4 for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize("to", SUFFIXES)
def test_threads_may_open_it_at_once(made: dict[str, Path], to: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_runtime(made[to], threads=1), range(4)))
    outputs = [one.run(blob()) for one in opened]
    assert all(np.array_equal(a, b) for other in outputs[1:] for a, b in zip(outputs[0], other, strict=True))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 64, 64), np.float32), "is needed, got"),
        (np.zeros((1, 1, 64, 64), np.float32), "is needed, got"),
        (np.zeros((1, 3, 64, 64), np.float64), "float64"),
        (np.zeros((1, 3, 64, 100), np.float32), "100x64.*multiples of 32"),
    ],
)
@pytest.mark.parametrize("to", SUFFIXES)
def test_bad_blobs_are_refused(made: dict[str, Path], to: str, bad: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_runtime(made[to]).run(bad)


@pytest.mark.parametrize("to", SUFFIXES)
def test_read_only_and_strided_blobs(made: dict[str, Path], to: str) -> None:
    opened, usual = open_runtime(made[to]), blob(2)
    frozen = usual.copy()
    frozen.flags.writeable = False
    for other in (frozen, usual[::-1][::-1]):
        assert all(np.array_equal(a, b) for a, b in zip(opened.run(other), opened.run(usual), strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("to", SUFFIXES)
def test_without_cuda_it_falls_back_and_says_so(made: dict[str, Path], to: str) -> None:
    assert open_runtime(made[to], device="cuda").device == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("to", "precision"), [("torchscript", "fp32"), ("torchscript", "fp16"), ("torchexport", "fp32")]
)
def test_cuda_gives_what_the_cpu_gives(to: str, precision: str, tmp_path: Path) -> None:
    path = write(sparse(SPEC), tmp_path / f"net{SUFFIXES[to]}", Contract(), to, precision=precision)
    cuda = open_runtime(path, device="cuda")
    assert cuda.device == "cuda"
    near = 1e-3 if precision == "fp32" else 0.1
    for a, b in zip(cuda.run(blob(2)), open_runtime(path, device="cpu").run(blob(2)), strict=True):
        assert np.abs(a - b).max() <= near


class Doubling(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Halving(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"half": x / 2}


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_foreign_programs(tmp_path: Path) -> None:
    two = scripted(Doubling(), tmp_path / "two.ts")
    with pytest.raises(ModelError, match=r"one tensor .* it has 2 inputs"):
        open_runtime(two)
    with pytest.raises(ModelError, match="something else than tensors"):
        open_runtime(scripted(Halving(), tmp_path / "words.ts")).run(blob())
    example = (torch.ones(1), torch.ones(1))
    torch.export.save(torch.export.export(Doubling(), example), tmp_path / "two.pt2")
    with pytest.raises(ModelError, match=r"one tensor .* it has x, y"):
        open_runtime(tmp_path / "two.pt2")
    with pytest.raises(ModelError, match="torch cannot run it"):
        bindings(two)


def rewritten(path: Path, target: Path, change: Callable[[Members], Members]) -> Path:
    """An archive with other members; names without their first folder."""
    with zipfile.ZipFile(path) as old:
        names = old.namelist()
        root = names[0].partition("/")[0]
        members = change({n.partition("/")[2]: old.read(n) for n in names})
    with zipfile.ZipFile(target, "w") as new:
        for name, content in members.items():
            new.writestr(f"{root}/{name}", content)
    return target


def with_member(name: str, content: bytes = b"x") -> Callable[[Members], Members]:
    return lambda members: {**members, name: content}


def replaced(name: str, old: str, new: str) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        text = members[name].decode()
        assert old in text
        return {**members, name: text.replace(old, new).encode()}

    return change


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("attacked"),)


def pickled() -> bytes:
    data = io.BytesIO()
    torch.save((Attack(), {}), data)
    return data.getvalue()


def pickled_weights(members: Members) -> Members:
    name = "data/weights/model_weights_config.json"
    config = json.loads(members[name])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    weights = {f"data/weights/{first['path_name']}": pickle.dumps(Attack())}
    return {**members, **weights, name: json.dumps(config).encode()}


MODEL = "models/model.json"
SIZE = "Symbol('s"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_member("data/aotinductor/model/code.so"), "code.so.* has no use for"),
        (with_member("data/constants/opaque_obj_0", pickle.dumps(Attack())), "opaque_obj_0"),
        (with_member("data/weights/model.pt", pickle.dumps(Attack())), "model.pt"),
        (with_member("data/sample_inputs/model.pt", pickled()), "more than tensors"),
        (with_member("../../outside"), "has no use for"),
        (pickled_weights, "holds pickled weights"),
        (replaced(MODEL, SIZE, "open('attacked', 'w') and Symbol('s"), "is computed with 'open'"),
        (replaced(MODEL, SIZE, "[1][0]*Symbol('s"), "is no formula"),
        (replaced(MODEL, "torch.ops.aten.conv2d.default", "torch.ops.aten.from_file.default"), "from_file"),
        (replaced(MODEL, "torch.ops.aten.conv2d.default", "torch.hub.load"), "uses 'torch.hub.load'"),
        (replaced(MODEL, "torch.ops.aten.conv2d.default", "torch.ops.aten.save.default"), "aten.save.default"),
        (replaced(MODEL, "torch.ops.aten.conv2d.default", "torch.ops.aten.as_strided.default"), "as_strided"),
        (replaced(MODEL, "torch.ops.aten.conv2d.default", "torch.ops.mylib.conv2d.default"), "mylib"),
        (replaced(MODEL, "torch.ops.aten.conv2d.default", "torch.ops.higher_order.cond"), "higher_order.cond"),
        (replaced(MODEL, "torch.ops.aten.conv2d.default", "_operator.attrgetter"), "attrgetter"),
        (replaced(MODEL, "builtins.tuple", "collections.defaultdict"), "other than tuples"),
        (replaced(MODEL, "{", "["), "is no torch.export file, or damaged"),
        (lambda members: {n: c for n, c in members.items() if n != MODEL}, "holds no models/model.json"),
    ],
)
def test_hostile_exported_programs_are_not_loaded(
    made: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Members], Members],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(made["torchexport"], tmp_path / "bad.pt2", change)
    for reader in (open_runtime, bindings):
        with pytest.raises(ModelError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value)
    assert not Path("attacked").exists()


def test_guards_of_an_exported_program_are_not_run(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are Python text, which torch would make a function of."""
    monkeypatch.chdir(tmp_path)

    def change(members: Members) -> Members:
        model = json.loads(members[MODEL])
        model["guards_code"] = ["__import__('pathlib').Path('attacked').touch() is None"]
        return {**members, MODEL: json.dumps(model).encode()}

    path = rewritten(made["torchexport"], tmp_path / "bad.pt2", change)
    program, _ = load_exported(path)
    program.module()(torch.from_numpy(blob()))
    assert Path("attacked").exists(), "torch itself runs them"
    Path("attacked").unlink()
    open_runtime(path).run(blob())
    bindings(path)
    assert not Path("attacked").exists()


def some_code(members: Members) -> str:
    return next(n for n in members if n.endswith(".py") and b"conv" in members[n])


def code_with(line: str) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        name = some_code(members)
        return {**members, name: members[name] + f"\n    {line}\n".encode()}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (code_with("x = ops.mylib.run(self)"), "uses 'ops.mylib'.*not loaded"),
        (code_with("x = ops . mylib.run(self)"), "uses 'ops'.*not loaded"),
        (code_with("x = (ops # .aten.\n    .mylib.run(self))"), "uses 'ops'.*not loaded"),
        (with_member("traced_inputs.pkl", b"c__torch__.torch\nclasses.some.Thing\n."), "classes.*not loaded"),
        (code_with("def __setstate__(self): pass"), "uses '__setstate__'.*not loaded"),
        (code_with("x: __torch__.torch.classes.quantized.Conv2dPackedParamsBase"), "torch.classes.*not loaded"),
        (with_member("code.so"), "has no use for"),
        (lambda members: {n: c for n, c in members.items() if n != "constants.pkl"}, "holds no constants.pkl"),
        (lambda members: {n: c for n, c in members.items() if n != "data.pkl"}, "is no TorchScript file, or damaged"),
        (code_with("x = = 1"), "is no TorchScript file, or damaged"),
    ],
)
def test_hostile_scripts_are_not_loaded(
    made: dict[str, Path], tmp_path: Path, change: Callable[[Members], Members], message: str
) -> None:
    path = rewritten(made["torchscript"], tmp_path / "bad.ts", change)
    for reader in (open_runtime, bindings):
        with pytest.raises(ModelError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value)


def called(line: str) -> Callable[[Members], Members]:
    """A line at the start of the top module's program."""

    def change(members: Members) -> Members:
        # torch puts a counter into the path of what it has compiled before.
        (name,) = (one for one in members if "/torch_modules" in one and b"class Rows(" in members[one])
        head = re.compile(rb"(class Rows\(.*?def forward\(.*?-> [^\n]*:\n)", re.DOTALL)
        changed, count = head.subn(rb"\1    " + line.encode().replace(b"\\", rb"\\") + b"\n", members[name])
        assert count == 1
        return {**members, name: changed}

    return change


def untouched(path: Path, message: str) -> None:
    """Every way of opening a file refuses it, and none has run it."""
    for reader in (open_runtime, bindings, Detector.open):
        with pytest.raises(ModelError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value)
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('torch.save(blob, "attacked")', "aten::save"),
        ('torch .save(blob, "attacked")', "aten::save"),
        ('torch. save (blob, "attacked")', "aten::save"),
        ('ops.aten.save(blob, "attacked")', "aten::save"),
        ('ops.aten .save(blob, "attacked")', "ops.aten"),
        ('if True:\n      torch.save([blob], "attacked")\n    else:\n      pass', "aten::save"),
        ('for i in range(2):\n      if bool(i):\n        ops.aten.save (blob, "attacked")', "aten::save"),
        ('blob = torch.add(blob, torch .from_file("attacked", True, 4))', "aten::from_file"),
        ('blob = torch.add(blob, ops.aten.from_file("attacked", True, 4))', "aten::from_file"),
        ("blob = torch.as_strided(blob, [9], [9], 9)", "aten::as_strided"),
        ('print("hello")', "prim::Print"),
    ],
)
def test_scripts_of_other_operations_are_not_run(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(made["torchscript"], tmp_path / "bad.ts", called(line))
    untouched(path, f"uses '{name}'.*it was not (run|loaded)")


class Saving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.ops.aten.save(x, "attacked")
        return x


def save_aside(x: Tensor) -> Tensor:
    torch.ops.aten.save(x, "attacked")
    return x


class Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(), Saving())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Calling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return save_aside(x)


class Forking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(save_aside, x))


class Aside(nn.Module):
    """A method that the network does not call."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def other(self, x: Tensor) -> Tensor:
        torch.ops.aten.save(x, "attacked")
        return x


class Keeper:
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def keep(self) -> Tensor:
        torch.ops.aten.save(self.x, "attacked")
        return self.x


class Keeping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Keeper(x).keep()


def save_before(module: nn.Module, given: tuple[Tensor]) -> None:
    torch.ops.aten.save(given[0], "attacked")


def hooked() -> nn.Module:
    module = nn.ReLU()
    module.register_forward_pre_hook(save_before)
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Saving, "aten::save"),
        (Inside, "aten::save"),
        (Calling, "aten::save"),
        (Forking, "prim::fork"),
        (Aside, "aten::save"),
        (Keeping, "prim::CreateObject"),
        (hooked, "has hooks"),
    ],
)
def test_operations_are_found_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Callable[[], nn.Module], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = scripted(module(), tmp_path / "bad.ts")
    loaded = torch.jit.load(path)
    (loaded.other if module is Aside else loaded)(torch.zeros(1))
    assert Path("attacked").exists(), "torch itself runs them"
    Path("attacked").unlink()
    untouched(path, message)


class Ordinary(nn.Module):
    """Layers that networks of others have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(0.1))
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.GroupNorm(2, 8), act)
            for act in (nn.ReLU(True), nn.PReLU(), nn.LeakyReLU(), nn.Hardswish(), nn.ReLU6(), nn.GELU())
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.ops = nn.ConvTranspose2d(8, 8, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.body:
            x = x + part(x)
        small = self.pool(x) * self.gate(x)
        wide = nn.functional.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.cat([x, self.ops(small), wide], 1).permute(0, 2, 3, 1).flatten(1, 2).softmax(-1)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_ordinary_networks_of_others_are_run(tmp_path: Path) -> None:
    module = Ordinary().eval()
    example = torch.from_numpy(blob())
    with torch.inference_mode():
        wanted = module(example).numpy()
    trace(module, example).save(str(tmp_path / "traced.ts"))
    torch.export.save(torch.export.export(module, (example,)), tmp_path / "exported.pt2")
    scripted(module, tmp_path / "scripted.ts")
    for name in ("traced.ts", "scripted.ts", "exported.pt2"):
        (found,) = open_runtime(tmp_path / name, device="cpu").run(blob())
        assert np.abs(found - wanted).max() <= 1e-5


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_without_a_network(tmp_path: Path) -> None:
    untouched(scripted(nn.Module(), tmp_path / "empty.ts"), "holds no forward")


def saying(path: Path, target: Path, words: dict[str, str]) -> Path:
    """A copy that says other things of itself."""

    def change(members: Members) -> Members:
        name = "extra/scrfdkit.json"
        return {**members, name: json.dumps(json.loads(members[name]) | words).encode()}

    return rewritten(path, target, change)


@pytest.mark.parametrize(
    "words",
    [
        {"size": "99968x99968", "batch": "9999"},
        {"size": "16384x16384", "batch": "2"},
        {"size": "640x640", "batch": "0"},
        {"batch": "999999999"},
        {"size": "0x64"},
    ],
)
def test_sizes_that_no_memory_holds(made: dict[str, Path], tmp_path: Path, words: dict[str, str]) -> None:
    untouched(saying(made["torchscript"], tmp_path / "bad.ts", words), "of a size that cannot be run")


def test_an_exported_program_of_such_a_size(made: dict[str, Path], tmp_path: Path) -> None:
    path = saying(made["torchexport"], tmp_path / "bad.pt2", {"size": "99968x99968", "batch": "9999"})
    untouched(path, "of a size that cannot be run")


@pytest.mark.parametrize("to", SUFFIXES)
def test_numbers_that_are_none(made: dict[str, Path], tmp_path: Path, to: str) -> None:
    path = saying(made[to], tmp_path / f"odd{SUFFIXES[to]}", {"layout": "end2end", "max_faces": "²", "batch": "²"})
    faces = bindings(path)[-1]
    assert (faces.name, faces.shape) == ("faces", ("batch", "?", 15))
    other = saying(made[to], tmp_path / f"other{SUFFIXES[to]}", {"size": "²x32", "batch": "9" * 5000})
    opened = open_runtime(other)
    assert (opened.input_size, opened.batch_size) == (None, None)


@pytest.mark.parametrize("to", SUFFIXES)
def test_damaged_files_are_refused(made: dict[str, Path], tmp_path: Path, to: str) -> None:
    whole = made[to].read_bytes()
    path = tmp_path / f"bad{SUFFIXES[to]}"
    weights = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, weights)
    for data in (b"", b"PK", whole[:100], whole[: len(whole) // 2], whole[:-30], b"x" * 1000, weights.getvalue()):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=rf"bad{SUFFIXES[to]}"):
            open_runtime(path)
    with pytest.raises(ModelError, match="cannot be read"):
        open_runtime(tmp_path / f"gone{SUFFIXES[to]}")


@pytest.mark.parametrize(("to", "other"), [("torchscript", "torchexport"), ("torchexport", "torchscript")])
def test_one_kind_is_not_the_other(made: dict[str, Path], tmp_path: Path, to: str, other: str) -> None:
    with pytest.raises(ModelError, match="holds no"):
        open_runtime(bare(made[to], tmp_path, SUFFIXES[other]))
