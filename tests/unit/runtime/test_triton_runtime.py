"""Addresses of networks on a Triton server, and what is said where no server answers; tests/triton asks a real one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("tritonclient.grpc")
pytest.importorskip("tritonclient.http")

from scrfdkit import Detector
from scrfdkit.errors import DeviceError, ModelError
from scrfdkit.runtime import triton
from scrfdkit.runtime.formats import bindings, choose, open_runtime
from scrfdkit.runtime.triton import Address

SCHEMES = ("triton", "triton+grpc", "triton+http")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("triton://localhost:8001/face", Address("grpc", "localhost:8001", "face")),
        ("triton+grpc://localhost/face/", Address("grpc", "localhost:8001", "face")),
        ("triton+http://gpu.example/scrfd_2.5g", Address("http", "gpu.example:8000", "scrfd_2.5g")),
        ("triton://10.0.0.1:9/face/12", Address("grpc", "10.0.0.1:9", "face", "12")),
        ("triton+http://[::1]/face", Address("http", "[::1]:8000", "face")),
    ],
)
def test_addresses(text: str, wanted: Address) -> None:
    assert Address.parse(text) == wanted
    assert Address.parse(str(wanted)) == wanted
    assert choose(text).name == "triton"


@pytest.mark.parametrize(
    "text",
    [
        "triton://localhost",
        "triton:///face",
        "triton+ftp://a/b",
        "triton://a/b/c",
        "triton://a b/c",
        "triton://a/b/1/2",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ModelError, match=r"is no address of a network; such are triton://localhost:8001/name"):
        Detector.open(text)


@pytest.fixture
def port() -> Iterator[int]:
    """Where somebody listens and never says a word; clients must not wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_server(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        free = gone.getsockname()[1]
    for function in (open_runtime, bindings, Detector.open):
        with pytest.raises(
            DeviceError, match=rf"no server answers by (gRPC|HTTP) at 127\.0\.0\.1:{free}: .*usually 800"
        ):
            function(f"{scheme}://127.0.0.1:{free}/face")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_keeps_silent(scheme: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_SECONDS_TO_CONNECT", 0.3)
    monkeypatch.setattr(triton, "_SECONDS_TO_RUN", 0.3)
    with pytest.raises(DeviceError, match="no server answers by"):
        open_runtime(f"{scheme}://127.0.0.1:{port}/face")


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_of_something_else(scheme: str) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with pytest.raises(DeviceError, match=r"is not Triton, or not ready yet|no server answers by gRPC"):
            open_runtime(f"{scheme}://127.0.0.1:{server.server_port}/face")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Anything(_Page):
    """Says yes to everything, with a page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"<html")


def test_a_server_that_says_yes_to_everything() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Anything)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with pytest.raises(DeviceError, match="no server answers by HTTP"):
            open_runtime(f"triton+http://127.0.0.1:{server.server_port}/face")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1:99999", "[::1:8000", "a..b", "ü" * 70, "\x7f", "%zz", "-", "a@b"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_hosts_that_cannot_be(scheme: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_SECONDS_TO_CONNECT", 0.3)
    with pytest.raises((DeviceError, ModelError), match=r"no server answers by|is no address|the server says"):
        open_runtime(f"{scheme}://{host}/face")


@pytest.mark.parametrize("error", [TypeError("wrong"), MemoryError(), AttributeError("none")])
def test_faults_of_a_program_are_not_hidden(error: Exception) -> None:
    server = triton.Server(Address.parse("triton://127.0.0.1:1/face"))

    def fail(*_: object, **__: object) -> None:
        raise error

    server._client().is_server_live = fail
    with pytest.raises(type(error)):
        server.check()


@pytest.mark.parametrize("message", ["", " \n ", None])
def test_a_server_that_refuses_without_a_word(message: str | None) -> None:
    server = triton.Server(Address.parse("triton://127.0.0.1:1/face"))

    def refuse(*_: object, **__: object) -> None:
        raise triton.InferenceServerException(message, "StatusCode.INVALID_ARGUMENT")

    server._client().is_server_live = refuse
    with pytest.raises(ModelError, match="the server says: nothing more"):
        server.check()


def test_addresses_and_files_are_not_mixed_up() -> None:
    with pytest.raises(ModelError, match=r"face\.onnx: triton reads triton://"):
        choose("face.onnx", "triton")
    with pytest.raises(ModelError, match=r"triton://a/b: onnxruntime reads \.onnx"):
        choose("triton://a/b", "onnxruntime")
    with pytest.raises(ModelError, match="triton has no weights that ship with the package"):
        Detector.open(runtime="triton")
