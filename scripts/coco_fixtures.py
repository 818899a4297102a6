"""Writes small sets of boxes in COCO's format, random detections of them, and the figures of pycocotools.

    python scripts/coco_fixtures.py crates/qdrop/tests/fixtures/coco

For each set NAME: NAME.json (annotations), NAME.found.json (detections), NAME.figures.json (the twelve figures, 0 to 1, -1
where there is no such object). The test `detection` compares the program's figures with these. Needs numpy and pycocotools.
"""

import contextlib
import io
import json
import pathlib
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def boxes(rng, n):
    """n boxes of all three sizes in images of 640 by 480."""
    side = 2.0 ** rng.uniform(2.5, 8.3, n)
    w = np.minimum(side * 2.0 ** rng.uniform(-0.7, 0.7, n), 600)
    h = np.minimum(side * 2.0 ** rng.uniform(-0.7, 0.7, n), 450)
    return np.stack([rng.uniform(0, 640 - w), rng.uniform(0, 480 - h), w, h], 1).round(2)


def make(seed, crowds, ties):
    rng = np.random.default_rng(seed)
    # Numbers with gaps, in no order.
    images = [int(i) for i in rng.permutation(np.arange(3, 400, 31))]
    categories = [18, 2, 44, 7]
    annotations, found = [], []
    for image in images:
        for category in categories[:3]:
            n = int(rng.integers(0, 6))
            for box in boxes(rng, n):
                annotations.append({
                    "id": 1000 + len(annotations), "image_id": image, "category_id": category, "bbox": box.tolist(),
                    "area": round(float(box[2] * box[3] * rng.uniform(0.5, 1.0)), 2),
                    "iscrowd": int(rng.random() < crowds),
                })
            own = [a["bbox"] for a in annotations if a["image_id"] == image and a["category_id"] == category]
            near = [np.array(b) + rng.normal(0, 0.09, 4) * (b[2:] * 2) for b in own for _ in range(int(rng.integers(0, 4)))]
            # One image has more than a hundred detections of a category.
            far = boxes(rng, 110 if image == images[4] and category == 2 else int(rng.integers(0, 9)))
            for box in [*near, *far]:
                box = np.maximum(np.array(box), [0, 0, 0.5, 0.5]).round(2)
                score = float(np.round(rng.random(), 1 if ties else 4))
                found.append({"image_id": image, "category_id": category, "score": score, "bbox": box.tolist()})
    found = [found[i] for i in rng.permutation(len(found))]
    # A category without objects, which a detector believes to see.
    found.append({"image_id": images[0], "category_id": 7, "score": 0.5, "bbox": [1.0, 2.0, 30.0, 40.0]})
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in images],
        "categories": [{"id": c, "name": f"kind {c}"} for c in categories],
        "annotations": annotations,
    }
    return truth, found


def figures(truth, found):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(json.loads(json.dumps(found))), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(x) for x in judge.stats]


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, crowds, ties in [("plain", 1, 0.0, False), ("crowds", 2, 0.2, False), ("ties", 3, 0.1, True)]:
        truth, found = make(seed, crowds, ties)
        lines = lambda rows: "[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]"
        text = ",\n".join(f'"{key}": {lines(rows)}' for key, rows in truth.items())
        (folder / f"{name}.json").write_text("{\n" + text + "\n}\n")
        (folder / f"{name}.found.json").write_text(lines(found) + "\n")
        (folder / f"{name}.figures.json").write_text(json.dumps(figures(truth, found), indent=0) + "\n")
        print(name, len(truth["annotations"]), len(found), [round(x, 4) for x in figures(truth, found)])


if __name__ == "__main__":
    main(sys.argv[1])
