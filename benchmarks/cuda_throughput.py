"""Pictures a second of the PyTorch runtime on CUDA, by network and batch.

    python benchmarks/cuda_throughput.py [--network NAME]... [--output FILE.json]

"network" is a blob already on the device, "runtime" the whole `run` with its copies to and from the device, at 640x640
in float32 with TF32 off, as the runtime is. Networks whose weights are not at hand run with random ones: it makes no
difference to the time. Every figure is the median of repetitions that together last at least a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scrfdkit.benchmark.machine import machine
from scrfdkit.model.net import build, fuse
from scrfdkit.runtime.pytorch import PyTorchRuntime
from scrfdkit.zoo import ZOO


def seconds(work: Callable[[], object]) -> float:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    times: list[float] = []
    while sum(times) < 1 or len(times) < 5:
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=list(ZOO))
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.cuda.get_device_name(0)
    rows = []
    for name in args.network or ["scrfd_500m_kps", "scrfd_2.5g_kps", "scrfd_10g_kps", "scrfd_34g"]:
        net = fuse(build(ZOO[name].spec)).cuda()
        runtime = PyTorchRuntime(net, {}, "cuda")
        for batch in args.batch or [1, 8, 64]:
            blob = np.random.default_rng(0).standard_normal((batch, 3, 640, 640), dtype=np.float32)
            there = torch.from_numpy(blob).cuda()
            with torch.inference_mode():
                inner = seconds(lambda net=net, there=there: net(there))
            outer = seconds(lambda runtime=runtime, blob=blob: runtime.run(blob))
            peak = torch.cuda.max_memory_allocated() / 2**20
            torch.cuda.reset_peak_memory_stats()
            row = {
                "network": name,
                "batch": batch,
                "network_per_s": round(batch / inner),
                "runtime_per_s": round(batch / outer),
            }
            rows.append(row | {"peak_mib": round(peak)})
            print(
                f"{device}  {name:16} batch {batch:3}  network {batch / inner:9.0f}/s  runtime {batch / outer:9.0f}/s  {peak:7.0f} MiB"
            )
    if args.output:
        record = {"device": device, "torch": torch.__version__, "machine": machine(), "rows": rows}
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
