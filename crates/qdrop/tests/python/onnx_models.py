"""Small ONNX models for the reader's and writer's tests, and the judgement of what came out.

make DIR    writes models DIR/*.onnx and a message with every field of the schema, DIR/every_field.bin
judge DIR   checks every DIR/out/NAME[@...].onnx with onnx.checker and compares its answers in ONNX Runtime with
            DIR/NAME.onnx; DIR/out/every_field.bin must hold the same message
"""
import sys
from pathlib import Path
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

MODELS = {}


def model(name, opset, nodes, inputs, outputs, inits=(), ir=None, listed=False, **extra):
    """Inputs and outputs: name -> (type, shape); listed: initializers also stand among the inputs."""
    info = lambda d: [h.make_tensor_value_info(k, t, s) for k, (t, s) in d.items()]
    inits = [nh.from_array(np.asarray(v), k) for k, v in dict(inits).items()]
    ins = info(inputs)
    if listed:
        ins += [h.make_tensor_value_info(t.name, t.data_type, t.dims) for t in inits]
    g = h.make_graph(nodes, name, ins, info(outputs), inits)
    imports = [h.make_opsetid("", opset)] + extra.pop("imports", [])
    m = h.make_model(g, opset_imports=imports, **extra)
    m.ir_version = ir or max(3, min(h.find_min_ir_version_for(imports, ignore_unknown=True), 10))
    if opset < 9 and not ir:
        m.ir_version = 3
    MODELS[name] = m
    return m


F, I = T.FLOAT, T.INT64
N = h.make_node
X = {"x": (F, [2, 4, 6, 6])}


def one(name, opset, node_args, attrs, out_shape, inputs=X, out_type=F, inits=(), **kw):
    op, *ins = node_args
    model(name, opset, [N(op, ins, ["y"], name="n", **attrs)], inputs, {"y": (out_type, out_shape)}, inits, **kw)


def build():
    rng = np.random.default_rng(0)
    f = lambda *s: rng.standard_normal(s).astype(np.float32)
    ints = lambda *v: np.array(v, np.int64)
    # Rules of raising
    one("clip6", 7, ["Clip", "x"], dict(min=-0.5, max=0.25), [2, 4, 6, 6], listed=True)
    one("clip6_max", 9, ["Clip", "x"], dict(max=0.25), [2, 4, 6, 6])
    one("clip6_half", 9, ["Clip", "x"], dict(min=-0.5), [3], {"x": (T.FLOAT16, [3])}, T.FLOAT16)
    model("clip6_half_inner", 9, [N("Sqrt", ["x"], ["a"]), N("Add", ["a", "a"], ["b"]), N("Clip", ["b"], ["y"], max=1.0)],
          {"x": (T.FLOAT16, [3])}, {"y": (T.FLOAT16, [3])})
    one("slice1", 9, ["Slice", "x"], dict(axes=[1, 2], starts=[1, -4], ends=[3, 1000]), [2, 2, 4, 6])
    one("slice1_plain", 9, ["Slice", "x"], dict(starts=[0, 1], ends=[1, 3]), [1, 2, 6, 6])
    one("pad2", 10, ["Pad", "x"], dict(pads=[0, 0, 1, 2, 0, 0, 0, 1], value=1.5), [2, 4, 7, 9])
    one("pad2_reflect", 9, ["Pad", "x"], dict(pads=[0, 0, 1, 2, 0, 0, 0, 1], mode="reflect"), [2, 4, 7, 9])
    one("squeeze1", 9, ["Squeeze", "x"], dict(axes=[1]), [2, 6], {"x": (F, [2, 1, 6])})
    one("squeeze11_all", 11, ["Squeeze", "x"], {}, [2, 6], {"x": (F, [2, 1, 6])})
    one("unsqueeze1", 11, ["Unsqueeze", "x"], dict(axes=[0, -1]), [1, 2, 6, 1], {"x": (F, [2, 6])})
    one("reducesum1", 11, ["ReduceSum", "x"], dict(axes=[1, 3], keepdims=0), [2, 6])
    one("reducesum1_all", 9, ["ReduceSum", "x"], {}, [1, 1, 1, 1])
    for op in "ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp".split():
        for opset in (9, 13, 17, 18, 20):
            if opset < 18:
                one(f"{op}{opset}", opset, [op, "x"], dict(axes=[-1, 1][:1 + (opset > 9)] if opset > 9 else [1]), None)
            else:
                one(f"{op}{opset}", opset, [op, "x", "axes"], dict(keepdims=0), None, inits={"axes": ints(1, 2)})
    one("reduce_all13", 13, ["ReduceMean", "x"], dict(keepdims=0), [])
    model("split2", 9, [N("Split", ["x"], ["a", "b"], axis=1, split=[1, 3])], X, {"a": (F, [2, 1, 6, 6]), "b": (F, None)})
    model("split13", 13, [N("Split", ["x"], ["a", "b"], axis=1)], X, {"a": (F, None), "b": (F, None)})
    model("split18", 18, [N("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3)], X, {k: (F, None) for k in "abc"})
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (None, 0, 1, 2, 3):
            one(f"{op}_{axis}", 9, [op, "x"], {} if axis is None else dict(axis=axis), [2, 4, 6, 6])
        one(f"{op}_11", 11, [op, "x"], dict(axis=-2), [2, 4, 6, 6])
        one(f"{op}_ones", 11, [op, "x"], dict(axis=1), [2, 4, 1, 1], {"x": (F, ["n", 4, 1, 1])})
    model("softmax_norank", 11, [N("Relu", ["x"], ["a"]), N("Softmax", ["a"], ["y"])], X, {"y": (F, [2, 4, 6, 6])})
    for op in (7, 10, 12, 13):
        ins, inits = (["x"], {}) if op < 12 else (["x", "r"], {"r": np.float32(0.4)})
        attrs = dict(ratio=0.3) if op < 12 else {}
        one(f"dropout{op}", op, ["Dropout", *ins], attrs, [2, 4, 6, 6], inits=inits, listed=op == 7)
    one("dropout_off", 13, ["Dropout", "x", "", "t"], {}, [2, 4, 6, 6], inits={"t": np.array(False)})
    model("dropout_mask", 12, [N("Dropout", ["x"], ["y", "m"])], X, {"y": (F, None), "m": (T.BOOL, None)})
    bn = {k: np.abs(f(4)) for k in ("s", "b", "m", "v")}
    for op in (7, 8, 9, 13, 14, 15):
        attrs = dict(spatial=1) if op < 9 else {}
        one(f"batchnorm{op}", op, ["BatchNormalization", "x", "s", "b", "m", "v"], dict(epsilon=1e-3, **attrs), [2, 4, 6, 6], inits=bn, listed=op < 9)
    for mode in ("nearest", "linear"):
        one(f"upsample7_{mode}", 7, ["Upsample", "x"], dict(mode=mode, scales=[1., 1., 2., 1.5]), [2, 4, 12, 9])
        one(f"upsample9_{mode}", 9, ["Upsample", "x", "s"], dict(mode=mode), [2, 4, 12, 9], inits={"s": np.float32([1, 1, 2, 1.5])})
        one(f"resize10_{mode}", 10, ["Resize", "x", "s"], dict(mode=mode), [2, 4, 12, 9], inits={"s": np.float32([1, 1, 2, 1.5])})
        one(f"resize10_down_{mode}", 10, ["Resize", "x", "s"], dict(mode=mode), None, inits={"s": np.float32([1, 1, .7, .5])})
    coordinates = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    for c in coordinates:
        one(f"resize11_{c}", 11, ["Resize", "x", "r", "s"], dict(mode="linear", coordinate_transformation_mode=c), None,
            inits={"r": f(0), "s": np.float32([1, 1, 2, 1.5])})
    one("resize13_sizes", 13, ["Resize", "x", "", "", "s"], dict(mode="cubic", cubic_coeff_a=-0.5), [2, 4, 9, 3], inits={"s": ints(2, 4, 9, 3)})
    one("resize18_antialias", 18, ["Resize", "x", "", "", "s"], dict(mode="linear", antialias=1), [2, 4, 3, 3], inits={"s": ints(2, 4, 3, 3)})
    one("resize18_axes", 18, ["Resize", "x", "", "s"], dict(mode="linear", axes=[2, 3]), [2, 4, 12, 12], inits={"s": np.float32([2, 2])})
    model("topk1", 9, [N("TopK", ["x"], ["y", "i"], k=2, axis=1)], X, {"y": (F, [2, 2, 6, 6]), "i": (I, [2, 2, 6, 6])})
    model("topk11", 11, [N("TopK", ["x", "k"], ["y", "i"], largest=0)], X, {"y": (F, None), "i": (I, None)}, {"k": ints(3)})
    one("scatter9", 9, ["Scatter", "x", "i", "u"], dict(axis=1), [2, 4, 6, 6], inits={"i": ints(0, 1).reshape(2, 1, 1, 1), "u": f(2, 1, 1, 1)})
    one("roialign10", 10, ["RoiAlign", "x", "r", "b"], dict(output_height=2, output_width=2), [1, 4, 2, 2],
        inits={"r": np.float32([[0, 0, 3, 3]]), "b": ints(0)})
    one("gridsample16", 16, ["GridSample", "x", "g"], dict(mode="bilinear"), [2, 4, 3, 3], inits={"g": f(2, 3, 3, 2) * 0.3})
    one("gridsample16_cubic", 16, ["GridSample", "x", "g"], dict(mode="bicubic"), [2, 4, 3, 3], inits={"g": f(2, 3, 3, 2) * 0.3})
    one("dft17", 17, ["DFT", "x"], dict(axis=1), None, {"x": (F, [1, 8, 3, 1])})
    one("cast9", 9, ["Cast", "x"], dict(to=T.INT32), [2, 4, 6, 6], out_type=T.INT32)
    one("mean8", 8, ["Mean", "x", "b"], {}, [2, 4, 6, 6], inits={"b": f(6)}, listed=True)
    one("gemm7", 7, ["Gemm", "x", "w", "b"], dict(alpha=.5, beta=2., transB=1), [3, 5], {"x": (F, [3, 4])}, inits={"w": f(5, 4), "b": f(5)}, listed=True)
    # Every operator that the IR models, defaults included
    sq = [2, 4, 6, 6]
    for op in "Relu Sigmoid Tanh Exp Neg Abs Floor Ceil Round Sign Erf HardSwish Softplus Softsign Mish Sin Cos LeakyRelu Elu Celu Selu ThresholdedRelu HardSigmoid Gelu Identity Size Shape GlobalAveragePool GlobalMaxPool Flatten Transpose Softmax LogSoftmax ArgMax ArgMin".split():
        t = I if op in ("Size", "Shape", "ArgMax", "ArgMin") else F
        one(f"op_{op}", 20, [op, "x"], {}, None, out_type=t)
    for op in "Add Sub Mul Div Pow PRelu Min Max Sum Mean Equal Less LessOrEqual Greater GreaterOrEqual MatMul".split():
        one(f"op_{op}", 17, [op, "x", "b"], {}, None, out_type=T.BOOL if op[:4] in ("Equa", "Less", "Grea") else F, inits={"b": f(6, 6) if op == "MatMul" else f(6)})
    one("op_Mod", 17, ["Mod", "x", "b"], dict(fmod=1), sq, inits={"b": f(6)})
    one("op_Conv", 13, ["Conv", "x", "w", "b"], dict(pads=[1, 0, 1, 2], strides=[2, 1], group=2), None, inits={"w": f(6, 2, 3, 3), "b": f(6)})
    one("op_Conv_same", 11, ["Conv", "x", "w"], dict(auto_pad="SAME_UPPER", strides=[2, 2]), None, inits={"w": f(6, 4, 3, 3)})
    one("op_ConvTranspose", 13, ["ConvTranspose", "x", "w"], dict(strides=[2, 2], output_padding=[1, 0]), None, inits={"w": f(4, 2, 3, 3)})
    one("op_MaxPool", 13, ["MaxPool", "x"], dict(kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), None)
    one("op_AveragePool", 19, ["AveragePool", "x"], dict(kernel_shape=[2, 2], dilations=[2, 1], count_include_pad=1, pads=[1, 1, 0, 0]), None)
    one("op_LRN", 13, ["LRN", "x"], dict(size=3, alpha=.1), sq)
    one("op_InstanceNorm", 13, ["InstanceNormalization", "x", "s", "b"], {}, sq, inits={"s": f(4), "b": f(4)})
    one("op_LayerNorm", 17, ["LayerNormalization", "x", "s"], {}, sq, inits={"s": f(6)})
    one("op_Pad18", 18, ["Pad", "x", "p", "", "a"], dict(mode="edge"), None, inits={"p": ints(1, 2), "a": ints(2)})
    one("op_DepthToSpace", 13, ["DepthToSpace", "x"], dict(blocksize=2, mode="CRD"), [2, 1, 12, 12])
    one("op_SpaceToDepth", 13, ["SpaceToDepth", "x"], dict(blocksize=2), [2, 16, 3, 3])
    one("op_ConstantOfShape", 13, ["ConstantOfShape", "x"], dict(value=nh.from_array(ints(7))), None, {"x": (I, [2])}, I)
    one("op_Where", 13, ["Where", "c", "x", "x"], {}, sq, inits={"c": np.array([True, False] * 3)})
    one("op_Gather", 13, ["Gather", "x", "i"], dict(axis=1), None, inits={"i": ints(0, -1)})
    one("op_Tile", 13, ["Tile", "x", "r"], {}, None, inits={"r": ints(1, 1, 2, 1)})
    one("op_Slice", 13, ["Slice", "x", "s", "e", "a", "t"], {}, None, inits={"s": ints(-1), "e": ints(-9), "a": ints(3), "t": ints(-2)})
    model("op_QDQ", 13, [N("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1), N("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1)], X,
          {"y": (F, sq)}, {"s": np.abs(f(4)), "z": np.array([0, 3, 128, 255], np.uint8)})
    w4 = onnx.TensorProto(name="w", data_type=T.INT4, dims=[3, 1], raw_data=bytes([0x87, 0x01]))
    m = model("int4", 21, [N("DequantizeLinear", ["w", "s"], ["d"]), N("Mul", ["x", "d"], ["y"])], {"x": (F, [3, 1])}, {"y": (F, [3, 1])}, {"s": np.float32(.5)})
    m.graph.initializer.append(w4)
    # Subgraphs, functions, other domains, constants of all kinds, sparse initializers, order, metadata
    then = h.make_graph([N("Constant", [], ["k"], value=nh.from_array(np.float32(2))), N("Mul", ["h", "k"], ["t"]), N("ReduceMean", ["t"], ["o"], axes=[1])], "then", [], [h.make_tensor_value_info("o", F, None)])
    other = h.make_graph([N("Mul", ["h", "w"], ["e"]), N("ReduceMean", ["e"], ["p"], axes=[1])], "else", [], [h.make_tensor_value_info("p", F, None)])
    model("if13", 13, [N("Relu", ["x"], ["h"]), N("If", ["c"], ["y"], then_branch=then, else_branch=other)], {"x": (F, [2, 3]), "c": (T.BOOL, [])},
          {"y": (F, None)}, {"w": f(3)})
    then = h.make_graph([N("Squeeze", ["h"], ["o"], axes=[1])], "then", [], [h.make_tensor_value_info("o", F, None)])
    other = h.make_graph([N("Clip", ["h"], ["t"], max=.5), N("Squeeze", ["t"], ["p"], axes=[1])], "else", [], [h.make_tensor_value_info("p", F, None)])
    model("if9", 9, [N("Relu", ["x"], ["h"]), N("If", ["c"], ["y"], then_branch=then, else_branch=other)], {"x": (F, [2, 1]), "c": (T.BOOL, [])}, {"y": (F, None)})
    m = model("contrib", 17, [N("BiasGelu", ["x", "b"], ["y"], domain="com.microsoft")], {"x": (F, [2, 3])}, {"y": (F, [2, 3])}, {"b": f(3)}, imports=[h.make_opsetid("com.microsoft", 1)])
    body = [N("ReduceMean", ["a"], ["m"], axes=[1]), N("Sub", ["a", "m"], ["r"])]
    fn = h.make_function("own", "Center", ["a"], ["r"], body, [h.make_opsetid("", 17)])
    model("function", 17, [N("Center", ["x"], ["y"], domain="own")], {"x": (F, [2, 3])}, {"y": (F, [2, 3])}, imports=[h.make_opsetid("own", 1)], functions=[fn])
    consts = [N("Constant", [], ["a"], value=nh.from_array(f(3))), N("Constant", [], ["b"], value_float=.5), N("Constant", [], ["c"], value_floats=[1., 2., 3.])]
    model("constants", 13, [*consts, N("Sum", ["x", "a", "b", "c"], ["y"])], {"x": (F, [2, 3])}, {"y": (F, [2, 3])})
    m = model("sparse", 13, [N("MatMul", ["x", "w"], ["y"])], {"x": (F, [2, 3])}, {"y": (F, [2, 2])})
    m.graph.sparse_initializer.append(h.make_sparse_tensor(nh.from_array(np.float32([2, 3]), "w"), nh.from_array(ints(1, 4), "w_i"), [3, 2]))
    m = model("rich", 17, [N("Relu", ["x"], ["h"], name="same", doc_string="node doc"), N("Add", ["h", "w"], ["y"], name="same")], {"x": (F, ["batch", 3])},
              {"y": (F, ["batch", 3])}, {"w": f(3), "unused": f(2)}, listed=True, producer_name="p", doc_string="model doc")
    h.set_model_props(m, {"k": "v"})
    m.graph.doc_string = "graph doc"
    m.graph.initializer[0].doc_string = "weight doc"
    m.graph.value_info.append(h.make_tensor_value_info("h", F, ["batch", 3]))
    m.graph.node[0].metadata_props.add(key="a", value="b")
    m.graph.quantization_annotation.add(tensor_name="h").quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    seq = h.make_tensor_sequence_value_info("s", F, None)
    m = model("sequence", 13, [N("SequenceConstruct", ["x", "x"], ["q"]), N("ConcatFromSequence", ["q"], ["y"], axis=0)], {"x": (F, [2, 3])}, {"y": (F, [4, 3])})
    m.graph.value_info.append(seq)


def with_shapes(m):
    """The model with inferred shapes for the outputs that declare none; a rank where inference finds none."""
    inferred = {o.name: o for o in onnx.shape_inference.infer_shapes(m).graph.output}
    for o in m.graph.output:
        if o.type.tensor_type.elem_type and not o.type.tensor_type.HasField("shape"):
            o.CopyFrom(inferred[o.name])
    return m


def valid(path, full):
    try:
        onnx.checker.check_model(str(path), full_check=full)
        return True
    except Exception:
        return False


def fill(message, depth=0, seed=[0]):
    """Every field of a message, to a depth; of a oneof the last."""
    for field in message.DESCRIPTOR.fields:
        seed[0] += 1
        k, repeated = seed[0], field.is_repeated
        if field.message_type is not None:
            if depth > 7:
                continue
            if repeated:
                for _ in range(2):
                    fill(getattr(message, field.name).add(), depth + 3)
            else:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), depth + 1)
            continue
        kinds = {9: f"text{k}", 12: bytes([k % 256, 255]), 2: k / 4, 1: k / 4, 14: 1}
        value = kinds.get(field.type, k)
        if repeated:
            getattr(message, field.name).extend([value, value])
        else:
            setattr(message, field.name, value)


def feeds(m):
    rng = np.random.default_rng(1)
    constant = {t.name for t in m.graph.initializer}
    out = {}
    for i in m.graph.input:
        if i.name in constant:
            continue
        t = i.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else 2 for d in t.shape.dim]
        dtype = h.tensor_dtype_to_np_dtype(t.elem_type)
        if dtype == bool:
            out[i.name] = np.ones(shape, bool)
        elif np.issubdtype(dtype, np.integer):
            out[i.name] = rng.integers(1, 3, shape).astype(dtype)
        else:
            out[i.name] = np.asarray(np.abs(rng.standard_normal(shape)) if "half" in m.graph.name else rng.standard_normal(shape)).astype(dtype)
    return out


def run(path, feed):
    import onnxruntime as ort
    o = ort.SessionOptions()
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    o.log_severity_level = 4
    o.intra_op_num_threads = 1
    s = ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])
    return s.run(None, feed)


def judge(folder):
    bad, count, skipped = 0, 0, []
    for out in sorted((folder / "out").glob("*.onnx")):
        source = folder / (out.stem.split("@")[0] + ".onnx")
        before = onnx.load(source)
        try:
            want = run(source, feeds(before))
        except Exception as e:
            want = None
            skipped.append(f"{source.stem}: {str(e)[:100]}")
        try:
            onnx.checker.check_model(str(out), full_check=valid(source, True))
            after = onnx.load(out)
            assert [i.name for i in before.graph.input] == [i.name for i in after.graph.input], "inputs"
            assert [i.name for i in before.graph.output] == [i.name for i in after.graph.output], "outputs"
            assert before.metadata_props == after.metadata_props and before.functions == after.functions or "@" in out.stem, "model"
            if "@" not in out.stem and before.opset_import[0].version > 12:
                keep = [n for n in before.graph.node if n.op_type not in ("Constant", "Dropout")]
                new = [n for n in after.graph.node if n.op_type != "Identity" or n in keep]
                key = lambda n: (n.name, n.op_type, n.doc_string, list(n.input), list(n.output), sorted(map(str, n.attribute)), list(n.metadata_props))
                assert list(map(key, keep)) == list(map(key, new)), "nodes"
                for a, b in zip(before.graph.input, after.graph.input):
                    assert a == b, "input"
                assert list(before.graph.output) == list(after.graph.output), "output"
                assert before.graph.quantization_annotation == after.graph.quantization_annotation, "annotation"
                assert before.graph.doc_string == after.graph.doc_string and before.doc_string == after.doc_string, "doc"
                docs = lambda g: {t.name: t.doc_string for t in g.initializer}
                # What only Dropout read is gone with it.
                assert "dropout" in out.stem or set(docs(before.graph).items()) <= set(docs(after.graph).items()), "initializers"
                assert sorted(map(str, before.graph.value_info)) == sorted(map(str, after.graph.value_info)), "value_info"
            if want is not None:
                for a, b in zip(want, run(out, feeds(before))):
                    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, b.dtype, a.shape, b.shape)
                    assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), f"differs by {np.abs(a.astype(float) - b).max()}"
            count += 1
        except Exception as e:
            if "NOT_IMPLEMENTED" in str(e):
                skipped.append(f"{out.stem}: {str(e)[:100]}")
                continue
            bad += 1
            print(f"FAIL {out.stem}: {type(e).__name__} {str(e)[:600]}")
    for s in sorted(set(skipped)):
        print("not run by ONNX Runtime:", s)
    every = folder / "out" / "every_field.bin"
    if every.exists():
        a, b = (onnx.ModelProto.FromString((p / "every_field.bin").read_bytes()) for p in (folder, folder / "out"))
        if a != b:
            bad += 1
            print("FAIL every_field: the message changed")
    print(f"{count} models agree, {bad} do not")
    sys.exit(bad > 0)


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "make":
        build()
        for name, m in MODELS.items():
            onnx.save(with_shapes(m), folder / f"{name}.onnx")
        every = onnx.ModelProto()
        fill(every)
        (folder / "every_field.bin").write_bytes(every.SerializeToString())
    else:
        judge(folder)
