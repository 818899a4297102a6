//! Reconstruction: solves units one after the other, and the whole network at the end, by learning roundings and steps
//! under random dropping (Wei et al. 2022, section 4).
//!
//! A [`Problem`] is plain data and can be solved on its own; a [`Solution`] has integers, grids and the loss history.
//! This module decides the schedules; a device does the arithmetic.

mod curve;
mod job;
mod key;
mod loss;
mod network_solution;
mod reconstruct;
mod solve;
mod speed;
mod tune;
mod unit;

pub use crate::engine::train::{Bias, Choices, Draws, Problem, RandomDraws, Weight};
pub use solve::{Settings, Solution, solve};

pub(crate) use job::Job;
pub(crate) use network_solution::NetworkSolution;
pub(crate) use speed::{Costs, measure};
pub(crate) use tune::{Learned, iterations};
pub(crate) use unit::Units;
