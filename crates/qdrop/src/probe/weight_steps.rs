//! Steps of weights by what rounding to nearest does to the results of layers.
//!
//! The first grids of weights look at the weights alone. What rounding them does to a result depends on what they are
//! multiplied by: errors of weights that meet like values cancel or add up. So a channel may have a step that is narrower
//! or wider, where this brings its results closer to the float ones. Their mean does not count, since the bias takes
//! it out ([`super::correct`]).
//!
//! This is for convolutions, which give hundreds of results a sample to judge by. Dense layers of a transformer give as many
//! as a sentence has tokens; MiniLM came closer on the samples (9.7 to 11.0 dB at W4A4) and lost on others (7.9 to 7.3).

use super::calibration::Calibration;
use super::correct::{Biases, in_order};
use super::forward::ForwardPass;
use super::padding::Padding;
use super::run;
use super::shift::Shift;
use crate::calibrate::{scaled, worthwhile};
use crate::data::{Samples, Subset};
use crate::error::Result;
use crate::plan::LayerId;
use crate::quant::{Grid, QuantizedWeight, rounding};
use crate::report::Sink;
use crate::tensor::Rows;

/// What the step of a channel may be multiplied by.
const FACTORS: [f32; 5] = [0.7, 0.8, 0.9, 1.1, 1.2];
/// Bits from which on first grids are as good as any others.
const FINE: u32 = 8;

impl Calibration<'_> {
    /// `weights`, rounded to nearest in the plan's order, and the corrected biases that go with them; with the steps that
    /// suit the layers' results instead, where the outputs of the quantized network come closer to the float ones so.
    pub fn corrected(
        &self,
        weights: Vec<QuantizedWeight>,
        grids: &[Grid],
        kernel_grids: &[Grid],
        sink: &mut dyn Sink,
    ) -> Result<(Vec<QuantizedWeight>, Biases)> {
        let Some((biases, error)) = self.corrected_biases(&weights, grids, kernel_grids, sink)? else {
            return Ok((weights, Biases::new()));
        };
        let stepped = self.with_better_steps(weights.clone(), sink)?;
        if stepped != weights
            && let Some((other_biases, other_error)) = self.corrected_biases(&stepped, grids, kernel_grids, sink)?
            && other_error < error
        {
            return Ok((stepped, other_biases));
        }
        Ok((weights, biases))
    }

    /// `weights` with the steps that suit the results of convolutions on a few of the samples. Layers without a bias of
    /// their own, and those of 8 bits, stay as they are.
    fn with_better_steps(
        &self,
        mut weights: Vec<QuantizedWeight>,
        sink: &mut dyn Sink,
    ) -> Result<Vec<QuantizedWeight>> {
        let coarse = |id: LayerId| self.plan.layer(id).grid.bits < FINE;
        let mut biases = self.biased()?;
        biases.retain(|(id, _)| coarse(*id));
        if biases.is_empty() {
            return Ok(weights);
        }
        let few = Subset::spread(self.samples, Some(self.recipe.resolved().correct_samples))?;
        let few = Subset::new(&few, (0..few.len()).step_by(2).collect())?;
        let padding = Padding::read(self.graph, self.facts, self.recipe, &few)?;
        let inputs = run::load(self.graph, &few, self.device, self.store, sink)?;
        let mut forward = ForwardPass::new(self.graph, self.facts, inputs, self.device, self.store);
        for (position, (id, bias)) in in_order(&forward, self.plan, &biases) {
            run::go_on(sink)?;
            forward.advance(position, sink)?;
            let layer = self.plan.layer(*id);
            let shift = Shift::new(self.graph, self.facts, layer, bias, self.device)?;
            let Some(shift) = shift.filter(|s| s.convolves) else { continue };
            let value = forward.value(shift.operand.0);
            let Some((values, content)) = value.zip(self.graph.constant(layer.weight)) else { continue };
            let (content, weight) = (content.to_f32()?, &mut weights[id.index()]);
            if let Some(grid) = better(&shift, &weight.grid, &content, &layer.shape, values, padding.as_ref(), sink)? {
                *weight = rounding::nearest(*id, &content, &layer.shape, &grid)?;
            }
        }
        Ok(weights)
    }
}

/// `grid` of a weight that holds `content`, with the step of each channel multiplied by that of [`FACTORS`] which lowers
/// the spread of its results' errors most, and by a tenth at least; `None` where no channel gains so much, or where
/// channels of the weight are not those of the results.
fn better(
    shift: &Shift,
    grid: &Grid,
    content: &[f32],
    shape: &[usize],
    values: &Rows,
    padding: Option<&Padding>,
    sink: &dyn Sink,
) -> Result<Option<Grid>> {
    if grid.axis.is_none() || grid.scale.len() != shift.channels() {
        return Ok(None);
    }
    let factors: Vec<f32> = std::iter::once(1.0).chain(FACTORS).collect();
    let real = factors.iter().map(|&f| scaled(grid, f).fake_quantize(shape, content));
    let real = real.collect::<Result<Vec<_>>>()?;
    let real: Vec<&[f32]> = real.iter().map(Vec::as_slice).collect();
    let errors = shift.errors(content, &real, values, None, padding, sink)?;
    let mut chosen = grid.clone();
    for (c, scale) in chosen.scale.iter_mut().enumerate() {
        let spread = |i: usize| errors[i][c].spread;
        let best = (1..factors.len()).min_by(|&a, &b| spread(a).total_cmp(&spread(b))).unwrap_or(0);
        if spread(0) > 0.0 && worthwhile(spread(0), spread(best)) {
            *scale *= factors[best];
        }
    }
    Ok((chosen != *grid).then_some(chosen))
}
