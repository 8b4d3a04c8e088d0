"""Any bytes give Detections or an ImageError, never anything else: a target for atheris (libFuzzer).

    python tests/fuzz/fuzz_bytes.py -max_total_time=60 [CORPUS]

The seeds of `corpus` are small files of every format; whatever it finds is written to the current folder as crash-*.
"""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["scrfdkit", "PIL"]):
    import numpy as np

    from scrfdkit import Detections, Detector, image
    from scrfdkit.errors import ImageError

# Small enough that a fuzzer can make a picture of it, and hostile headers still lie above it.
MAX_PIXELS = 4_000_000
DETECTOR = Detector.open(device="cpu", threads=1, input_size=(64, 64), max_pixels=MAX_PIXELS, score_threshold=0.1)


def check(data: bytes) -> None:
    """Reads, detects, and looks at what comes out."""
    for target in (None, 64):
        try:
            picture = image.load(data, max_pixels=MAX_PIXELS, target=target)
        except ImageError:
            return
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.ndim == 3
        assert picture.width * picture.height <= MAX_PIXELS
    faces = DETECTOR.detect(data)
    assert isinstance(faces, Detections)
    assert np.isfinite(faces.boxes).all()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
