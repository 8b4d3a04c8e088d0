"""What every runtime on top of torch asks of it: a device that works, exact arithmetic, and a number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
