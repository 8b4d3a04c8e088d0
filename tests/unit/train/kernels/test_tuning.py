"""Block sizes hold every width, in sizes that triton accepts."""

from __future__ import annotations

import pytest
import torch

from scrfdkit.train.kernels import tuning

WIDTHS = (3, 16, 24, 32, 40, 48, 64, 72, 96, 100, 152, 160, 216, 288, 312, 1000)


@pytest.mark.parametrize("width", WIDTHS)
def test_blocks_are_powers_of_two_that_cover_the_channels(width: int) -> None:
    for other in WIDTHS:
        for cut, channels in (
            (tuning.depthwise_forward(width, 1), width),
            (tuning.depthwise_backward(width, 2), width),
            (tuning.pointwise_forward(other, width), width),
            (tuning.pointwise_backward(width, other), width),
            (tuning.elementwise(width), width),
        ):
            for size in (cut.rows, cut.tile):
                assert size >= 1
                assert size & (size - 1) == 0
            programs, tiles = cut.grid(1000, channels, torch.device("cpu"))
            assert (tiles - 1) * cut.tile < channels <= tiles * cut.tile
            assert 1 <= programs <= cut.count(1000)
            assert (cut.count(1000) - 1) * cut.rows < 1000 <= cut.count(1000) * cut.rows


def test_sums_of_a_tile_stay_in_registers() -> None:
    for source in WIDTHS:
        for out in WIDTHS:
            assert tuning.pointwise_backward(source, out).tile * tuning.padded(out) <= 16384
            assert tuning.pointwise_forward(source, out).tile >= 16


def test_matrix_products_have_at_least_sixteen_rows() -> None:
    for source in WIDTHS:
        for out in WIDTHS:
            assert min(tuning.pointwise_forward(source, out).rows, tuning.pointwise_backward(source, out).rows) >= 16
