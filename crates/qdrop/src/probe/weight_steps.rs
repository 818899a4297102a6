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
use super::correct::{Contents, in_order};
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
    ) -> Result<(Vec<QuantizedWeight>, Contents)> {
        let Some((biases, error)) = self.corrected_biases(&weights, grids, kernel_grids, sink)? else {
            return Ok((weights, Contents::new()));
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
        let padding = self.padding(&few)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate;
    use crate::data::testing::samples;
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::graph::testing::{Builder, window};
    use crate::graph::{Graph, Op};
    use crate::plan::{self, MethodName, Recipe};
    use crate::report::Silent;
    use crate::tensor::RowStore;

    const SIDE: usize = 6;

    /// Two convolutions and a dense layer, all with biases.
    fn network() -> Graph {
        let mut b = Builder::new();
        let mut x = b.images(3, SIDE);
        for (i, from) in [3, 8].into_iter().enumerate() {
            let w = b.constant(&format!("conv{i}.weight"), &[8, from, 3, 3]);
            let bias = b.constant(&format!("conv{i}.bias"), &[8]);
            let y = b.node(Op::Conv { window: window(vec![1; 4]), group: 1 }, &[x, w, bias]);
            x = b.relu(y);
        }
        let flat = b.node(Op::Flatten { axis: 1 }, &[x]);
        let (w, bias) = (b.constant("fc.weight", &[5, 8 * SIDE * SIDE]), b.constant("fc.bias", &[5]));
        let y = b.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[flat, w, bias]);
        b.finish(&[y])
    }

    #[test]
    fn other_steps_bring_results_of_convolutions_closer() {
        let graph = &network();
        let pixel = |i: usize| ((i * 131 + i / 108 * 977 + i * i % 1009 * 7) % 211) as f32 / 100.0 - 0.4;
        let samples = &samples(&[3, SIDE, SIDE], (0..24 * 108).map(pixel).collect(), None);
        let facts = &facts::infer(graph, &[vec![1, 3, SIDE, SIDE]]).unwrap();
        let mut recipe = Recipe::default();
        recipe.method.name = MethodName::Rtn;
        (recipe.weights.first_last_bits, recipe.weights.bits) = (2, 2);
        let (recipe, plan) = (&recipe, &plan::plan(graph, facts, &recipe).unwrap());
        let (device, store) = (&processors(2).unwrap(), &RowStore::memory());
        let calibration = Calibration { graph, facts, plan, recipe, samples, device, store };
        let first = calibrate::fit_weights(graph, plan).unwrap();
        let first = calibrate::round_to_nearest(graph, plan, &first).unwrap();
        let stepped = calibration.with_better_steps(first.clone(), &mut Silent).unwrap();
        assert_eq!(first[2], stepped[2], "dense layers stay as they are");

        let even = Subset::new(samples, (0..24).step_by(2).collect()).unwrap();
        let inputs = run::load(graph, &even, device, store, &mut Silent).unwrap();
        let mut forward = ForwardPass::new(graph, facts, inputs, device, store);
        let biases = calibration.biased().unwrap();
        let mut changed = 0;
        for (position, (id, bias)) in in_order(&forward, plan, &biases) {
            forward.advance(position, &Silent).unwrap();
            let layer = plan.layer(*id);
            let shift = Shift::new(graph, facts, layer, bias, device).unwrap().unwrap();
            let values = forward.value(shift.operand.0).unwrap();
            let content = graph.constant(layer.weight).unwrap().to_f32().unwrap();
            let real = [&first, &stepped].map(|w| {
                let weight = &w[id.index()];
                weight.grid.dequantize_u8(&layer.shape, &weight.integers).unwrap()
            });
            let errors = shift.errors(&content, &[&real[0], &real[1]], values, None, None, &Silent).unwrap();
            let scales = [&first, &stepped].map(|w| &w[id.index()].grid.scale);
            for c in (0..scales[0].len()).filter(|&c| scales[0][c] != scales[1][c]) {
                assert!(FACTORS.contains(&(scales[1][c] / scales[0][c])), "{} of {}", scales[1][c], scales[0][c]);
                let [before, after] = [errors[0][c].spread, errors[1][c].spread];
                assert!(worthwhile(before, after), "{after} after {before}");
                changed += 1;
            }
        }
        assert!(changed > 0, "2 bits leave something to gain");
    }

    #[test]
    fn steps_are_used_where_the_outputs_gain() {
        let graph = &network();
        let samples = &samples(&[3, SIDE, SIDE], (0..24 * 108).map(|i| (i * 37 % 53) as f32 / 53.0).collect(), None);
        let facts = &facts::infer(graph, &[vec![1, 3, SIDE, SIDE]]).unwrap();
        for bits in [2, 8] {
            let mut recipe = Recipe::default();
            recipe.method.name = MethodName::Rtn;
            (recipe.weights.first_last_bits, recipe.weights.bits) = (bits, bits);
            let (recipe, plan) = (&recipe, &plan::plan(graph, facts, &recipe).unwrap());
            let (device, store) = (&processors(2).unwrap(), &RowStore::memory());
            let calibration = Calibration { graph, facts, plan, recipe, samples, device, store };
            let observed = calibration.observe(&mut Silent).unwrap();
            let kernel_grids = observed.kernel_grids(plan).unwrap();
            let grids = observed.sites.fit(plan).unwrap();
            let first = calibrate::fit_weights(graph, plan).unwrap();
            let first = calibrate::round_to_nearest(graph, plan, &first).unwrap();
            let error = |weights: &[QuantizedWeight]| {
                calibration.corrected_biases(weights, &grids, &kernel_grids, &mut Silent).unwrap().unwrap().1
            };
            let stepped = calibration.with_better_steps(first.clone(), &mut Silent).unwrap();
            let (found, _) = calibration.corrected(first.clone(), &grids, &kernel_grids, &mut Silent).unwrap();
            if bits == 8 {
                assert_eq!((&stepped, &found), (&first, &first));
            } else {
                assert_ne!(stepped, first);
                let wanted = if error(&stepped) < error(&first) { &stepped } else { &first };
                assert_eq!(&found, wanted);
            }
        }
    }
}
