//! Reads the report of a run: which units were learned, and which layers lose most.
//!
//!     cargo run --release --example read_report [model.w4a4.report.json]

use qdrop::report::{Report, Silent};
use qdrop::{Dataset, Error, Model, Quantizer, Recipe, Result};
use std::path::Path;

/// The report in a file, or one made here.
fn report() -> Result<Report> {
    if let Some(path) = std::env::args().nth(1) {
        let text = std::fs::read(&path).map_err(|e| Error::io(Path::new(&path), e))?;
        return Report::from_json(&text);
    }
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let model = Model::open(format!("{examples}/network.onnx"))?;
    let samples = Dataset::open(format!("{examples}/samples.npz"), &model, &Recipe::default(), None, &Silent)?;
    let quantizer = Quantizer::new(&model).weights(3).activations(3).evaluate_on(&samples);
    let quantizer = quantizer.configure(|recipe| recipe.method.iterations = Some(100));
    Ok(quantizer.quantize(&samples)?.into_report())
}

fn main() -> Result<()> {
    let report = report()?;
    println!("{} at W{}A{}", report.method, report.weight_bits, report.activation_bits);
    if let Some(accuracy) = &report.accuracy {
        for (name, value) in &accuracy.result.metrics {
            println!("{name}: {value:.2} % of {:.2} %", accuracy.float.metrics[name]);
        }
    }
    for unit in &report.units {
        let (before, after) = (unit.snr_before.unwrap_or(f64::INFINITY), unit.snr_after.unwrap_or(f64::INFINITY));
        println!("{}: {} iterations, {before:.1} dB -> {after:.1} dB", unit.name, unit.iterations);
    }
    for remark in report.remarks() {
        println!("{}: {}", remark.kind(), remark.text);
    }
    Ok(())
}
