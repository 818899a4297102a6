//! A device beside the processors: one that hands everything on and notes what it and its trainers were asked.

use qdrop::Result;
use qdrop::data::Arrays;
use qdrop::engine::cpu::Cpu;
use qdrop::engine::device::{Device, Footprint, Inference, OutputError, Progress, processors};
use qdrop::engine::program::Program;
use qdrop::engine::train::{Choices, LossWeights, Losses, Problem, Step, Trainer};
use qdrop::graph::{Dim, Fact, Graph, Node, Op, Unary, ValueId};
use qdrop::onnx;
use qdrop::pipeline::{self, Quantized};
use qdrop::plan::Recipe;
use qdrop::quant::Grid;
use qdrop::report::Silent;
use qdrop::tensor::{DType, Rows, Tensor};
use qdrop_testing::numbers;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How often each function was called.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Asked {
    fn note(&self, what: &'static str) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }

    fn times(&self, what: &str) -> usize {
        self.0.lock().unwrap().get(what).copied().unwrap_or_default()
    }
}

struct Recording {
    cpu: Cpu,
    asked: Asked,
}

impl Recording {
    fn new(threads: usize) -> Self {
        Recording { cpu: processors(threads).unwrap(), asked: Asked::default() }
    }

    fn note(&self, what: &'static str) {
        self.asked.note(what);
    }
}

struct RecordingTrainer<'a> {
    trainer: Box<dyn Trainer + 'a>,
    asked: Asked,
}

impl Trainer for RecordingTrainer<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        self.asked.note("step");
        assert!(matches!(step.choices, Choices::Drawn(_)), "a run draws nothing that a device cannot draw by itself");
        self.trainer.step(step)
    }

    fn losses(&mut self) -> Result<Vec<Losses>> {
        self.asked.note("losses");
        self.trainer.losses()
    }

    fn alpha(&self) -> Vec<Vec<f32>> {
        self.trainer.alpha()
    }

    fn biases(&self) -> Vec<Vec<f32>> {
        self.trainer.biases()
    }

    fn scaled(&self) -> Vec<Vec<f32>> {
        self.trainer.scaled()
    }

    fn grids(&self) -> Vec<Grid> {
        self.trainer.grids()
    }
}

impl Device for Recording {
    fn parallel(&self) -> usize {
        self.cpu.parallel()
    }

    fn inference(&self, program: &Program) -> Result<Box<dyn Inference>> {
        self.note("inference");
        self.cpu.inference(program)
    }

    fn trainer<'a>(&self, problem: &'a Problem) -> Result<Box<dyn Trainer + 'a>> {
        self.note("trainer");
        let trainer = self.cpu.trainer(problem)?;
        Ok(Box::new(RecordingTrainer { trainer, asked: self.asked.clone() }))
    }

    fn sensitivity(
        &self,
        program: &Program,
        inputs: &[Rows],
        outputs: &[OutputError],
        seed: u64,
        progress: Progress,
    ) -> Result<Vec<Option<LossWeights>>> {
        self.note("sensitivity");
        self.cpu.sensitivity(program, inputs, outputs, seed, progress)
    }

    fn influence(
        &self,
        program: &Program,
        inputs: &[Rows],
        outputs: &[OutputError],
        grids: &[Vec<Grid>],
        seed: u64,
        progress: Progress,
    ) -> Result<Vec<Option<Vec<f64>>>> {
        self.note("influence");
        self.cpu.influence(program, inputs, outputs, grids, seed, progress)
    }

    fn footprint(&self, program: &Program, samples: usize, batch: usize) -> Result<Footprint> {
        self.note("footprint");
        self.cpu.footprint(program, samples, batch)
    }

    fn operations(&self, program: &Program) -> Result<f64> {
        self.note("operations");
        self.cpu.operations(program)
    }

    fn ceiling(&self) -> f64 {
        self.cpu.ceiling()
    }

    fn beside(&self, work: &mut (dyn FnMut() + Send)) {
        self.note("beside");
        self.cpu.beside(work);
    }
}

/// Three dense layers with rectifiers.
fn network() -> Graph {
    let mut g = Graph { opset: 17, ..Graph::default() };
    let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(6)]);
    let mut x: ValueId = g.add_value("x", Fact { dtype: Some(DType::F32), shape });
    g.inputs = vec![x];
    for layer in 0..3 {
        let values = (0..36).map(|i| (((i * 29 + layer * 11) % 31) as f32 / 15.0 - 1.0) / 2.0).collect();
        let w = g.add_constant(&format!("w{layer}"), Tensor::f32(&[6, 6], values));
        let [y, r] = ["y", "r"].map(|n| g.add_value(&format!("{n}{layer}"), Fact::default()));
        g.nodes.push(Node::new(format!("dense{layer}"), Op::MatMul, &[x, w], &[y]));
        g.nodes.push(Node::new(format!("relu{layer}"), Op::Unary(Unary::Relu), &[y], &[r]));
        x = r;
    }
    g.outputs = vec![x];
    g
}

#[test]
fn a_run_asks_its_device_alone_and_finds_the_same_on_any() {
    let float = pipeline::prepare(&network(), Some(&[vec![6]])).unwrap();
    let samples = Arrays::new(vec![("x".into(), Tensor::f32(&[48, 6], numbers(48, 6)))], None).unwrap();
    let mut recipe = Recipe::default();
    (recipe.method.iterations, recipe.method.threads) = (Some(60), 2);
    let bytes = |done: &Quantized| onnx::to_bytes(&done.graph).unwrap();
    let plain = pipeline::quantize(&float, &recipe, &samples, None, &mut Silent).unwrap();
    let device = Recording::new(1);
    let other = pipeline::quantize_on(&device, &float, &recipe, &samples, None, &mut Silent).unwrap();
    assert_eq!(bytes(&plain), bytes(&other));
    for what in ["inference", "trainer", "sensitivity", "beside", "operations", "step", "losses"] {
        assert!(device.asked.times(what) > 0, "{what} was not asked");
    }
    // At 8 bits, nearest, steps are screened.
    (recipe.weights.bits, recipe.activations.bits, recipe.method.name) = (8, 8, qdrop::plan::MethodName::Rtn);
    recipe.method.memory = Some("1GiB".parse().unwrap());
    let device = Recording::new(2);
    pipeline::quantize_on(&device, &float, &recipe, &samples, None, &mut Silent).unwrap();
    assert!(device.asked.times("influence") > 0 && device.asked.times("footprint") > 0);
}
