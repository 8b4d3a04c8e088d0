"""The files of docs/pictures.md: what is written for each row, and whether it can be read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """BGR pixels as a file of that kind."""
    file = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_claiming(pixels: np.ndarray, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    data = bytearray(encoded(pixels, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def stored_for_orientation(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera holds an upright picture for each EXIF orientation, by the standard."""
    turned: dict[int, Callable[[], np.ndarray]] = {
        1: lambda: upright,
        2: lambda: upright[:, ::-1],
        3: lambda: upright[::-1, ::-1],
        4: lambda: upright[::-1],
        5: lambda: upright.transpose(1, 0, 2),
        6: lambda: np.rot90(upright),
        7: lambda: np.rot90(upright.transpose(1, 0, 2), 2),
        8: lambda: np.rot90(upright, -1),
    }
    return turned[orientation]()


def with_orientation(upright: np.ndarray, orientation: int, kind: str = "JPEG") -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return encoded(stored_for_orientation(upright, orientation), kind, exif=exif)


def cmyk(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).convert("CMYK").save(file, "JPEG", quality=95)
    return file.getvalue()


def animation(pixels: np.ndarray, kind: str) -> bytes:
    """Two frames, the second blank."""
    first = Pillow.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=[Pillow.new("RGB", first.size)], lossless=True)
    return file.getvalue()


def through_mode(pixels: np.ndarray, mode: str) -> bytes:
    """As PNG in another Pillow mode."""
    image = Pillow.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).convert("RGBA").convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes(range(256))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def files(photo: Path) -> dict[str, tuple[bytes, int | None]]:
    """File name to its content and the faces in it, None for one that cannot be read. photo: a JPEG with one face."""
    data = photo.read_bytes()
    pixels = cv2.imread(str(photo))
    sixteen = cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes()
    floating = io.BytesIO()
    Pillow.fromarray(np.zeros((8, 8), np.float32)).save(floating, "TIFF")
    result: dict[str, tuple[bytes, int | None]] = {
        "truncated.jpg": (data[: len(data) // 2], None),
        "truncated.png": (encoded(pixels, "PNG")[:50_000], None),
        "empty.jpg": (b"", None),
        "text.jpg": (b"not a picture", None),
        "drawing.svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", None),
        "floating.tif": (floating.getvalue(), None),
        "bomb.png": (png_header(50_000, 50_000), None),
        "bomb.jpg": (jpeg_claiming(pixels, 60_000, 60_000), None),
        "cmyk.jpg": (cmyk(pixels), 1),
        "sixteen.png": (sixteen, 1),
        "animated.gif": (animation(pixels, "GIF"), 1),
        "animated.webp": (animation(pixels, "WEBP"), 1),
        "modern.avif": (encoded(pixels, "AVIF", quality=90), 1),
        "wrong_suffix.png": (data, 1),
        "one.png": (encoded(np.zeros((1, 1, 3), np.uint8), "PNG"), 0),
        "tall.png": (encoded(np.zeros((10_000, 1, 3), np.uint8), "PNG"), 0),
        "wide.jpg": (encoded(np.zeros((1, 10_000, 3), np.uint8), "JPEG"), 0),
        "blank.jpg": (encoded(np.full((300, 400, 3), 127, np.uint8), "JPEG"), 0),
    }
    result |= {f"mode_{mode}.png": (through_mode(pixels, mode), 1) for mode in ("L", "LA", "P", "RGBA")}
    result |= {f"orientation_{i}.jpg": (with_orientation(pixels, i), 1) for i in range(1, 9)}
    return result
