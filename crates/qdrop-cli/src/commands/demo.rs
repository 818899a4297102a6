//! `qdrop demo`: quantizes the built-in network by every method.

use crate::args::{Demo, Print};
use crate::demo::{self, CLASSES};
use crate::progress::Detail;
use crate::reports::{self, Place};
use crate::{Outcome, out, progress};
use qdrop::plan::MethodName;
use qdrop::report::{Event, Table, bytes, duration};
use qdrop::{Dataset, Error, Model, Quantizer, Recipe, Result, Samples};
use serde::Serialize;

/// Iterations per unit unless told otherwise.
const ITERATIONS: usize = 700;
/// Pictures to calibrate on, and their seed.
const CALIBRATION: (usize, u64) = (512, 1);
/// Pictures to measure on, and their seed.
const TEST: (usize, u64) = (2000, 2);
/// Bits of weights and activations.
const BITS: [(u32, u32); 2] = [(4, 4), (2, 2)];
/// Methods, with what stands for them in file names.
const METHODS: [(MethodName, &str); 4] = [
    (MethodName::Rtn, "rtn"),
    (MethodName::Adaround, "adaround"),
    (MethodName::Brecq, "brecq"),
    (MethodName::Qdrop, "qdrop"),
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
pub fn run(args: &Demo, detail: Detail) -> Result<Outcome> {
    let dir = &args.output_dir;
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    if let Some(count) = args.draw {
        demo::draw(&demo::paths(dir, count, true)?, args.seed)?;
        out::print(&format!("{count} pictures of {CLASSES} classes drawn into {}", dir.display()))?;
        return Ok(Outcome::Done);
    }
    let mut sink = progress::sink(detail);
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
    let network = Model::open(&model)?;
    let calib = Dataset::open(&calib, &network, &recipe, None, sink)?;
    let test = Dataset::open(&test, &network, &recipe, None, sink)?;
    sink.event(&Event::Note { message: "measuring the float network".into() });
    let float = network.evaluate(&test, &recipe, sink)?;
    let (mut results, mut nearest) = (Vec::new(), None);
    for (weight_bits, activation_bits) in BITS {
        for (method, word) in METHODS {
            sink.event(&Event::Note { message: format!("W{weight_bits}A{activation_bits} by {method}") });
            let path = dir.join(format!("demo.w{weight_bits}a{activation_bits}.{word}.onnx"));
            let quantizer = Quantizer::new(&network).recipe(recipe.clone()).method(method);
            let quantizer = quantizer.weights(weight_bits).activations(activation_bits);
            let quantizer = quantizer.evaluate_on(&test).float_score(float.clone()).measure_nearest(false);
            let mut report = quantizer.progress(sink).quantize_to(&calib, &path)?.into_report();
            let seconds = report.quantizing_seconds();
            if let Some(accuracy) = &mut report.accuracy {
                if method == MethodName::Rtn {
                    nearest = Some(accuracy.result.clone());
                }
                accuracy.nearest.clone_from(&nearest);
            }
            report.command = reports::command_line();
            Place::beside(&path).write(&report)?;
            let measured = report.accuracy.zip(report.bytes_after);
            let (accuracy, bytes) = measured.ok_or_else(|| Error::internal("the demo was not measured"))?;
            let (top1, file) = (accuracy.result.metrics["top1"], path.display().to_string());
            results.push(Row { weight_bits, activation_bits, method: word, top1, bytes, seconds, file });
        }
    }
    let view = View {
        model: network.name(),
        calibration_samples: calib.len(),
        test_samples: test.len(),
        iterations: recipe.resolved().iterations,
        seed: args.seed,
        float_top1: float.metrics["top1"],
        float_bytes: network.size(),
        results,
    };
    print(&view, args)
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
        let name = METHODS.iter().find(|m| m.1 == r.method).map_or(String::new(), |m| m.0.to_string());
        let bits = format!("W{}A{}", r.weight_bits, r.activation_bits);
        table.row(row(&bits, &name, r.top1, r.bytes, duration(r.seconds), &r.file));
    }
    let dir = args.output_dir.display();
    let (model, preset) = (&view.model, demo::PRESET);
    out::print(&format!(
        "{}\n\
        Learned with {} iterations per unit on {} unlabelled pictures. The first and last layers have 8-bit weights.\n\
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
