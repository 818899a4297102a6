//! Quantizes a network that is held in memory, with samples that are held in memory.
//!
//!     cargo run --release --example quantize_in_memory

use qdrop::data::Arrays;
use qdrop::plan::Preset;
use qdrop::report::{Event, Progress};
use qdrop::tensor::Tensor;
use qdrop::{Model, Quantizer};

const NETWORK: &[u8] = include_bytes!("network.onnx");

fn main() -> qdrop::Result<()> {
    let model = Model::from_bytes(NETWORK)?;

    // 64 pictures, one array for each input of the network, samples along the first axis.
    let pixel = |i: usize| ((i * 7919) % 256) as f32 / 255.0;
    let pictures = Tensor::f32(&[64, 3, 12, 12], (0..64 * 3 * 12 * 12).map(pixel).collect());
    let calibration = Arrays::new(vec![("image".into(), pictures)], None)?;

    let mut progress = Progress::new(|event| {
        if let Event::UnitFinished { unit, .. } = event {
            println!("{}: loss {:.4} -> {:.4}", unit.name, unit.loss_before, unit.loss_after);
        }
    });
    let quantized = Quantizer::new(&model)
        .weights(4)
        .activations(4)
        .preset(Preset::Fast)
        .configure(|recipe| recipe.method.iterations = Some(100))
        .progress(&mut progress)
        .quantize(&calibration)?;

    let file = quantized.to_bytes()?;
    println!("{} bytes became {}", NETWORK.len(), file.len());
    if let Some(quality) = &quantized.report().quality {
        println!("outputs: {:.1} dB from the float network's", quality.snr_db.unwrap_or(f64::INFINITY));
    }
    Ok(())
}
