#!/usr/bin/env python3
"""Seconds per iteration of every unit of a network: the published algorithm in PyTorch against qdrop, in turn.

usage: official_blocks.py QDROP [--network resnet18|mobilenetv2] [--threads N] [--batch N] [--rounds N]
                          [--iterations N] [--json]

QDROP is the program (target/release/qdrop). The PyTorch side is a plain writing of QDrop as published, as the official
code does it: autograd, element-wise operations one by one, convolutions by PyTorch, random weights and data. The qdrop
side is `qdrop bench` on torchvision's network with random weights. Both take the same number of threads; rounds alternate,
and the best of each side counts.
Needs torch, torchvision and onnx.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time
import warnings

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

BITS, KEEP, LAMBDA, BETA, SAMPLES = 4, 0.5, 0.01, 10.0, 64
GAMMA, ZETA = -0.1, 1.1


def round_straight(x):
    return (x.round() - x).detach() + x


class ActivationQuantizer(nn.Module):
    """Learned step with scaled gradient, then dropping."""

    def __init__(self):
        super().__init__()
        self.scale, self.zero, self.qmax = nn.Parameter(torch.tensor(0.2)), 0, 2**BITS - 1

    def forward(self, x):
        factor = 1 / (x.numel() * self.qmax) ** 0.5
        scale = (self.scale - self.scale * factor).detach() + self.scale * factor
        integers = torch.clamp(round_straight(x / scale) + self.zero, 0, self.qmax)
        quantized = (integers - self.zero) * scale
        return torch.where(torch.rand_like(x) < KEEP, quantized, x)


class SoftRounded(nn.Module):
    """A layer whose weight is rounded softly, per output channel."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.qmax = layer, 2**BITS - 1
        w = layer.weight.data
        flat = w.flatten(1)
        low, high = flat.amin(1).clamp(max=0), flat.amax(1).clamp(min=0)
        view = [-1] + [1] * (w.dim() - 1)
        self.scale = ((high - low) / self.qmax).view(view)
        self.zero = (-low.view(view) / self.scale).round()
        rest = w / self.scale - (w / self.scale).floor()
        self.alpha = nn.Parameter(-torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1))

    def h(self):
        return torch.clamp(torch.sigmoid(self.alpha) * (ZETA - GAMMA) + GAMMA, 0, 1)

    def forward(self, x):
        integers = torch.clamp((self.layer.weight / self.scale).floor() + self.h() + self.zero, 0, self.qmax)
        w = (integers - self.zero) * self.scale
        if isinstance(self.layer, nn.Conv2d):
            layer = self.layer
            return F.conv2d(x, w, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        return F.linear(x, w, self.layer.bias)


class Single(nn.Module):
    def __init__(self, layer, act):
        super().__init__()
        self.layer, self.act, self.quantizer = SoftRounded(layer), act, ActivationQuantizer() if act else None

    def forward(self, x):
        y = self.layer(x)
        return self.quantizer(self.act(y)) if self.quantizer else y


class Basic(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1 = SoftRounded(nn.Conv2d(i, o, 3, stride, 1))
        self.conv2 = SoftRounded(nn.Conv2d(o, o, 3, 1, 1))
        self.down = None if stride == 1 else SoftRounded(nn.Conv2d(i, o, 1, stride))
        self.inner, self.outer = ActivationQuantizer(), ActivationQuantizer()

    def forward(self, x):
        y = self.conv2(self.inner(F.relu(self.conv1(x))))
        return self.outer(F.relu(y + (x if self.down is None else self.down(x))))


class Inverted(nn.Module):
    """Expansion, depthwise, projection."""

    def __init__(self, i, o, stride, expand):
        super().__init__()
        inner = i * expand
        self.expand = SoftRounded(nn.Conv2d(i, inner, 1)) if expand > 1 else None
        self.depthwise = SoftRounded(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner))
        self.project = SoftRounded(nn.Conv2d(inner, o, 1))
        self.skip = stride == 1 and i == o
        self.quantizers = nn.ModuleList(ActivationQuantizer() for _ in range(3 if expand > 1 else 2))

    def forward(self, x):
        y = x if self.expand is None else self.quantizers[2](F.relu6(self.expand(x)))
        y = self.project(self.quantizers[1](F.relu6(self.depthwise(y))))
        return self.quantizers[0](x + y if self.skip else y)


def resnet18():
    """(name, module, input shape) of every unit with weights."""
    yield "conv1", Single(nn.Conv2d(3, 64, 7, 2, 3), F.relu), (3, 224, 224)
    width, side = 64, 56
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            yield f"layer{stage}.{block}", Basic(width, channels, stride), (width, side, side)
            width, side = channels, side // stride
    yield "fc", Single(nn.Linear(512, 1000), None), (512,)


def mobilenetv2():
    """(name, module, input shape) of every unit with weights."""
    yield "first", Single(nn.Conv2d(3, 32, 3, 2, 1), F.relu6), (3, 224, 224)
    width, side, number = 32, 112, 0
    settings = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, channels, count, first in settings:
        for block in range(count):
            stride = first if block == 0 else 1
            yield f"blocks.{number}", Inverted(width, channels, stride, expand), (width, side, side)
            width, side, number = channels, side // stride, number + 1
    yield "last", Single(nn.Conv2d(320, 1280, 1), F.relu6), (320, 7, 7)
    yield "classifier", Single(nn.Linear(1280, 1000), None), (1280,)


NETWORKS = {
    "resnet18": (resnet18, torchvision.models.resnet18),
    "mobilenetv2": (mobilenetv2, torchvision.models.mobilenet_v2),
}


def pytorch(units, batch, iterations):
    """Seconds per iteration of each unit."""
    seconds = {}
    for name, unit, shape in units():
        floats, quantized = torch.randn(SAMPLES, *shape), torch.randn(SAMPLES, *shape)
        with torch.no_grad():
            targets = torch.cat([unit(part) for part in floats.split(batch)])
        layers = [m for m in unit.modules() if isinstance(m, SoftRounded)]
        scales = [m.scale for m in unit.modules() if isinstance(m, ActivationQuantizer)]
        optimisers = [torch.optim.Adam([m.alpha for m in layers], 1e-3)]
        optimisers += [torch.optim.Adam(scales, 4e-5)] if scales else []
        for iteration in range(-1, iterations):
            if iteration == 0:
                start = time.perf_counter()
            index = torch.randint(SAMPLES, (batch,))
            q, f = quantized[index], floats[index]
            x = torch.where(torch.rand_like(q) < KEEP, q, f)
            loss = (unit(x) - targets[index]).pow(2).sum(1).mean()
            for m in layers:
                loss = loss + LAMBDA * (1 - (2 * (m.h() - 0.5)).abs().pow(BETA)).sum()
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
        seconds[name] = (time.perf_counter() - start) / iterations
    return seconds


def qdrop(program, model, threads, batch):
    """Seconds per iteration of each unit, in network order."""
    command = [program, "bench", model, "--shape", "1,3,224,224", "-w", str(BITS), "-a", str(BITS), "--lambda", str(LAMBDA),
               "--batch", str(batch), "--threads", str(threads), "--format", "json", "--quiet"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [unit["seconds"] for unit in report["units"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qdrop")
    parser.add_argument("--network", choices=NETWORKS, default="resnet18")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    ours, theirs = [], []
    units, build = NETWORKS[args.network]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.onnx"
        torch.onnx.export(build(weights=None).eval(), (torch.randn(1, 3, 224, 224),), path, dynamo=False,
                          opset_version=17, input_names=["input"], output_names=["output"])
        for _ in range(args.rounds):
            ours.append(qdrop(args.qdrop, path, args.threads, args.batch))
            theirs.append(pytorch(units, args.batch, args.iterations))
    names = list(theirs[0])
    assert all(len(o) == len(names) for o in ours), "both sides must have the same units"
    rows = [(n, min(t[n] for t in theirs), min(o[i] for o in ours)) for i, n in enumerate(names)]
    rows.append(("all", sum(r[1] for r in rows), sum(r[2] for r in rows)))
    if args.json:
        print(json.dumps([{"unit": n, "pytorch": p, "qdrop": q, "ratio": p / q} for n, p, q in rows]))
        return
    print(f"torch {torch.__version__}, {args.threads} threads, batch {args.batch}, seconds per iteration")
    print(f"{'unit':10} {'PyTorch':>8} {'qdrop':>8} {'ratio':>6}")
    for n, p, q in rows:
        print(f"{n:10} {p:8.3f} {q:8.3f} {p / q:6.1f}")


if __name__ == "__main__":
    main()
