"""Compiles the kernel for GPUs that need not be there and prints, for each, whether all steps round by themselves."""

from __future__ import annotations

import json
import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from scrfdkit.train.pixels import fused

TYPES = {"pixels": "*i32", "offsets": "*i64", "sizes": "*i32", "rows": "*i64", "views": "*fp32"}
TYPES |= {"mean": "fp32", "factor": "fp32", "SIZE": "constexpr", "BLOCK": "constexpr"}


def main() -> None:
    result = {}
    for capability in (80, 90):
        for out in ("*fp32", "*bf16", "*fp16"):
            types = {name: TYPES.get(name, out) for name in fused._samples.arg_names}
            source = ASTSource(fused._samples, types, {"SIZE": 640, "BLOCK": fused._BLOCK})
            options = {"num_warps": 4, "enable_fp_fusion": False}
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            text = made.asm["ptx"]
            loose = re.findall(r"\b(?:fma\.\S*f32|div\.(?:full|approx)\S*)", text)
            nearest = sorted(set(re.findall(r"\bcvt\.rn\.(b?f16)", text)))
            result[f"sm{capability} {out}"] = {
                "machine code": len(made.asm["cubin"]),
                "loose": loose,
                "rounds to": nearest,
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
