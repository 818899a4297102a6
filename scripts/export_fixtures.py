#!/usr/bin/env python3
"""Exports torchvision architectures with random weights, by both of PyTorch's exporters.

usage: export_fixtures.py [--out DIR]     the committed test networks (default: crates/qdrop/tests/fixtures)

The committed networks keep every layer of the published ones, but only a few channels (see `thin`), so that each file
is small. Files: NAME.ts.onnx (TorchScript exporter, BatchNorm folded by it), NAME.bn.onnx (TorchScript exporter,
BatchNorm kept), NAME.dyn.onnx (the exporter on torch.export).
BatchNorm statistics and weights are random, so that a wrong folding shows. The batch axis is dynamic everywhere.
Needs torch, torchvision, onnx and onnxscript.
"""

import argparse
import contextlib
import io
import pathlib
import warnings

import onnx
import torch
import torchvision
from torch import nn
from torchvision.models.regnet import BlockParams, RegNet

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
OPSET = 17


def regnet_x_600mf(**options):
    params = BlockParams.from_init_params(depth=16, w_0=48, w_a=36.97, w_m=2.24, group_width=24)
    return RegNet(params, **options)


def plain(name, **fixed):
    return lambda **options: getattr(torchvision.models, name)(weights=None, **fixed, **options)


FIXTURES = {name: plain(name) for name in ("resnet18", "resnet50", "mobilenet_v2", "mnasnet1_0")}
FIXTURES["regnet_x_600mf"] = regnet_x_600mf

def few(channels):
    """About 1/32 of the channels. Only for networks without concatenation: there equal widths stay equal, which is all
    that sums ask for."""
    return channels if channels <= 3 else 2 * max(1, round(channels / 64))


@contextlib.contextmanager
def thin(width=few):
    """Inside, convolutions, BatchNorm and linear layers are built with `width(channels)` channels."""

    class Conv(nn.Conv2d):
        def __init__(self, i, o, *args, groups=1, **options):
            depthwise = groups == i
            i, o = width(i), width(o)
            super().__init__(i, o, *args, groups=i if depthwise else min(groups, 2), **options)

    class Norm(nn.BatchNorm2d):
        def __init__(self, channels, *args, **options):
            super().__init__(width(channels), *args, **options)

    class Linear(nn.Linear):
        def __init__(self, in_features, out_features, **options):
            super().__init__(width(in_features), out_features, **options)

    kept = nn.Conv2d, nn.BatchNorm2d, nn.Linear
    # Layers keep their names in the export: it prints the class.
    for new, old in zip((Conv, Norm, Linear), kept):
        new.__name__ = new.__qualname__ = old.__name__
    nn.Conv2d, nn.BatchNorm2d, nn.Linear = Conv, Norm, Linear
    try:
        yield
    finally:
        nn.Conv2d, nn.BatchNorm2d, nn.Linear = kept


def randomise(model):
    """Random BatchNorm; activations keep a size near one."""
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.2)
                m.running_var.uniform_(0.5, 1.5)
                m.weight.uniform_(0.5, 1.2)
                m.bias.normal_(0, 0.2)
            elif isinstance(m, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None:
                    m.bias.normal_(0, 0.1)
    return model.eval()


def settle(model, x):
    """Sets each BatchNorm's statistics near those of its input, so that deep networks neither explode nor vanish."""
    def hook(m, args):
        a = args[0]
        m.running_mean.copy_(a.mean((0, 2, 3)) + 0.2 * torch.randn(a.shape[1]))
        m.running_var.copy_(a.var((0, 2, 3)) * (0.5 + torch.rand(a.shape[1])) + 1e-3)

    handles = [m.register_forward_pre_hook(hook) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        model(x)
    for h in handles:
        h.remove()
    return model


def script(model, inputs, outputs, path, keep_bn=False):
    """The TorchScript exporter. `inputs`: tensors by name; `outputs`: names."""
    mode = torch.onnx.TrainingMode.PRESERVE if keep_bn else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        model, tuple(inputs.values()), path, dynamo=False, opset_version=OPSET, input_names=list(inputs),
        output_names=outputs, dynamic_axes={name: {0: "batch"} for name in [*inputs, *outputs]}, training=mode,
        do_constant_folding=not keep_bn,
    )


def dynamo(model, inputs, outputs, path):
    """The exporter on torch.export; of its metadata only the modules' names are kept: the rest is large, or names files
    of the exporting machine."""
    batch = torch.export.Dim("batch")
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            model, tuple(inputs.values()), path, dynamo=True, dynamic_shapes=tuple({0: batch} for _ in inputs),
            input_names=list(inputs), output_names=outputs, external_data=False, verbose=False,
        )
    exported = onnx.load(path)
    for part in [*exported.graph.node, *exported.graph.value_info, *exported.graph.input, exported.graph, exported]:
        kept = [p for p in part.metadata_props if p.key == "namespace"]
        del part.metadata_props[:]
        part.metadata_props.extend(kept)
    onnx.save(exported, path)


def judged(path):
    onnx.checker.check_model(str(path), full_check=True)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(onnx.load(path).graph.node)} nodes", flush=True)


def fixtures(out):
    for name, make in FIXTURES.items():
        torch.manual_seed(0)
        with thin():
            model = make(num_classes=10)
        x = torch.randn(2, 3, 64, 64)
        model = settle(randomise(model), x)
        for kind, export in {
            "ts": lambda p: script(model, {"input": x}, ["output"], p),
            "bn": lambda p: script(model, {"input": x}, ["output"], p, keep_bn=True),
            "dyn": lambda p: dynamo(model, {"input": x}, ["output"], p),
        }.items():
            path = out / f"{name}.{kind}.onnx"
            export(path)
            judged(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=REPOSITORY / "crates/qdrop/tests/fixtures")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    fixtures(args.out)


if __name__ == "__main__":
    main()
