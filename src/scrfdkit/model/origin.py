"""Where weights come from, under which terms, and what they were measured at, as far as their file tells. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scrfdkit.atomic import sha256
from scrfdkit.zoo import ZOO, ZooEntry

INSIGHTFACE = "InsightFace model zoo"
OFFICIAL_LICENCE = f"non-commercial research only ({INSIGHTFACE})"


@dataclass(frozen=True)
class Origin:
    """source, licence: "" where unknown. metrics: plain JSON values."""

    source: str = ""
    licence: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)


def own_words(metadata: Mapping[str, str]) -> Origin:
    """What the metadata of an ONNX or safetensors file says; what is not as this package writes it says nothing."""
    try:
        metrics = json.loads(metadata.get("metrics") or "{}")
    except ValueError:
        metrics = {}
    licence = metadata.get("licence") or metadata.get("license") or ""
    return Origin(metadata.get("source", ""), licence, metrics if isinstance(metrics, dict) else {})


def official(digest: str) -> ZooEntry | None:
    """The network whose official file has this sha256."""
    return next((row for row in ZOO.values() if digest in {file.sha256 for file in row.official}), None)


def origin_of(path: Path, metadata: Mapping[str, str], name: str) -> Origin:
    """Of a file that holds the network `name`.

    Its own words come first. InsightFace's terms are taken to hold only for their very files, known by sha256, and for
    a .pth file that has the official name of this network; its published AP only for the former.
    """
    own = own_words(metadata)
    entry = official(sha256(path))
    if entry is not None:
        source = own.source or f"{INSIGHTFACE}, {path.name}"
        return Origin(source, own.licence or OFFICIAL_LICENCE, own.metrics or published(entry))
    named = path.name.lower() in {file.name.lower() for file in ZOO[name].official if file.name.endswith(".pth")}
    return Origin(own.source or path.name, own.licence or (OFFICIAL_LICENCE if named else ""), own.metrics)


def published(entry: ZooEntry) -> dict[str, Any]:
    """The published AP of a network as the metrics of a weight file."""
    ap = entry.published
    if ap is None:
        return {}
    return {"published_wider_face_val": {"easy": ap.easy, "medium": ap.medium, "hard": ap.hard}}
