"""Every format that a network can be exported to."""

from __future__ import annotations

from scrfdkit.export import onnx
from scrfdkit.export.order import Target

TARGETS: dict[str, Target] = {target.name: target for target in (onnx.TARGET,)}
