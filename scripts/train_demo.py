#!/usr/bin/env python3
"""Trains the demo's network on pictures that qdrop draws, and exports it.

usage: train_demo.py QDROP [--out FILE] [--pictures N] [--epochs N]

QDROP is the program (target/release/qdrop). Pictures of seed 100 train, pictures of seed 101 measure; the demo itself
calibrates and measures on others. The network: a stem of stride 2 and three residual blocks of 16, 32 and 64 channels,
BatchNorm kept in the file, input [N, 3, 32, 32] normalised as the preset `imagenet-norm` says.
Needs torch, onnx, numpy and pillow.
"""

import argparse
import pathlib
import subprocess
import tempfile
import warnings

import numpy as np
import onnx
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
BATCH = 128


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        plain = stride == 1 and i == o
        self.down = nn.Identity() if plain else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.down(x))


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


def pictures(qdrop, seed, count):
    """Pictures [N, 3, 32, 32] as bytes, and labels [N]."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([qdrop, "demo", "--draw", str(count), "--seed", str(seed), "--output-dir", folder], check=True)
        files = sorted(pathlib.Path(folder).glob("*/*.png"))
        x = np.stack([np.asarray(Image.open(f)).transpose(2, 0, 1) for f in files])
        return torch.from_numpy(x), torch.tensor([int(f.parent.name) for f in files])


def normal(x):
    return (x.float() / 255 - MEAN) / STD


def jitter(x):
    """Each batch flipped and shifted by up to two pixels."""
    x = torch.roll(x, tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3))
    return x.flip(3) if torch.rand(()) < 0.5 else x


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        return 100 * (model(normal(x)).argmax(1) == y).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qdrop")
    parser.add_argument("--out", type=pathlib.Path, default=REPOSITORY / "crates/qdrop-cli/assets/demo.onnx")
    parser.add_argument("--pictures", type=int, default=40000)
    parser.add_argument("--epochs", type=int, default=16)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    x, y = pictures(args.qdrop, 100, args.pictures)
    test = pictures(args.qdrop, 101, 4000)
    model = Network(int(y.max()) + 1)
    steps = args.epochs * (len(x) // BATCH)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=steps, pct_start=0.2)
    for epoch in range(args.epochs):
        model.train()
        order = torch.randperm(len(x))
        for part in order[: len(x) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(normal(jitter(x[part]))), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: last loss {loss.item():.3f}, test {accuracy(model, *test):.2f} %", flush=True)
    axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        model.eval(), (normal(x[:2]),), args.out, dynamo=False, opset_version=17, input_names=["input"],
        output_names=["logits"], dynamic_axes=axes, training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    onnx.checker.check_model(str(args.out), full_check=True)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
