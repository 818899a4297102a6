//! What quantizing one layer or activation alone does to the network's outputs.

use serde::{Deserialize, Serialize};

/// Errors of the network's outputs when one weight or activation alone is quantized and the rest stays float.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// Version of this layout: [`Sensitivity::SCHEMA`].
    pub schema: u32,
    /// The model measured, as the user named it.
    pub model: String,
    /// Samples measured on.
    pub samples: usize,
    /// Whether the mean shift that a rounded weight causes was taken out of its layer's results, as learned biases do.
    pub biases_corrected: bool,
    /// Weights of layers, in network order.
    pub layers: Vec<Curve>,
    /// Activations, in network order.
    pub activations: Vec<Curve>,
}

/// Errors of one weight or activation over bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// The layer's name; the value's for an activation.
    pub name: String,
    /// The value that is quantized: a weight or an activation. No two curves of a kind have the same.
    pub value: String,
    /// Elements of it (of one sample).
    pub elements: u64,
    /// In order of bits; empty where no output of real numbers depends on it.
    pub errors: Vec<BitError>,
}

/// What some bits do to the network's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitError {
    /// 2 to 8.
    pub bits: u32,
    /// Squared error as a share of the energy of the float output, summed over the outputs: 0 or more.
    pub error: f64,
    /// Of classifiers: share of the samples that keep their class, in percent.
    pub agreement: Option<f64>,
}

impl Sensitivity {
    /// Version of the layout this library writes.
    pub const SCHEMA: u32 = 1;
}

impl Curve {
    /// The error of `bits`, where it was measured.
    pub fn error(&self, bits: u32) -> Option<f64> {
        self.errors.iter().find(|e| e.bits == bits).map(|e| e.error)
    }
}

impl BitError {
    /// The error as a signal-to-noise ratio, in dB: infinite without error.
    pub fn snr(&self) -> f64 {
        -10.0 * self.error.log10()
    }
}
