"""Writes outputs of detectors of every family, from random numbers, and what they mean, decoded by numpy.

    python scripts/detect_fixtures.py crates/qdrop/tests/fixtures/detect.json

One object per line: the family, the canvas (height and width), the number of classes, the outputs with their shapes and
values, and the detections: left, top, right, bottom, class, score, the best first. The tests of `eval::detect` decode the
same values. Needs numpy.
"""

import json
import math
import sys

import numpy as np

F = np.float32
rng = np.random.default_rng(8)
CANVAS = (64, 96)
CLASSES = 3


def normal(*shape, mean=0.0, std=1.0, digits=3):
    return np.round(rng.normal(mean, std, shape), digits).astype(F)


def uniform(low, high, *shape):
    return np.round(rng.uniform(low, high, shape), 6).astype(F)


def sigmoid(x):
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(F)


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(F)


def points(strides, canvas=CANVAS):
    rows = []
    for s in strides:
        for y in range(math.ceil(canvas[0] / s)):
            for x in range(math.ceil(canvas[1] / s)):
                rows.append((s, x, y))
    return np.array(rows, F)


def corners(cxcywh):
    x, y, w, h = cxcywh.T
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = lambda x: (x[2] - x[0]) * (x[3] - x[1])
    return w * h / (area(a) + area(b) - w * h)


def suppress(boxes, scores, threshold, overlap, most, several=True, top=None):
    """Boxes [N, 4] and scores [N, C] to rows, class by class."""
    found = []
    for c in range(scores.shape[1]):
        index = [i for i in range(len(boxes)) if scores[i, c] > threshold and (several or scores[i].argmax() == c)]
        found += [(float(scores[i, c]), c, i) for i in index]
    found.sort(key=lambda f: -f[0])
    kept = []
    for score, c, i in found[:top]:
        if overlap is None or all(k[1] != c or iou(boxes[k[2]], boxes[i]) <= overlap for k in kept):
            kept.append((score, c, i))
    return [[*map(float, boxes[i]), c, score] for score, c, i in kept[:most]]


def near_cells(strides, anchors=1):
    """Boxes in pixels around cells."""
    p = np.concatenate([points([s]) for s in strides for _ in range(anchors)])
    n = len(p)
    xy = (p[:, 1:] + 0.5 + normal(n, 2, std=0.4)) * p[:, :1]
    wh = np.exp(normal(n, 2, mean=0.5, std=0.6)) * p[:, :1]
    return np.round(np.concatenate([xy, wh], 1), 3).astype(F)


def record(name, family, outputs, found, canvas=CANVAS, classes=CLASSES, integer=()):
    values = [
        {"name": n, "shape": list(v.shape), "integer": n in integer, "values": [round(float(x), 6) for x in v.reshape(-1)]}
        for n, v in outputs
    ]
    row = {"name": name, "family": family, "canvas": canvas, "classes": classes, "outputs": values}
    scores = sorted(f[5] for f in found)
    assert all(b - a > 2e-7 for a, b in zip(scores, scores[1:])), f"{name}: equal scores have no order"
    print(name, [tuple(v.shape) for _, v in outputs], len(found))
    return json.dumps({**row, "found": [[*(round(x, 4) for x in f[:5]), round(f[5], 7)] for f in found]})


def cells():
    p = points([8, 16, 32])
    raw = np.concatenate([normal(len(p), 2, mean=0.5, std=0.5), normal(len(p), 2, mean=0.6, std=0.6)], 1)
    confidence = uniform(0, 1, len(p), 1 + CLASSES) ** 2
    confidence = np.round(confidence, 6).astype(F)
    boxes = corners(np.concatenate([(raw[:, :2] + p[:, 1:]) * p[:, :1], np.exp(raw[:, 2:]) * p[:, :1]], 1))
    scores = confidence[:, :1] * confidence[:, 1:]
    yield record("yolox", "yolox", [("output", np.concatenate([raw, confidence], 1)[None])],
                 suppress(boxes, scores, 0.001, 0.65, 100))
    pixels = near_cells([8, 16, 32])
    yield record("yolox decoded", "yolox-decoded", [("output", np.concatenate([pixels, confidence], 1)[None])],
                 suppress(corners(pixels), scores, 0.001, 0.65, 100))
    pixels = near_cells([8, 16, 32], 3)
    confidence = np.round(uniform(0, 1, len(pixels), 1 + CLASSES) ** 3, 6).astype(F)
    yield record("yolov5", "yolov5", [("output0", np.concatenate([pixels, confidence], 1)[None])],
                 suppress(corners(pixels), confidence[:, :1] * confidence[:, 1:], 0.001, 0.65, 300))
    pixels = near_cells([8, 16, 32])
    scores = np.round(uniform(0, 1, len(pixels), CLASSES) ** 4, 6).astype(F)
    found = suppress(corners(pixels), scores, 0.001, 0.7, 300)
    rows = np.concatenate([pixels, scores], 1)[None]
    yield record("yolov8", "yolov8", [("output0", np.ascontiguousarray(rows.transpose(0, 2, 1)))], found)
    yield record("yolov8 by row", "yolov8", [("output0", rows)], found)


def distributions():
    def boxes(p, d, centre):
        side = (softmax(d.reshape(len(p), 4, -1)) * np.arange(d.shape[1] // 4, dtype=F)).sum(-1) * p[:, :1]
        xy = (p[:, 1:] + F(centre)) * p[:, :1]
        box = np.concatenate([xy - side[:, :2], xy + side[:, 2:]], 1)
        return np.clip(box, 0, [CANVAS[1], CANVAS[0]] * 2)

    for name, strides, centre in [("nanodet", [8, 16, 32], 0.5), ("nanodet plus", [8, 16, 32, 64], 0.0)]:
        p = points(strides)
        scores, d = np.round(uniform(0, 0.6, len(p), CLASSES) ** 2, 6).astype(F), normal(len(p), 32, std=2)
        yield record(name, "nanodet", [("output", np.concatenate([scores, d], 1)[None])],
                     suppress(boxes(p, d, centre), scores, 0.05, 0.6, 100))
    for name, family, canvas, strides, threshold in [
        ("nanodet by level", "nanodet", CANVAS, [8, 16, 32], 0.05), ("picodet", "picodet", CANVAS, [8, 16, 32, 64], 0.025),
    ]:
        p = points(strides)
        logits, d = normal(len(p), CLASSES, mean=-2.5, std=1.5, digits=6), normal(len(p), 32, std=2)
        ends = np.cumsum([len(points([s])) for s in strides])[:-1]
        levels = list(zip(np.split(logits, ends), np.split(d, ends)))
        outputs = [(f"cls{i}", c[None]) for i, (c, _) in enumerate(levels)]
        outputs += [(f"reg{i}", d[None]) for i, (_, d) in enumerate(levels)]
        yield record(name, family, outputs, suppress(boxes(p, d, 0.5), sigmoid(logits), threshold, 0.6, 100))


def anchors():
    canvas = (32, 64)
    strides = [8, 16, 32, 64, 128]
    grids = [(math.ceil(canvas[0] / s), math.ceil(canvas[1] / s)) for s in strides]

    def shifts(level):
        h, w = grids[level]
        return [(x * (canvas[1] // w), y * (canvas[0] // h)) for y in range(h) for x in range(w)]

    def limited(boxes):
        return np.clip(boxes, 0, [canvas[1], canvas[0]] * 2)

    retina, sizes = [], []
    for level, size in enumerate([32, 64, 128, 256, 512]):
        scales = np.array([size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))], F)
        ratios = np.sqrt(np.array([0.5, 1, 2], F))
        ws = ((1 / ratios)[:, None] * scales).reshape(-1)
        hs = (ratios[:, None] * scales).reshape(-1)
        base = np.round(np.stack([-ws, -hs, ws, hs], 1) / 2)
        rows = [base + np.array([x, y, x, y], F) for x, y in shifts(level)]
        retina.append(np.concatenate(rows))
        sizes.append(len(retina[-1]))
    a = np.concatenate(retina)
    logits, d = normal(len(a), CLASSES, mean=-4.5, std=1.5, digits=6), normal(len(a), 4, std=0.4)
    w, h = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]
    x, y = a[:, 0] + w / 2, a[:, 1] + h / 2
    size = np.minimum(d[:, 2:], math.log(1000 / 16))
    boxes = limited(corners(np.stack([d[:, 0] * w + x, d[:, 1] * h + y, np.exp(size[:, 0]) * w, np.exp(size[:, 1]) * h], 1)))
    found = suppress(boxes, sigmoid(logits), 0.05, 0.5, 300)
    yield record("retinanet", "retinanet", [("cls_logits", logits[None]), ("bbox_regression", d[None])], found, canvas)
    cut = lambda v: np.split(v, np.cumsum(sizes)[:-1])
    outputs = [(f"box{i}", v[None]) for i, v in enumerate(cut(d))] + [(f"cls{i}", v[None]) for i, v in enumerate(cut(logits))]
    yield record("retinanet by level", "retinanet", outputs, found, canvas)
    maps = lambda v, k: [rows.reshape(h * w, 9, k).transpose(1, 2, 0).reshape(1, 9 * k, h, w) for rows, (h, w) in zip(cut(v), grids)]
    outputs = [(f"cls{i}", v) for i, v in enumerate(maps(logits, CLASSES))] + [(f"box{i}", v) for i, v in enumerate(maps(d, 4))]
    yield record("retinanet by map", "retinanet", outputs, found, canvas)

    centre = np.concatenate([np.array(shifts(level), F) for level in range(5)])
    side = np.concatenate([np.full((h * w, 1), s, F) for s, (h, w) in zip(strides, grids)])
    n = len(centre)
    logits, ctr, d = normal(n, CLASSES, mean=-2, std=1.5, digits=6), normal(n, 1, digits=6), np.abs(normal(n, 4, mean=1, std=1))
    scores = np.sqrt(sigmoid(logits) * sigmoid(ctr))
    boxes = limited(np.concatenate([centre - d[:, :2] * side, centre + d[:, 2:] * side], 1))
    found = suppress(boxes, scores, 0.2, 0.6, 100)
    outputs = [("cls_logits", logits[None]), ("bbox_regression", d[None]), ("bbox_ctrness", ctr[None])]
    yield record("fcos", "fcos", outputs, found, canvas)


def queries():
    n, size = 20, np.array([CANVAS[1], CANVAS[0]] * 2, F)
    boxes = np.concatenate([uniform(0.2, 0.8, n, 2), uniform(0.05, 0.4, n, 2)], 1)
    logits = normal(n, CLASSES + 1, std=2, digits=6)
    yield record("detr", "detr", [("logits", logits[None]), ("pred_boxes", boxes[None])],
                 suppress(corners(boxes * size), softmax(logits)[:, :-1], 0, None, 100, several=False))
    logits = normal(n, CLASSES, mean=-2, std=2, digits=6)
    found = suppress(corners(boxes * size), sigmoid(logits), 0, None, 300)
    yield record("rt-detr", "rt-detr", [("pred_boxes", boxes[None]), ("logits", logits[None])], found)
    scores = uniform(0, 1, n, CLASSES)
    found = suppress(corners(boxes * size), scores, 0, None, 300)
    yield record("rt-detr in one", "rt-detr", [("output0", np.concatenate([boxes, scores], 1)[None])], found)


def ends():
    n = 9
    xy = uniform(0, 60, n, 2)
    boxes = np.concatenate([xy, xy + uniform(4, 30, n, 2)], 1)
    scores = np.sort(uniform(0.05, 1, n))[::-1].astype(F)
    classes = rng.integers(0, CLASSES, n)
    found = [[*map(float, b), int(c), float(s)] for b, c, s in zip(boxes, classes, scores)]
    yield record("torchvision", "end-to-end", [("boxes", boxes), ("5017", classes), ("5013", scores)], found, integer=("5017",))
    column = classes[:, None].astype(F)
    rows = np.concatenate([boxes, scores[:, None], column], 1)
    filled = np.concatenate([rows, np.zeros((3, 6), F)])
    yield record("ultralytics end to end", "end-to-end", [("output0", filled[None])], found)
    rows = np.concatenate([np.zeros((n, 1), F), boxes, column, scores[:, None]], 1)
    yield record("yolov7 end to end", "end-to-end", [("output", rows)], found)
    outputs = [("labels", classes[None]), ("boxes", boxes[None]), ("scores", scores[None])]
    yield record("rt-detr end to end", "end-to-end", outputs, found, integer=("labels",))
    fill = lambda v: np.concatenate([v, np.zeros((3, *v.shape[1:]), v.dtype)])[None]
    outputs = [("num_dets", np.array([[n]])), ("det_boxes", fill(boxes)), ("det_scores", fill(scores)), ("det_classes", fill(classes))]
    yield record("efficient nms", "end-to-end", outputs, found, integer=("num_dets", "det_classes"))


def main(path):
    rows = [row for make in (cells, distributions, anchors, queries, ends) for row in make()]
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
