//! Every operator as a plain function of one sample: result types and shapes, forward pass, and gradient. The functions
//! are generic over the number type: the naive device runs them in f64, and fast devices run the rare operators in f32.

mod attention;
mod call;
pub(super) mod conv;
mod elementwise;
mod generate;
mod index;
mod lanes;
mod linear;
mod matmul;
mod movement;
mod nms;
mod normalization;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod sample;
mod scatter;
mod select;
mod unary;
pub(super) mod window;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::{DType, Tensor};
use call::{Back, Call, Operands, Shaped};

/// Number type the functions of this module compute in; integers are carried exactly up to its mantissa.
pub trait Real: num_traits::Float + num_traits::NumAssign + Send + Sync + std::fmt::Debug + 'static {
    /// From f64, rounded.
    fn of(x: f64) -> Self;
    /// To f64.
    fn f64(self) -> f64;
}

impl Real for f32 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    fn f64(self) -> f64 {
        self as f64
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    fn f64(self) -> f64 {
        self
    }
}

/// An operand: dense row-major.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, R> {
    /// Element type the values stand for (computation is in `R` whatever it is).
    pub dtype: DType,
    /// Dimensions.
    pub shape: &'a [usize],
    /// Elements.
    pub data: &'a [R],
}

/// A result: dense row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<R> {
    /// Element type the values stand for.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Vec<R>,
}

/// An operand whose content may be unknown when shapes are derived.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: &'a [usize],
    /// Content, if known.
    pub constant: Option<&'a Tensor>,
}

/// Which file holds an operator.
enum Family {
    Conv,
    MatMul,
    Normalization,
    Elementwise,
    Reduce,
    Pool,
    Reshape,
    Movement,
    Generate,
    Resize,
    Scatter,
    Select,
    Linear,
    Sample,
    Attention,
    Recurrent,
    Quantize,
}

fn family(op: &Op) -> Result<Family> {
    Ok(match op {
        Op::Conv { .. } | Op::ConvTranspose { .. } => Family::Conv,
        Op::Gemm { .. } | Op::MatMul => Family::MatMul,
        Op::BatchNorm { .. }
        | Op::InstanceNorm { .. }
        | Op::GroupNorm { .. }
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::LpNorm { .. }
        | Op::MeanVarianceNorm { .. }
        | Op::Lrn { .. } => Family::Normalization,
        Op::Unary(_) | Op::Binary(_) | Op::Variadic(_) | Op::Clip | Op::Where | Op::Cast { .. } | Op::CastLike => {
            Family::Elementwise
        }
        Op::Softmax { .. } | Op::Hardmax { .. } | Op::Cumulate { .. } | Op::Reduce { .. } | Op::ArgReduce { .. } => {
            Family::Reduce
        }
        Op::MaxPool { .. }
        | Op::AveragePool { .. }
        | Op::LpPool { .. }
        | Op::GlobalAveragePool
        | Op::GlobalMaxPool
        | Op::GlobalLpPool { .. } => Family::Pool,
        Op::GatherNd { .. } | Op::ScatterElements { .. } | Op::ScatterNd { .. } => Family::Scatter,
        Op::Compress { .. }
        | Op::NonZero
        | Op::NonMaxSuppression { .. }
        | Op::OneHot { .. }
        | Op::TopK { .. }
        | Op::Trilu { .. }
        | Op::EyeLike { .. }
        | Op::ReverseSequence { .. } => Family::Select,
        Op::Einsum { .. } | Op::Det => Family::Linear,
        Op::GridSample { .. } | Op::RoiAlign { .. } => Family::Sample,
        Op::Attention(_) | Op::RotaryEmbedding { .. } => Family::Attention,
        Op::Recurrent(_) => Family::Recurrent,
        Op::Reshape { .. } | Op::Flatten { .. } | Op::Squeeze | Op::Unsqueeze | Op::Identity => Family::Reshape,
        Op::Concat { .. }
        | Op::Split { .. }
        | Op::Slice
        | Op::Transpose { .. }
        | Op::Expand
        | Op::Tile
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::Pad { .. }
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. } => Family::Movement,
        Op::Shape { .. } | Op::Size | Op::ConstantOfShape { .. } | Op::Range => Family::Generate,
        Op::Resize(_) => Family::Resize,
        Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. } | Op::Quant { .. } => Family::Quantize,
        Op::Choice | Op::Opaque { .. } => {
            return Err(Error::unsupported(format!("operator {} cannot be run", op.kind())));
        }
    })
}

fn shapes(op: &Op, x: &Operands, results: usize) -> Result<Vec<Shaped>> {
    let mut out = match family(op)? {
        Family::Conv => conv::infer(op, x),
        Family::MatMul => matmul::infer(op, x),
        Family::Normalization => normalization::infer(op, x),
        Family::Elementwise => elementwise::infer(op, x),
        Family::Reduce => reduce::infer(op, x),
        Family::Pool => pool::infer(op, x),
        Family::Reshape => reshape::infer(op, x),
        Family::Movement => movement::infer(op, x, results),
        Family::Generate => generate::infer(op, x),
        Family::Resize => resize::infer(op, x),
        Family::Scatter => scatter::infer(op, x),
        Family::Select => select::infer(op, x),
        Family::Linear => linear::infer(op, x),
        Family::Sample => sample::infer(op, x),
        Family::Attention => attention::infer(op, x),
        Family::Recurrent => recurrent::infer(op, x),
        Family::Quantize => quantize::infer(op, x),
    }?;
    if results > out.len() {
        return Err(Error::unsupported(format!("only {} of {results} results can be computed", out.len())));
    }
    out.truncate(results.max(1));
    out.iter().try_for_each(|(_, shape)| movement::check_size(shape))?;
    Ok(out)
}

/// Element types and shapes of the `results` results of `op`. Operands that decide a shape (axes, pads, target shapes)
/// must be constant. Refuses bad attributes, ranks and sizes without panicking.
pub fn infer(op: &Op, operands: &[Option<Known>], results: usize) -> Result<Vec<(DType, Vec<usize>)>> {
    shapes(op, &Operands::from_known(op, operands)?, results)
}

/// Whether a result of `op` changes with its operands in a way that [`backward`] follows.
pub fn has_gradient(op: &Op) -> bool {
    use crate::graph::{Binary as B, Unary as U};
    let steps = matches!(
        op,
        Op::Unary(U::Floor | U::Ceil | U::Round | U::Sign | U::Not | U::IsNan | U::IsInf { .. } | U::BitwiseNot)
            | Op::Binary(
                B::Equal
                    | B::Less
                    | B::LessOrEqual
                    | B::Greater
                    | B::GreaterOrEqual
                    | B::And
                    | B::Or
                    | B::Xor
                    | B::BitwiseAnd
                    | B::BitwiseOr
                    | B::BitwiseXor
                    | B::BitShift { .. }
            )
            | Op::ArgReduce { .. }
            | Op::Hardmax { .. }
            | Op::NonZero
            | Op::NonMaxSuppression { .. }
            | Op::OneHot { .. }
            | Op::EyeLike { .. }
    );
    !steps && family(op).is_ok_and(|f| !matches!(f, Family::Generate | Family::Quantize))
}

/// Whether [`backward`] of `op` reads its results; else none need be given, and some of them may be omitted.
pub fn reads_results(op: &Op) -> bool {
    !matches!(op, Op::Recurrent(_))
}

/// The operands of `op` whose elements, as a rule computed from the network's input, decide how large a result is.
pub fn reads_sizes(op: &Op) -> &'static [usize] {
    match op {
        Op::NonZero => &[0],
        Op::NonMaxSuppression { .. } => &[0, 1, 2, 3, 4],
        Op::Compress { .. } | Op::TopK { .. } | Op::OneHot { .. } => &[1],
        _ => &[],
    }
}

/// The dimensions of `shape` from `start` to `end`, as [`Op::Shape`] counts them (negative from the back, clamped).
pub fn shape_dims(shape: &[usize], start: i64, end: Option<i64>) -> &[usize] {
    generate::dims(shape, start, end)
}

/// That every operand's data fills its shape.
fn filled<R: Real>(operands: &[Option<View<R>>]) -> Result<()> {
    for (i, v) in operands.iter().enumerate() {
        if let Some(v) = v.filter(|v| v.shape.iter().product::<usize>() != v.data.len()) {
            return Err(Error::internal(format!(
                "operand {i} holds {} elements for shape {:?}",
                v.data.len(),
                v.shape
            )));
        }
    }
    Ok(())
}

/// Derives the shapes of a call and checks that every operand's data fills its shape.
fn prepare<'a, R: Real>(op: &Op, operands: &'a [Option<View<'a, R>>], results: usize) -> Result<Call<'a, R>> {
    filled(operands)?;
    let sig = Operands::from_views(op, operands);
    let out = shapes(op, &sig, results)?;
    Ok(Call { operands, sig, out })
}

/// Computes `op` on one sample.
pub fn forward<R: Real>(op: &Op, operands: &[Option<View<R>>], results: usize) -> Result<Vec<Array<R>>> {
    compute(op, prepare(op, operands, results)?)
}

/// As [`forward`], but an error if the results would have more than `most` elements, and the error of `go_on`, which a
/// NonMaxSuppression asks before each box.
pub fn forward_while<R: Real>(
    op: &Op,
    operands: &[Option<View<R>>],
    results: usize,
    most: usize,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<Vec<Array<R>>> {
    let within = |out: &[Shaped]| {
        let size = |(_, shape): &Shaped| shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
        let elements = out.iter().map(size).fold(0usize, usize::saturating_add);
        if elements > most {
            let message = format!("the results would have {elements} elements, more than {most} are not computed here");
            return Err(Error::unsupported(message));
        }
        Ok(())
    };
    if let Op::NonMaxSuppression { centres } = op {
        filled(operands)?;
        let rows = nms::selected(*centres, &Operands::from_views(op, operands), go_on)?;
        let (dtype, shape) = (DType::I64, vec![rows.len(), 3]);
        within(&[(dtype, shape.clone())])?;
        let data = rows.into_iter().flatten().map(|i| R::of(i as f64)).collect();
        return Ok(vec![Array { dtype, shape, data }]);
    }
    let call = prepare(op, operands, results)?;
    within(&call.out)?;
    compute(op, call)
}

fn compute<R: Real>(op: &Op, call: Call<R>) -> Result<Vec<Array<R>>> {
    let data = match family(op)? {
        Family::Conv => conv::forward(op, &call),
        Family::MatMul => matmul::forward(op, &call),
        Family::Normalization => normalization::forward(op, &call),
        Family::Elementwise => elementwise::forward(op, &call),
        Family::Reduce => reduce::forward(op, &call),
        Family::Pool => pool::forward(op, &call),
        Family::Reshape => reshape::forward(&call),
        Family::Movement => movement::forward(op, &call),
        Family::Generate => generate::forward(op, &call),
        Family::Resize => resize::forward(op, &call),
        Family::Scatter => scatter::forward(op, &call),
        Family::Select => select::forward(op, &call),
        Family::Linear => linear::forward(op, &call),
        Family::Sample => sample::forward(op, &call),
        Family::Attention => attention::forward(op, &call),
        Family::Recurrent => recurrent::forward(op, &call),
        Family::Quantize => quantize::forward(op, &call),
    }?;
    Ok(call.out.into_iter().zip(data).map(|((dtype, shape), data)| Array { dtype, shape, data }).collect())
}

/// Gradients of a scalar with respect to the operands for which `wanted` is true, given the operands, the results and
/// the gradients of that scalar with respect to the results (`None`: zero). The k-th entry has the k-th operand's shape
/// and is `None` where the operand is absent, is not of a float type, or does not enter the result by its value.
/// Steps (Floor, Round, ...) have gradient zero; at kinks the choice is PyTorch's, but equal extremes of Min, Max,
/// ReduceMin and ReduceMax share their gradient evenly. Gradients through integer results do not exist.
pub fn backward<R: Real>(
    op: &Op,
    operands: &[Option<View<R>>],
    results: &[View<R>],
    gradients: &[Option<&[R]>],
    wanted: &[bool],
) -> Result<Vec<Option<Vec<R>>>> {
    let call = prepare(op, operands, results.len().max(gradients.len()))?;
    let float = |i: usize| operands[i].is_some_and(|v| v.dtype.is_float());
    let mask: Vec<bool> = (0..operands.len()).map(|i| wanted.get(i).copied().unwrap_or(false) && float(i)).collect();
    let nothing = vec![None; operands.len()];
    if !mask.contains(&true) || !call.out.iter().any(|(dtype, _)| dtype.is_float()) {
        return Ok(nothing);
    }
    for (k, (_, shape)) in call.out.iter().enumerate() {
        let n: usize = shape.iter().product();
        let lengths = [results.get(k).map(|r| r.data.len()), gradients.get(k).copied().flatten().map(<[R]>::len)];
        if lengths.into_iter().flatten().any(|len| len != n) {
            return Err(Error::internal(format!("result {k} of shape {shape:?} or its gradient has another size")));
        }
    }
    let zeros: Vec<R>;
    let mut gradients = gradients.to_vec();
    if gradients.iter().all(|g| g.is_none()) {
        zeros = vec![R::zero(); call.shape().iter().product()];
        gradients = vec![Some(&zeros)];
    }
    let mut back = Back { call, results, gradients: &gradients, wanted: mask, found: nothing };
    match family(op)? {
        Family::Conv => conv::backward(op, &mut back),
        Family::MatMul => matmul::backward(op, &mut back),
        Family::Normalization => normalization::backward(op, &mut back),
        Family::Elementwise => elementwise::backward(op, &mut back),
        Family::Reduce => reduce::backward(op, &mut back),
        Family::Pool => pool::backward(op, &mut back),
        Family::Reshape => reshape::backward(&mut back),
        Family::Movement => movement::backward(op, &mut back),
        Family::Resize => resize::backward(op, &mut back),
        Family::Scatter => scatter::backward(op, &mut back),
        Family::Select => select::backward(op, &mut back),
        Family::Linear => linear::backward(op, &mut back),
        Family::Sample => sample::backward(op, &mut back),
        Family::Attention => attention::backward(op, &mut back),
        Family::Recurrent => recurrent::backward(op, &mut back),
        Family::Generate | Family::Quantize => Ok(()),
    }?;
    Ok(back.found)
}
