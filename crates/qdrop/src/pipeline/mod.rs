//! The corridor: calls the rooms in order, owns the seed and the progress events.

mod bench;
mod deviation;
mod equalize;
mod evaluate;
mod measure;
mod memory;
mod model;
mod padding;
mod quality;
mod quantize;
mod reconstruct;
mod record;
mod refine;
mod run;
mod samples;
mod scene;
mod sensitivity;
mod shapes;
mod shift;
mod speed;
mod tune;
mod unit;
mod walk;
mod weigh;
mod work;

pub use bench::{Bench, UnitSpeed, bench};
pub use evaluate::{compare, compare_recorded, evaluate};
pub use measure::{check_task, measure};
pub use memory::{Memory, memory};
pub use model::{choose, cost, load, model_bytes, plan, prepare, save};
pub use quality::{left_out, near_chance, quality};
pub use quantize::{Quantized, quantize};
pub use samples::{Checked, check_labels, spread};
pub use sensitivity::{output_error, sensitivity};
pub use shapes::{declared_shapes, input_shapes};
pub use work::{WorkDir, run_keys};
