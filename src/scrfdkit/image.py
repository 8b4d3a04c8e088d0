"""Pictures in: bytes, a path, an array or a Pillow image become upright BGR pixels, or one ImageError.

JPEG is decoded by libjpeg-turbo (simplejpeg), bit for bit as OpenCV does, and can come out scaled down by the
decoder itself; every other format is decoded by Pillow. Sizes are read from the header before anything is decoded.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow

from scrfdkit.errors import ImageError
from scrfdkit.types import Image

MAX_PIXELS = 178_956_970
"""Largest picture read by default, in pixels (537 MB once decoded)."""

_SHORTEST = 16
"""Bytes: no format can hold a picture in fewer, and decoders complain about their own buffers."""

# Pillow knows formats that run other programs (EPS) or are no pictures; only these are tried.
_FORMATS = ("PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG", "JPEG2000", "PPM", "TGA", "ICO")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_EXIF_ORIENTATION = 0x0112

Source: TypeAlias = "str | Path | bytes | bytearray | memoryview | NDArray[Any] | Pillow.Image | Picture"
"""What `load` takes."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Decoded pixels and the size of the picture they stand for.

    pixels: (h, w, 3) uint8 BGR, upright. width, height: size of the upright original. name: for messages.
    reduction: side in pixels of the original of one pixel here, 1 unless the decoder scaled the picture down.
    """

    pixels: Image
    width: int
    height: int
    name: str
    reduction: int = 1

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height that the pixels stand for, in pixels of the original. Scaled-down rows and columns are
        rounded up, so this can reach over the original's edge by a part of one."""
        return self.pixels.shape[1] * self.reduction, self.pixels.shape[0] * self.reduction


def load(
    source: Source, *, max_pixels: int = MAX_PIXELS, target: int | None = None, name: str | None = None
) -> Picture:
    """Reads a picture, turns it upright by its EXIF orientation and drops any alpha channel.

    source: path, file content, uint8 array ((H, W), (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4)), or Pillow image.
        Of an animation, the first frame. 16-bit pictures keep their upper 8 bits.
    max_pixels: larger pictures are refused by their header, before decoding.
    target: a long side in pixels that is enough for a caller who prefers speed to OpenCV's very pixels. A JPEG at
        least twice as large is then decoded at 1/2, 1/4 or 1/8 of its size, never below `target`, and any JPEG with
        the decoder's faster arithmetic.
    name: what error messages call the source.

    Raises ImageError, naming the source and the reason, for anything that cannot be read.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        pixels = _from_array(source, name or "array")
        return Picture(pixels, pixels.shape[1], pixels.shape[0], name or "array")
    if isinstance(source, Pillow.Image):
        label = name or getattr(source, "filename", "") or "Pillow image"
        return _named(label, lambda: _from_pillow(source, label, max_pixels))
    if isinstance(source, (str, Path)):
        label = name or str(source)
        data = _read_file(Path(source), label)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        label, data = name or "bytes", bytes(source)
    else:
        raise ImageError(f"{type(source).__name__}: a picture is a path, bytes, a uint8 array or a Pillow image")
    if not data:
        raise ImageError(f"{label}: the file is empty (zero bytes)")
    if len(data) < _SHORTEST:
        raise ImageError(f"{label}: is not a picture: it has {len(data)} bytes only")
    if data[:2] == b"\xff\xd8":
        return _named(label, lambda: _from_jpeg(data, label, max_pixels, target))
    return _named(label, lambda: _from_other(data, label, max_pixels))


def _named(label: str, decode: Any) -> Picture:
    """Whatever a decoder throws at broken input is the same thing to the caller: this picture cannot be read."""
    try:
        picture: Picture = decode()
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{label}: not enough memory to decode it") from None
    except Exception as error:
        raise ImageError(f"{label}: cannot be decoded: {str(error) or type(error).__name__}") from error
    return picture


def _read_file(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{label}: there is no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{label}: is a folder, not a picture") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{label}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _check_size(width: int, height: int, label: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{label}: has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageError(
            f"{label}: {width}x{height} is {width * height:,} pixels, over the limit of {max_pixels:,};"
            " if it is trusted, raise max_pixels (--max-pixels)"
        )


def _from_array(array: NDArray[Any], label: str) -> Image:
    if array.dtype != np.uint8:
        hint = ", and it holds NaN" if array.dtype.kind == "f" and np.isnan(array).any() else ""
        raise ImageError(f"{label}: dtype is {array.dtype}{hint}; a picture is uint8 with values 0-255")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ImageError(f"{label}: shape is {array.shape}; (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) is needed")
    if array.size == 0:
        raise ImageError(f"{label}: has no pixels (shape {array.shape})")
    array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
    return np.ascontiguousarray(array)


def _from_jpeg(data: bytes, label: str, max_pixels: int, target: int | None) -> Picture:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    _check_size(width, height, label, max_pixels)
    if colours.upper() in ("CMYK", "YCCK"):
        return _from_other(data, label, max_pixels)
    reduction = _reduction(max(width, height), target)
    fast = target is not None
    how = {"min_width": -(-width // reduction), "min_height": -(-height // reduction)}
    try:
        pixels = simplejpeg.decode_jpeg(data, "BGR", fastdct=fast, fastupsample=fast, **how)
    except ValueError as error:
        if "premature end" in str(error).lower() or b"\xff\xd9" not in data:
            raise ImageError(f"{label}: the JPEG is truncated ({len(data):,} bytes)") from None
        # What else libjpeg-turbo objects to may be harmless, stray bytes for one; OpenCV is more patient.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        reduction = 1
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is None:
            raise
    return _upright(pixels, (width, height), _jpeg_orientation(data), label, reduction)


def _reduction(long_side: int, target: int | None) -> int:
    """The largest of 1, 2, 4, 8 that leaves the long side at `target` or more. The decoder could do 5/8 and the like
    too, but more slowly than the full size: only powers of two have vector code."""
    if target is None:
        return 1
    return next((r for r in (8, 4, 2) if -(-long_side // r) >= target), 1)


def _jpeg_orientation(data: bytes) -> int:
    """EXIF orientation from the APP1 segment; 1 where there is none or it makes no sense."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return orientation_of(data[at + 4 : at + 2 + length])
        at += 2 + max(length, 2)
    return 1


def orientation_of(block: bytes | Pillow.Exif) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it makes no sense. From 5 on the picture lies on its side."""
    try:
        exif = Pillow.Exif() if isinstance(block, bytes) else block
        if isinstance(block, bytes):
            exif.load(block)
        value = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF is common and says nothing about the picture itself
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _from_other(data: bytes, label: str, max_pixels: int) -> Picture:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        _enable_heif(label)
    image = _open(data)
    if image is None:
        raise ImageError(
            f"{label}: is not a picture in a known format (it starts with {data[:8]!r})"
            if not re.match(rb"\s*<(\?xml|svg)", data)
            else f"{label}: is an SVG drawing; render it to PNG first"
        )
    return _from_pillow(image, label, max_pixels)


def _open(data: bytes) -> Pillow.Image | None:
    """Tries the known formats one by one, None if it is in none of them.

    `PIL.Image.open` would do the same, but with a size limit of its own that only a global variable changes.
    """
    Pillow.init()
    for name in _FORMATS:
        factory, accepts = Pillow.OPEN.get(name, (None, None))
        if factory is None:
            continue
        verdict = accepts(data[:16]) if accepts is not None else True
        if verdict and not isinstance(verdict, str):  # a text says that it is the format, but not supported here
            try:
                return factory(io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue
    return None


def _enable_heif(label: str) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{label}: is a HEIC picture; to read these: pip install 'scrfdkit[heif]'") from None
    pillow_heif.register_heif_opener()


def _from_pillow(image: Pillow.Image, label: str, max_pixels: int) -> Picture:
    _check_size(*image.size, label, max_pixels)
    image.load()  # Pillow turns a TIFF upright itself when it loads it, and then drops the tag
    orientation = orientation_of(image.getexif())
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        # "I;16" has 16 bits; "I" has 32, of which files use as many as they like.
        deep = image.mode != "I" or values.max(initial=0) > 255
        pixels = _from_array(np.clip(values >> 8 if deep else values, 0, 255).astype(np.uint8), label)
    elif image.mode == "F":
        raise ImageError(f"{label}: holds floating-point pixels, which have no fixed range; convert it to 8 bits")
    else:
        if image.mode in ("P", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow warns about palettes with alpha otherwise
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    return _upright(pixels, image.size, orientation, label)


def _upright(pixels: Image, size: tuple[int, int], orientation: int, label: str, reduction: int = 1) -> Picture:
    """Undoes EXIF orientation 1-8: mirrored for 2, 4, 5, 7, lying on its side for 5-8."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
        size = size[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return Picture(np.ascontiguousarray(pixels), *size, label, reduction)
