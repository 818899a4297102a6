//! Graphs for tests, built node by node.

use super::*;

/// Builds graphs node by node.
pub(crate) struct Builder {
    pub graph: Graph,
}

impl Builder {
    pub fn new() -> Self {
        Builder { graph: Graph { opset: 17, ..Graph::default() } }
    }

    pub fn input(&mut self, name: &str, shape: Vec<Dim>) -> ValueId {
        let fact = Fact { dtype: Some(crate::tensor::DType::F32), shape: Some(shape) };
        let v = self.graph.add_value(name, fact);
        self.graph.inputs.push(v);
        v
    }

    pub fn images(&mut self, c: usize, side: usize) -> ValueId {
        self.input("x", vec![Dim::Symbol("n".into()), Dim::Known(c), Dim::Known(side), Dim::Known(side)])
    }

    /// A constant with reproducible uneven values around 0.
    pub fn constant(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let n = shape.iter().product::<usize>();
        let seed = name.bytes().map(usize::from).sum::<usize>();
        let values = (0..n).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect();
        self.graph.add_constant(name, Tensor::f32(shape, values))
    }

    pub fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let n = self.graph.nodes.len();
        let out = self.graph.add_value(&format!("v{n}"), Fact::default());
        self.graph.nodes.push(Node::new(format!("n{n}"), op, inputs, &[out]));
        out
    }

    pub fn conv(&mut self, name: &str, x: ValueId, cin: usize, cout: usize, k: usize) -> ValueId {
        let w = self.constant(&format!("{name}.weight"), &[cout, cin, k, k]);
        self.conv_with(x, w, k)
    }

    pub fn conv_with(&mut self, x: ValueId, w: ValueId, k: usize) -> ValueId {
        let p = (k / 2) as i64;
        self.node(Op::Conv { window: window(vec![p; 4]), group: 1 }, &[x, w])
    }

    pub fn norm(&mut self, name: &str, x: ValueId, c: usize) -> ValueId {
        let scale = self.constant(&format!("{name}.weight"), &[c]);
        let bias = self.constant(&format!("{name}.bias"), &[c]);
        let mean = self.constant(&format!("{name}.mean"), &[c]);
        let var: Vec<f32> = (0..c).map(|i| 0.3 + i as f32 * 0.2).collect();
        let var = self.graph.add_constant(&format!("{name}.var"), Tensor::f32(&[c], var));
        self.node(Op::BatchNorm { epsilon: 1e-5 }, &[x, scale, bias, mean, var])
    }

    pub fn relu(&mut self, x: ValueId) -> ValueId {
        self.node(Op::Unary(Unary::Relu), &[x])
    }

    pub fn finish(mut self, outputs: &[ValueId]) -> Graph {
        self.graph.outputs = outputs.to_vec();
        self.graph.check().unwrap();
        self.graph
    }
}

/// Window geometry with strides and dilations of one.
pub(crate) fn window(pads: Vec<i64>) -> Window {
    Window { kernel: vec![], strides: vec![], dilations: vec![], padding: Padding::Explicit(pads) }
}

impl Builder {
    /// A convolution that keeps the size, followed by a Relu.
    pub fn conv_relu(&mut self, name: &str, x: ValueId, cin: usize, cout: usize, k: usize) -> ValueId {
        let y = self.conv(name, x, cin, cout, k);
        self.relu(y)
    }

    /// Two tensors combined.
    pub fn binary(&mut self, op: Binary, a: ValueId, b: ValueId) -> ValueId {
        self.node(Op::Binary(op), &[a, b])
    }

    /// Global pooling, flattening and a classifier of `c` channels.
    pub fn head(&mut self, x: ValueId, c: usize) -> ValueId {
        let y = self.node(Op::GlobalAveragePool, &[x]);
        let y = self.node(Op::Flatten { axis: 1 }, &[y]);
        let w = self.constant("fc.weight", &[10, c]);
        self.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[y, w])
    }

    /// A dense layer along the last axis.
    pub fn linear(&mut self, name: &str, x: ValueId, from: usize, to: usize) -> ValueId {
        let (w, bias) =
            (self.constant(&format!("{name}.weight"), &[from, to]), self.constant(&format!("{name}.bias"), &[to]));
        let y = self.node(Op::MatMul, &[x, w]);
        self.binary(Binary::Add, y, bias)
    }

    /// `x`, of so many tokens, heads and features a head, taken apart into heads and transposed by `perm`.
    pub fn heads(&mut self, name: &str, x: ValueId, sizes: [usize; 3], perm: [i64; 4]) -> ValueId {
        let shape = Tensor::i64s(std::iter::once(0).chain(sizes.map(|d| d as i64)).collect());
        let shape = self.graph.add_constant(&format!("{name}.shape"), shape);
        let x = self.node(Op::Reshape { allowzero: false }, &[x, shape]);
        self.node(Op::Transpose { perm: perm.to_vec() }, &[x])
    }

    /// Shares of attention times values, and its layer; queries, keys and values are taken apart into heads.
    pub fn attend(&mut self, [q, k, v]: [ValueId; 3], [tokens, heads, features]: [usize; 3]) -> ValueId {
        let scores = self.node(Op::MatMul, &[q, k]);
        let shares = self.node(Op::Softmax { axis: -1, log: false }, &[scores]);
        let context = self.node(Op::MatMul, &[shares, v]);
        let context = self.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context]);
        let width = heads * features;
        let shape = self.graph.add_constant("joined", Tensor::i64s(vec![0, tokens as i64, width as i64]));
        let context = self.node(Op::Reshape { allowzero: false }, &[context, shape]);
        self.linear("out", context, width, width)
    }
}
