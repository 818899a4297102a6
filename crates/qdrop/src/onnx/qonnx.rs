//! QONNX's `Quant`, the one operator beyond ONNX's own that the IR models.

use super::attrs::{Attrs, int, string};
use super::proto::{AttributeProto, NodeProto};
use crate::error::Result;
use crate::graph::{Op, Rounding};

/// Where it is written to.
pub const DOMAIN: &str = "qonnx.custom_op.general";

/// Where it is read from: the names that its domain had.
const DOMAINS: &[&str] = &[DOMAIN, "finn.custom_op.general", "onnx.brevitas"];

/// Names of the rounding modes; the first of a mode is the one written.
const MODES: &[(&str, Rounding)] = &[
    ("ROUND", Rounding::HalfEven),
    ("HALF_EVEN", Rounding::HalfEven),
    ("HALF_UP", Rounding::HalfUp),
    ("HALF_DOWN", Rounding::HalfDown),
    ("CEIL", Rounding::Ceil),
    ("FLOOR", Rounding::Floor),
    ("UP", Rounding::Up),
    ("DOWN", Rounding::Down),
];

/// Whether `node` is one, under its old name or the new one.
pub fn is_quant(node: &NodeProto) -> bool {
    DOMAINS.contains(&node.domain()) && matches!(node.op_type(), "Quant" | "IntQuant") && node.overload().is_empty()
}

/// The operator of a node for which [`is_quant`] holds; `None` for attributes that the IR does not know.
pub fn parse(node: &NodeProto) -> Result<Option<Op>> {
    let a = Attrs::new(node);
    let (signed, narrow) = (a.flag("signed", true)?, a.flag("narrow", false)?);
    let name = a.string("rounding_mode", "ROUND")?;
    let mode = MODES.iter().find(|m| m.0.eq_ignore_ascii_case(name));
    let op = mode.map(|&(_, rounding)| Op::Quant { signed, narrow, rounding });
    Ok(op.filter(|_| !a.unread()))
}

/// Its attributes, all of them: readers take none of them for granted.
pub fn attributes(signed: bool, narrow: bool, rounding: Rounding) -> Vec<AttributeProto> {
    let mode = MODES.iter().find(|m| m.1 == rounding).map_or("ROUND", |m| m.0);
    vec![int("signed", signed.into()), int("narrow", narrow.into()), string("rounding_mode", mode)]
}
