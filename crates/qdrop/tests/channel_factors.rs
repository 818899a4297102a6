//! Channels of very different width under one step: what a real ONNX Runtime answers with and without factors.
//!
//! Skipped where there is no shared library of it, like `runtime.rs`.

use qdrop::data::Arrays;
use qdrop::graph::{Binary, Dim, Fact, Graph, Node, Op, Padding, Unary, ValueId, Window};
use qdrop::pipeline::{self, Deployed};
use qdrop::plan::{MethodName, Override, Preset, Recipe, Target};
use qdrop::report::{Event, Silent, Sink, Stage};
use qdrop::runtime::Library;
use qdrop::tensor::{DType, Tensor};

const CHANNELS: usize = 6;
/// How wide each channel is.
const WIDTHS: [f32; CHANNELS] = [50.0, 1.0, 0.2, 5.0, 0.02, 0.5];

/// Samples of `shape` with numbers around 0.
fn samples(shape: &[usize]) -> Arrays {
    let values = qdrop_testing::numbers(32, shape.iter().product());
    Arrays::new(vec![("x".into(), Tensor::f32(&[&[32], shape].concat(), values))], None).unwrap()
}

struct Net(Graph);

impl Net {
    fn new(shape: &[usize]) -> (Self, ValueId) {
        let mut graph = Graph { opset: 20, ..Graph::default() };
        let dims = std::iter::once(Dim::Symbol("n".into())).chain(shape.iter().map(|&d| Dim::Known(d))).collect();
        let x = graph.add_value("x", Fact { dtype: Some(DType::F32), shape: Some(dims) });
        graph.inputs = vec![x];
        (Net(graph), x)
    }

    fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let name = format!("n{}", self.0.nodes.len());
        let y = self.0.add_value(&name, Fact::default());
        self.0.nodes.push(Node::new(name, op, inputs, &[y]));
        y
    }

    /// A weight of `shape` whose parts along `axis` are as large as `widths` or as their inverses.
    fn weight(&mut self, shape: &[usize], axis: usize, widths: Option<bool>) -> ValueId {
        let inner: usize = shape[axis + 1..].iter().product();
        let of = |i: usize| match widths {
            Some(wide) if wide => WIDTHS[i / inner % CHANNELS],
            Some(_) => 1.0 / WIDTHS[i / inner % CHANNELS],
            None => 1.0,
        };
        let values =
            (0..shape.iter().product()).map(|i: usize| (((i * 29 + 3) % 31) as f32 / 15.0 - 1.0) * of(i) / 3.0);
        let (name, values) = (format!("w{}", self.0.values.len()), values.collect());
        self.0.add_constant(&name, Tensor::f32(shape, values))
    }

    fn conv(&mut self, x: ValueId, weight: ValueId, pad: i64, group: i64) -> ValueId {
        let window =
            Window { kernel: vec![], strides: vec![], dilations: vec![], padding: Padding::Explicit(vec![pad; 4]) };
        self.node(Op::Conv { window, group }, &[x, weight])
    }

    fn silu(&mut self, x: ValueId) -> ValueId {
        let gate = self.node(Op::Unary(Unary::Sigmoid), &[x]);
        self.node(Op::Binary(Binary::Mul), &[x, gate])
    }

    fn finish(mut self, y: ValueId) -> Graph {
        self.0.outputs = vec![y];
        self.0.check().unwrap();
        self.0
    }
}

/// Convolutions with SiLU around a depthwise one.
fn gated() -> (Graph, Vec<usize>) {
    let shape = vec![3, 8, 8];
    let (mut net, x) = Net::new(&shape);
    let w = net.weight(&[CHANNELS, 3, 3, 3], 0, Some(true));
    let y = net.conv(x, w, 1, 1);
    let y = net.silu(y);
    let w = net.weight(&[CHANNELS, 1, 3, 3], 0, Some(false));
    let y = net.conv(y, w, 1, CHANNELS as i64);
    let y = net.silu(y);
    let w = net.weight(&[4, CHANNELS, 1, 1], 0, None);
    let y = net.conv(y, w, 0, 1);
    (net.finish(y), shape)
}

/// A residual block of dense layers behind a normalisation with uneven gains.
fn normalized() -> (Graph, Vec<usize>) {
    let shape = vec![5, CHANNELS];
    let (mut net, x) = Net::new(&shape);
    let w = net.weight(&[CHANNELS, CHANNELS], 0, None);
    let y = net.node(Op::MatMul, &[x, w]);
    let gains = net.0.add_constant("gains", Tensor::f32(&[CHANNELS], WIDTHS.to_vec()));
    let normal = net.node(Op::LayerNorm { axis: -1, epsilon: 1e-5 }, &[y, gains]);
    let w = net.weight(&[CHANNELS, 8], 0, Some(false));
    let y = net.node(Op::MatMul, &[normal, w]);
    let y = net.node(Op::Unary(Unary::Gelu { tanh: false }), &[y]);
    let w = net.weight(&[8, CHANNELS], 0, None);
    let y = net.node(Op::MatMul, &[y, w]);
    let y = net.node(Op::Binary(Binary::Add), &[y, normal]);
    let gains = net.0.add_constant("even", Tensor::f32(&[CHANNELS], vec![1.0; CHANNELS]));
    let y = net.node(Op::LayerNorm { axis: -1, epsilon: 1e-5 }, &[y, gains]);
    let w = net.weight(&[CHANNELS, 3], 0, None);
    let y = net.node(Op::MatMul, &[y, w]);
    (net.finish(y), shape)
}

/// Attention of two heads whose queries and keys are uneven the other way round, and whose values are too.
fn attention() -> (Graph, Vec<usize>) {
    const TOKENS: usize = 5;
    let shape = vec![TOKENS, CHANNELS];
    let (mut net, x) = Net::new(&shape);
    let w = net.weight(&[CHANNELS, CHANNELS], 0, None);
    let x = net.node(Op::MatMul, &[x, w]);
    let [q, k, v] = [(true, [0, 2, 1, 3]), (false, [0, 2, 3, 1]), (true, [0, 2, 1, 3])].map(|(wide, perm)| {
        let w = net.weight(&[CHANNELS, CHANNELS], 1, Some(wide));
        let y = net.node(Op::MatMul, &[x, w]);
        let heads = Tensor::i64s(vec![0, TOKENS as i64, 2, CHANNELS as i64 / 2]);
        let heads = net.0.add_constant(&format!("heads{}", y.0), heads);
        let y = net.node(Op::Reshape { allowzero: false }, &[y, heads]);
        net.node(Op::Transpose { perm: perm.to_vec() }, &[y])
    });
    let scores = net.node(Op::MatMul, &[q, k]);
    let shares = net.node(Op::Softmax { axis: -1, log: false }, &[scores]);
    let y = net.node(Op::MatMul, &[shares, v]);
    let y = net.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]);
    let joined = net.0.add_constant("joined", Tensor::i64s(vec![0, TOKENS as i64, CHANNELS as i64]));
    let y = net.node(Op::Reshape { allowzero: false }, &[y, joined]);
    let w = net.weight(&[CHANNELS, CHANNELS], 0, Some(false));
    let y = net.node(Op::MatMul, &[y, w]);
    let y = net.node(Op::Unary(Unary::Tanh), &[y]);
    let w = net.weight(&[CHANNELS, 3], 0, None);
    let y = net.node(Op::MatMul, &[y, w]);
    (net.finish(y), shape)
}

/// Signal-to-noise ratio of the first output of `graph`, written and run by `library`, with respect to that of `float`, in dB.
fn decibels(library: &Library, (float, graph): (&Graph, &Graph), samples: &Arrays, recipe: &Recipe) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    qdrop::onnx::write(graph, &path).unwrap();
    let file = Deployed::open(library, &path, 1).unwrap();
    let found = pipeline::divergence(float, &file, samples, recipe, &mut Silent).unwrap();
    found.outputs[0].snr_db.unwrap_or(f64::INFINITY)
}

#[test]
fn narrow_channels_survive_in_the_runtime() {
    let Some(library) = qdrop_testing::onnxruntime().map(|path| Library::load(&path).unwrap()) else { return };
    // Decibels of the output with factors, and how many more than without.
    for ((graph, shape), bits, [with, more]) in
        [(gated(), 8, [28.0, 20.0]), (normalized(), 8, [38.0, 6.0]), (attention(), 8, [30.0, 6.0])]
    {
        let samples = samples(&shape);
        let float = pipeline::prepare(&graph, Some(&[shape])).unwrap();
        let reached = |factor_samples: usize| {
            let mut recipe = Recipe::default();
            (recipe.weights.bits, recipe.activations.bits) = (bits, bits);
            recipe.method.name = MethodName::Rtn;
            (recipe.activations.factor_samples, recipe.activations.noise_limit) = (Some(factor_samples), Some(0.0));
            let done = pipeline::quantize(&float, &recipe, &samples, None, &mut Silent).unwrap();
            decibels(&library, (&float, &done.graph), &samples, &recipe)
        };
        let (found, plain) = (reached(16), reached(0));
        assert!(found >= with && found - plain >= more, "{found} dB with factors, {plain} dB without");
    }
}

/// What 8 bits cannot hold without factors stays float, by default, in plain sight and only there.
#[test]
fn activations_that_cost_the_outputs_too_much_stay_float() {
    let Some(library) = qdrop_testing::onnxruntime().map(|path| Library::load(&path).unwrap()) else { return };
    let (graph, shape) = gated();
    let samples = samples(&shape);
    let float = pipeline::prepare(&graph, Some(&[shape])).unwrap();
    let quantized = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = Recipe::default();
        (recipe.weights.bits, recipe.activations.bits) = (8, 8);
        (recipe.method.name, recipe.activations.factor_samples) = (MethodName::Rtn, Some(0));
        change(&mut recipe);
        let mut said = Notes(Vec::new());
        let done = pipeline::quantize(&float, &recipe, &samples, None, &mut said).unwrap();
        let found = decibels(&library, (&float, &done.graph), &samples, &recipe);
        let used = Recipe::from_toml(&done.report.recipe).unwrap();
        let left: Vec<String> = used.overrides.iter().filter_map(|o| o.activation.clone()).collect();
        assert_eq!(left.is_empty(), said.0.is_empty(), "{:?}", said.0);
        let named = |name: &String| said.0.iter().any(|note| note.contains(&format!("`{name}` (")));
        assert!(left.iter().all(named) && used.overrides.iter().all(|o| o.activation_bits == Some(32)));
        let again = pipeline::quantize(&float, &used, &samples, None, &mut Silent).unwrap();
        assert_eq!(qdrop::onnx::to_bytes(&again.graph).unwrap(), qdrop::onnx::to_bytes(&done.graph).unwrap());
        // One of a few is many.
        let many = said.0.iter().any(|note| note.contains(&format!("These are {} of ", left.len())));
        assert_eq!(many, !left.is_empty(), "{:?}", said.0);
        (left, found)
    };
    let (left, with) = quantized(&|_| {});
    let (none, without) = quantized(&|recipe| recipe.activations.noise_limit = Some(0.0));
    assert_eq!((left.join(" "), none.len()), ("n2".to_string(), 0));
    assert!(with > 25.0 && with - without > 10.0, "{with} dB, {without} dB where all are quantized");
    let spared = |change: &dyn Fn(&mut Recipe)| !quantized(change).0.is_empty();
    assert!(!spared(&|recipe| recipe.method.preset = Preset::Paper));
    assert!(!spared(&|recipe| recipe.activations.bits = 6), "few bits are learned");
    assert!(!spared(&|recipe| recipe.output.target = Target::Openvino));
    let mut recipe = Recipe::default();
    (recipe.weights.bits, recipe.activations.bits, recipe.method.name) = (8, 8, MethodName::Rtn);
    recipe.activations.factor_samples = Some(0);
    // By its own name, and as what a layer produces.
    for (activation, layer) in [(Some("n2"), ""), (None, "n0")] {
        let mut wished = Override::default();
        (wished.activation, wished.activation_bits) = (activation.map(str::to_string), Some(8));
        wished.layer = layer.into();
        recipe.overrides = vec![wished.clone()];
        let done = pipeline::quantize(&float, &recipe, &samples, None, &mut Silent).unwrap();
        assert_eq!(Recipe::from_toml(&done.report.recipe).unwrap().overrides, [wished], "bits that the recipe names");
    }
}

/// The run begins again where activations stay float, but units are not measured again.
#[test]
fn how_fast_units_are_is_measured_once() {
    let (graph, shape) = gated();
    let samples = samples(&shape);
    let float = pipeline::prepare(&graph, Some(&[shape])).unwrap();
    let mut recipe = Recipe::default();
    (recipe.weights.bits, recipe.activations.bits) = (8, 8);
    (recipe.method.iterations, recipe.activations.factor_samples) = (Some(50), Some(0));
    let mut seen = Events::default();
    let done = pipeline::quantize(&float, &recipe, &samples, None, &mut seen).unwrap();
    let left = Recipe::from_toml(&done.report.recipe).unwrap().overrides.len();
    assert_eq!((left, seen.begun(Stage::Bench), seen.begun(Stage::Refine)), (1, 1, 2));
    assert_eq!(seen.0.iter().filter(|e| matches!(e, Event::Estimate { .. })).count(), 1);
    assert!(done.report.estimate.is_some());
    let timings = &done.report.timings;
    assert!(timings.iter().all(|t| timings.iter().filter(|u| u.stage == t.stage).count() == 1), "{timings:?}");
}

/// Collects events.
#[derive(Default)]
struct Events(Vec<Event>);

impl Events {
    /// How often `stage` began.
    fn begun(&self, stage: Stage) -> usize {
        self.0.iter().filter(|e| matches!(e, Event::StageStarted { stage: s, .. } if *s == stage)).count()
    }
}

impl Sink for Events {
    fn event(&mut self, event: &Event) {
        self.0.push(event.clone());
    }
}

/// A recipe names an activation as the network does, although its channels are divided.
#[test]
fn divided_activations_have_their_own_names_in_recipes() {
    let (graph, shape) = gated();
    let samples = samples(&shape);
    let float = pipeline::prepare(&graph, Some(&[shape])).unwrap();
    let quantized = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = Recipe::default();
        (recipe.weights.bits, recipe.activations.bits, recipe.method.name) = (8, 8, MethodName::Rtn);
        recipe.activations.factor_samples = Some(16);
        change(&mut recipe);
        let done = pipeline::quantize(&float, &recipe, &samples, None, &mut Silent).unwrap();
        (done.plan.sites, Recipe::from_toml(&done.report.recipe).unwrap().overrides)
    };
    let (sites, _) = quantized(&|recipe| recipe.activations.noise_limit = Some(0.0));
    let divided = sites.iter().find(|s| s.name == "n2").unwrap();
    let (left, overrides) = quantized(&|recipe| recipe.activations.noise_limit = Some(1e-9));
    assert!(left.len() < sites.len() && overrides.iter().any(|o| o.activation.as_deref() == Some("n2")));
    let (sites, _) = quantized(&|recipe| {
        recipe.activations.noise_limit = Some(0.0);
        let mut own = Override::default();
        (own.activation, own.activation_bits) = (Some(divided.name.clone()), Some(6));
        recipe.overrides.push(own);
    });
    assert!(sites.iter().any(|s| s.name == "n2" && s.grid.bits == 6));
}

/// Units learn what divides their activations, and come closer by it.
#[test]
fn factors_are_learned_with_the_units() {
    let (graph, shape) = normalized();
    let samples = samples(&shape);
    let float = pipeline::prepare(&graph, Some(&[shape])).unwrap();
    let run = |learn: bool| {
        let mut recipe = Recipe::default();
        (recipe.weights.bits, recipe.activations.bits) = (3, 4);
        (recipe.activations.factor_samples, recipe.activations.noise_limit) = (Some(16), Some(0.0));
        (recipe.method.iterations, recipe.method.tune_iterations) = (Some(500), Some(0));
        recipe.method.learn_weight_scales = Some(learn);
        let done = pipeline::quantize(&float, &recipe, &samples, None, &mut Silent).unwrap();
        let divisors = done.graph.nodes.iter().filter(|n| {
            let result = n.output(0).map(|v| &done.graph.value(v).name);
            n.op == Op::Binary(Binary::Mul) && result.is_some_and(|name| name.ends_with("_divided"))
        });
        let content = |n: &Node| done.graph.constant(n.input(1).unwrap()).unwrap().to_f32().unwrap();
        let loss = done.report.units.iter().map(|u| u.loss_after).sum::<f64>();
        (divisors.map(content).collect::<Vec<_>>(), loss)
    };
    let (with, without) = (run(true), run(false));
    assert!(!without.0.is_empty() && with.0.len() == without.0.len(), "{:?}, {:?}", with.0, without.0);
    // What is divided at the border of two units is quantized in the second and divided in the first.
    let moved = with.0.iter().zip(&without.0).filter(|(learned, first)| learned != first).count();
    assert!(moved > 0, "{:?} instead of {:?}", with.0, without.0);
    assert!(with.1 < without.1, "{} with learned factors, {} without", with.1, without.1);
}

/// Collects notes.
struct Notes(Vec<String>);

impl Sink for Notes {
    fn event(&mut self, event: &Event) {
        if let Event::Note { message } = event {
            self.0.push(message.clone());
        }
    }
}

/// A value that is divided by channel is not the float network's any more and does not pass for it.
#[test]
fn what_shares_a_name_with_the_float_network_is_close_to_it() {
    for (graph, shape) in [gated(), normalized(), attention()] {
        let samples = samples(&shape);
        let float = pipeline::prepare(&graph, Some(&[shape])).unwrap();
        let mut recipe = Recipe::default();
        (recipe.weights.bits, recipe.activations.bits) = (8, 8);
        recipe.method.name = MethodName::Rtn;
        let done = pipeline::quantize(&float, &recipe, &samples, None, &mut Silent).unwrap();
        let divided = done.graph.values.iter().filter(|v| v.name.ends_with("_divided")).count();
        assert!(divided > 0, "no factors were chosen");
        let shared = pipeline::compare(&float, &done.graph, &samples, &recipe, &mut Silent).unwrap();
        assert!(shared.len() > 1, "{shared:?}");
        let far = shared.iter().find(|d| d.snr_db.is_some_and(|db| db < 20.0));
        assert!(far.is_none(), "{far:?}");
    }
}
