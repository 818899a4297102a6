//! `qdrop demo`: the main job on the built-in network, by every method.

use crate::args::{Demo, Print};
use crate::demo::{self, CLASSES};
use crate::reports::{self, Place};
use crate::{Outcome, out, progress, samples};
use qdrop::data::Samples;
use qdrop::graph::Graph;
use qdrop::pipeline;
use qdrop::plan::{MethodName, Recipe};
use qdrop::report::{Accuracy, Event, Score, Sink, Source, Table, bytes, duration};
use qdrop::{Error, Result};
use serde::Serialize;
use std::time::Instant;

/// Iterations per unit unless told otherwise.
const ITERATIONS: usize = 700;
/// Pictures to calibrate on, and their seed.
const CALIBRATION: (usize, u64) = (512, 1);
/// Pictures to measure on, and their seed.
const TEST: (usize, u64) = (2000, 2);
/// Bits of weights and activations.
const BITS: [(u32, u32); 2] = [(4, 4), (2, 2)];
const METHODS: [(MethodName, &str, &str); 4] = [
    (MethodName::Rtn, "rtn", "nearest rounding"),
    (MethodName::Adaround, "adaround", "AdaRound"),
    (MethodName::Brecq, "brecq", "BRECQ"),
    (MethodName::Qdrop, "qdrop", "QDrop"),
];

/// One quantized file.
#[derive(Debug, Serialize)]
struct Row {
    weight_bits: u32,
    activation_bits: u32,
    method: &'static str,
    top1: f64,
    bytes: u64,
    seconds: f64,
    file: String,
}

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
struct View {
    model: String,
    calibration_samples: usize,
    test_samples: usize,
    iterations: usize,
    seed: u64,
    float_top1: f64,
    float_bytes: u64,
    results: Vec<Row>,
}

/// Runs the command.
pub fn run(args: &Demo, quiet: bool) -> Result<Outcome> {
    let dir = &args.output_dir;
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    if let Some(count) = args.draw {
        demo::draw(&demo::paths(dir, count, true)?, args.seed)?;
        out::print(&format!("{count} pictures of {CLASSES} classes drawn into {}", dir.display()))?;
        return Ok(Outcome::Done);
    }
    let mut sink = progress::sink(quiet);
    let sink = sink.as_mut();
    let (calib, test, model) = (dir.join("calib"), dir.join("test"), dir.join("demo.onnx"));
    // Both folders are looked at before anything is drawn.
    let pictures = (demo::paths(&calib, CALIBRATION.0, false)?, demo::paths(&test, TEST.0, true)?);
    demo::draw(&pictures.0, CALIBRATION.1)?;
    demo::draw(&pictures.1, TEST.1)?;
    std::fs::write(&model, demo::NETWORK).map_err(|e| Error::io(&model, e))?;

    let mut recipe = Recipe::default();
    recipe.input.preset = Some(demo::PRESET.into());
    recipe.method.iterations = Some(args.iters.unwrap_or(ITERATIONS));
    (recipe.method.seed, recipe.method.threads) = (args.seed, args.threads);
    recipe.validate()?;
    let read = pipeline::load(&model)?;
    let calib = samples::open(&calib, &recipe, &model, &read, None, sink)?;
    let test = samples::open(&test, &recipe, &model, &read, None, sink)?;
    let shapes = samples::shapes(&calib)?;
    let graph = pipeline::prepare(&read, Some(&shapes))?;
    sink.event(&Event::Note { message: "measuring the float network".into() });
    let measure = |graph: &Graph, sink: &mut dyn Sink| -> Result<f64> {
        Ok(pipeline::measure(graph, &test, None, args.threads, sink)?.metrics["top1"])
    };
    let float = measure(&graph, sink)?;
    let score = |top1| Score::new(test.len(), [("top1", top1)]);
    let (mut results, mut nearest) = (Vec::new(), None);
    for (weight_bits, activation_bits) in BITS {
        for (method, word, name) in METHODS {
            sink.event(&Event::Note { message: format!("W{weight_bits}A{activation_bits} by {name}") });
            (recipe.weights.bits, recipe.activations.bits, recipe.method.name) = (weight_bits, activation_bits, method);
            let start = Instant::now();
            let quantized = pipeline::quantize(&graph, &recipe, &calib, None, sink)?;
            let seconds = start.elapsed().as_secs_f64();
            let path = dir.join(format!("demo.w{weight_bits}a{activation_bits}.{word}.onnx"));
            pipeline::save(&quantized.graph, &path)?;
            // What is measured is what was written.
            let written = pipeline::prepare(&pipeline::load(&path)?, Some(&shapes))?;
            let top1 = measure(&written, sink)?;
            let (bytes, file) = (pipeline::model_bytes(&path)?, path.display().to_string());
            if method == MethodName::Rtn {
                nearest = Some(score(top1));
            }
            let mut report = quantized.report;
            let sources = [(Source::Evaluation, &test as &dyn Samples)];
            report.quality = Some(pipeline::quality(&graph, &written, &recipe, &report, &sources, sink)?);
            report.accuracy = Some(Accuracy { float: score(float), nearest: nearest.clone(), result: score(top1) });
            (report.model, report.output) = (model.display().to_string(), Some(file.clone()));
            (report.bytes_before, report.bytes_after) = (Some(pipeline::model_bytes(&model)?), Some(bytes));
            report.command = reports::command_line();
            Place::beside(&path).write(&report)?;
            results.push(Row { weight_bits, activation_bits, method: word, top1, bytes, seconds, file });
        }
    }
    print(
        &View {
            model: model.display().to_string(),
            calibration_samples: calib.len(),
            test_samples: test.len(),
            iterations: recipe.resolved().iterations,
            seed: args.seed,
            float_top1: float,
            float_bytes: pipeline::model_bytes(&model)?,
            results,
        },
        args,
    )
}

fn print(view: &View, args: &Demo) -> Result<Outcome> {
    if args.format == Print::Json {
        return out::json(view).map(|()| Outcome::Done);
    }
    let title = format!("Accuracy on {} pictures of {CLASSES} classes", view.test_samples);
    let mut table = Table::new(title, "bits|method|>top-1 %|>size|>time|file");
    let row = |bits: &str, method: &str, top1: f64, size: u64, time: String, file: &str| {
        [bits.to_string(), method.to_string(), format!("{top1:.2}"), bytes(size), time, file.to_string()]
    };
    table.row(row("float", "", view.float_top1, view.float_bytes, String::new(), &view.model));
    for r in &view.results {
        let name = METHODS.iter().find(|m| m.1 == r.method).map_or(r.method, |m| m.2);
        let bits = format!("W{}A{}", r.weight_bits, r.activation_bits);
        table.row(row(&bits, name, r.top1, r.bytes, duration(r.seconds), &r.file));
    }
    let dir = args.output_dir.display();
    let (model, preset) = (&view.model, demo::PRESET);
    out::print(&format!(
        "{}\n\
        Learned with {} iterations per unit on {} unlabelled pictures. First and last layer have 8 bit weights.\n\
        \n\
        Next:\n  \
        qdrop plan {model} -w 2 -a 2\n  \
        qdrop quantize {model} --calib {dir}/calib --input {preset} -w 3 -a 3 --iters 2000 --eval {dir}/test\n  \
        qdrop compare {model} {dir}/demo.w2a2.qdrop.onnx --data {dir}/test --input {preset} --samples 64\n",
        out::draw(&[table]),
        view.iterations,
        view.calibration_samples,
    ))?;
    Ok(Outcome::Done)
}
