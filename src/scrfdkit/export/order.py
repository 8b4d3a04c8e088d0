"""What is asked of an export beyond the contract, and what a target can do: the values that every target shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export.contract import Contract, OutputLayout, Suppression

if TYPE_CHECKING:
    from scrfdkit.export.parity import Parity
    from scrfdkit.export.source import Source

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
OPSET = 17
"""Of the ONNX graph, which most targets are made from: new enough for all operations, old enough for converters of some
years ago."""
USUAL_SIZE = (640, 640)
_MOST_PIXELS = 1 << 28


@dataclass(frozen=True)
class Order:
    """precision: of weights and, for int8, of activations. calibration: pictures that int8 takes its ranges from.
    opset: of the ONNX graph. settings: of one target alone, by name, as its module says. say: is told how far a long
    calibration is.
    """

    contract: Contract = field(default_factory=Contract)
    precision: Precision = "fp32"
    calibration: tuple[Path, ...] = ()
    opset: int = OPSET
    settings: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = field(default=lambda _: None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The contract, opset and settings as plain data, for a certificate; `from_dict` reads it."""
        return {**asdict(self.contract), "opset": self.opset, "settings": dict(self.settings)}

    @staticmethod
    def from_dict(data: Mapping[str, Any], precision: str) -> Order:
        """Raises ModelError for anything else than `to_dict` gives."""
        rest = dict(data)
        try:
            opset, settings = rest.pop("opset"), rest.pop("settings")
            good = isinstance(opset, int) and isinstance(settings, dict) and isinstance(rest["sigmoid"], bool)
            if not good or precision not in PRECISIONS:
                raise TypeError("precision, opset, settings or sigmoid is of the wrong kind")
            rest["suppression"] = Suppression(**rest["suppression"])
            rest["size"] = tuple(rest["size"]) if rest["size"] else None
            contract = Contract(**rest)
            pixels = math.prod(contract.size or USUAL_SIZE) * (contract.batch or 1)
            if pixels > _MOST_PIXELS:
                raise TypeError(f"a run of {pixels} pixels would not end")
            return Order(contract, precision, (), opset, settings)
        except (KeyError, TypeError, OptionError) as error:
            raise ModelError(f"the contract in the certificate cannot be read: {error}") from None


@dataclass(frozen=True)
class Target:
    """A format to export to. suffix: of its main file. layouts: the first is the usual one. open_size, open_batch:
    whether one file can take any. write: makes the file at a path, and others of the same stem beside it; what it
    returns is added to the metadata in the certificate. compare: runs it beside PyTorch; None for what every runtime is
    compared by. settings: names in `Order.settings` that it knows. folder: what is written is a folder, with a
    README.md. inside: finds the network's file in it, which is what runs here. calibrates: takes calibration pictures
    whatever the precision, for a compiler that quantises later.
    """

    name: str
    suffix: str
    layouts: tuple[OutputLayout, ...]
    precisions: tuple[Precision, ...]
    open_size: bool
    open_batch: bool
    write: Callable[[Source, Path, Order], Mapping[str, str] | None]
    compare: Callable[[Source, Path, Order], Parity] | None = None
    settings: tuple[str, ...] = ()
    folder: bool = False
    inside: Callable[[Path], Path] | None = None
    calibrates: bool = False

    def settle(self, order: Order) -> Order:
        """The order with usual values where the target needs some and none was named.

        Raises OptionError, naming the field, for what the target cannot do.
        """
        contract = order.contract
        if contract.layout not in self.layouts:
            raise OptionError(f"layout: {self.name} files have {' or '.join(self.layouts)}, not {contract.layout!r}")
        if order.precision not in self.precisions:
            raise OptionError(f"precision: {self.name} files are {', '.join(self.precisions)}, not {order.precision!r}")
        for name in order.settings:
            if name not in self.settings:
                raise OptionError(f"{name}: means nothing for {self.name} files")
        if order.precision == "int8" and not order.calibration:
            raise OptionError("calibrate: int8 takes its ranges from pictures; name a folder of such as it will see")
        if contract.size is None and not self.open_size:
            contract = replace(contract, size=USUAL_SIZE)
        if contract.batch is None and not self.open_batch:
            contract = replace(contract, batch=1)
        return replace(order, contract=contract)
