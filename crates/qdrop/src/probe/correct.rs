//! Biases that keep the means of the results of rounded layers.
//!
//! Each layer is corrected for what its own weight and the quantizer of its operand do to values of the float network. The
//! means of the network quantized so far are not aimed at: most values of a detector belong to no object, and what brings
//! their mean back moves the rare ones that do.
//!
//! For the same reason not every mean is brought back. Where a few results lose much, a token of a transformer whose large
//! values are cut off, say, the mean of all would move those that lose nothing. How much of a channel's error its mean must
//! be for the bias to take it out is decided by the outputs of the quantized network, on samples that told no means.

use super::calibration::Calibration;
use super::deviation::Deviation;
use super::forward::ForwardPass;
use super::padding::Padding;
use super::run::{self, Cache};
use super::shift::Shift;
use crate::data::{Samples, Subset};
use crate::engine::program::{Region, compile};
use crate::error::Result;
use crate::graph::{NodeId, ValueId};
use crate::plan::{LayerId, Plan, Site, learned_biases};
use crate::quant::{Grid, QuantizedWeight};
use crate::report::{Event, Sink, Stage};
use crate::tensor::Rows;
use std::collections::{BTreeMap, BTreeSet};

/// Contents of constants that are not those of the float network: biases, and what divides channels of activations.
pub(crate) type Contents = BTreeMap<ValueId, Vec<f32>>;

/// A layer, its bias and that one's float content.
pub(super) type Biased = (LayerId, (ValueId, Vec<f32>));

/// Shares of a channel's squared error from which on its mean is taken out; one of them is chosen, or nothing is taken out.
const SHARES: [f64; 4] = [0.0, 0.03, 0.1, 0.3];

/// Those of `biases` that `forward` meets, in order, with the nodes to run until their layers are next.
pub(super) fn in_order<'b>(forward: &ForwardPass, plan: &Plan, biases: &'b [Biased]) -> Vec<(usize, &'b Biased)> {
    let at = |biased: &Biased| forward.until_reader(&plan.layer(biased.0).nodes);
    let mut layers: Vec<(usize, &Biased)> = biases.iter().filter_map(|biased| Some((at(biased)?, biased))).collect();
    layers.sort_by_key(|layer| layer.0);
    layers
}

impl Calibration<'_> {
    /// The biases with which, on a few of the samples, the results of every layer keep their means when in the float
    /// network its weight alone holds the integers of `weights` and its operand alone is quantized by `grids`. All are in
    /// the plan's order, those of the quantizers of integer kernels in `kernel_grids`. Layers without a bias of their own
    /// have none here, and none has one where other samples show that the network's outputs gain nothing. The error of the
    /// outputs on these comes with them; `None` where no layer has a bias of its own.
    pub fn corrected_biases(
        &self,
        weights: &[QuantizedWeight],
        grids: &[Grid],
        kernel_grids: &[Grid],
        sink: &mut dyn Sink,
    ) -> Result<Option<(Contents, f64)>> {
        let few = Subset::spread(self.samples, Some(self.recipe.resolved().correct_samples))?;
        let inputs = run::load(self.graph, &few, self.device, self.store, sink)?;
        let [told, mut others] = [0, 1].map(|half| (half..few.len()).step_by(2).collect::<Vec<_>>());
        if others.is_empty() {
            others.clone_from(&told);
        }
        let rounded: Vec<Vec<f32>> = self
            .plan
            .layer_ids()
            .zip(weights)
            .map(|(id, weight)| weight.grid.dequantize_u8(&self.plan.layer(id).shape, &weight.integers))
            .collect::<Result<_>>()?;
        let biases = self.biased()?;
        let padding = self.padding(&few)?;
        let part = |half: &[usize]| padding.as_ref().map(|p| p.part(half)).transpose();
        let (of_told, of_others) = (part(&told)?, part(&others)?);
        let mut corrections =
            self.corrections(&biases, run::part(&inputs, &told)?, &rounded, grids, of_told.as_ref(), sink)?;
        if corrections[0].is_empty() {
            return Ok(None);
        }
        let others = (run::part(&inputs, &others)?, of_others.as_ref());
        self.best(&mut corrections, others, &rounded, [grids, kernel_grids], sink).map(Some)
    }

    /// Layers with a bias of their own.
    pub(super) fn biased(&self) -> Result<Vec<Biased>> {
        let biases = learned_biases(self.graph, self.plan, self.plan.layer_ids())?;
        Ok(biases.into_iter().map(|(id, bias, content)| (id, (bias, content))).collect())
    }

    /// For each of [`SHARES`] the biases of the layers in `biases`, by what the samples of `inputs` lose.
    fn corrections(
        &self,
        biases: &[Biased],
        inputs: Cache,
        rounded: &[Vec<f32>],
        grids: &[Grid],
        padding: Option<&Padding>,
        sink: &mut dyn Sink,
    ) -> Result<Vec<Contents>> {
        let Calibration { graph, facts, plan, device, .. } = *self;
        let mut forward = ForwardPass::new(graph, facts, inputs, device, self.store);
        let layers = in_order(&forward, plan, biases);
        let mut corrections = vec![Contents::new(); SHARES.len()];
        for (done, &(position, (id, bias))) in layers.iter().enumerate() {
            run::go_on(sink)?;
            forward.advance(position, sink)?;
            let layer = plan.layer(*id);
            let Some(shift) = Shift::new(graph, facts, layer, bias, device)? else { continue };
            let (value, node, index) = shift.operand;
            let Some((values, content)) = forward.value(value).zip(graph.constant(layer.weight)) else { continue };
            let grid = self.grid(grids, value, (node, index));
            let errors = shift.errors(&content.to_f32()?, &[&rounded[id.index()]], values, grid, padding, sink)?;
            for (corrected, least) in corrections.iter_mut().zip(SHARES) {
                corrected.insert(shift.bias, shift.corrected(&errors[0], least));
            }
            sink.event(&Event::StageProgress { stage: Stage::Correct, done: done + 1, total: layers.len() });
        }
        Ok(corrections)
    }

    /// Those of `corrections`, or none, with which the outputs of the quantized network are closest to the float ones on the
    /// samples of `inputs`, some of them `padding`, and the error of the outputs with them.
    fn best(
        &self,
        corrections: &mut Vec<Contents>,
        (inputs, padding): (Cache, Option<&Padding>),
        rounded: &[Vec<f32>],
        [grids, kernel_grids]: [&[Grid]; 2],
        sink: &mut dyn Sink,
    ) -> Result<(Contents, f64)> {
        let Calibration { graph, facts, plan, device, .. } = *self;
        let region = run::whole(graph, facts);
        let rows: Vec<Rows> = region.inputs.iter().map(|v| inputs[v].clone()).collect();
        let float = device.inference(&compile(graph, facts, &region)?)?;
        let wanted = float.run_while(&[], &[], &rows, self.store, &mut || run::go_on(sink))?;
        let blank = |(v, rows)| match padding {
            Some(padding) => padding.blank(v, &facts.require(graph, v)?.shape, rows),
            None => Ok(rows),
        };
        let wanted = region.outputs.iter().copied().zip(wanted).map(blank).collect::<Result<Vec<_>>>()?;
        drop(float);
        let read: BTreeSet<ValueId> =
            region.nodes.iter().flat_map(|&n| graph.node(n).inputs.iter().flatten()).copied().collect();
        let made = region.nodes.iter().flat_map(|&n| graph.node(n).outputs.iter().flatten()).copied();
        let known: BTreeSet<ValueId> = made.chain(region.inputs.iter().copied()).collect();
        let layers: Vec<LayerId> = plan.layer_ids().filter(|&id| read.contains(&plan.layer(id).weight)).collect();
        let biases: Vec<ValueId> =
            corrections.first().into_iter().flat_map(Contents::keys).copied().filter(|v| read.contains(v)).collect();
        // A program has one quantizer a value.
        let mut met = BTreeSet::new();
        let sites = plan.sites.iter().zip(grids).chain(plan.kernel_sites.iter().zip(kernel_grids));
        let sites: Vec<(&Site, &Grid)> =
            sites.filter(|(site, _)| known.contains(&site.value) && met.insert(site.value)).collect();
        let region = Region {
            weights: layers.iter().map(|&id| plan.layer(id).weight).chain(biases.iter().copied()).collect(),
            sites: sites.iter().map(|(site, _)| (site.value, site.readers.clone())).collect(),
            ..region
        };
        let quantized = device.inference(&compile(graph, facts, &region)?)?;
        let grids: Vec<Option<&Grid>> = sites.into_iter().map(|(_, grid)| Some(grid)).collect();
        let error = |contents: &[&[f32]]| -> Result<f64> {
            let weights = layers.iter().map(|id| &rounded[id.index()][..]);
            let weights: Vec<&[f32]> = weights.chain(contents.iter().copied()).collect();
            let mut deviation = Deviation::new(wanted.len());
            quantized.run_each(&weights, &grids, &rows, &mut |first, outputs| {
                deviation.add(first, outputs, &wanted)?;
                run::go_on(sink)
            })?;
            Ok(deviation.error())
        };
        let as_they_are: Vec<Vec<f32>> =
            biases.iter().map(|&v| graph.constant(v).map_or(Ok(Vec::new()), |t| t.to_f32())).collect::<Result<_>>()?;
        let mut least = error(&as_they_are.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let mut best = None;
        for (i, corrected) in corrections.iter().enumerate() {
            let contents: Vec<&[f32]> = biases.iter().map(|v| &corrected[v][..]).collect();
            let error = error(&contents)?;
            if error < least {
                (least, best) = (error, Some(i));
            }
        }
        Ok((best.map(|i| corrections.swap_remove(i)).unwrap_or_default(), least))
    }

    /// Which of `grids` quantizes `value` for `reader`, if any.
    fn grid<'g>(&self, grids: &'g [Grid], value: ValueId, reader: (NodeId, usize)) -> Option<&'g Grid> {
        let sees = |site: &Site| site.value == value && site.readers.as_ref().is_none_or(|r| r.contains(&reader));
        self.plan.sites.iter().position(sees).map(|i| &grids[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate;
    use crate::data::testing::{Placed, corner, samples};
    use crate::data::{Arrays, Samples};
    use crate::engine::device::{Device, processors};
    use crate::engine::facts;
    use crate::engine::program::{Region, compile};
    use crate::graph::testing::{Builder, window};
    use crate::graph::{Binary, Dim, Fact, Graph, Node, Op, Unary};
    use crate::plan::{self, MethodName, Recipe};
    use crate::probe::input_shapes;
    use crate::report::Silent;
    use crate::tensor::{DType, Data, RowStore, Tensor};

    /// Largest distances, of all channels, of the mean of every layer's results (behind the bias) from that in the float
    /// network, when its weight is rounded and its operand quantized: with the bias as it is, and corrected.
    fn distances(graph: &Graph, samples: &dyn Samples, shapes: &[Vec<usize>]) -> Vec<[f64; 2]> {
        let mut recipe = Recipe::default();
        recipe.method.name = MethodName::Rtn;
        (recipe.weights.first_last_bits, recipe.weights.bits, recipe.activations.bits) = (3, 3, 4);
        let facts = &facts::infer(graph, &input_shapes(graph, Some(shapes)).unwrap()).unwrap();
        let plan = &plan::plan(graph, facts, &recipe).unwrap();
        let (device, store) = (&processors(2).unwrap(), &RowStore::memory());
        let calibration = Calibration { graph, facts, plan, recipe: &recipe, samples, device, store };
        let grids = &calibration.observe(&mut Silent).unwrap().sites.fit(plan).unwrap();
        let weights = calibrate::fit_weights(graph, plan).unwrap();
        let weights = calibrate::round_to_nearest(graph, plan, &weights).unwrap();
        let rounded: Vec<Vec<f32>> = plan
            .layer_ids()
            .zip(&weights)
            .map(|(id, weight)| weight.grid.dequantize_u8(&plan.layer(id).shape, &weight.integers).unwrap())
            .collect();
        let biases: Vec<_> =
            learned_biases(graph, plan, plan.layer_ids()).unwrap().into_iter().map(|b| (b.0, (b.1, b.2))).collect();
        let padding = Padding::read(graph, facts, &recipe, samples).unwrap();
        let inputs = run::load(graph, samples, device, store, &mut Silent).unwrap();
        let found = calibration
            .corrections(&biases, inputs.clone(), &rounded, grids, padding.as_ref(), &mut Silent)
            .unwrap()
            .swap_remove(0);
        assert_eq!(found.len(), plan.layers.len(), "every layer has a bias");

        let mut forward = ForwardPass::new(graph, facts, inputs, device, store);
        let distance = |(id, weight): (LayerId, &QuantizedWeight)| {
            let layer = plan.layer(id);
            let node = graph.node(layer.nodes[0]);
            let (x, y) = (node.input(0).unwrap(), node.output(0).unwrap());
            let add = graph
                .node_ids()
                .find(|&id| graph.node(id).op == Op::Binary(Binary::Add) && graph.node(id).inputs.contains(&Some(y)));
            let bias = add.map_or(node.input(2), |id| graph.node(id).input(1)).unwrap();
            let result = add.map_or(y, |id| graph.node(id).output(0).unwrap());
            let values = forward.until(x, &Silent).unwrap().unwrap().clone();
            let means = |weight: &[f32], bias_content: &[f32], grid: Option<&Grid>| {
                let region = Region {
                    nodes: layer.nodes.iter().copied().chain(add).collect(),
                    inputs: vec![x],
                    outputs: vec![result],
                    weights: vec![layer.weight, bias],
                    sites: grid.map(|_| (x, None)).into_iter().collect(),
                };
                let ready = device.inference(&compile(graph, facts, &region).unwrap()).unwrap();
                let grids: Vec<Option<&Grid>> = grid.into_iter().map(Some).collect();
                let rows = ready.run(&[weight, bias_content], &grids, std::slice::from_ref(&values), store).unwrap();
                let shape = &facts.require(graph, result).unwrap().shape;
                let axis = if shape.len() == 4 { 1 } else { shape.len() - 1 };
                let channels = shape[axis];
                let (mut sums, mut count) = (vec![0.0; channels], 0);
                for (sample, row) in rows[0].iter().enumerate() {
                    let row = row.unwrap();
                    let (real, left) = match &padding {
                        Some(padding) => padding.real_part(result, shape, sample, &row).unwrap(),
                        None => (row.clone(), shape[..].into()),
                    };
                    let inner: usize = left[axis + 1..].iter().product();
                    count += real.len() / channels;
                    real.iter().enumerate().for_each(|(i, &v)| sums[i / inner % channels] += f64::from(v));
                }
                sums.into_iter().map(|sum| sum / f64::from(count as u32)).collect::<Vec<f64>>()
            };
            let content = |v: ValueId| graph.constant(v).unwrap().to_f32().unwrap();
            let float = means(&content(layer.weight), &content(bias), None);
            let rounded = weight.grid.dequantize_u8(&layer.shape, &weight.integers).unwrap();
            let grid = plan.sites.iter().position(|s| s.value == x).map(|i| &grids[i]);
            [&content(bias), &found[&bias]].map(|bias| {
                let now = means(&rounded, bias, grid);
                now.iter().zip(&float).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
            })
        };
        plan.layer_ids().zip(&weights).map(distance).collect()
    }

    fn assert_kept(distances: &[[f64; 2]]) {
        for (layer, [before, after]) in distances.iter().enumerate() {
            assert!(*before > 1e-2, "layer {layer}: rounding shifts a mean, by {before}");
            assert!(*after < 1e-5 + 1e-3 * before, "layer {layer}: {after} is left of {before}");
        }
    }

    #[test]
    fn convolutions_keep_their_means() {
        let graph = convolutions();
        let pixel = |index: usize, i: usize| ((i * 131 + index * 977 + i * i * 7) % 211) as f32 / 100.0 - 0.4;
        let images = || samples(&[3, 6, 6], (0..24 * 108).map(|i| pixel(i / 108, i % 108)).collect(), None);
        assert_kept(&distances(&graph, &images(), &[vec![3, 6, 6]]));
        // The means of what shows the image, if that is but the upper part.
        let geometries = (0..24).map(|i| corner(3 + i % 2, 6, [6, 6])).collect();
        assert_kept(&distances(&graph, &Placed { inner: images(), geometries }, &[vec![3, 6, 6]]));
    }

    fn convolutions() -> Graph {
        let mut b = Builder::new();
        let mut x = b.images(3, 6);
        for (i, (cin, group)) in [(3, 1), (8, 8), (8, 2)].into_iter().enumerate() {
            let w = b.constant(&format!("conv{i}.weight"), &[8, cin / group, 3, 3]);
            let bias = b.constant(&format!("conv{i}.bias"), &[8]);
            let y = b.node(Op::Conv { window: window(vec![1; 4]), group: group as i64 }, &[x, w, bias]);
            x = b.relu(y);
        }
        b.finish(&[x])
    }

    /// Padding tokens hold what no real token holds.
    #[test]
    fn dense_layers_keep_the_means_of_real_tokens() {
        const TOKENS: usize = 5;
        let mut b = Builder::new();
        let n = || Dim::Symbol("n".into());
        let x = b.input("x", vec![n(), Dim::Known(TOKENS), Dim::Known(6)]);
        let mask = b
            .graph
            .add_value("attention_mask", Fact { dtype: Some(DType::I64), shape: Some(vec![n(), Dim::Known(TOKENS)]) });
        b.graph.inputs.push(mask);
        let mut y = x;
        for (i, (k, width)) in [(6, 8), (8, 4)].into_iter().enumerate() {
            let (w, bias) = (b.constant(&format!("w{i}"), &[k, width]), b.constant(&format!("b{i}"), &[width]));
            let product = b.node(Op::MatMul, &[y, w]);
            let sum = b.node(Op::Binary(Binary::Add), &[product, bias]);
            y = b.node(Op::Unary(Unary::Relu), &[sum]);
        }
        let real = b.graph.add_value("real", Fact::default());
        b.graph.nodes.push(Node::new("real", Op::Identity, &[mask], &[real]));
        let graph = b.finish(&[y, real]);
        let real = |token: usize| token % TOKENS <= token / TOKENS % TOKENS;
        let value = |i: usize| if real(i / 6) { (i * 37 % 53) as f32 / 20.0 - 0.3 } else { 50.0 };
        let values = Tensor::f32(&[30, TOKENS, 6], (0..30 * TOKENS * 6).map(value).collect());
        let mask = Data::I64((0..30 * TOKENS).map(|token| i64::from(real(token))).collect());
        let mask = Tensor::new(vec![30, TOKENS], mask).unwrap();
        let texts = Arrays::new(vec![("x".into(), values), ("attention_mask".into(), mask)], None).unwrap();
        assert_kept(&distances(&graph, &texts, &[vec![TOKENS, 6], vec![TOKENS]]));
    }

    /// One sample in eight holds a value that its grid cuts off, and behind the layer a Clip makes nothing of the difference.
    #[test]
    fn results_that_few_samples_shift_stay_where_they_are() {
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(4)]);
        let w = b.graph.add_constant("w", Tensor::f32(&[4, 2], vec![1.0, -1.0, 1.0, 0.5, 0.5, 1.0, -0.5, 0.5]));
        let bias = b.graph.add_constant("b", Tensor::f32(&[2], vec![0.5, 0.25]));
        let [low, high] = [0.0, 6.0].map(|v| b.graph.add_constant("bound", Tensor::f32(&[], vec![v])));
        let same = (0..16).map(|i| f32::from(i % 5 == 0)).collect();
        let same = b.graph.add_constant("same", Tensor::f32(&[4, 4], same));
        let copied = b.node(Op::MatMul, &[x, same]);
        let read = b.relu(copied);
        let product = b.node(Op::MatMul, &[read, w]);
        let sum = b.node(Op::Binary(Binary::Add), &[product, bias]);
        let y = b.node(Op::Clip, &[sum, low, high]);
        let graph = &b.finish(&[y]);
        let value = |i: usize| if i.is_multiple_of(4) && i / 4 % 8 < 2 { 40.0 } else { (i * 37 % 53) as f32 / 53.0 };
        let samples = samples(&[4], (0..64 * 4).map(value).collect(), None);
        let facts = &facts::infer(graph, &[vec![1, 4]]).unwrap();
        let mut recipe = Recipe::default();
        recipe.method.name = MethodName::Rtn;
        let recipe = &recipe;
        let plan = &plan::plan(graph, facts, recipe).unwrap();
        let (device, store) = (&processors(2).unwrap(), &RowStore::memory());
        let calibration = Calibration { graph, facts, plan, recipe, samples: &samples, device, store };
        let grid = Grid { scale: vec![1.0 / 255.0], zero_point: vec![0], axis: None, qmin: 0, qmax: 255 };
        let kernel_grids = vec![grid.clone(); plan.kernel_sites.len()];
        let grids = vec![grid; plan.sites.len()];
        assert!(plan.sites.iter().any(|site| site.value == read), "{:?}", plan.sites);
        let weights = calibrate::fit_weights(graph, plan).unwrap();
        let weights = calibrate::round_to_nearest(graph, plan, &weights).unwrap();
        let (found, _) = calibration.corrected_biases(&weights, &grids, &kernel_grids, &mut Silent).unwrap().unwrap();
        let kept = found.get(&bias).map_or(&[0.5, 0.25][..], Vec::as_slice);
        assert!(kept.iter().zip([0.5, 0.25]).all(|(b, was)| (b - was).abs() < 0.05), "{kept:?}");
    }
}
