//! Measurements on the float network with a few samples: the values of activations, the steps (scales) and channel
//! factors that suit them, and how much the network's outputs depend on each of them.

mod calibration;
mod correct;
mod deviation;
mod factors;
mod finite;
mod forward;
mod grids;
mod loaded;
mod observe;
mod padding;
mod refine;
mod run;
mod screen;
mod sensitivity;
mod shapes;
mod shift;
mod weigh;
mod weight_steps;

pub(crate) use calibration::Calibration;
pub(crate) use correct::Contents;
pub(crate) use deviation::{Deviation, largest};
pub(crate) use factors::Factored;
pub(crate) use grids::ActivationGrids;
pub(crate) use loaded::Loaded;
pub(crate) use observe::{Observed, Widths, observed_at_once};
pub(crate) use padding::Padding;
pub(crate) use run::{
    Answering, Cache, Network, SAMPLES, answer, borders_before, chunk, each, ends, go_on, input_facts, is_real, load,
    ordered, rows, shapes, shapes_of, shown, whole,
};
pub(crate) use screen::screened;
pub(crate) use sensitivity::Measured;
pub use shapes::{declared_shapes, input_shapes, sample_shapes, several_at_once};
pub(crate) use weigh::{Weights, weigh};
