"""What every runtime on top of torch asks of it: a device that works, exact arithmetic, and a number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from scrfdkit.errors import ModelError
from scrfdkit.model.plan import check_size
from scrfdkit.types import Floats


def choose_device(device: str) -> str:
    """ "cuda" where "cuda" or "auto" is wanted and CUDA works, else "cpu".

    On CUDA this switches TF32 off for the whole process, because TF32 moves key points by up to 0.4 pixels.
    """
    if device not in ("cuda", "auto") or not _cuda_works():
        return "cpu"
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return "cuda"


def _cuda_works() -> bool:
    """A driver may be there and still not run this build of torch; only trying tells."""
    if not torch.cuda.is_available():
        return False
    try:
        return bool((torch.ones(1, device="cuda") + 1).item() == 2)
    except RuntimeError:
        return False


def tensor_of(blob: Floats) -> torch.Tensor:
    """A blob (B, 3, H, W) float32, H and W multiples of 32, as a tensor on the CPU. Raises ModelError for another."""
    if blob.ndim != 4 or blob.shape[1] != 3 or blob.dtype != np.float32:
        raise ModelError(f"blob: (B, 3, H, W) float32 is needed, got {blob.shape} {blob.dtype}")
    check_size(blob.shape[3], blob.shape[2])
    data = np.ascontiguousarray(blob)
    if not data.flags.writeable:
        data = data.copy()  # torch warns about read-only memory, although nothing writes into it here
    return torch.from_numpy(data)


@contextmanager
def num_threads(wanted: int | None) -> Iterator[None]:
    """CPU threads of torch inside the block, None to leave them; put back afterwards. torch keeps that number for each
    calling thread."""
    before = torch.get_num_threads()
    if wanted is None or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
