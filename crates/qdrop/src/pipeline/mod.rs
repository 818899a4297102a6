//! The pipeline: calls the other modules in order, owns the seed and the progress events.

mod bench;
mod compare;
mod deployed;
mod divergence;
mod fix;
mod keys;
mod latency;
mod measure;
mod memory;
mod model;
mod quality;
mod quantize;
mod quantized;
mod record;
mod samples;
mod sensitivity;
mod unfold;
mod written;

pub use crate::probe::{declared_shapes, input_shapes, sample_shapes, several_at_once, spread};
pub use crate::work::WorkDir;
pub use bench::{Bench, UnitSpeed, bench};
pub use compare::{compare, compare_recorded};
pub use deployed::Deployed;
pub use divergence::{Divergence, divergence};
pub use fix::fix;
pub use keys::run_keys;
pub use latency::{Pace, pace};
pub use measure::{check_task, measure, measure_all, unknown_answer};
pub use memory::{Memory, memory};
pub use model::{choose, cost, load, model_bytes, plan, prepare, save};
pub use quality::{left_out, near_chance, quality};
pub use quantize::{quantize, quantize_on};
pub use quantized::Quantized;
pub use samples::{Checked, check_labels};
pub use sensitivity::{output_error, sensitivity};
pub use written::{encodings_beside, encodings_path, load_with};
