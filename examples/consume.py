"""Faces with numpy, OpenCV and onnxruntime alone, from files that `scrfd export` wrote.

scrfd export scrfd_500m_kps --layout maps -o maps.onnx            python consume.py maps.onnx astronaut.jpg
scrfd export scrfd_500m_kps --layout end2end -o faces.onnx        python consume.py faces.onnx astronaut.jpg

Prints a line a face: x1 y1 x2 y2 score, then x y of each key point.
"""

import sys

import cv2
import numpy as np
import onnxruntime

SIDE, SCORE, OVERLAP = 640, 0.5, 0.4


def letterbox(picture):
    """(1, SIDE, SIDE, 3) uint8 BGR, the picture in the top left corner, and its scale."""
    height, width = picture.shape[:2]
    across, down = max(1, min(SIDE, SIDE * width // height)), max(1, min(SIDE, SIDE * height // width))
    canvas = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    canvas[0, :down, :across] = cv2.resize(picture, (across, down))
    return canvas, down / height


def decode(maps):
    """Maps by name to boxes (N, 4), scores (N,), key points (N, K, 2), in canvas pixels."""
    boxes, scores, points = [], [], []
    for stride in (8, 16, 32):
        logits, distances = maps[f"score_{stride}"][0], maps[f"bbox_{stride}"][0]
        anchor, y, x = np.nonzero(logits >= np.log(SCORE / (1 - SCORE)))
        scores.append(1 / (1 + np.exp(-logits[anchor, y, x])))
        centre = np.stack([x, y], axis=1) * stride
        left_top, right_bottom = np.split(
            distances.reshape(-1, 4, *logits.shape[1:])[anchor, :, y, x] * stride, 2, axis=1
        )
        boxes.append(np.concatenate([centre - left_top, centre + right_bottom], axis=1))
        if f"kps_{stride}" in maps:
            offsets = maps[f"kps_{stride}"][0].reshape(len(logits), -1, *logits.shape[1:])[anchor, :, y, x] * stride
            points.append(centre[:, None] + offsets.reshape(len(anchor), offsets.shape[1] // 2, 2))
    boxes, scores = np.concatenate(boxes), np.concatenate(scores)
    return boxes, scores, np.concatenate(points) if points else np.zeros((len(boxes), 0, 2))


def suppress(boxes, scores):
    """Numbers of the faces that stay, best first; the overlap counts both edges of a box."""
    left, top, right, bottom = boxes.T
    areas, kept, rest = (right - left + 1) * (bottom - top + 1), [], np.argsort(-scores, kind="stable")
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        across = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1
        down = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1
        shared = across.clip(0) * down.clip(0)
        rest = rest[shared <= OVERLAP * (areas[best] + areas[rest] - shared)]
    return kept


def main(model, path):
    canvas, scale = letterbox(cv2.imread(path))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    end2end = name == "images"
    blob = canvas if end2end else (canvas[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, {name: blob}), strict=True))
    if end2end:  # best first, and what lies behind the count is empty
        count = int(found["counts"][0])
        boxes, scores = found["boxes"][0, :count], found["scores"][0, :count]
        points = found["keypoints"][0, :count] if "keypoints" in found else np.zeros((count, 0, 2))
    else:
        boxes, scores, points = decode(found)
        kept = suppress(boxes / scale, scores)
        boxes, scores, points = boxes[kept], scores[kept], points[kept]
    for box, score, face in zip(boxes / scale, scores, points / scale, strict=True):
        print(*np.round(box, 2), f"{score:.4f}", *np.round(face.ravel(), 2))


if __name__ == "__main__":
    main(*sys.argv[1:])
