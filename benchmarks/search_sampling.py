"""How long it takes to draw the candidates of a search, and how many draws are accepted.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/search_sampling.py [--num 64] [--repeat 5] [--output FILE.json]

Times are the medians of runs with different seeds in one process, from the space to 64 candidates with their traits;
the share of accepted draws is counted over many more of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from scrfdkit.machine import machine
from scrfdkit.model.cost import cost
from scrfdkit.search.draw import accept, sample
from scrfdkit.search.space import BackboneSpace, WholeSpace, backbone_space
from scrfdkit.zoo import ZOO

BUDGETS = {"500M": 5e8, "1G": 1e9, "2.5G": 2.5e9, "10G": 1e10, "34G": 3.4e10}
RELEASED = {"500M": "scrfd_500m", "1G": "scrfd_1g", "2.5G": "scrfd_2.5g", "10G": "scrfd_10g", "34G": "scrfd_34g"}
DRAWS = {BackboneSpace: 800_000, WholeSpace: 4_000_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    print(json.dumps(machine()))
    print("| budget | step | seconds | draws | accepted |\n|---|---|---|---|---|")
    rows = []
    for name, budget in BUDGETS.items():
        spec = ZOO[RELEASED[name]].spec
        rows.append(measure(name, 1, backbone_space(budget), args.num, args.repeat))
        rows.append(measure(name, 2, WholeSpace(float(cost(spec).flops), spec), args.num, args.repeat))
    if args.output:
        args.output.write_text(json.dumps({"machine": machine(), "num": args.num, "rows": rows}, indent=1) + "\n")


def measure(name: str, step: int, space: BackboneSpace | WholeSpace, num: int, repeat: int) -> dict[str, Any]:
    seconds, drawn = [], []
    for seed in range(repeat):
        start = time.perf_counter()
        drawn.append(sample(space, num, seed).drawn)
        seconds.append(time.perf_counter() - start)
    draws = DRAWS[type(space)]
    share = sum(1 for _ in accept(space, draws, np.random.default_rng(99))) / draws
    print(f"| {name} | {step} | {median(seconds):.2f} | {median(drawn):,} | {share:.4%} |", flush=True)
    return {"budget": name, "step": step, "seconds": median(seconds), "drawn": median(drawn), "accepted": share}


if __name__ == "__main__":
    main()
