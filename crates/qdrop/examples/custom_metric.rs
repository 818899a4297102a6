//! Measures a metric of one's own on the float network and on the quantized one.
//!
//!     cargo run --release --example custom_metric

use qdrop::plan::MethodName;
use qdrop::report::Silent;
use qdrop::{Dataset, Model, Quantizer, Recipe, Result, Samples};

/// How far the right class is ahead of the best other one, on average.
fn margin(model: &Model, samples: &dyn Samples) -> Result<f64> {
    let mut sum = 0.0;
    model.answers(samples, 0, &mut Silent, |index, outputs| {
        let (scores, label) = (outputs[0].values, samples.label(index).unwrap_or(0));
        let others = scores.iter().enumerate().filter(|&(class, _)| class != label).map(|(_, &score)| score);
        sum += f64::from(scores[label] - others.fold(f32::NEG_INFINITY, f32::max));
        Ok(())
    })?;
    Ok(sum / samples.len() as f64)
}

fn main() -> Result<()> {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let model = Model::open(format!("{examples}/network.onnx"))?;
    let samples = Dataset::open(format!("{examples}/samples.npz"), &model, &Recipe::default(), None, &Silent)?;
    println!("float: {:.3}", margin(&model, &samples)?);
    for bits in [8, 4, 3] {
        let quantizer = Quantizer::new(&model).weights(bits).activations(bits).method(MethodName::Rtn);
        let quantized = quantizer.quantize(&samples)?.to_model()?;
        println!("W{bits}A{bits}, nearest rounding: {:.3}", margin(&quantized, &samples)?);
    }
    Ok(())
}
