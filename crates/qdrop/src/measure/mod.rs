//! Measures networks, in this library's engine or in a runtime: accuracy, distance from each other, latency.

mod accuracy;
mod compare;
mod cut;
mod deployed;
mod detection;
mod divergence;
mod images;
mod latency;
mod open;
mod pictures;
mod quality;
mod samples;
mod segmentation;

pub use accuracy::{check_task, detect_all, measure, measure_all, unknown_answer};
pub use compare::{compare, compare_recorded};
pub use deployed::{Deployed, detect_deployed, measure_deployed, outputs_deployed};
pub use detection::{Detected, recognise};
pub use divergence::{Divergence, divergence};
pub use latency::{Pace, pace};
pub use open::{Answer, outputs};
pub use pictures::{Drawing, pictures, shown};
pub use quality::{compared, left_out, near_chance, quality};
pub use samples::{Checked, check_labels};
