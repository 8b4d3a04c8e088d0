"""Imports every module with whatever is installed; a missing extra may only show as MissingExtraError when used.

Run in an environment with the core dependencies alone, this proves that no module needs an extra at import, except
those that are written in PyTorch or need it (networks, training, export, search) and the runtimes of other packages.
"""

from __future__ import annotations

import importlib
import pkgutil

import scrfdkit
from scrfdkit.runtime.formats import FORMATS

ALLOWED = (
    "scrfdkit.model",
    "scrfdkit.train",
    "scrfdkit.export",
    "scrfdkit.search",
    "scrfdkit.assets.triton",
    *(f"scrfdkit.runtime.{row.module}" for row in FORMATS if row.extra),
    "scrfdkit.runtime.torch_",
    "scrfdkit.runtime.tflite_check",
)

names = [module.name for module in pkgutil.walk_packages(scrfdkit.__path__, "scrfdkit.")]
failed = {}
for name in names:
    if name == "scrfdkit.__main__":
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(ALLOWED):
            failed[name] = str(error)
print(f"{len(names)} modules, {len(failed)} need an extra at import")
assert not failed, failed
