"""A search of networks so small that they are trained in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scrfdkit.search import plan as plans
from scrfdkit.search.candidate import Candidate
from scrfdkit.search.plan import Plan
from scrfdkit.search.space import backbone_space
from scrfdkit.search.store import create
from scrfdkit.spec import Backbone, ModelSpec, Neck
from scrfdkit.zoo import ZOO

OPTIONS = ("--size", "96", "--batch", "2", "--holdout", "0.3")
"""Of `scrfd search run`: three steps an epoch on the toy set."""


def tiny(number: int) -> ModelSpec:
    """A network of some thousand parameters; each number is another one."""
    spec = ZOO["scrfd_500m"].spec
    backbone = Backbone("separable", (8, 8), (1, 1, 1, 1), (8, 8 + 8 * number, 16, 16))
    return replace(spec, backbone=backbone, neck=Neck(8), head=replace(spec.head, depth=1, channels=8, groups=8))


def make(folder: Path, number: int) -> Plan:
    """The folder of a search that nobody has begun."""
    candidates = tuple(Candidate(n, tiny(n)) for n in range(1, number + 1))
    return plans.save(plans.make(backbone_space(5e8), candidates, 0, number, number), folder, create)
