//! Calibrates on samples that are made when they are asked for: a camera, a database, a generator.
//!
//!     cargo run --release --example custom_samples

use qdrop::plan::MethodName;
use qdrop::tensor::Tensor;
use qdrop::{Model, Quantizer, Result, Samples};

/// Pictures of moving waves.
struct Waves {
    count: usize,
}

impl Samples for Waves {
    fn len(&self) -> usize {
        self.count
    }

    /// One tensor for each input of the network, without the batch axis. Called from several threads.
    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let pixel = |i: usize| ((i % 12) as f32 * 0.7 + index as f32).sin();
        Ok(vec![Tensor::f32(&[3, 12, 12], (0..3 * 12 * 12).map(pixel).collect())])
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    fn name(&self, index: usize) -> String {
        format!("wave {index}")
    }
}

fn main() -> Result<()> {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/network.onnx"))?;
    let waves = Waves { count: 128 };
    let quantized = Quantizer::new(&model).weights(8).activations(8).method(MethodName::Rtn).quantize(&waves)?;
    let report = quantized.report();
    for layer in &report.layers {
        println!("{}: {} bits", layer.name, layer.bits);
    }
    println!("outputs: {:.1} dB", report.quality.as_ref().and_then(|q| q.snr_db).unwrap_or(f64::INFINITY));
    Ok(())
}
