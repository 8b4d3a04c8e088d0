"""Repositories of `scrfd export --to triton --backend python` in a real tritonserver, asked as users ask.

`make test-triton` installs the server; it is the one inside nvidia-pytriton, on the CPU.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tritonclient.grpc")

import tritonclient.grpc
import tritonclient.http
from export_files import SPECS, export, source
from tritonclient.utils import InferenceServerException
from video_files import make_video

from scrfdkit import Detections, Detector
from scrfdkit.errors import DeviceError, ModelError
from scrfdkit.export.contract import Contract
from scrfdkit.export.parity import blob_of, pictures
from scrfdkit.runtime.formats import bindings, open_runtime
from scrfdkit.runtime.ort import OrtRuntime

pytestmark = [pytest.mark.triton]

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = "scrfd_500m_kps"
SMALL = Contract("maps", size=(160, 96))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


class Running(NamedTuple):
    """A server with two repositories. files: of the networks in them, by name. memory: how the names of its
    shared memory begin."""

    grpc: str
    http: str
    files: dict[str, Path]
    process: subprocess.Popen[bytes]
    memory: str

    def addresses(self, name: str) -> tuple[str, str]:
        return f"triton://{self.grpc}/{name}", f"triton+http://{self.http}/{name}"


def scrfd(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scrfdkit", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=False)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(repositories: Sequence[Path], files: dict[str, Path], log: Path) -> Running:
    environment = Path(os.environ.get("TRITON_VENV", ROOT / ".venv-triton"))
    assert environment.is_dir(), f"{environment}: there is no server; run `make test-triton`"
    http, grpc = free_ports(2)
    memory = f"scrfdkit_test_{grpc}_"
    ports = [f"--http-port={http}", f"--grpc-port={grpc}"]
    script = ROOT / "scripts" / "triton_server.py"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                script,
                environment,
                *repositories,
                *ports,
                f"--backend-config=python,shm-region-prefix-name={memory}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Running(f"127.0.0.1:{grpc}", f"127.0.0.1:{http}", files, process, memory)
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            if urlopen(f"http://{running.http}/v2/health/ready", timeout=1).status == 200:
                return running
        except OSError:
            time.sleep(0.2)
    stop(running)
    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")


def stop(running: Running) -> None:
    running.process.terminate()
    try:
        running.process.wait(30)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
    for left in Path("/dev/shm").glob(f"{running.memory}*"):  # it forgets some now and then
        left.unlink()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves a network with landmarks of any size, exported by the command, and a small one with maps of a fixed size,
    three key points and other means."""
    home = tmp_path_factory.mktemp("triton")
    done = scrfd("export", NAME, "--to", "triton", "--backend", "python", "-o", "models", cwd=home)
    assert done.returncode == 0, done.stderr
    small = source(SPECS["bottleneck, gn"])
    export(small, home / "more", SMALL, to="triton", settings={"backend": "python", "max_batch": 2})
    files = {NAME: home / "models" / NAME / "1" / "model.onnx", "small": home / "more" / "small" / "1" / "model.onnx"}
    running = start([home / "models", home / "more"], files, home / "server.log")
    yield running
    stop(running)


@pytest.fixture(scope="module")
def local(server: Running) -> Detector:
    return Detector.open(server.files[NAME])


def blobs(count: int, size: tuple[int, int] = (160, 128)) -> Any:
    return blob_of(pictures(size, count), Detector.open().input)


def largest_gap(first: Sequence[Any], second: Sequence[Any]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def same(first: Detections, second: Detections) -> None:
    """Two versions of OpenCV and two numbers of threads may differ in the last digits."""
    assert len(first) == len(second)
    np.testing.assert_allclose(first.boxes, second.boxes, atol=2e-3)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-5)
    np.testing.assert_allclose(first.keypoints, second.keypoints, atol=2e-3)


def ask(server: Running, files: Sequence[bytes], name: str = NAME, how: str = "grpc", **given: Any) -> dict[str, Any]:
    """What an ensemble answers, by name."""
    library = {"grpc": tritonclient.grpc, "http": tritonclient.http}[how]
    client = library.InferenceServerClient(getattr(server, how))
    picture = library.InferInput("picture", [len(files), 1], "BYTES")
    picture.set_data_from_numpy(np.array(files, object).reshape(-1, 1))
    answer = client.infer(f"{name}_faces", [picture], parameters=given or None)
    outputs = {found: answer.as_numpy(found) for found in ("boxes", "scores", "keypoints", "counts")}
    client.close()
    return outputs


def faces(answer: dict[str, Any], index: int = 0) -> Detections:
    count = int(answer["counts"][index, 0])
    for name in ("boxes", "scores", "keypoints"):
        assert not answer[name][index, count:].any()
    return Detections(*(answer[name][index, :count] for name in ("boxes", "scores", "keypoints")))


@pytest.mark.parametrize("which", [0, 1], ids=["grpc", "http"])
def test_a_network_on_the_server_is_the_network_here(server: Running, which: int) -> None:
    here, there = OrtRuntime.open(server.files[NAME]), open_runtime(server.addresses(NAME)[which])
    assert (there.device, there.input_size, there.batch_size) == ("cpu", None, None)
    assert there.metadata == here.metadata
    for count, size in ((1, (160, 128)), (3, (64, 96)), (11, (64, 64))):  # 8 is the most that it takes at once
        blob = blobs(count, size)
        found = there.run(blob)
        assert [array.shape for array in found] == [array.shape for array in here.run(blob)]
        assert largest_gap(found, here.run(blob)) < 1e-4
        alone = [there.run(blob[i : i + 1]) for i in range(count)]
        assert largest_gap([np.concatenate(parts) for parts in zip(*alone, strict=True)], found) < 1e-4


@pytest.mark.parametrize("which", [0, 1], ids=["grpc", "http"])
def test_a_network_of_fixed_size(server: Running, which: int, examples: Path) -> None:
    """Its maps, its size, its means and its limit of two pictures all come from the server."""
    here, there = Detector.open(server.files["small"]), Detector.open(server.addresses("small")[which])
    assert there.runtime.input_size == SMALL.size
    assert (there.input, there.layout) == (here.input, here.layout)
    assert there.layout.maps
    assert there.layout.logits
    blob = blobs(5, (160, 96))
    assert largest_gap(there.runtime.run(blob), here.runtime.run(blob)) < 1e-4
    with pytest.raises(ModelError, match=r"small: the server says: unexpected shape for input 'input\.1'"):
        there.runtime.run(blobs(1, (96, 96)))


@pytest.mark.parametrize("which", [0, 1], ids=["grpc", "http"])
def test_many_threads_at_once(server: Running, which: int) -> None:
    """Requests of one to three pictures that the server puts into one run get their own answers back."""
    runtime, blob = open_runtime(server.addresses(NAME)[which]), blobs(6)
    parts = [blob[i : i + 1 + i % 3] for i in range(6)]
    wanted = [runtime.run(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: runtime.run(parts[i % 6]), range(48)))
    assert max(largest_gap(one, wanted[i % 6]) for i, one in enumerate(found)) < 1e-4


def test_waiting_requests_share_a_run(server: Running) -> None:
    client = tritonclient.grpc.InferenceServerClient(server.grpc)

    def runs() -> tuple[int, int]:
        (row,) = client.get_inference_statistics(NAME, as_json=True)["model_stats"]
        return int(row["inference_count"]), int(row["execution_count"])

    before, runtime, blob = runs(), open_runtime(server.addresses(NAME)[0]), blobs(1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: runtime.run(blob), range(40)))
    pictures_asked, executions = (after - old for after, old in zip(runs(), before, strict=True))
    assert pictures_asked == 40
    assert executions < 40
    client.close()


@pytest.mark.parametrize("how", ["grpc", "http"])
def test_files_to_faces(server: Running, local: Detector, examples: Path, how: str) -> None:
    """A batch of three, one of them without a face and one of them a PNG, is what the detector here finds."""
    blank = cv2.imencode(".png", np.zeros((50, 60, 3), np.uint8))[1].tobytes()
    files = [(examples / "astronaut.jpg").read_bytes(), blank, (examples / "solvay_1927.jpg").read_bytes()]
    answer = ask(server, files, how=how)
    assert answer["boxes"].shape == (3, 29, 4)
    for index, file in enumerate(files):
        same(faces(answer, index), local.detect(file, input_size=(640, 640)))
    alone = ask(server, files[2:], how=how)
    same(faces(alone), faces(answer, 2))
    nothing = ask(server, [blank], how=how)
    assert [array.shape for array in nothing.values()] == [(1, 0, 4), (1, 0), (1, 0, 5, 2), (1, 1)]


@pytest.mark.parametrize("how", ["grpc", "http"])
def test_a_request_brings_its_own_options(server: Running, local: Detector, examples: Path, how: str) -> None:
    file = (examples / "solvay_1927.jpg").read_bytes()
    for options in (
        {"score_threshold": 0.3, "nms_threshold": 0.2},
        {"max_faces": 3},
        {"input_size": (320, 256)},
        {"input_size": "auto"},
        {"input_size": 1280},
    ):
        size = options.get("input_size", (640, 640))
        given = {key: "x".join(map(str, v)) if isinstance(v, tuple) else str(v) for key, v in options.items()}
        same(faces(ask(server, [file], how=how, **given)), local.detect(file, **{**options, "input_size": size}))
    assert len(faces(ask(server, [file], how=how))) == 29


def test_the_ensemble_of_a_network_with_other_means(server: Running, examples: Path) -> None:
    """Three key points, raw maps, a fixed canvas; a random network finds thousands of faces."""
    here = Detector.open(server.files["small"])
    files = [(examples / "astronaut.jpg").read_bytes()] * 2
    answer = ask(server, files, "small")
    wanted = here.detect(files[0])
    assert len(wanted) > 20
    for index in range(2):
        found = faces(answer, index)
        assert found.keypoints is not None
        assert found.keypoints.shape[1:] == (3, 2)
        assert len(found) == len(wanted)
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=1e-4, atol=1e-2)


def test_ensembles_from_many_threads(server: Running, local: Detector, examples: Path) -> None:
    files = [(examples / name).read_bytes() for name in ("astronaut.jpg", "solvay_1927.jpg")]
    wanted = [local.detect(file, input_size=(640, 640)) for file in files]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: faces(ask(server, [files[i % 2]])), range(24)))
    for i, one in enumerate(found):
        same(one, wanted[i % 2])


@pytest.mark.parametrize(
    ("name", "files", "given", "words"),
    [
        (NAME, [b"no picture"], {}, "picture 1: "),
        (NAME, ["astronaut.jpg", b""], {}, "picture 2: the file is empty"),
        (NAME, ["astronaut.jpg"], {"score_threshold": "high"}, "could not convert string to float: 'high'"),
        (NAME, ["astronaut.jpg"], {"nms_threshold": 7}, "nms_threshold: 7.0 is not between 0 and 1"),
        (NAME, ["astronaut.jpg"], {"input_size": "33x64"}, "input_size: 33x64: width and height must be multiples"),
        (NAME, ["astronaut.jpg"], {"input_size": "9" * 5000}, "is not 'auto'"),
        (NAME, ["astronaut.jpg"], {"input_size": "16384"}, "over the limit of 2048, max_side in the server's"),
        (NAME, ["astronaut.jpg", "solvay_1927.jpg"], {"input_size": "auto"}, "canvases of different sizes"),
        (NAME, ["astronaut.jpg"] * 9, {}, "batch-size must be <= 8"),
        ("small", ["astronaut.jpg"], {"input_size": "320x320"}, "input_size: this network takes 160x96 only"),
    ],
)
@pytest.mark.parametrize("how", ["grpc", "http"])
def test_requests_that_are_refused(
    server: Running, examples: Path, name: str, files: list[Any], given: dict[str, Any], words: str, how: str
) -> None:
    sent = [(examples / file).read_bytes() if isinstance(file, str) else file for file in files]
    with pytest.raises(InferenceServerException, match=re.escape(words)) as raised:
        ask(server, sent, name, how, **given)
    assert raised.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")


@pytest.mark.parametrize("which", [0, 1], ids=["grpc", "http"])
def test_addresses_that_are_no_network(server: Running, which: int) -> None:
    for name, words in (
        ("other", rf"no such network that is ready; it has .*{NAME}/1 \(READY\)"),
        (f"{NAME}/7", "no such network that is ready"),
        (f"{NAME}_faces", rf"takes files of pictures, not a blob; .* can be opened: {NAME}$"),
        (f"{NAME}_decode", "one float input"),
    ):
        with pytest.raises(ModelError, match=words):
            Detector.open(server.addresses(name)[which])
    wrong = (f"triton://{server.http}/{NAME}", f"triton+http://{server.grpc}/{NAME}")[which]
    with pytest.raises(DeviceError, match="is this the port for"):
        Detector.open(wrong)


def test_the_command(server: Running, examples: Path, tmp_path: Path) -> None:
    """Pictures and a video, by both protocols, give what the file gives here."""
    video = make_video(tmp_path / "film.mp4", 12, size=(192, 192))
    inputs = [examples / "astronaut.jpg", examples / "solvay_1927.jpg", video]
    found = []
    for model in (server.files[NAME], *server.addresses(f"{NAME}/1")):
        result = scrfd("detect", *inputs, "--model", model, "--json", "-", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        found.append([json.loads(line) for line in result.stdout.splitlines()])
    for there in found[1:]:
        assert len(there) == len(found[0]) == 14
        for ours, theirs in zip(found[0], there, strict=True):
            assert {**ours, "faces": 0} == {**theirs, "faces": 0}
            same(Detections.from_dict(ours["faces"], 5), Detections.from_dict(theirs["faces"], 5))
    assert sum(len(row["faces"]) for row in found[0]) >= 30
    failed = scrfd("detect", inputs[0], "--model", server.addresses("other")[0], cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"error: triton://{server.grpc}/other: the server has no such network")


def test_inspecting(server: Running, tmp_path: Path) -> None:
    for address in server.addresses(NAME):
        found = bindings(address)
        assert [(b.name, b.kind, b.dtype, b.shape) for b in found[:2]] == [
            ("input.1", "input", "float32", ("?", 3, "?", "?")),
            ("score_8", "output", "float32", ("?", "?", 1)),
        ]
    told = scrfd("inspect", server.addresses(f"{NAME}_faces")[0], "--json", cwd=tmp_path)
    rows = json.loads(told.stdout)["bindings"]
    assert [(row["name"], row["dtype"]) for row in rows] == [
        ("picture", "bytes"), ("boxes", "float32"), ("scores", "float32"), ("keypoints", "float32"), ("counts", "int64")
    ]  # fmt: skip


def test_the_client_in_the_readme(server: Running, local: Detector, examples: Path, tmp_path: Path) -> None:
    text = (server.files[NAME].parent.parent.parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "client.py"
    script.write_text(code.replace("localhost:8001", server.grpc))
    paths = [str(examples / "astronaut.jpg"), str(examples / "solvay_1927.jpg")]
    done = subprocess.run([sys.executable, script, *paths], capture_output=True, text=True, check=True)
    rows = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert [(name, int(count)) for name, count, _ in rows] == list(zip(paths, (1, 29), strict=True))
    box = json.loads(rows[0][2].partition("]] ")[0] + "]]")
    np.testing.assert_allclose(box, local.detect(paths[0], input_size=(640, 640)).boxes, atol=0.1)


def test_a_server_that_goes_away(server: Running, tmp_path: Path) -> None:
    """In the middle of work too, and the port is free afterwards."""
    other = start([server.files["small"].parent.parent.parent], {}, tmp_path / "log")
    runtimes = [open_runtime(address) for address in other.addresses("small")]
    blob = blobs(1, (160, 96))
    for runtime in runtimes:
        assert len(runtime.run(blob)) == 9
    stop(other)
    for runtime in runtimes:
        with pytest.raises(DeviceError, match="no server answers by"):
            runtime.run(blob)
