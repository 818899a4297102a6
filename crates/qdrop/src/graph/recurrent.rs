//! Attributes of recurrent operators.

use super::Unary;
use serde::{Deserialize, Serialize};

/// What a recurrent operator computes at each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// One gate.
    Rnn,
    /// Gates z, r and h; with `linear_before_reset` the product with the state comes before the gate r.
    #[allow(missing_docs)]
    Gru { linear_before_reset: bool },
    /// Gates i, o, f and c; with `input_forget` the gate f is 1 less the gate i.
    #[allow(missing_docs)]
    Lstm { input_forget: bool },
}

impl Cell {
    /// Gates, which share the rows of weights and biases.
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }

    /// Activation functions of one direction, as ONNX has them by default.
    pub fn functions(self) -> &'static [Activation] {
        const SIGMOID: Activation = Activation::Unary(Unary::Sigmoid);
        const TANH: Activation = Activation::Unary(Unary::Tanh);
        match self {
            Cell::Rnn => &[TANH],
            Cell::Gru { .. } => &[SIGMOID, TANH],
            Cell::Lstm { .. } => &[SIGMOID, TANH, TANH],
        }
    }
}

/// An activation function of a [`Cell`].
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    Unary(Unary),
    /// alpha·x + beta.
    Affine {
        alpha: f32,
        beta: f32,
    },
    /// alpha·tanh(beta·x).
    ScaledTanh {
        alpha: f32,
        beta: f32,
    },
}

/// The order in which steps are taken.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    Forward,
    Reverse,
    Bidirectional,
}

impl Direction {
    /// Whether each direction runs from the last step to the first.
    pub fn reversed(self) -> &'static [bool] {
        match self {
            Direction::Forward => &[false],
            Direction::Reverse => &[true],
            Direction::Bidirectional => &[false, true],
        }
    }
}

/// Settings of [`super::Op::Recurrent`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recurrent {
    /// What is computed at each step.
    pub cell: Cell,
    /// The order of the steps.
    pub direction: Direction,
    /// Elements of the state; 0: as many as the weights say.
    pub hidden: i64,
    /// Activation functions, all of the first direction, then all of the second.
    pub activations: Vec<Activation>,
    /// Largest magnitude of what the activation functions of gates see; that of an LSTM's memory sees all of it.
    pub clip: Option<f32>,
    /// The batch is the first axis instead of the second one (behind the steps, or in states behind the directions).
    pub batch_first: bool,
}

impl Recurrent {
    /// The cell, from the first step to the last, with all else at its default.
    pub fn new(cell: Cell, direction: Direction) -> Self {
        let activations = cell.functions().repeat(direction.reversed().len());
        Recurrent { cell, direction, hidden: 0, activations, clip: None, batch_first: false }
    }
}
