"""The picture of the book's page on channel factors: the channels of one activation before and after.

    .venv/bin/python scripts/channel_picture.py FLOAT.onnx QUANTIZED.onnx VALUE SAMPLES.npy > docs/channel-factors.svg

VALUE is an activation of the float network whose channels lie along axis 1. The quantized file holds it divided, under
the same name or one that ends in `_divided`. SAMPLES are inputs, stacked along axis 0.
"""

import sys

import numpy as np
import onnx
import onnxruntime as ort

WIDTH, HEIGHT, MARGIN, TOP = 760, 300, 46, 34
PANEL = (WIDTH - 3 * MARGIN) / 2


def observed(model, value, samples):
    """Smallest and largest value of every channel, without the outermost of 1000 values at each end."""
    model.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = session.get_inputs()[0].name
    seen = [session.run([value], {feeds: sample[None]})[0] for sample in samples]
    channels = np.concatenate([s.reshape(s.shape[1], -1) for s in seen], axis=1)
    return np.quantile(channels, 0.001, axis=1), np.quantile(channels, 0.999, axis=1)


def panel(left, title, ranges, steps):
    """Bars of `ranges` on lines that divide them all into `steps`."""
    low, high = ranges[0].min(), ranges[1].max()
    y = lambda v: TOP + (high - v) / (high - low) * (HEIGHT - TOP - MARGIN)
    parts = [f'<text x="{left}" y="{TOP - 14}">{title}</text>']
    for step in range(steps + 1):
        at = y(low + (high - low) * step / steps)
        parts.append(f'<path class="grid" d="M{left:.1f} {at:.1f}h{PANEL:.1f}"/>')
    each = PANEL / len(ranges[0])
    for c, (bottom, top) in enumerate(zip(*ranges)):
        # A channel that is too narrow to be seen gets a line.
        height = max(y(bottom) - y(top), 1.0)
        corner = f'x="{left + each * (c + 0.15):.1f}" y="{y(top):.1f}"'
        parts.append(f'<rect {corner} width="{each * 0.7:.1f}" height="{height:.1f}"/>')
    caption = f"{low:.3g} to {high:.3g}, {len(ranges[0])} channels"
    parts.append(f'<text x="{left}" y="{HEIGHT - MARGIN + 18}">{caption}</text>')
    return parts


def main(floating, quantized, value, samples):
    samples = np.load(samples)
    before = onnx.load(floating)
    after = onnx.load(quantized)
    names = {o for node in after.graph.node for o in node.output}
    divided = f"{value}_divided" if f"{value}_divided" in names else value
    style = (
        "text{font:14px sans-serif;fill:currentColor}"
        ".grid{stroke:currentColor;stroke-opacity:.25;stroke-width:.6}"
        "rect{fill:#3b78c2}svg{color:#555}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Ranges of the channels of one activation, without and with factors</title>",
        f"<style>{style}</style>",
        *panel(MARGIN, "one step for all channels", observed(before, value, samples), 15),
        *panel(2 * MARGIN + PANEL, "divided by their factors", observed(after, divided, samples), 15),
        "</svg>",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
