//! Attributes of RNN, GRU and LSTM.

use super::attrs::{self, Attrs};
use super::proto::AttributeProto;
use crate::error::Result;
use crate::graph::{Activation, Cell, Direction, Recurrent, Unary};

/// The operator `kind` with its attributes; `None` where one of them has a value that the IR does not know.
pub fn parse(kind: &str, a: &Attrs) -> Result<Option<Recurrent>> {
    let cell = match kind {
        "RNN" => Cell::Rnn,
        "GRU" => Cell::Gru { linear_before_reset: a.flag("linear_before_reset", false)? },
        _ => Cell::Lstm { input_forget: a.flag("input_forget", false)? },
    };
    let (names, alpha) = (a.opt_strings("activations")?, a.opt_floats("activation_alpha")?.unwrap_or_default());
    let beta = a.opt_floats("activation_beta")?.unwrap_or_default();
    let (hidden, clip) = (a.int("hidden_size", 0)?, a.opt_float("clip")?);
    let batch_first = a.flag("layout", false)?;
    let direction = match a.string("direction", "forward")? {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        "bidirectional" => Direction::Bidirectional,
        _ => return Ok(None),
    };
    let mut recurrent = Recurrent { hidden, clip, batch_first, ..Recurrent::new(cell, direction) };
    if let Some(names) = names {
        // Functions take what they need from the lists in their order.
        let (mut alpha, mut beta) = (alpha.into_iter(), beta.into_iter());
        let found: Option<Vec<Activation>> = names.iter().map(|n| activation(n, &mut alpha, &mut beta)).collect();
        let Some(found) = found.filter(|f| f.len() == recurrent.activations.len()) else { return Ok(None) };
        recurrent.activations = found;
    }
    Ok(Some(recurrent))
}

fn activation(
    name: &str,
    alpha: &mut impl Iterator<Item = f32>,
    beta: &mut impl Iterator<Item = f32>,
) -> Option<Activation> {
    let mut alpha = |default| alpha.next().unwrap_or(default);
    let mut beta = |default| beta.next().unwrap_or(default);
    Some(match name.to_ascii_lowercase().as_str() {
        "affine" => Activation::Affine { alpha: alpha(1.0), beta: beta(0.0) },
        "scaledtanh" => Activation::ScaledTanh { alpha: alpha(1.0), beta: beta(1.0) },
        other => Activation::Unary(match other {
            "relu" => Unary::Relu,
            "tanh" => Unary::Tanh,
            "sigmoid" => Unary::Sigmoid,
            "softsign" => Unary::Softsign,
            "softplus" => Unary::Softplus,
            "leakyrelu" => Unary::LeakyRelu { alpha: alpha(0.01) },
            "thresholdedrelu" => Unary::ThresholdedRelu { alpha: alpha(1.0) },
            "elu" => Unary::Elu { alpha: alpha(1.0) },
            "hardsigmoid" => Unary::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) },
            _ => return None,
        }),
    })
}

/// The name of an activation function and its numbers.
fn named(activation: Activation) -> (&'static str, Option<f32>, Option<f32>) {
    match activation {
        Activation::Affine { alpha, beta } => ("Affine", Some(alpha), Some(beta)),
        Activation::ScaledTanh { alpha, beta } => ("ScaledTanh", Some(alpha), Some(beta)),
        Activation::Unary(Unary::Relu) => ("Relu", None, None),
        Activation::Unary(Unary::Sigmoid) => ("Sigmoid", None, None),
        Activation::Unary(Unary::Softsign) => ("Softsign", None, None),
        Activation::Unary(Unary::Softplus) => ("Softplus", None, None),
        Activation::Unary(Unary::LeakyRelu { alpha }) => ("LeakyRelu", Some(alpha), None),
        Activation::Unary(Unary::ThresholdedRelu { alpha }) => ("ThresholdedRelu", Some(alpha), None),
        Activation::Unary(Unary::Elu { alpha }) => ("Elu", Some(alpha), None),
        Activation::Unary(Unary::HardSigmoid { alpha, beta }) => ("HardSigmoid", Some(alpha), Some(beta)),
        // Nothing else is read.
        Activation::Unary(_) => ("Tanh", None, None),
    }
}

/// The attributes of `recurrent`; those at their default are left out.
pub fn attributes(recurrent: &Recurrent) -> Vec<AttributeProto> {
    let Recurrent { cell, direction, hidden, activations, clip, batch_first } = recurrent;
    let mut list = Vec::new();
    let mut int = |name: &str, value: i64| {
        if value != 0 {
            list.push(attrs::int(name, value));
        }
    };
    int("hidden_size", *hidden);
    int("layout", i64::from(*batch_first));
    match cell {
        Cell::Rnn => {}
        Cell::Gru { linear_before_reset } => int("linear_before_reset", i64::from(*linear_before_reset)),
        Cell::Lstm { input_forget } => int("input_forget", i64::from(*input_forget)),
    }
    match direction {
        Direction::Forward => {}
        Direction::Reverse => list.push(attrs::string("direction", "reverse")),
        Direction::Bidirectional => list.push(attrs::string("direction", "bidirectional")),
    }
    list.extend(clip.map(|clip| attrs::float("clip", clip)));
    if *activations != Recurrent::new(*cell, *direction).activations {
        let named: Vec<_> = activations.iter().map(|&a| named(a)).collect();
        list.push(attrs::strings("activations", &named.iter().map(|n| n.0).collect::<Vec<_>>()));
        let numbers: [(&str, Vec<f32>); 2] = [
            ("activation_alpha", named.iter().filter_map(|n| n.1).collect()),
            ("activation_beta", named.iter().filter_map(|n| n.2).collect()),
        ];
        for (name, values) in numbers.iter().filter(|n| !n.1.is_empty()) {
            list.push(attrs::floats(name, values));
        }
    }
    list
}
