#!/usr/bin/env python3
"""Exports many architectures with random weights, small images and few channels, by both of PyTorch's exporters.

usage: zoo.py DIR [--only NAME,...]

Writes DIR/NAME.ts.onnx (TorchScript exporter), DIR/NAME.dyn.onnx (the exporter on torch.export), DIR/NAME.in.npz (four
samples, an array per input of the network) and DIR/NAME.out.npz (PyTorch's answers in eval mode, computed in double
precision, arrays `0`, `1`, ...).
The batch axis is dynamic everywhere. `crates/qdrop/tests/zoo.rs` reads the folder (QDROP_ZOO).
Needs torch, torchvision, onnx and onnxscript.
"""

import argparse
import functools
import pathlib
import sys
import traceback
import warnings

import numpy as np
import torch
from torch import nn
from torchvision import models as tv
from torchvision.models import convnext, efficientnet, regnet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from export_fixtures import dynamo, few, judged, randomise, script, settle, thin
from zoo_networks import Bert, Gpt, Recurrent, UNet, Yolo

SAMPLES = 4
CLASSES = 10


def images(side):
    return lambda: {"input": torch.randn(SAMPLES, 3, side, side)}


def tokens(vocabulary, length):
    def draw():
        lengths = torch.randint(length // 2, length + 1, (SAMPLES, 1))
        mask = (torch.arange(length) < lengths).long()
        return {
            "input_ids": torch.randint(1, vocabulary, (SAMPLES, length)) * mask,
            "attention_mask": mask,
            "token_type_ids": (torch.arange(length) >= lengths // 2).long() * mask,
        }
    return draw


def part(n):
    """Every width divided by `n`: it keeps sums and concatenations of widths that `n` divides."""
    return lambda channels: channels // n if channels % n == 0 else channels


def thinned(width, make, *args, **options):
    def build():
        with thin(width):
            return make(*args, **options)
    return build


def plain(name, **options):
    return functools.partial(getattr(tv, name), weights=None, num_classes=CLASSES, **options)


def regnet_of(**options):
    params = regnet.BlockParams.from_init_params(depth=7, w_0=16, w_a=12.0, w_m=2.2, group_width=8, **options)
    return functools.partial(regnet.RegNet, params, num_classes=CLASSES)


def efficientnet_of(version):
    plain, fused = efficientnet.MBConvConfig, efficientnet.FusedMBConvConfig
    blocks = [plain(1, 3, 1, 32, 16, 1), plain(6, 3, 2, 16, 24, 2), plain(6, 5, 2, 24, 40, 2)]
    if version == 2:
        blocks = [fused(1, 3, 1, 24, 24, 1), fused(4, 3, 2, 24, 32, 2), plain(4, 3, 2, 32, 48, 2)]
    return functools.partial(efficientnet.EfficientNet, blocks, dropout=0.2, last_channel=64, num_classes=CLASSES)


class Outputs(nn.Module):
    """A network that answers with a dictionary, as a tuple."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return tuple(self.inner(x).values())


def fpn():
    with thin(few):
        return Outputs(resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d))


def swin():
    return tv.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=CLASSES)


def vit():
    return tv.VisionTransformer(32, 8, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=CLASSES)


def convnext_small():
    setting = convnext.CNBlockConfig
    return convnext.ConvNeXt([setting(24, 48, 2), setting(48, None, 2)], num_classes=CLASSES)


def vgg():
    with thin(few):
        model = tv.vgg11_bn(weights=None, num_classes=CLASSES)
    model.classifier = nn.Sequential(
        nn.Linear(few(512) * 49, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(True), nn.Dropout(),
        nn.Linear(64, CLASSES),
    )
    return model


# Name: (constructor, inputs)
ZOO = {
    "resnet18": (thinned(few, plain("resnet18")), images(64)),
    "resnet50": (thinned(part(8), plain("resnet50")), images(64)),
    "regnet_x": (regnet_of(), images(64)),
    "regnet_y": (regnet_of(se_ratio=0.25), images(64)),
    "mobilenet_v2": (plain("mobilenet_v2", width_mult=0.25), images(64)),
    "mobilenet_v3_small": (plain("mobilenet_v3_small", width_mult=0.5), images(64)),
    "mobilenet_v3_large": (plain("mobilenet_v3_large", width_mult=0.25), images(64)),
    "mnasnet": (plain("mnasnet0_5"), images(64)),
    "squeezenet1_1": (thinned(part(4), plain("squeezenet1_1")), images(64)),
    "shufflenet_v2": (plain("shufflenet_v2_x0_5"), images(64)),
    "googlenet": (thinned(part(8), plain("googlenet", init_weights=False, aux_logits=False)), images(64)),
    "inception_v3": (thinned(part(8), plain("inception_v3", init_weights=False, aux_logits=False)), images(96)),
    "densenet": (functools.partial(tv.DenseNet, 8, (3, 4, 2), 16, num_classes=CLASSES), images(64)),
    "efficientnet": (efficientnet_of(1), images(64)),
    "efficientnet_v2": (efficientnet_of(2), images(64)),
    "convnext": (convnext_small, images(64)),
    "vgg11_bn": (vgg, images(224)),
    "vit": (vit, images(32)),
    "swin": (swin, images(32)),
    "fpn": (fpn, images(64)),
    "unet": (functools.partial(UNet, 8, 3), images(32)),
    "yolo": (functools.partial(Yolo, 16, CLASSES), images(64)),
    "bert": (functools.partial(Bert, vocabulary=99, length=16, width=64, heads=4, layers=2), tokens(99, 16)),
    "gpt": (
        functools.partial(Gpt, vocabulary=99, length=16, width=64, heads=4, layers=2),
        lambda: {"input_ids": torch.randint(0, 99, (SAMPLES, 16))},
    ),
    "lstm_last": (functools.partial(Recurrent, 12, 32), lambda: {"input": torch.randn(SAMPLES, 12, 20)}),
    "lstm": (functools.partial(Recurrent, 12, 32, CLASSES), lambda: {"input": torch.randn(SAMPLES, 12, 20)}),
}


def perturb(model):
    """Random parameters where constructors leave ones, zeros or tiny numbers."""
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.LayerNorm):
                m.weight.uniform_(0.5, 1.5)
                m.bias.normal_(0, 0.2)
            elif isinstance(m, nn.MultiheadAttention):
                m.in_proj_bias.normal_(0, 0.1)
        for name, p in model.named_parameters():
            if name.endswith(("layer_scale", "class_token")):
                p.uniform_(0.1, 1.0)
    return model


def build(name):
    make, inputs = ZOO[name]
    torch.manual_seed(0)
    model, x = perturb(randomise(make())), inputs()
    if x[next(iter(x))].dim() == 4:
        # Statistics of many images: few would leave channels that hardly vary, and small errors would grow.
        settle(model, torch.cat([inputs()["input"] for _ in range(8)]))
    return model, x


def export(name, out):
    """Writes one network; prints what failed and says whether all went well."""
    model, inputs = build(name)
    with torch.no_grad():
        answers = model.double()(*(v.double() if v.is_floating_point() else v for v in inputs.values()))
    model.float()
    answers = answers if isinstance(answers, tuple) else (answers,)
    outputs = ["output"] if len(answers) == 1 else [f"output{i}" for i in range(len(answers))]
    np.savez(out / f"{name}.in.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.savez(out / f"{name}.out.npz", **{str(i): a.float().numpy() for i, a in enumerate(answers)})
    good = True
    for kind, exporter in {"ts": script, "dyn": dynamo}.items():
        path = out / f"{name}.{kind}.onnx"
        try:
            exporter(model, inputs, outputs, path)
            judged(path)
        except Exception:
            path.unlink(missing_ok=True)
            print(f"{path.name}: not exported\n{traceback.format_exc(limit=-2)}", flush=True)
            good = False
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", type=lambda s: s.split(","), default=list(ZOO))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if all([export(name, args.out) for name in args.only]) else 1)


if __name__ == "__main__":
    main()
