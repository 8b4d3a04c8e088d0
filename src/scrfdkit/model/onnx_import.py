"""Takes the weights out of an exported SCRFD ONNX file, of any exporter and layout, into our own network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scrfdkit.errors import WeightError
from scrfdkit.model.checkpoint import Imported, fit, row
from scrfdkit.model.header import PathLike
from scrfdkit.model.onnx_graph import Array, Signatures, Site, load_onnx, plan_sites, read_sites
from scrfdkit.model.plan import plan
from scrfdkit.model.pth import require_torch
from scrfdkit.spec import ModelSpec
from scrfdkit.zoo import ZOO

State = dict[str, Array]


def import_onnx(path: PathLike, name: str | None = None) -> Imported:
    """The network of an ONNX file, fused, in eval mode.

    Works for dynamic and fixed sizes, with and without a batch axis, any names, batch norms folded or not. The
    network is recognised by its structure; `name` allows only that row of the zoo. Raises WeightError where no row
    has this structure, and MissingExtraError without torch or the package onnx.
    """
    torch = require_torch("importing the weights of an ONNX file")
    name, spec, state = _match(path, name)
    from scrfdkit.model.net import blank

    net = blank(spec, fused=True)
    tensors = {k: torch.from_numpy(np.array(v, np.float32)) for k, v in state.items()}
    net.load_state_dict(fit(tensors, {k: tuple(v.shape) for k, v in net.state_dict().items()}, f"{path} as {name}"))
    return Imported(net, name, spec)


def recognise_onnx(path: PathLike) -> tuple[str, ModelSpec]:
    """The row of the zoo that an ONNX file is; needs no torch. Raises as `import_onnx`."""
    return _match(path, None)[:2]


def onnx_metadata(path: PathLike) -> dict[str, str]:
    """The metadata_props of an ONNX file. Raises WeightError and MissingExtraError as `import_onnx`."""
    return {entry.key: entry.value for entry in load_onnx(path).metadata_props}


def _match(path: PathLike, name: str | None) -> tuple[str, ModelSpec, State]:
    rows = [row(name)] if name is not None else [(known, entry.spec) for known, entry in ZOO.items()]
    signatures = Signatures()
    sites = read_sites(path, signatures)
    nearest: tuple[int, str] | None = None
    reasons = []
    for known, spec in rows:
        places = plan_sites(plan(spec, 64, 64), signatures)
        wrong = len(places.keys() ^ sites.keys())
        if wrong:
            nearest = min(nearest or (wrong, known), (wrong, known))
            continue
        try:
            return known, spec, _state(sites, places)
        except WeightError as error:
            reasons.append(f"{known}: {error}")
    if reasons:
        raise WeightError(f"{path}: {'; '.join(reasons)}")
    assert nearest is not None
    raise WeightError(
        f"{path}: its {len(sites)} convolutions fit {'no known network' if name is None else 'not ' + name}; "
        f"nearest is {nearest[1]}, where {nearest[0]} convolutions (of both together) have no partner"
    )


def _state(sites: dict[int, Site], places: dict[int, tuple[str, str, str]]) -> State:
    state: State = {}
    for number, (conv, norm, scale) in places.items():
        for key, value in _tensors(sites[number], conv, norm, scale):
            # A head that the levels share shows up once a level.
            if key in state and not np.allclose(state[key], value, rtol=1e-5, atol=1e-6):
                raise WeightError(f"levels that should share {key} differ in it")
            state.setdefault(key, value)
    return state


def _tensors(site: Site, conv: str, norm: str, scale: str) -> Iterator[tuple[str, Array]]:
    weight, bias = site.weight, site.bias
    if scale:
        yield f"{scale}.scale", np.asarray(site.scale, np.float32)
    elif site.scale != 1:
        factor = np.float32(site.scale)
        weight, bias = weight * factor, bias * factor
    yield f"{conv}.weight", weight
    if not norm:
        yield f"{conv}.bias", bias
        return
    if np.any(bias):
        raise WeightError(f"{conv} has a bias before its group norm, which this network has no place for")
    assert site.norm is not None
    yield f"{norm}.weight", site.norm[0]
    yield f"{norm}.bias", site.norm[1]
