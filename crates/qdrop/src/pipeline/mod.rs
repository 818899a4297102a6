//! The pipeline: it calls the other modules in order, and handles the seed and the progress events.

mod bench;
mod detector;
mod keys;
mod memory;
mod model;
mod quantize;
mod quantized;
mod record;
mod sensitivity;
mod written;

pub use crate::measure::{
    Answer, Checked, Deployed, Detected, Divergence, Drawing, Pace, check_labels, check_task, compare,
    compare_recorded, compared, detect_all, detect_deployed, divergence, left_out, measure, measure_all,
    measure_deployed, near_chance, outputs, outputs_deployed, pace, pictures, quality, recognise, shown,
    unknown_answer,
};
pub use crate::prepare::{fix, prepare};
pub use crate::probe::{declared_shapes, input_shapes, sample_shapes, several_at_once};
pub use crate::work::WorkDir;
pub use bench::{Bench, UnitSpeed, bench};
pub use keys::{float_key, run_keys};
pub(crate) use memory::beside;
pub use memory::{Memory, memory};
pub use model::{choose, cost, factor_sites, load, model_bytes, plan, save};
pub use quantize::{quantize, quantize_on, stages};
pub(crate) use quantize::{quantize_and_keep, solve_share};
pub use quantized::Quantized;
pub use sensitivity::{output_error, sensitivity};
pub(crate) use written::simulate;
pub use written::{encodings_beside, encodings_path, load_with};
