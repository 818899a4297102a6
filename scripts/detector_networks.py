"""Writes small detectors with random weights, as exporters write them, and what ONNX Runtime makes of them.

    python scripts/detector_networks.py crates/qdrop/tests/fixtures/detectors

| file | what |
|---|---|
| yolox.onnx | SiLU and depthwise convolutions, a pyramid that joins by Concat, heads of two branches for each level |
| nanodet.onnx | LeakyRelu, a pyramid that joins by Add, one branch for each level |
| retinanet.onnx | one image without a batch axis, residual blocks, FPN of five levels with one head for all, torchvision's tail: thresholds, TopK, NMS class by class in a branch of an If |
| faster_rcnn.onnx | residual blocks, FPN, RPN, NMS, RoiAlign on three levels, a box head of dense layers, torchvision's tail |
| yolov8.onnx | SiLU, heads of two branches, distributions decoded: a column for each cell |
| ultralytics.onnx | the same with Ultralytics' NMS inside: rows of a fixed number, filled with zeros |
| pasted.onnx | one image without a batch axis; Loops over what is found, as in torchvision's masks and keypoints: over a number of boxes, until a condition, inside one another, without iterations |
| yolov7.onnx | three anchors for each cell and an NMS inside: as many rows as are found |

`answers.json` holds, for the networks whose last part depends on data, the outputs for `inputs(seed)` of every seed in it.
The tests `detectors` plan, quantize and run them. Needs numpy, onnx and onnxruntime.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
CLASSES = 2
SEEDS = [1, 2, 3]
INT = np.int64
F = np.float32


def inputs(seed):
    """An image of 64 x 64 that the tests make in the same way."""
    i = np.arange(3 * SIDE * SIDE, dtype=INT)
    return (((i * 7919 + seed * 104729) % 1009).astype(F) / F(1009)).reshape(1, 3, SIDE, SIDE)


class Net:
    """A graph in the making. Values are named by their number, as exporters name them."""

    def __init__(self, seed, batched=True):
        self.rng = np.random.default_rng(seed)
        self.batched = batched
        self.nodes, self.constants, self.outputs = [], [], []
        self.made = 0

    def constant(self, value, dtype=None):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, kind, *operands, results=1, **attributes):
        names = [f"v{self.made}_{k}" if results > 1 else f"v{self.made}" for k in range(results)]
        self.nodes.append(helper.make_node(kind, operands, names, name=f"{kind}_{self.made}", **attributes))
        self.made += 1
        return names if results > 1 else names[0]

    def weight(self, *shape, scale=1.0):
        fan = max(1, int(np.prod(shape[1:])))
        return self.constant((self.rng.normal(0, scale * np.sqrt(2 / fan), shape)).astype(F))

    def bias(self, n, mean=0.0):
        return self.constant((mean + 0.1 * self.rng.normal(size=n)).astype(F))

    def conv(self, x, cin, cout, k=3, stride=1, group=1, act=None, mean=0.0, scale=1.0, shared=None):
        weight, bias = shared or (self.weight(cout, cin // group, k, k, scale=scale), self.bias(cout, mean))
        pads = [k // 2] * 4
        y = self.node("Conv", x, weight, bias, kernel_shape=[k, k], strides=[stride] * 2, pads=pads, group=group)
        return self.act(y, act)

    def act(self, x, kind):
        if kind is None:
            return x
        if kind == "SiLU":
            return self.node("Mul", x, self.node("Sigmoid", x))
        return self.node(kind, x, **({"alpha": 0.1} if kind == "LeakyRelu" else {}))

    def depthwise(self, x, cin, cout, stride=1, act=None, k=3):
        return self.conv(self.conv(x, cin, cin, k, stride, group=cin, act=act), cin, cout, 1, act=act)

    def residual(self, x, cin, cout, stride):
        y = self.conv(self.conv(x, cin, cout, 3, stride, act="Relu"), cout, cout)
        side = x if (cin, stride) == (cout, 1) else self.conv(x, cin, cout, 1, stride)
        return self.node("Relu", self.node("Add", y, side))

    def upsample(self, x):
        scales = self.constant([1, 1, 2, 2], F)
        return self.node("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric",
                         nearest_mode="floor")

    def dense(self, x, cin, cout, act=None, mean=0.0, scale=1.0):
        return self.act(self.node("Gemm", x, self.weight(cout, cin, scale=scale), self.bias(cout, mean), transB=1), act)

    def ints(self, *values):
        return self.constant(list(values), INT)

    def slice(self, x, start, end, axis):
        return self.node("Slice", x, self.ints(start), self.ints(end), self.ints(axis))

    def columns(self, x, *ends):
        """Columns of the last axis, cut at `ends`."""
        return [self.slice(x, a, b, -1) for a, b in zip((0, *ends[:-1]), ends)]

    def positions(self, mask):
        """Numbers of the elements of a list that are true."""
        return self.node("Squeeze", self.node("NonZero", mask), self.ints(0))

    def branch(self, condition, *branches):
        """What the first of two functions makes where `condition` holds, else what the second makes."""
        graphs = []
        for name, make in zip(("then_branch", "else_branch"), branches):
            outer, self.nodes = self.nodes, []
            result = onnx.ValueInfoProto(name=make())
            graphs.append(helper.make_graph(self.nodes, name, [], [result]))
            self.nodes = outer
        return self.node("If", condition, then_branch=graphs[0], else_branch=graphs[1])

    def loop(self, count, condition, states, make, handed=()):
        """A Loop. `states` are values with their types and shapes, `handed` the types and shapes of what is handed out. `make`
        takes the number of the iteration and the states; it returns whether the Loop goes on (None: always), the next states,
        and what is handed out."""
        outer, self.nodes = self.nodes, []
        names = [f"v{self.made}_{k}" for k in range(2 + len(states))]
        self.made += 1
        on, after, out = make(names[0], *names[2:])
        on = self.node("Identity", on or names[1])
        kinds = [(TensorProto.INT64, []), (TensorProto.BOOL, [])] + [s[1:] for s in states]
        takes = [helper.make_tensor_value_info(n, *kind) for n, kind in zip(names, kinds)]
        kinds = [(TensorProto.BOOL, [])] + [s[1:] for s in states] + list(handed)
        gives = [helper.make_tensor_value_info(n, *kind) for n, kind in zip([on, *after, *out], kinds)]
        body = helper.make_graph(self.nodes, "body", takes, gives)
        self.nodes = outer
        found = self.node("Loop", count, condition, *[s[0] for s in states], results=len(states) + len(handed), body=body)
        return found if isinstance(found, list) else [found]

    def output(self, name, value, dtype, *shape):
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"Identity_{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def save(self, path):
        x = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE] if self.batched else [3, SIDE, SIDE])
        graph = helper.make_graph(self.nodes, path.stem, [x], self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
                                  producer_name="detector_networks")
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return model


def cells(strides, centre=0.5):
    rows = [(s, x + centre, y + centre) for s in strides for y in range(SIDE // s) for x in range(SIDE // s)]
    return np.array(rows, F)


# Parts of networks


def normalized(net, image):
    """As torchvision's detectors begin."""
    mean, std = [net.constant(np.reshape(v, (3, 1, 1)), F) for v in ([0.1, 0.2, 0.15], [0.9, 0.9, 0.9])]
    return net.node("Div", net.node("Sub", image, mean), std)


def resnet(net, width=6):
    x = "images" if net.batched else net.node("Unsqueeze", normalized(net, "images"), net.ints(0))
    x = net.conv(x, 3, width, 3, 2, act="Relu")
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c2 = net.residual(x, width, width, 1)
    c3 = net.residual(c2, width, 8, 2)
    c4 = net.residual(c3, 8, 10, 2)
    c5 = net.residual(c4, 10, 12, 2)
    return {4: (c2, width), 8: (c3, 8), 16: (c4, 10), 32: (c5, 12)}


def fpn(net, maps, strides, width):
    """Torchvision's: sums from the top, a convolution on each."""
    found, above = {}, None
    for s in reversed(strides):
        x, cin = maps[s]
        x = net.conv(x, cin, width, 1)
        above = x if above is None else net.node("Add", x, net.upsample(above))
        found[s] = net.conv(above, width, width)
    return found


def dark(net, act, depthwise, widths=(6, 8, 10, 12)):
    conv = net.depthwise if depthwise else lambda x, a, b, stride=1, act=None: net.conv(x, a, b, 3, stride, act=act)
    x = net.conv("images", 3, widths[0], 3, 4, act=act)
    found, cin = {}, widths[0]
    for s, width in zip([8, 16, 32], widths[1:]):
        x = conv(x, cin, width, stride=2, act=act)
        half = width // 2
        a, b = net.conv(x, width, half, 1, act=act), net.conv(x, width, half, 1, act=act)
        a = net.node("Add", a, conv(net.conv(a, half, half, 1, act=act), half, half, act=act))
        x = net.conv(net.node("Concat", a, b, axis=1), width, width, 1, act=act)
        found[s], cin = (x, width), width
    return found


def pan(net, maps, act, width, join):
    """Down and up again, levels joined by Concat or Add."""
    x = {s: net.conv(v, c, width, 1, act=act) for s, (v, c) in maps.items()}

    def joined(a, b):
        if join == "Add":
            return net.depthwise(net.node("Add", a, b), width, width, act=act)
        return net.depthwise(net.node("Concat", a, b, axis=1), 2 * width, width, act=act)

    x[16] = joined(x[16], net.upsample(x[32]))
    x[8] = joined(x[8], net.upsample(x[16]))
    x[16] = joined(x[16], net.depthwise(x[8], width, width, 2, act=act))
    x[32] = joined(x[32], net.depthwise(x[16], width, width, 2, act=act))
    return x


def rows(net, x, columns):
    """A map as rows, one for each cell."""
    x = net.node("Reshape", x, net.ints(1, columns, -1))
    return net.node("Transpose", x, perm=[0, 2, 1])


def decode(net, offsets, anchors, weights=(1, 1, 1, 1)):
    """Torchvision's boxes [N, 4] from offsets, cut at the edges of the image."""
    w, h = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    x, y = anchors[:, 0] + w / 2, anchors[:, 1] + h / 2
    return decode_from(net, offsets, [net.constant(v.reshape(-1, 1), F) for v in (x, y, w, h)], weights)


def decode_from(net, offsets, middle, weights):
    x, y, w, h = middle
    dx, dy, dw, dh = [net.node("Div", d, net.constant(v, F)) for d, v in zip(net.columns(offsets, 1, 2, 3, 4), weights)]
    most = net.constant(np.log(1000 / 16), F)
    cx, cy = net.node("Add", net.node("Mul", dx, w), x), net.node("Add", net.node("Mul", dy, h), y)
    size = [net.node("Mul", net.node("Exp", net.node("Min", d, most)), n) for d, n in ((dw, w), (dh, h))]
    half = [net.node("Mul", net.constant(0.5, F), s) for s in size]
    sides = [net.node(kind, c, s) for kind in ("Sub", "Add") for c, s in zip((cx, cy), half)]
    boxes = net.node("Concat", *sides, axis=-1)
    return net.node("Clip", boxes, net.constant(0, F), net.constant(SIDE, F))


def middle(net, boxes):
    """Centres and sizes of boxes."""
    x0, y0, x1, y1 = net.columns(boxes, 1, 2, 3, 4)
    w, h = net.node("Sub", x1, x0), net.node("Sub", y1, y0)
    half = net.constant(0.5, F)
    return [net.node("Add", x0, net.node("Mul", half, w)), net.node("Add", y0, net.node("Mul", half, h)), w, h]


def nms(net, boxes, scores, most, overlap):
    """Numbers of the boxes [N, 4] that stay, as torchvision's nms is exported."""
    found = net.node("NonMaxSuppression", net.node("Unsqueeze", boxes, net.ints(0)),
                     net.node("Unsqueeze", scores, net.ints(0, 1)), net.constant([most], INT), net.constant([overlap], F))
    return net.node("Squeeze", net.slice(found, 2, 3, 1), net.ints(1))


def by_class(net, boxes, scores, labels, overlap, most):
    """Boxes, scores and labels after torchvision's batched NMS: classes are moved apart. None are suppressed if there are none."""
    def moved():
        far = net.node("Add", net.node("ReduceMax", boxes, keepdims=0), net.constant(1, F))
        shift = net.node("Mul", net.node("Cast", labels, to=TensorProto.FLOAT), far)
        apart = net.node("Add", boxes, net.node("Unsqueeze", shift, net.ints(1)))
        return nms(net, apart, scores, 1 << 30, overlap)

    elements = net.node("ReduceProd", net.node("Shape", boxes), keepdims=0)
    empty = net.node("Equal", elements, net.constant(0, INT))
    keep = net.branch(empty, lambda: net.node("Identity", net.ints()), moved)
    keep = net.slice(keep, 0, most, 0)
    return [net.node("Gather", v, keep, axis=0) for v in (boxes, scores, labels)]


def likely(net, scores, boxes, threshold, most):
    """Of scores [N, C] those above `threshold`, at most `most`, the best first, with their boxes and labels from 0."""
    flat = net.node("Reshape", scores, net.ints(-1))
    index = net.positions(net.node("Greater", flat, net.constant(threshold, F)))
    found = net.node("Gather", flat, index, axis=0)
    k = net.node("Min", net.node("Shape", found), net.ints(most))
    best, places = net.node("TopK", found, k, axis=0, results=2)
    index = net.node("Gather", index, places, axis=0)
    boxes = net.node("Gather", boxes, net.node("Div", index, net.ints(CLASSES)), axis=0)
    return best, boxes, net.node("Mod", index, net.ints(CLASSES))


# Networks


def yolox():
    net, width = Net(1), 8
    maps = pan(net, dark(net, "SiLU", True), "SiLU", width, "Concat")
    levels = []
    for s in (8, 16, 32):
        x = net.conv(maps[s], width, width, 1, act="SiLU")
        branches = []
        for _ in range(2):
            y = x
            for _ in range(2):
                y = net.depthwise(y, width, width, act="SiLU")
            branches.append(y)
        classes = net.node("Sigmoid", net.conv(branches[0], width, CLASSES, 1))
        box = net.conv(branches[1], width, 4, 1)
        object_ = net.node("Sigmoid", net.conv(branches[1], width, 1, 1))
        levels.append(net.node("Concat", box, object_, classes, axis=1))
    flat = [net.node("Reshape", x, net.ints(1, 5 + CLASSES, -1)) for x in levels]
    out = net.node("Transpose", net.node("Concat", *flat, axis=2), perm=[0, 2, 1])
    net.output("output", out, TensorProto.FLOAT, 1, 84, 5 + CLASSES)
    return net


def nanodet():
    net, width = Net(2), 8
    maps = pan(net, dark(net, "LeakyRelu", True), "LeakyRelu", width, "Add")
    levels = []
    for s in (8, 16, 32):
        x = maps[s]
        for _ in range(2):
            x = net.depthwise(x, width, width, act="LeakyRelu")
        classes, sides = net.node("Split", net.conv(x, width, CLASSES + 32, 1), net.ints(CLASSES, 32), axis=1, results=2)
        levels.append(rows(net, net.node("Concat", net.node("Sigmoid", classes), sides, axis=1), CLASSES + 32))
    net.output("output", net.node("Concat", *levels, axis=1), TensorProto.FLOAT, 1, 84, CLASSES + 32)
    return net


def retinanet():
    net, width = Net(3, batched=False), 8
    maps = fpn(net, resnet(net), [8, 16, 32], width)
    maps[64] = net.conv(maps[32], width, width, 3, 2)
    maps[128] = net.conv(net.node("Relu", maps[64]), width, width, 3, 2)
    shared = [[(net.weight(width, width, 3, 3), net.bias(width)) for _ in range(2)] for _ in range(2)]
    last = (net.weight(9 * CLASSES, width, 3, 3, scale=0.15), net.bias(9 * CLASSES, -2.0)), (net.weight(36, width, 3, 3, scale=0.3), net.bias(36))
    best, boxes, labels = [], [], []
    for level, (s, size) in enumerate(zip([8, 16, 32, 64, 128], [32, 64, 128, 256, 512])):
        side = max(1, SIDE // s)
        found = []
        for branch, columns, end in zip(shared, (CLASSES, 4), last):
            x = maps[s]
            for layer in branch:
                x = net.conv(x, width, width, act="Relu", shared=layer)
            x = net.conv(x, width, 9 * columns, shared=end)
            x = net.node("Reshape", x, net.ints(1, -1, columns, side, side))
            x = net.node("Reshape", net.node("Transpose", x, perm=[0, 3, 4, 1, 2]), net.ints(-1, columns))
            found.append(x)
        scales = np.array([size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))], F)
        ratios = np.sqrt(np.array([0.5, 1, 2], F))
        w, h = ((1 / ratios)[:, None] * scales).reshape(-1), (ratios[:, None] * scales).reshape(-1)
        base = np.round(np.stack([-w, -h, w, h], 1) / 2)
        step = SIDE // side
        anchors = np.concatenate([base + np.array([x, y, x, y], F) * step for y in range(side) for x in range(side)])
        b, x, l = likely(net, net.node("Sigmoid", found[0]), decode(net, found[1], anchors), 0.05, 40)
        best.append(b), boxes.append(x), labels.append(l)
    joined = [net.node("Concat", *v, axis=0) for v in (boxes, best, labels)]
    boxes, scores, labels = by_class(net, *joined, 0.5, 50)
    net.output("boxes", boxes, TensorProto.FLOAT, "found", 4)
    net.output("scores", scores, TensorProto.FLOAT, "found")
    net.output("labels", labels, TensorProto.INT64, "found")
    return net


def faster_rcnn():
    net, width, strides = Net(4), 8, [4, 8, 16]
    maps = fpn(net, {s: v for s, v in resnet(net).items() if s != 32}, strides, width)
    layer = (net.weight(width, width, 3, 3), net.bias(width))
    last = (net.weight(3, width, 1, 1, scale=0.2), net.bias(3)), (net.weight(12, width, 1, 1, scale=0.3), net.bias(12))
    best, boxes, levels = [], [], []
    for level, s in enumerate(strides):
        side = SIDE // s
        x = net.conv(maps[s], width, width, act="Relu", shared=layer)
        found = []
        for columns, end in zip((1, 4), last):
            y = net.node("Reshape", net.conv(x, width, 3 * columns, 1, shared=end), net.ints(1, -1, columns, side, side))
            y = net.node("Transpose", y, perm=[0, 3, 4, 1, 2])
            found.append(net.node("Reshape", y, net.ints(-1, columns) if columns > 1 else net.ints(-1)))
        ratios = np.sqrt(np.array([0.5, 1, 2], F))
        w, h = 4 * s / ratios, 4 * s * ratios
        base = np.round(np.stack([-w, -h, w, h], 1) / 2)
        anchors = np.concatenate([base + np.array([x, y, x, y], F) * s for y in range(side) for x in range(side)])
        k = min(60, len(anchors))
        scores, places = net.node("TopK", found[0], net.ints(k), axis=0, results=2)
        boxes.append(net.node("Gather", decode(net, found[1], anchors), places, axis=0))
        best.append(net.node("Sigmoid", scores))
        levels.append(np.full(k, level))
    boxes, scores = net.node("Concat", *boxes, axis=0), net.node("Concat", *best, axis=0)
    levels = net.constant(np.concatenate(levels), INT)
    # Small ones go, as in torchvision.
    x0, y0, x1, y1 = net.columns(boxes, 1, 2, 3, 4)
    large = [net.node("GreaterOrEqual", net.node("Sub", b, a), net.constant(1, F)) for a, b in ((x0, x1), (y0, y1))]
    mask = net.node("Squeeze", net.node("And", *large), net.ints(1))
    index = net.positions(mask)
    parts = [net.node("Gather", v, index, axis=0) for v in (boxes, scores, levels)]
    proposals, _, _ = by_class(net, *parts, 0.7, 30)
    # Features of each proposal, from the level of its size.
    w, h = middle(net, proposals)[2:]
    size = net.node("Sqrt", net.node("Mul", w, h))
    level = net.node("Floor", net.node("Div", net.node("Log", net.node("Add", net.node("Div", size, net.constant(16, F)), net.constant(1e-6, F))), net.constant(np.log(2), F)))
    level = net.node("Squeeze", net.node("Clip", level, net.constant(0, F), net.constant(2, F)), net.ints(1))
    count = net.node("Shape", level)
    shape = net.node("Concat", count, net.ints(width, 3, 3), axis=0)
    features = net.node("ConstantOfShape", shape, value=helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0]))
    for number, s in enumerate(strides):
        index = net.positions(net.node("Equal", level, net.constant(number, F)))
        batch = net.node("Mul", index, net.ints(0))
        part = net.node("RoiAlign", maps[s], net.node("Gather", proposals, index, axis=0), batch, output_height=3,
                        output_width=3, sampling_ratio=2, spatial_scale=1 / s, coordinate_transformation_mode="output_half_pixel")
        features = net.node("ScatterND", features, net.node("Unsqueeze", index, net.ints(1)), part)
    x = net.node("Flatten", features, axis=1)
    x = net.dense(net.dense(x, 9 * width, 24, "Relu"), 24, 24, "Relu")
    probabilities = net.node("Softmax", net.dense(x, 24, CLASSES + 1, scale=0.3), axis=-1)
    offsets = net.dense(x, 24, 4 * (CLASSES + 1), scale=0.3)
    best, boxes, labels = [], [], []
    for c in range(1, CLASSES + 1):
        box = decode_from(net, net.slice(offsets, 4 * c, 4 * c + 4, 1), middle(net, proposals), (10, 10, 5, 5))
        score = net.node("Squeeze", net.slice(probabilities, c, c + 1, 1), net.ints(1))
        index = net.positions(net.node("Greater", score, net.constant(0.05, F)))
        boxes.append(net.node("Gather", box, index, axis=0))
        best.append(net.node("Gather", score, index, axis=0))
        labels.append(net.node("Add", net.node("Mul", index, net.ints(0)), net.ints(c)))
    joined = [net.node("Concat", *v, axis=0) for v in (boxes, best, labels)]
    boxes, scores, labels = by_class(net, *joined, 0.5, 20)
    net.output("boxes", boxes, TensorProto.FLOAT, "found", 4)
    net.output("labels", labels, TensorProto.INT64, "found")
    net.output("scores", scores, TensorProto.FLOAT, "found")
    return net


def yolov8(suppressed=False):
    net, width, bins = Net(5), 8, 4
    maps = pan(net, dark(net, "SiLU", False), "SiLU", width, "Concat")
    levels = []
    for s in (8, 16, 32):
        box = net.conv(net.conv(maps[s], width, width, act="SiLU"), width, 4 * bins, 1)
        classes = net.conv(net.conv(maps[s], width, width, act="SiLU"), width, CLASSES, 1, mean=-1.0, scale=8.0)
        levels.append(net.node("Reshape", net.node("Concat", box, classes, axis=1), net.ints(1, 4 * bins + CLASSES, -1)))
    box, classes = net.node("Split", net.node("Concat", *levels, axis=2), net.ints(4 * bins, CLASSES), axis=1, results=2)
    box = net.node("Transpose", net.node("Reshape", box, net.ints(1, 4, bins, -1)), perm=[0, 2, 1, 3])
    weight = net.constant(np.arange(bins).reshape(1, bins, 1, 1), F)
    box = net.node("Reshape", net.node("Conv", net.node("Softmax", box, axis=1), weight, kernel_shape=[1, 1]), net.ints(1, 4, -1))
    p = cells([8, 16, 32])
    near, far = net.node("Split", box, net.ints(2, 2), axis=1, results=2)
    stride, centre = net.constant(p[:, 0].reshape(1, 1, -1), F), net.constant(p[:, 1:].T[None], F)
    low, high = net.node("Sub", centre, near), net.node("Add", centre, far)
    if not suppressed:
        middle = net.node("Div", net.node("Add", low, high), net.constant(2, F))
        boxes = net.node("Mul", net.node("Concat", middle, net.node("Sub", high, low), axis=1), stride)
        found = net.node("Concat", boxes, net.node("Sigmoid", classes), axis=1)
        net.output("output0", found, TensorProto.FLOAT, 1, 4 + CLASSES, 84)
        return net
    corners = net.node("Concat", low, high, axis=1)
    boxes = net.node("Transpose", net.node("Mul", corners, stride), perm=[0, 2, 1])
    scores = net.node("Transpose", net.node("Sigmoid", classes), perm=[0, 2, 1])
    # The tail of an export with nms=True.
    boxes, scores = net.node("Squeeze", boxes, net.ints(0)), net.node("Squeeze", scores, net.ints(0))
    best = net.node("ReduceMax", scores, axes=[1], keepdims=0)
    labels = net.node("ArgMax", scores, axis=1, keepdims=0)
    index = net.node("Transpose", net.node("NonZero", net.node("Greater", best, net.constant(0.25, F))), perm=[1, 0])
    boxes, best, labels = [net.node("GatherND", v, index) for v in (boxes, best, labels)]
    column = net.node("Unsqueeze", net.node("Cast", labels, to=TensorProto.FLOAT), net.ints(1))
    moved = net.node("Add", boxes, net.node("Mul", column, net.constant(2 * SIDE, F)))
    keep = net.slice(nms(net, moved, best, 1 << 30, 0.7), 0, 30, 0)
    found = net.node("Concat", boxes, net.node("Unsqueeze", best, net.ints(1)), column, axis=1)
    found = net.node("Gather", found, keep, axis=0)
    missing = net.node("Sub", net.ints(30), net.slice(net.node("Shape", found), 0, 1, 0))
    pads = net.node("Concat", net.ints(0, 0), missing, net.ints(0), axis=0)
    found = net.node("Pad", found, pads, net.constant(0, F))
    net.output("output0", net.node("Unsqueeze", found, net.ints(0)), TensorProto.FLOAT, 1, 30, 6)
    return net


def ultralytics():
    return yolov8(suppressed=True)


def pasted():
    net, width, side = Net(7, batched=False), 6, SIDE // 4
    x = net.node("Unsqueeze", normalized(net, "images"), net.ints(0))
    x = net.conv(net.conv(x, 3, width, 3, 2, act="Relu"), width, width, 3, 2, act="Relu")
    x = net.conv(x, width, width, act="Relu")
    scores = net.node("Reshape", net.node("Sigmoid", net.conv(x, width, 1, 1, scale=2.0)), net.ints(-1))
    index = net.node("TopK", scores, net.ints(12), axis=0, results=2)[1]
    index = net.node("Gather", index, net.positions(net.node("Greater", net.node("Gather", scores, index, axis=0), net.constant(0.53, F))), axis=0)
    cells = np.array([(max(x - 2, 0), max(y - 1, 0), min(x + 3, side), min(y + 3, side)) for y in range(side) for x in range(side)], INT)
    boxes, found = net.node("Gather", net.constant(cells), index, axis=0), net.node("Gather", scores, index, axis=0)
    count, yes = net.node("Squeeze", net.node("Shape", found), net.ints(0)), net.constant(True)
    weight, bias = net.weight(1, width, 3, 3), net.bias(1)
    f = TensorProto.FLOAT

    def paste(i, masks):
        x0, y0, x1, y1 = net.columns(net.node("Gather", boxes, i, axis=0), 1, 2, 3, 4)
        low, high = net.node("Concat", y0, x0, axis=0), net.node("Concat", y1, x1, axis=0)
        window = net.node("Slice", x, low, high, net.ints(2, 3))
        mask = net.node("Conv", window, weight, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        mean = net.node("ReduceMean", mask, keepdims=0)
        # Turned where it is dark.
        mask = net.branch(net.node("Greater", mean, net.constant(0.1, F)), lambda: net.node("Identity", mask), lambda: net.node("Neg", mask))
        mask = net.node("Resize", mask, "", "", net.ints(1, 1, 8, 8), mode="linear", coordinate_transformation_mode="half_pixel")
        mask = net.node("Squeeze", mask, net.ints(0))
        return None, [net.node("Concat", masks, mask, axis=0)], [mean]

    masks, means = net.loop(count, yes, [(net.constant(np.zeros((0, 8, 8)), F), f, [None, 8, 8])], paste, [(f, [])])

    def double(i, total, steps):
        total = net.node("Mul", total, net.constant(2, F))
        on = net.node("Less", total, net.constant(1000, F))
        return on, [total, net.node("Add", steps, net.constant(1, INT))], []

    states = [(net.node("ReduceSum", found, keepdims=0), f, []), (net.constant(0, INT), TensorProto.INT64, [])]
    total, steps = net.loop("", yes, states, double)

    def triangle(i, sums):
        score = net.node("Gather", found, i, axis=0)
        inner = net.loop(i, "", [(score, f, [])], lambda _, s: (None, [net.node("Add", s, score)], []))
        return None, [net.node("Add", sums, inner[0])], [inner[0]]

    sums, parts = net.loop(count, "", [(net.constant(0, F), f, [])], triangle, [(f, [])])
    nothing = net.node("Mul", count, net.constant(0, INT))
    none = net.loop(nothing, yes, [(found, f, [None])], lambda _, s: (None, [s], [net.node("Expand", s, net.ints(1))]), [(f, [None])])
    net.output("masks", masks, f, "found", 8, 8)
    net.output("scores", found, f, "found")
    for name, value in (("means", means), ("parts", parts), ("same", none[0])):
        net.output(name, value, f, "found")
    for name, value in (("total", total), ("sums", sums)):
        net.output(name, value, f)
    net.output("steps", steps, TensorProto.INT64)
    net.output("none", none[1], f, "none", "size")
    return net


def yolov7():
    net, width = Net(6), 8
    maps = pan(net, dark(net, "LeakyRelu", False), "LeakyRelu", width, "Concat")
    levels = []
    for s in (8, 16, 32):
        side, columns = SIDE // s, 5 + CLASSES
        x = net.node("Sigmoid", net.conv(maps[s], width, 3 * columns, 1))
        x = net.node("Transpose", net.node("Reshape", x, net.ints(1, 3, columns, side, side)), perm=[0, 1, 3, 4, 2])
        xy, wh, rest = net.node("Split", x, net.ints(2, 2, 1 + CLASSES), axis=-1, results=3)
        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(1, 1, side, side, 2)
        size = (s * np.array([[2, 3], [4, 4], [6, 3]])).reshape(1, 3, 1, 1, 2)
        two = net.constant(2, F)
        xy = net.node("Mul", net.node("Add", net.node("Mul", xy, two), net.constant(grid - 0.5, F)), net.constant(s, F))
        wh = net.node("Mul", net.node("Pow", net.node("Mul", wh, two), two), net.constant(size, F))
        levels.append(net.node("Reshape", net.node("Concat", xy, wh, rest, axis=-1), net.ints(1, -1, columns)))
    x = net.node("Concat", *levels, axis=1)
    boxes, objects, classes = net.node("Split", x, net.ints(4, 1, CLASSES), axis=2, results=3)
    scores = net.node("Transpose", net.node("Mul", objects, classes), perm=[0, 2, 1])
    found = net.node("NonMaxSuppression", boxes, scores, net.ints(20), net.constant([0.45], F), net.constant([0.3], F),
                     center_point_box=1)
    image, label, place = [net.node("Gather", found, net.ints(i), axis=1) for i in range(3)]
    index = net.node("Concat", image, place, axis=1)
    x, y, w, h = net.columns(net.node("GatherND", boxes, index), 1, 2, 3, 4)
    half = [net.node("Div", v, net.constant(2, F)) for v in (w, h)]
    sides = [net.node(kind, c, n) for kind in ("Sub", "Add") for c, n in zip((x, y), half)]
    score = net.node("Unsqueeze", net.node("GatherND", scores, found), net.ints(1))
    numbers = [net.node("Cast", v, to=TensorProto.FLOAT) for v in (image, label)]
    net.output("output", net.node("Concat", numbers[0], *sides, numbers[1], score, axis=1), TensorProto.FLOAT, "found", 7)
    return net


def main(folder):
    answers = []
    for make in (yolox, nanodet, yolov8, retinanet, faster_rcnn, ultralytics, yolov7, pasted):
        path = folder / f"{make.__name__}.onnx"
        net = make()
        net.save(path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for seed in SEEDS:
            outputs = session.run(None, {"images": inputs(seed) if net.batched else inputs(seed)[0]})
            print(path.name, path.stat().st_size, seed, [o.shape for o in outputs])
            if make in (yolox, nanodet, yolov8):
                continue
            scores = next((o for o, v in zip(outputs, session.get_outputs()) if v.name == "scores"), None)
            scores = outputs[0].reshape(-1, outputs[0].shape[-1])[:, -1 if make is yolov7 else 4] if scores is None else scores
            scores = np.sort(scores[scores > 0])
            print("  scores", scores[0], scores[-1], "nearest", np.diff(scores).min())
            assert scores[-1] < 0.999, "saturated scores have no order"
            values = [
                {"name": o.name, "shape": list(v.shape), "values": [round(float(x), 4) for x in v.reshape(-1)]}
                for o, v in zip(session.get_outputs(), outputs)
            ]
            answers.append(json.dumps({"network": path.name, "seed": seed, "outputs": values}))
    (folder / "answers.json").write_text("[\n" + ",\n".join(answers) + "\n]\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
