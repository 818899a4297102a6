//! Operators of ai.onnx.ml that are arithmetic, as the arithmetic that they are.

use super::attrs::{self, Attrs};
use super::body::Body;
use super::proto::{NodeProto, TensorProto};
use super::tensor;
use crate::error::Result;
use crate::tensor::{DType, Data, Tensor};

/// The domain of these operators.
pub const DOMAIN: &str = "ai.onnx.ml";

/// Arithmetic in the making. The first operand is `x`, the result `y`; constants and values inside have names of their own.
#[derive(Default)]
struct Arithmetic {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Arithmetic {
    fn node(&mut self, kind: &str, input: &[&str], output: &str) -> &mut NodeProto {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        self.nodes.push(NodeProto {
            op_type: Some(kind.to_string()),
            input: own(input),
            output: own(&[output]),
            ..Default::default()
        });
        let last = self.nodes.len() - 1;
        &mut self.nodes[last]
    }

    fn constant(&mut self, name: &str, shape: &[usize], data: Data) -> Result<()> {
        self.initializers.push(tensor::encode(name, &Tensor::new(shape.to_vec(), data)?));
        Ok(())
    }

    /// Numbers that broadcast against the last axis.
    fn numbers(&mut self, name: &str, values: Vec<f32>) -> Result<()> {
        self.constant(name, &[values.len()], Data::F32(values))
    }

    /// The operand as float32, by its name.
    fn float(&mut self, dtype: Option<DType>) -> &'static str {
        if dtype == Some(DType::F32) {
            return "x";
        }
        let cast = self.node("Cast", &["x"], "float");
        cast.attribute.push(attrs::int("to", i64::from(tensor::dtype_code(DType::F32))));
        "float"
    }
}

/// How operand `i` is named inside.
fn operand(i: usize) -> String {
    if i == 0 { "x".to_string() } else { format!("x_{i}") }
}

/// What `node` computes of operands of these names and types; nothing where that is not simple arithmetic.
pub fn body(node: &NodeProto, given: &[(String, Option<DType>)]) -> Result<Option<Body>> {
    let a = Attrs::new(node);
    let mut code = Arithmetic::default();
    let Some(&(_, dtype)) = given.first() else { return Ok(None) };
    let known = match node.op_type() {
        "Scaler" => {
            let [offset, scale] = [a.opt_floats("offset")?, a.opt_floats("scale")?].map(Option::unwrap_or_default);
            let x = code.float(dtype);
            let shifted = if offset.is_empty() { x } else { "shifted" };
            if !offset.is_empty() {
                code.numbers("offset", offset)?;
                code.node("Sub", &[x, "offset"], shifted);
            }
            code.numbers("scale", if scale.is_empty() { vec![1.0] } else { scale })?;
            code.node("Mul", &[shifted, "scale"], "y");
            true
        }
        "Normalizer" => {
            let x = code.float(dtype);
            let norm = a.string("norm", "MAX")?;
            if norm == "MAX" {
                code.constant("axes", &[1], Data::I64(vec![-1]))?;
                code.numbers("one", vec![1.0])?;
                code.numbers("zero", vec![0.0])?;
                code.node("ReduceMax", &[x, "axes"], "largest");
                code.node("Equal", &["largest", "zero"], "none");
                code.node("Where", &["none", "one", "largest"], "divisor");
                code.node("Div", &[x, "divisor"], "y");
            } else {
                let p = if norm == "L1" { 1 } else { 2 };
                code.node("LpNormalization", &[x], "y").attribute.push(attrs::int("p", p));
            }
            matches!(norm, "MAX" | "L1" | "L2")
        }
        "Binarizer" if dtype == Some(DType::F32) => {
            code.numbers("threshold", vec![a.float("threshold", 0.0)?])?;
            code.node("Greater", &["x", "threshold"], "above");
            let cast = code.node("Cast", &["above"], "y");
            cast.attribute.push(attrs::int("to", i64::from(tensor::dtype_code(DType::F32))));
            true
        }
        "Imputer" if dtype == Some(DType::F32) => {
            let values = a.opt_floats("imputed_value_floats")?.unwrap_or_default();
            let replaced = a.float("replaced_value_float", 0.0)?;
            let given = !values.is_empty();
            code.numbers("imputed", values)?;
            if replaced.is_nan() {
                code.node("IsNaN", &["x"], "missing");
            } else {
                code.numbers("replaced", vec![replaced])?;
                code.node("Equal", &["x", "replaced"], "missing");
            }
            code.node("Where", &["missing", "imputed", "x"], "y");
            given
        }
        "LinearRegressor" => {
            let targets = usize::try_from(a.int("targets", 1)?).unwrap_or(0);
            let coefficients = a.opt_floats("coefficients")?.unwrap_or_default();
            let intercepts = a.opt_floats("intercepts")?.unwrap_or_default();
            let features = coefficients.len() / targets.max(1);
            let whole = targets > 0 && features * targets == coefficients.len() && features > 0;
            let fits = intercepts.is_empty() || intercepts.len() == targets;
            if whole && fits && a.string("post_transform", "NONE")? == "NONE" {
                let x = code.float(dtype);
                code.constant("coefficients", &[targets, features], Data::F32(coefficients))?;
                let mut operands = vec![x, "coefficients"];
                if !intercepts.is_empty() {
                    code.numbers("intercepts", intercepts)?;
                    operands.push("intercepts");
                }
                code.node("Gemm", &operands, "y").attribute.push(attrs::int("transB", 1));
            }
            !code.nodes.is_empty()
        }
        "FeatureVectorizer" => {
            // Sizes are those of the operands.
            a.opt_ints("inputdimensions")?;
            let mut parts = Vec::new();
            for i in 0..given.len() {
                let part = format!("float_{i}");
                let cast = code.node("Cast", &[&operand(i)], &part);
                cast.attribute.push(attrs::int("to", i64::from(tensor::dtype_code(DType::F32))));
                parts.push(part);
            }
            let joined = code.node("Concat", &parts.iter().map(String::as_str).collect::<Vec<_>>(), "y");
            joined.attribute.push(attrs::int("axis", -1));
            true
        }
        _ => false,
    };
    if !known || a.unread() || (given.len() > 1 && node.op_type() != "FeatureVectorizer") {
        return Ok(None);
    }
    let operands = given.iter().enumerate().map(|(i, (name, _))| (operand(i), name.clone())).collect();
    let results = vec!["y".to_string()];
    let Arithmetic { nodes, initializers, .. } = code;
    Ok(Some(Body { nodes, initializers, operands, results, ..Body::default() }))
}
