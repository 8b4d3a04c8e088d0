"""The table of bad pictures (docs/pictures.md), a row a test, through the function that reads them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_pictures import animation, cmyk, encoded, jpeg_claiming, png_header, with_orientation
from PIL import Image as Pillow

from scrfdkit import image
from scrfdkit.errors import ImageError

# Its four corners differ, so every turn and mirroring shows.
CORNERS = np.zeros((40, 60, 3), np.uint8)
CORNERS[:20, :30] = (250, 10, 10)
CORNERS[:20, 30:] = (10, 250, 10)
CORNERS[20:, :30] = (10, 10, 250)
CORNERS[20:, 30:] = (240, 240, 240)


def close(pixels: np.ndarray, expected: np.ndarray, tolerance: int = 40) -> bool:
    """Equal but for what lossy compression does near edges."""
    inner = (slice(4, -4), slice(4, -4))
    difference = np.abs(pixels[inner].astype(int) - expected[inner].astype(int))
    return pixels.shape == expected.shape and float(np.median(difference)) < tolerance / 4


def test_jpeg_is_decoded_bit_for_bit_as_opencv_does(examples: Path) -> None:
    for path in sorted(examples.glob("*.jpg")):
        assert np.array_equal(image.load(path).pixels, cv2.imread(str(path)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM", "TGA", "JPEG2000"])
def test_formats(kind: str) -> None:
    picture = image.load(encoded(CORNERS, kind))
    assert close(picture.pixels, CORNERS)
    assert (picture.width, picture.height) == (60, 40)
    assert picture.pixels.flags.c_contiguous


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    assert close(
        image.load(encoded(np.tile(CORNERS, (4, 4, 1)), "HEIF", quality=95)).pixels, np.tile(CORNERS, (4, 4, 1))
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    picture = image.load(with_orientation(CORNERS, orientation, kind))
    assert close(picture.pixels, CORNERS)
    assert (picture.width, picture.height) == (60, 40)


def test_broken_exif_is_ignored() -> None:
    data = encoded(CORNERS, "JPEG")
    junk = b"Exif\0\0" + b"MM\0*" + b"\xff" * 40
    broken = data[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + data[2:]
    assert close(image.load(broken).pixels, CORNERS)


def test_truncated_jpeg_is_refused(examples: Path) -> None:
    data = (examples / "astronaut.jpg").read_bytes()
    for share in (0.02, 0.3, 0.9):
        with pytest.raises(ImageError, match=r"astro\.jpg"):
            image.load(data[: int(len(data) * share)], name="astro.jpg")


def test_stray_bytes_in_a_jpeg_do_no_harm() -> None:
    data = encoded(CORNERS, "JPEG")
    table = data.index(b"\xff\xdb")
    for at in (table, len(data) - 2):
        assert close(image.load(data[:at] + b"\x00" * 7 + data[at:] + b"trailing").pixels, CORNERS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_other_truncated_files_are_refused(kind: str, examples: Path) -> None:
    data = encoded(image.load(examples / "astronaut.jpg").pixels, kind)
    with pytest.raises(ImageError, match="cut"):
        image.load(data[: len(data) // 2], name="cut")


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"not a picture at all", b"\x89PNG\r\n\x1a\n", b"<svg></svg>", b"\0" * 999]
)
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="rubbish"):
        image.load(data, name="rubbish")


def test_paths(tmp_path: Path) -> None:
    for bad in (tmp_path / "absent.jpg", tmp_path, "nul\0byte.jpg"):
        with pytest.raises(ImageError):
            image.load(bad)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ImageError, match="empty"):
        image.load(empty)


def test_cmyk_jpeg() -> None:
    blue = np.full((32, 32, 3), (200, 30, 40), np.uint8)
    assert np.abs(image.load(cmyk(blue)).pixels.astype(int) - blue).max() < 12


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_keeps_its_upper_bits(channels: int) -> None:
    values = np.linspace(0, 65535, 64 * 64 * channels).astype(np.uint16).reshape(64, 64, channels)
    ok, data = cv2.imencode(".png", values)
    assert ok
    pixels = image.load(data.tobytes()).pixels
    expected = np.broadcast_to(values >> 8, (64, 64, 3))
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_grey_palette_alpha_and_one_bit() -> None:
    grey = Pillow.fromarray(CORNERS[:, :, 0])
    rgba = Pillow.fromarray(np.dstack([CORNERS[:, :, ::-1], np.full((40, 60), 255, np.uint8)]))
    palette = rgba.convert("P")
    palette.info["transparency"] = bytes(range(256))
    for source in (grey, rgba, palette, grey.convert("1"), grey.convert("LA"), rgba.convert("YCbCr")):
        file = io.BytesIO()
        source.save(file, "TIFF" if source.mode == "YCbCr" else "PNG")
        assert image.load(file.getvalue()).pixels.shape == (40, 60, 3)
        assert image.load(source).pixels.shape == (40, 60, 3)
    file = io.BytesIO()
    rgba.save(file, "PNG")
    assert np.array_equal(image.load(file.getvalue()).pixels, CORNERS)


def test_floating_point_tiff_is_refused() -> None:
    file = io.BytesIO()
    Pillow.fromarray(np.zeros((8, 8), np.float32)).save(file, "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        image.load(file.getvalue())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    assert close(image.load(animation(CORNERS, kind)).pixels, CORNERS)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 10000), (10000, 1)])
def test_extreme_shapes(width: int, height: int) -> None:
    pixels = np.full((height, width, 3), 77, np.uint8)
    for kind in ("PNG", "JPEG"):
        picture = image.load(encoded(pixels, kind), target=640)
        assert (picture.width, picture.height) == (width, height)


@pytest.mark.parametrize(
    "data", [png_header(50_000, 50_000), jpeg_claiming(CORNERS, 60_000, 60_000)], ids=["png", "jpeg"]
)
def test_bombs_are_refused_by_their_header(data: bytes) -> None:
    with pytest.raises(ImageError, match="bomb"):
        image.load(data, name="bomb")


def test_limit_is_adjustable() -> None:
    data = encoded(CORNERS, "PNG")
    with pytest.raises(ImageError, match="max_pixels"):
        image.load(data, max_pixels=2399)
    assert image.load(data, max_pixels=2400).pixels.shape == (40, 60, 3)


def test_no_limit_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit, a global variable, neither stops nor warns."""
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 1000)
    for kind in ("PNG", "JPEG", "BMP", "PPM"):
        assert image.load(encoded(CORNERS, kind)).pixels.shape == (40, 60, 3)


def test_dark_16_bit_grey_stays_dark() -> None:
    for top in (200, 256):
        data = cv2.imencode(".png", np.full((8, 8), top, np.uint16))[1].tobytes()
        assert image.load(data).pixels.max() == top >> 8


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4)])
def test_arrays(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    picture = image.load(array[::-1, ::-1])
    assert picture.pixels.shape == (40, 60, 3)
    assert picture.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.full((8, 8, 3), np.nan, np.float32),
        np.zeros((8, 8, 3), np.float64),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 3), bool),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.array("x"),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_wrong_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="array"):
        image.load(array)


def test_other_types_are_refused() -> None:
    for source in (None, 5, ["a.jpg"]):
        with pytest.raises(ImageError, match=type(source).__name__):
            image.load(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", [1, 6])
def test_fast_decoding_stays_above_the_target(orientation: int, examples: Path) -> None:
    big = cv2.resize(cv2.imread(str(examples / "solvay_1927.jpg")), (3001, 2111))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = encoded(big, "JPEG", exif=exif)
    size = (3001, 2111) if orientation == 1 else (2111, 3001)
    for target in (200, 640, 1500, 1502, 4000):
        picture = image.load(data, target=target)
        assert (picture.width, picture.height) == size
        long_side = max(picture.pixels.shape)
        assert long_side >= min(target, 3001)
        assert (long_side < 3001) == (target <= 1500)
        assert picture.pixels.shape[1] / picture.pixels.shape[0] == pytest.approx(size[0] / size[1], rel=0.01)
