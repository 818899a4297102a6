"""A network to try things on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import _qdrop

__all__ = ["Demo", "demo"]

# How the pictures become the network's input: the preset `imagenet-norm`.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class Demo(NamedTuple):
    """A small network with pictures that it can name: a tuple with names.

    :param model: the bytes of an ONNX file, a residual network with nine convolutions and the input ``[batch, 3, 32, 32]``.
    :param images: pictures as the network takes them, float32, ``[N, 3, 32, 32]``.
    :param labels: what they show, classes from 0 to 19, int64, ``[N]``.
    """

    model: bytes
    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]


def demo(samples: int = 512, seed: int = 1) -> Demo:
    """The network of the command ``qdrop demo``, and ``samples`` pictures drawn from ``seed``.

    The network was trained on the pictures of seed 100. Calibrate on one seed and measure on another.
    """
    model, classes, pixels = _qdrop.demo(samples, seed)
    scaled = np.frombuffer(pixels, np.uint8).reshape(samples, 32, 32, 3).astype(np.float32) / 255
    images = np.ascontiguousarray(((scaled - _MEAN) / _STD).transpose(0, 3, 1, 2))
    return Demo(model, images, np.arange(samples) % classes)
