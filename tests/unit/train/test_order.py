"""Which pictures a step looks at: every one once an epoch, the same after a resume and in every process."""

from __future__ import annotations

import torch

from scrfdkit.train.batches import Share
from scrfdkit.train.order import Order


def test_every_picture_comes_once_an_epoch() -> None:
    order = Order(num_pictures=10, batch=4, seed=3)
    assert order.steps_per_epoch == 3
    for epoch in range(3):
        seen = torch.cat([order.pictures(3 * epoch + step) for step in range(3)])
        assert sorted(seen[:10].tolist()) == list(range(10))
        assert seen[10:].tolist() == seen[:2].tolist()  # the last batch is filled up


def test_epochs_and_seeds_differ() -> None:
    order = Order(100, 100, 0)
    assert order.pictures(0).tolist() != order.pictures(1).tolist()
    assert order.pictures(0).tolist() != Order(100, 100, 1).pictures(0).tolist()
    assert not torch.equal(order.uniforms(0, 5), order.uniforms(1, 5))


def test_a_step_is_a_pure_function() -> None:
    first, again = Order(50, 8, 7), Order(50, 8, 7)
    torch.manual_seed(1)
    _ = [first.uniforms(step, 3) for step in range(5)]
    assert torch.equal(first.uniforms(5, 3), again.uniforms(5, 3))
    assert torch.equal(first.pictures(5), again.pictures(5))


def test_a_batch_larger_than_the_set() -> None:
    assert sorted(Order(3, 7, 0).pictures(0).tolist()) == sorted(
        [0, 1, 2, 0, 1, 2, Order(3, 7, 0).pictures(0)[0].item()]
    )


def test_shares_take_every_sample_once() -> None:
    shares = [Share(rank, world=2, parts=3) for rank in range(2)]
    taken = [i for share in shares for part in range(3) for i in range(24)[share.of(24, part)]]
    assert taken == list(range(24))
