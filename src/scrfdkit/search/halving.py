"""Successive halving, one candidate at a time: who is among the worse ones at a look is given up.

The rule is that of asynchronous successive halving (Li et al., arXiv:1810.05934) without promotion of those given up.
Optuna has it too, but there every run of a candidate that was interrupted is one more competitor, and a resumed one
begins at the lowest rung again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def is_rung(epoch: int, first: int, factor: int) -> bool:
    """Whether it is decided after this epoch: after `first`, and after factor, factor^2 ... times as many."""
    rung = first
    while rung < epoch:
        rung *= factor
    return rung == epoch


def goes_on(score: float, others: Iterable[float], factor: int) -> bool:
    """Whether a score is among the best 1 / factor, rounded down but at least one, of those seen so far after the same
    epoch. Who is as good as the last of them goes on too: a tie says nothing against it."""
    if not math.isfinite(score):
        return False
    every = sorted([score, *filter(math.isfinite, others)], reverse=True)
    return score >= every[max(1, len(every) // factor) - 1]
