"""Turns annotations of Pascal VOC (XML) or YOLO (text) into an annotation file of COCO.

    python to_coco.py voc val.json Annotations/
    python to_coco.py voc val.json Annotations/ --list ImageSets/Main/val.txt --names names.txt
    python to_coco.py yolo val.json images/val/ labels/val/ --names names.txt

`names.txt` has the name of a class on each line, in the order of the network's classes; they become the categories 1, 2, ...
Without it the names in VOC's files are taken in alphabetical order. `--list` names the images to take, one on each line.

VOC's pixels count from 1 and its boxes include their last pixel, which is taken into account. Its objects marked `difficult`
become crowds: what is found there counts neither way. In YOLO's rows of polygons the box around the polygon is taken.
Needs Pillow for YOLO, whose boxes are shares of the image's size.
"""

import argparse
import json
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def fail(place, message):
    sys.exit(f"error: {place}: {message}")


def number(text, place):
    try:
        return float(text)
    except (TypeError, ValueError):
        fail(place, f"expected a number, got {text!r}")


def voc(path):
    """File name, width and height of an image, and its objects: name, box, whether it is difficult."""
    try:
        root = xml.parse(path).getroot()
    except xml.ParseError as error:
        fail(path, error)
    size = [number(root.findtext(f"size/{side}"), f"{path}: size/{side}") for side in ("width", "height")]
    objects = []
    for item in root.iter("object"):
        place = f"{path}: object {len(objects) + 1}"
        name = item.findtext("name") or fail(place, "the name is missing")
        sides = [number(item.findtext(f"bndbox/{side}"), f"{place}: {side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = sides
        objects.append((name, [left - 1, top - 1, right - left + 1, bottom - top + 1], item.findtext("difficult") == "1"))
    return root.findtext("filename") or fail(path, "the filename is missing"), *map(int, size), objects


def yolo(image, labels, names):
    """The same of an image and the file of its labels."""
    from PIL import Image

    with Image.open(image) as opened:
        width, height = opened.size
    objects = []
    path = labels / f"{image.stem}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    for at, line in enumerate(lines, 1):
        place, words = f"{path}, line {at}", line.split()
        if not words:
            continue
        label, *values = [number(word, place) for word in words]
        if not 0 <= label < len(names):
            fail(place, f"class {words[0]}, but there are {len(names)} names")
        if len(values) == 4:
            x, y, w, h = values
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        elif len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[::2], values[1::2]
            left, top = min(xs) * width, min(ys) * height
            box = [left, top, max(xs) * width - left, max(ys) * height - top]
        else:
            fail(place, "expected a class and the centre and size of a box, or the points of a polygon")
        objects.append((names[int(label)], box, False))
    return image.name, width, height, objects


def main():
    parser = argparse.ArgumentParser()
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("voc", "yolo"):
        command = kinds.add_parser(kind)
        command.add_argument("output", type=Path)
        if kind == "yolo":
            command.add_argument("images", type=Path)
        command.add_argument("labels", type=Path)
        command.add_argument("--names", type=Path, required=kind == "yolo")
        command.add_argument("--list", type=Path)
    given = parser.parse_args()
    names = given.names.read_text().split("\n") if given.names else None
    names = [name.strip() for name in names if name.strip()] if names else None
    wanted = {line.split()[0] for line in given.list.read_text().splitlines() if line.strip()} if given.list else None
    folder = given.labels if given.kind == "voc" else given.images
    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in ({".xml"} if given.kind == "voc" else IMAGES)]
    paths = [p for p in paths if wanted is None or p.stem in wanted or p.name in wanted]
    if not paths:
        fail(folder, "found no annotations" if given.kind == "voc" else "found no images")
    sets = [voc(p) if given.kind == "voc" else yolo(p, given.labels, names) for p in paths]
    names = names or sorted({name for *_, objects in sets for name, _, _ in objects})
    categories = {name: at for at, name in enumerate(names, 1)}
    images, annotations = [], []
    for at, (file, width, height, objects) in enumerate(sets, 1):
        images.append({"id": at, "file_name": file, "width": width, "height": height})
        for name, box, difficult in objects:
            if name not in categories:
                fail(file, f"the class {name!r} is not among the names")
            annotations.append({
                "id": len(annotations) + 1, "image_id": at, "category_id": categories[name], "bbox": box,
                "area": box[2] * box[3], "iscrowd": int(difficult),
            })
    categories = [{"id": at, "name": name} for name, at in categories.items()]
    given.output.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    print(f"{given.output}: {len(images)} images, {len(annotations)} objects of {len(categories)} classes")


if __name__ == "__main__":
    main()
