"""What the judges share: ONNX Runtime sessions, and images as the `imagenet` presets prepare them, by Pillow alone."""

import csv
import pathlib
import sys

import numpy as np
import onnxruntime as ort
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}

LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,  # ONNX Runtime's default
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def fail(message):
    sys.exit(f"error: {message}")


def session(model, level="all", threads=0):
    """A session on the CPU; threads 0: as many as there are cores."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def batches(run, count, batch):
    """Ranges of samples; one at a time where the network's batch is fixed to 1."""
    declared = run.get_inputs()[0].shape[0]
    step = declared if isinstance(declared, int) else batch
    if isinstance(declared, int) and count % declared:
        fail(f"the network wants batches of {declared}, {count} samples are no multiple of it")
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def labelled(path):
    """Files and labels: a folder with one sub-folder per class in sorted order, or a CSV with `file,label`."""
    path = pathlib.Path(path)
    if path.is_dir():
        classes = sorted(p for p in path.iterdir() if p.is_dir())
        if not classes:
            fail(f"{path} has no sub-folder per class")
        return [(f, i) for i, c in enumerate(classes) for f in sorted(c.iterdir()) if f.suffix.lower() in SUFFIXES]
    with open(path, newline="") as file:
        return [(path.parent / row["file"], int(row["label"])) for row in csv.DictReader(file)]


def image(path, preset):
    """Network input [3, H, W] of one image. `imagenet`: shorter side to 256 (bilinear), centre 224; `imagenet-norm`:
    neither. Both: RGB / 255, minus the mean, by the deviation."""
    picture = Image.open(path).convert("RGB")
    if preset == "imagenet":
        w, h = picture.size
        short, long = 256, int(256 * max(w, h) / min(w, h))
        picture = picture.resize((short, long) if w <= h else (long, short), Image.Resampling.BILINEAR)
        w, h = picture.size
        left, top = round((w - 224) / 2), round((h - 224) / 2)
        picture = picture.crop((left, top, left + 224, top + 224))
    values = np.asarray(picture, np.float32) / 255
    return np.ascontiguousarray(((values - MEAN) / STD).transpose(2, 0, 1))
