"""SCRFD face detection: `Detector.open().detect("photo.jpg")`.

Importing this package loads no network runtime and touches no file; the names below are fetched on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scrfdkit.detector import Detector
    from scrfdkit.errors import ScrfdError
    from scrfdkit.spec import ModelSpec
    from scrfdkit.types import Detections
    from scrfdkit.zoo import ZOO

__version__ = "0.1.0"
__all__ = ["ZOO", "Detections", "Detector", "ModelSpec", "ScrfdError", "__version__"]

_HOMES = {
    "Detector": "detector",
    "Detections": "types",
    "ModelSpec": "spec",
    "ScrfdError": "errors",
    "ZOO": "zoo",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"scrfdkit.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'scrfdkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
