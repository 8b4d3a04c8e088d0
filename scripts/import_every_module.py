"""Imports every module with whatever is installed; a missing extra may only show as MissingExtraError when used.

Run in an environment with the core dependencies alone, this proves that no module needs an extra at import, except
those that are written in PyTorch: networks, their runtime, training and export.
"""

from __future__ import annotations

import importlib
import pkgutil

import scrfdkit

PYTORCH = ("scrfdkit.model", "scrfdkit.runtime.pytorch", "scrfdkit.train", "scrfdkit.export")

names = [module.name for module in pkgutil.walk_packages(scrfdkit.__path__, "scrfdkit.")]
failed = {}
for name in names:
    if name == "scrfdkit.__main__":
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(PYTORCH):
            failed[name] = str(error)
print(f"{len(names)} modules, {len(failed)} need an extra at import")
assert not failed, failed
