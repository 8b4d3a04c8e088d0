"""Makes the weight files of src/scrfdkit/assets complete: spec, measured AP, terms and origin go into the files.

    python scripts/embed_weights.py SOURCE.safetensors SOURCE.onnx

Tensors are taken as they are. Prints the sha256 of both files, for `weights.EMBEDDED` and docs/weights.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx

import scrfdkit
from scrfdkit import weights
from scrfdkit.atomic import save
from scrfdkit.model import checkpoint

SOURCE = "trained from scratch for scrfdkit on 2,726 WIDER FACE pictures, landmarks by the official 2.5g_kps network"
LICENCE = "non-commercial research only (WIDER FACE is CC BY-NC-ND 4.0)"
METRICS = {"WIDER FACE val, 1,000 pictures not trained on, VGA": {"easy": 88.09, "medium": 85.69, "hard": 65.63}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("safetensors", type=Path)
    parser.add_argument("onnx", type=Path)
    args = parser.parse_args()
    assets = Path(scrfdkit.__file__).parent / "assets"
    net, info = checkpoint.load(args.safetensors)
    facts = {"name": weights.DEFAULT, "metrics": METRICS, "licence": LICENCE, "source": SOURCE}
    target = assets / weights.EMBEDDED[".safetensors"].file
    complete = checkpoint.save(target, net, info.spec, **facts)
    print(weights.sha256(target), target.name)

    graph = onnx.load(args.onnx)
    # The sha256 in the metadata is over the tensors of the other file; an ONNX file has no use for it.
    onnx.helper.set_model_props(graph, {k: v for k, v in complete.to_metadata().items() if k != "sha256"})
    target = assets / weights.EMBEDDED[".onnx"].file
    save(target, graph.SerializeToString())
    print(weights.sha256(target), target.name)


if __name__ == "__main__":
    main()
