"""Triton Inference Server: runs a network that a server holds, by gRPC or HTTP.

triton://host:port/name asks by gRPC, triton+http://host:port/name by HTTP; /name/2 asks for version 2.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from scrfdkit.errors import DeviceError, ModelError
from scrfdkit.runtime.base import Binding
from scrfdkit.runtime.inputs import picture_input
from scrfdkit.types import Floats

PORTS = {"grpc": 8001, "http": 8000}
_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_RUN = 120.0
"""A run may wait for those of other clients."""
_SILENT = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED", "499")
_DTYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "bytes", "BOOL": "bool"}


@dataclass(frozen=True)
class Address:
    """A network on a server. version: "" for the newest."""

    protocol: Literal["grpc", "http"]
    host: str
    model: str
    version: str = ""

    @staticmethod
    def parse(text: str) -> Address:
        """Raises ModelError for what is no such address."""
        host, port = r"(\[[^\[\]/\s]+\]|[^\[\]/\s:]+)", r"(?::(\d{1,5}))?"
        match = re.fullmatch(rf"triton(?:\+(grpc|http))?://{host}{port}/([^/\s]+?)(?:/(\d+))?/?", text)
        if match is None or int(match[3] or 0) >= 1 << 16:
            raise ModelError(
                f"{text}: is no address of a network; such are triton://localhost:8001/name (gRPC),"
                " triton+http://localhost:8000/name, and either with /1 for a version"
            )
        protocol: Literal["grpc", "http"] = "http" if match[1] == "http" else "grpc"
        return Address(protocol, f"{match[2]}:{match[3] or PORTS[protocol]}", match[4], match[5] or "")

    def __str__(self) -> str:
        scheme = "triton+http" if self.protocol == "http" else "triton"
        return f"{scheme}://{self.host}/{self.model}" + (f"/{self.version}" if self.version else "")


class Server:
    """What a client says to the server of an address. Any number of threads may call at once."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.library = import_module(f"tritonclient.{address.protocol}")
        self._failures = _failures(address.protocol)
        # A client for HTTP belongs to the thread that made it; one for gRPC is everybody's.
        self._clients: Any = threading.local() if address.protocol == "http" else _Shared()

    def call(self, name: str, *values: Any, seconds: float | None = None, **more: Any) -> Any:
        """What a client's method returns. Raises DeviceError where no server answers, ModelError where it refuses."""
        if self.address.protocol == "grpc":
            more["client_timeout"] = seconds or _SECONDS_TO_CONNECT
        try:
            return getattr(self._client(), name)(*values, **more)
        except InferenceServerException as error:
            said = _first_line(error.message() or "")
            if str(error.status()) in _SILENT:
                raise self._silent(said) from None
            raise ModelError(f"{self.address}: the server says: {said}") from None
        except self._failures as error:
            raise self._silent(str(error) or type(error).__name__) from None

    def describe(self, what: Literal["metadata", "config"]) -> dict[str, Any]:
        """`get_model_metadata` or `get_model_config` as plain data."""
        address = self.address
        more = {"as_json": True} if address.protocol == "grpc" else {}
        found: dict[str, Any] = self.call(f"get_model_{what}", address.model, address.version, **more)
        config: dict[str, Any] = found.get("config", found)  # gRPC puts it one deeper
        return config

    def check(self) -> None:
        """Raises DeviceError where there is no server or it is not ready, ModelError for a network it has not."""
        address = self.address
        if not self.call("is_server_live"):
            raise DeviceError(f"{address}: what answers there is not Triton, or not ready yet")
        if not self.call("is_model_ready", address.model, address.version):
            raise ModelError(f"{address}: the server has no such network that is ready{self._others()}")

    def _client(self) -> Any:
        if not hasattr(self._clients, "client"):
            limits: dict[str, float] = {}
            if self.address.protocol == "http":
                limits = {"connection_timeout": _SECONDS_TO_CONNECT, "network_timeout": _SECONDS_TO_RUN}
            self._clients.client = self.library.InferenceServerClient(self.address.host, **limits)
        return self._clients.client

    def _silent(self, reason: str) -> DeviceError:
        protocol, port = self.address.protocol.replace("grpc", "gRPC").replace("http", "HTTP"), self.address.host
        return DeviceError(
            f"{self.address}: no server answers by {protocol} at {port}: {reason}. Is it running, and is this the"
            f" port for {protocol} (usually {PORTS[self.address.protocol]})?"
        )

    def _others(self) -> str:
        """What the server has instead, in words, where it tells."""
        more = {"as_json": True} if self.address.protocol == "grpc" else {}
        try:
            found = self.call("get_model_repository_index", **more)
        except ModelError:  # servers may keep it to themselves
            return ""
        models = found.get("models", []) if isinstance(found, dict) else found
        told = [
            f"{m['name']}/{m.get('version', '?')} ({m.get('reason') or m.get('state', 'not loaded')})" for m in models
        ]
        return f"; it has {', '.join(told)}" if told else "; it has none at all"


class _Shared:
    """Where all threads have the same client."""


class TritonRuntime:
    """A network on a server.

    device: where the server runs it. metadata: parameters of its configuration. A blob with more pictures than the
    server takes at once is sent in parts.
    """

    def __init__(self, server: Server) -> None:
        """Raises DeviceError or ModelError, saying what is wrong with server or network."""
        server.check()
        metadata, config = server.describe("metadata"), server.describe("config")
        inputs = _tensors(metadata, "inputs")
        if any(tensor.dtype == "bytes" for tensor in inputs):
            raise ModelError(
                f"{server.address}: takes files of pictures, not a blob; docs/export.md shows how to ask an ensemble"
                f" for faces. The network behind it can be opened{_network_of(config)}"
            )
        given = config.get("parameters", {})
        self.metadata: Mapping[str, str] = {key: value.get("string_value", "") for key, value in given.items()}
        self.input_size, self.batch_size = picture_input(str(server.address), inputs, self.metadata)
        self._server = server
        self._input = inputs[0]
        self._outputs = [tensor.name for tensor in _tensors(metadata, "outputs")]
        self._most = int(config.get("max_batch_size", 0))
        kinds = {group.get("kind") for group in config.get("instance_group", [])}
        self.device = "cuda" if "KIND_GPU" in kinds else "cpu"

    @classmethod
    def open(cls, model: str | Path, *, device: str = "auto", threads: int | None = None) -> TritonRuntime:
        """Connects. model: an address as above. device, threads: the server's configuration decides, not these.

        Raises DeviceError where no server answers, ModelError for a network that it has not or that is no detector.
        """
        return cls(Server(Address.parse(str(model))))

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """Raises ModelError where the server refuses the blob, DeviceError where it does not answer any more."""
        step = self._most or len(blob)
        parts = [self._ask(blob[first : first + step]) for first in range(0, len(blob), step)]
        return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _ask(self, blob: Floats) -> list[NDArray[Any]]:
        library, address = self._server.library, self._server.address
        half = self._input.dtype == "float16"
        given = library.InferInput(self._input.name, list(blob.shape), "FP16" if half else "FP32")
        given.set_data_from_numpy(blob.astype(np.float16 if half else np.float32, copy=False))
        wanted = [library.InferRequestedOutput(name) for name in self._outputs]
        answer = self._server.call(
            "infer", address.model, [given], address.version, outputs=wanted, seconds=_SECONDS_TO_RUN
        )
        arrays = [answer.as_numpy(name) for name in self._outputs]
        for name, array in zip(self._outputs, arrays, strict=True):
            if array is None:
                raise ModelError(f"{address}: the server's answer lacks the output {name}")
        return arrays


open_model = TritonRuntime.open


def bindings(model: str | Path) -> list[Binding]:
    """Inputs and outputs of any model on a server, an ensemble too. Raises as `TritonRuntime.open`."""
    server = Server(Address.parse(str(model)))
    server.check()
    metadata = server.describe("metadata")
    return [*_tensors(metadata, "inputs"), *_tensors(metadata, "outputs")]


def _tensors(metadata: Mapping[str, Any], side: Literal["inputs", "outputs"]) -> list[Binding]:
    kind: Literal["input", "output"] = "input" if side == "inputs" else "output"

    def of(tensor: Mapping[str, Any]) -> Binding:
        sides = (int(length) for length in tensor.get("shape", []))
        dtype = _DTYPES.get(tensor["datatype"], tensor["datatype"].lower())
        return Binding(tensor["name"], kind, dtype, tuple("?" if length < 0 else length for length in sides))

    return [of(tensor) for tensor in metadata.get(side, [])]


def _first_line(text: str) -> str:
    """Without the request's number, which nobody gave it, and without advice to who wrote the configuration."""
    lines = text.strip().splitlines() or ["nothing more"]
    return lines[0].removeprefix("[request id: <id_unknown>] ").partition(" NOTE: ")[0]


def _failures(protocol: Literal["grpc", "http"]) -> tuple[type[BaseException], ...]:
    """What clients raise for a host that cannot be, where nobody answers, or not in the protocol's words, besides their
    own exception."""
    # A timeout of gevent's is no Exception. What is no JSON, and names that cannot be looked up, are ValueErrors.
    own = import_module("grpc").RpcError if protocol == "grpc" else import_module("gevent").Timeout
    return OSError, HTTPException, ValueError, OverflowError, own


def _network_of(config: Mapping[str, Any]) -> str:
    """The model of an ensemble that is neither its first nor its last, in words."""
    steps = [step["model_name"] for step in config.get("ensemble_scheduling", {}).get("step", [])]
    return f": {', '.join(steps[1:-1])}" if len(steps) > 2 else ""
