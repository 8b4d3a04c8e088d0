"""Every error a user can cause, each saying which file or flag, what is wrong and what to do."""

from __future__ import annotations


class ScrfdError(ValueError):
    """Parent of all errors raised on purpose; `except ScrfdError` catches them all."""


class ImageError(ScrfdError):
    """A picture that cannot be used: the message names the source and the reason."""


class VideoError(ScrfdError):
    """A video that cannot be opened, or that broke off: the message says where."""


class WeightError(ScrfdError):
    """A weight file that is missing, damaged, or does not fit its network."""


class ModelError(ScrfdError):
    """A network file whose inputs or outputs are not those of an SCRFD detector."""


class DeviceError(ScrfdError):
    """A device that was asked for strictly and cannot run the network."""


class MissingExtraError(ScrfdError):
    """A feature whose optional packages are not installed: the message names the `pip install` to run."""

    def __init__(self, feature: str, extra: str, package: str) -> None:
        super().__init__(f"{feature} needs the package {package}: pip install 'scrfdkit[{extra}]'")


class OptionError(ScrfdError):
    """An option with a value that means nothing: the message names the option."""
