//! Padding of sequences and of images: it takes no part in first grids and losses.

use super::weigh::Weights;
use crate::data::{Prepare, Samples};
use crate::engine::channels::{self, Piece};
use crate::engine::facts::{Facts, ValueFact};
use crate::engine::program::around;
use crate::engine::train::LossWeights;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::plan::{Layout, Plan, Recipe};
use crate::tensor::{DType, Rows};
use std::borrow::Cow;
use std::ops::Range;

/// The network input that marks padding, unless the recipe names another.
const MASK: &str = "attention_mask";

/// Elements that are no padding, and their shape.
pub(crate) type RealPart<'a> = (Cow<'a, [f32]>, Cow<'a, [usize]>);

/// What of each sample is real.
#[derive(Debug, Clone)]
pub(crate) struct Padding {
    real: Real,
    /// Per value: where tokens, or rows and columns, lie in it, if they do.
    places: Vec<Option<Place>>,
}

/// Where what may be padding lies in a value.
#[derive(Debug, Clone)]
enum Place {
    /// Tokens along an axis.
    Tokens(usize),
    /// An image.
    Image(channels::Place),
}

impl Place {
    /// The axes along which padding lies.
    fn along(&self) -> Range<usize> {
        match *self {
            Place::Tokens(axis) | Place::Image(channels::Place::Flat(axis, _)) => axis..axis + 1,
            Place::Image(channels::Place::Map(axis)) => axis..axis + 2,
        }
    }
}

#[derive(Debug, Clone)]
enum Real {
    /// Per sample: 1 for a real token, 0 for padding.
    Tokens(Rows),
    /// Per sample the rows and columns of the canvas that show the image, and the height and width of the canvas.
    Images(Vec<[Range<usize>; 2]>, [usize; 2]),
}

impl Padding {
    /// Reads the mask of `samples`, or where images lie on their canvas; `None` where nothing is padded, or not as far as
    /// anybody knows.
    pub fn read(graph: &Graph, facts: &Facts, recipe: &Recipe, samples: &dyn Samples) -> Result<Option<Self>> {
        match Self::of_tokens(graph, facts, recipe, samples)? {
            None => Self::of_images(graph, facts, recipe, samples),
            found => Ok(found),
        }
    }

    fn of_tokens(graph: &Graph, facts: &Facts, recipe: &Recipe, samples: &dyn Samples) -> Result<Option<Self>> {
        let name = recipe.input.mask.as_deref();
        let named = |&&v: &&ValueId| graph.value(v).name == name.unwrap_or(MASK);
        let found = graph.inputs.iter().position(|v| named(&v)).zip(graph.inputs.iter().find(named));
        let Some((index, &input)) = found else {
            return match name {
                Some(name) => Err(Error::recipe(format!("input.mask: the network has no input `{name}`"))),
                None => Ok(None),
            };
        };
        let [1, length] = facts.get(input).map_or(&[][..], |f| &f.shape[..]) else {
            return match name {
                Some(name) => {
                    Err(Error::recipe(format!("input.mask: `{name}` is not a mask of shape [batch, tokens]")))
                }
                None => Ok(None),
            };
        };
        let mut tokens = Vec::with_capacity(samples.len() * length);
        for i in 0..samples.len() {
            tokens.extend(samples.get(i)?[index].to_f32()?.iter().map(|&v| if v > 0.0 { 1.0f32 } else { 0.0 }));
        }
        if tokens.iter().all(|&v| v > 0.0) || tokens.iter().all(|&v| v == 0.0) {
            return Ok(None);
        }
        let places = channels::tokens(graph, facts, *length).into_iter().map(|axis| axis.map(Place::Tokens)).collect();
        Ok(Some(Padding { real: Real::Tokens(Rows::new(samples.len(), tokens)), places }))
    }

    fn of_images(graph: &Graph, facts: &Facts, recipe: &Recipe, samples: &dyn Samples) -> Result<Option<Self>> {
        let geometries: Option<Vec<_>> = (0..samples.len()).map(|i| samples.geometry(i)).collect();
        let Some(geometries) = geometries.filter(|all| all.iter().any(|g| g.is_padded())) else { return Ok(None) };
        let canvas = geometries[0].input;
        if geometries.iter().any(|g| g.input != canvas) {
            return Ok(None);
        }
        // Rows and columns are the last axes but for the channels, where these are last.
        let behind = if Prepare::resolve(&recipe.input)?.layout == Layout::Nhwc { 3 } else { 2 };
        let found = graph.inputs.iter().find_map(|&v| {
            let shape = &facts.get(v)?.shape;
            let rows = shape.len().checked_sub(behind)?;
            (shape[rows..rows + 2] == canvas).then_some((v, rows))
        });
        let Some((input, rows)) = found else { return Ok(None) };
        let places = channels::rows(graph, facts, input, rows).into_iter().map(|p| p.map(Place::Image)).collect();
        Ok(Some(Padding { real: Real::Images(geometries.iter().map(|g| g.shown()).collect(), canvas), places }))
    }

    /// That of the samples at `indices`.
    pub fn part(&self, indices: &[usize]) -> Result<Self> {
        let real = match &self.real {
            Real::Tokens(tokens) => {
                let rows = indices.iter().map(|&i| Ok(tokens.row(i)?.to_vec())).collect::<Result<Vec<_>>>()?;
                Real::Tokens(Rows::new(indices.len(), rows.concat()))
            }
            Real::Images(shown, canvas) => Real::Images(indices.iter().map(|&i| shown[i].clone()).collect(), *canvas),
        };
        Ok(Padding { real, places: self.places.clone() })
    }

    /// Whether what is padded are images.
    pub fn is_of_images(&self) -> bool {
        matches!(self.real, Real::Images(..))
    }

    fn samples(&self) -> usize {
        match &self.real {
            Real::Tokens(tokens) => tokens.len(),
            Real::Images(shown, _) => shown.len(),
        }
    }

    fn place(&self, value: ValueId) -> Option<&Place> {
        self.places.get(value.0 as usize)?.as_ref()
    }

    /// The elements of `row`, content of `value` of `shape` in `sample`, that are no padding, and their shape.
    pub fn real_part<'a>(
        &self,
        value: ValueId,
        shape: &'a [usize],
        sample: usize,
        row: &'a [f32],
    ) -> Result<RealPart<'a>> {
        let Some(place) = self.place(value) else { return Ok((Cow::Borrowed(row), Cow::Borrowed(shape))) };
        let along = place.along();
        let inner = around(shape, along.end - 1)[2].max(1);
        let mut left = shape.to_vec();
        let (Place::Image(channels::Place::Map(_)), Real::Images(shown, canvas)) = (place, &self.real) else {
            let mask = self.mask(place, shape, sample)?;
            let kept = row.chunks_exact(inner).enumerate().filter(|(i, _)| mask[i % mask.len()] > 0.0);
            let kept: Vec<f32> = kept.flat_map(|(_, part)| part.iter().copied()).collect();
            left[along.start] = mask.iter().filter(|v| **v > 0.0).count();
            return Ok((Cow::Owned(kept), Cow::Owned(left)));
        };
        let (height, width) = (shape[along.start], shape[along.start + 1]);
        let [rows, columns] = cells(&shown[sample], *canvas, [height, width]);
        if (rows.len(), columns.len()) == (height, width) {
            return Ok((Cow::Borrowed(row), Cow::Borrowed(shape)));
        }
        left[along].copy_from_slice(&[rows.len(), columns.len()]);
        let lines = row.chunks_exact(width * inner).enumerate().filter(|(i, _)| rows.contains(&(i % height)));
        let shown = lines.flat_map(|(_, line)| &line[columns.start * inner..columns.end * inner]);
        Ok((Cow::Owned(shown.copied().collect()), Cow::Owned(left)))
    }

    /// For every position of a value of `shape` along the axes of `place`: 1 if it is real in `sample`, 0 if it is padding.
    fn mask(&self, place: &Place, shape: &[usize], sample: usize) -> Result<Cow<'_, [f32]>> {
        let (shown, canvas) = match &self.real {
            Real::Tokens(tokens) => return tokens.row(sample),
            Real::Images(shown, canvas) => (&shown[sample], *canvas),
        };
        let whole;
        let pieces = match place {
            Place::Image(channels::Place::Flat(_, pieces)) => &pieces[..],
            _ => {
                let along = place.along();
                whole = [Piece { before: 1, size: [shape[along.start], shape[along.end - 1]], behind: 1 }];
                &whole
            }
        };
        let mut mask = Vec::new();
        for Piece { before, size: [height, width], behind } in pieces {
            let [rows, columns] = cells(shown, canvas, [*height, *width]);
            let mut map = vec![0.0; height * width * behind];
            rows.for_each(|row| map[(row * width + columns.start) * behind..][..columns.len() * behind].fill(1.0));
            (0..*before).for_each(|_| mask.extend_from_slice(&map));
        }
        Ok(Cow::Owned(mask))
    }

    /// `rows`, contents of `value` of `shape` in the samples, with NaN where there is padding: what is compared with them
    /// counts nowhere else.
    pub fn blank(&self, value: ValueId, shape: &[usize], rows: Rows) -> Result<Rows> {
        if self.place(value).is_none() {
            return Ok(rows);
        }
        let mut blanked = Vec::with_capacity(rows.len() * rows.width());
        for sample in 0..rows.len() {
            blanked.extend_from_slice(&self.blank_row(value, shape, sample, &rows.row(sample)?)?);
        }
        Ok(Rows::new(rows.len(), blanked))
    }

    /// `row`, content of `value` of `shape` in `sample`, with NaN where there is padding.
    pub fn blank_row<'a>(
        &self,
        value: ValueId,
        shape: &[usize],
        sample: usize,
        row: &'a [f32],
    ) -> Result<Cow<'a, [f32]>> {
        let Some(place) = self.place(value) else { return Ok(Cow::Borrowed(row)) };
        let inner = around(shape, place.along().end - 1)[2].max(1);
        let mask = self.mask(place, shape, sample)?;
        let at = |(i, &v): (usize, &f32)| if mask[i / inner % mask.len()] > 0.0 { v } else { f32::NAN };
        Ok(Cow::Owned(row.iter().enumerate().map(at).collect()))
    }

    /// What the elements of `value`, of which `fact` tells, weigh in squared errors in which padding does not count: 1, or 0
    /// for padding. `None` where none of them may be padding.
    pub fn weights(&self, value: ValueId, fact: &ValueFact) -> Result<Option<LossWeights>> {
        let Some(place) = self.place(value) else { return Ok(None) };
        let (along, shape) = (place.along(), &fact.shape);
        // One weight for all channels of a position, unless the channels lie along the padding.
        let by_position = !along.contains(&fact.channel_axis);
        let [outer, channels, _] = if by_position { around(shape, fact.channel_axis) } else { [1; 3] };
        let width = fact.numel() / channels.max(1);
        let behind = around(shape, along.end - 1)[2];
        let behind = if by_position && fact.channel_axis >= along.end { behind / channels.max(1) } else { behind };
        let mut positions = Vec::with_capacity(width * self.samples());
        for sample in 0..self.samples() {
            let mask = self.mask(place, shape, sample)?;
            positions.extend((0..width).map(|i| mask[i / behind.max(1) % mask.len()]));
        }
        let positions = Rows::new(self.samples(), positions);
        Ok(Some(LossWeights { channels: vec![1.0; channels], positions, outer }))
    }

    /// Takes padding out of the losses of all units' outputs; the mean of what is left stays the same.
    pub fn exclude(&self, facts: &Facts, plan: &Plan, weights: &mut Weights) -> Result<()> {
        for &v in plan.units.iter().flat_map(|u| &u.outputs) {
            let Some(fact) = facts.get(v).filter(|f| f.dtype == DType::F32) else { continue };
            if self.place(v).is_some_and(|place| place.along().contains(&fact.channel_axis)) {
                // Channels along the tokens: no position is all padding.
                continue;
            }
            let Some(mut new) = self.weights(v, fact)? else { continue };
            let rows = new.positions.iter().collect::<Result<Vec<_>>>()?;
            let all = (rows.len() * new.positions.width()) as f64;
            let share = rows.iter().flat_map(|row| row.iter()).map(|&v| f64::from(v)).sum::<f64>() / all;
            if share == 1.0 || share == 0.0 {
                continue;
            }
            let old = weights.remove(&v);
            let mut positions = Vec::with_capacity(rows.len() * new.positions.width());
            for (sample, row) in rows.iter().enumerate() {
                let before = old.as_ref().map(|o| o.positions.row(sample)).transpose()?;
                let at = |i: usize| before.as_ref().map_or(1.0, |b| b[i]);
                positions.extend(row.iter().enumerate().map(|(i, real)| at(i) * real / share as f32));
            }
            drop(rows);
            new.positions = Rows::new(self.samples(), positions);
            if let Some(old) = old {
                new.channels = old.channels;
            }
            weights.insert(v, new);
        }
        Ok(())
    }
}

/// Of a map of `size` over a canvas of which `shown` shows the image: the rows and columns whose cells overlap the image.
fn cells(shown: &[Range<usize>; 2], canvas: [usize; 2], size: [usize; 2]) -> [Range<usize>; 2] {
    [0, 1].map(|axis| {
        let Range { start, end } = shown[axis];
        let (whole, n) = (canvas[axis].max(1), size[axis]);
        start * n / whole..(end * n).div_ceil(whole).min(n)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Geometry;
    use crate::data::testing::{Placed, corner, samples};
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::graph::testing::{Builder, window};
    use crate::graph::{Dim, Fact, Node, NodeId, Op, Unary, Window};
    use crate::plan::{self, Unit};
    use crate::probe::Calibration;
    use crate::quant::Grid;
    use crate::report::Silent;
    use crate::tensor::RowStore;
    use crate::tensor::Tensor;

    fn padding(width: usize, tokens: &[f32], axes: &[Option<usize>]) -> Padding {
        let places = axes.iter().map(|axis| axis.map(Place::Tokens)).collect();
        Padding { real: Real::Tokens(Rows::new(tokens.len() / width, tokens.to_vec())), places }
    }

    fn maps(axes: &[Option<usize>]) -> Vec<Option<Place>> {
        axes.iter().map(|axis| axis.map(|a| Place::Image(channels::Place::Map(a)))).collect()
    }

    #[test]
    fn real_tokens_are_found_along_their_axis() {
        let p = padding(3, &[1.0, 1.0, 0.0, 1.0, 0.0, 0.0], &[Some(1), Some(2), None]);
        let row: Vec<f32> = (0..6).map(|v| v as f32).collect();
        assert_eq!(*p.real_part(ValueId(0), &[1, 3, 2], 0, &row).unwrap().0, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(*p.real_part(ValueId(0), &[1, 3, 2], 1, &row).unwrap().0, [0.0, 1.0]);
        assert_eq!(*p.real_part(ValueId(1), &[1, 2, 3, 1], 1, &row).unwrap().0, [0.0, 3.0], "heads before tokens");
        let (part, left) = p.real_part(ValueId(1), &[1, 2, 3, 1], 1, &row).unwrap();
        assert_eq!((&*part, &*left), (&[0.0, 3.0][..], &[1, 2, 1, 1][..]), "with its shape");
        assert_eq!(*p.real_part(ValueId(2), &[1, 6], 1, &row).unwrap().0, row[..], "no tokens");
    }

    /// As many tokens as heads and as features a head: only where they come from tells them apart.
    #[test]
    fn heads_and_channels_are_no_tokens() {
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(9)]);
        let w = b.constant("w", &[9, 9]);
        let q = b.node(Op::MatMul, &[x, w]);
        let split = b.graph.add_constant("split", Tensor::i64s(vec![1, 3, 3, 3]));
        let heads = b.node(Op::Reshape { allowzero: false }, &[q, split]);
        let query = b.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[heads]);
        let key = b.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[heads]);
        let scores = b.node(Op::MatMul, &[query, key]);
        let context = b.node(Op::MatMul, &[scores, query]);
        let back = b.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context]);
        let join = b.graph.add_constant("join", Tensor::i64s(vec![1, 3, 9]));
        let y = b.node(Op::Reshape { allowzero: false }, &[back, join]);
        let turned = b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[y]);
        let g = b.finish(&[turned]);
        let facts = facts::infer(&g, &[vec![1, 3, 9]]).unwrap();
        let tokens = channels::tokens(&g, &facts, 3);
        let found = [x, q, heads, query, key, scores, context, back, y, turned];
        let axis = |v: ValueId| tokens[v.0 as usize].unwrap();
        assert_eq!(found.map(axis), [1, 1, 1, 2, 3, 2, 2, 1, 1, 2]);
        let channel = |v: ValueId| facts.get(v).unwrap().channel_axis;
        assert_eq!(found.map(channel), [2, 2, 3, 3, 2, 1, 3, 3, 2, 1]);
    }

    #[test]
    fn losses_of_padding_weigh_nothing_and_the_rest_as_much_as_before() {
        let mut g = Graph { opset: 17, ..Graph::default() };
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(2)]);
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape });
        let y = g.add_value("y", Fact::default());
        g.nodes = vec![Node::new("relu", Op::Unary(Unary::Relu), &[x], &[y])];
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let facts = facts::infer(&g, &[vec![1, 3, 2]]).unwrap();
        let unit = Unit { nodes: vec![NodeId(0)], inputs: vec![x], outputs: vec![y], ..Unit::default() };
        let plan = Plan { units: vec![unit], ..Plan::default() };
        let p = padding(3, &[1.0, 1.0, 0.0, 1.0, 0.0, 0.0], &[Some(1), Some(1)]);
        let mut weights = Weights::new();
        p.exclude(&facts, &plan, &mut weights).unwrap();
        assert_eq!((&weights[&y].channels[..], weights[&y].outer), (&[1.0, 1.0][..], 3));
        assert_eq!(*weights[&y].positions.row(0).unwrap(), [2.0, 2.0, 0.0]);
        assert_eq!(*weights[&y].positions.row(1).unwrap(), [2.0, 0.0, 0.0]);
        weights.get_mut(&y).unwrap().channels = vec![3.0, 5.0];
        p.exclude(&facts, &plan, &mut weights).unwrap();
        assert_eq!(weights[&y].channels, [3.0, 5.0], "what was weighed stays");
        assert_eq!(*weights[&y].positions.row(0).unwrap(), [4.0, 4.0, 0.0]);
    }

    #[test]
    fn cells_that_overlap_the_image_are_real() {
        let shown = [3..13, 0..8];
        assert_eq!(cells(&shown, [16, 8], [16, 8]), [3..13, 0..8]);
        assert_eq!(cells(&shown, [16, 8], [8, 4]), [1..7, 0..4]);
        assert_eq!(cells(&shown, [16, 8], [2, 1]), [0..2, 0..1]);
        assert_eq!(cells(&[0..8, 0..9], [16, 32], [2, 4]), [0..1, 0..2]);
        assert_eq!(cells(&[0..8, 0..9], [16, 32], [32, 64]), [0..16, 0..18], "a larger map");
    }

    #[test]
    fn padding_of_images_is_left_out_in_every_layout() {
        // Two samples on a canvas of 4 x 4: the upper half, and the left column.
        let shown = vec![[0..2, 0..4], [0..4, 0..1]];
        let p = Padding { real: Real::Images(shown, [4, 4]), places: maps(&[Some(2), Some(1), None]) };
        let row: Vec<f32> = (0..8).map(|v| v as f32).collect();
        // Two channels of 2 x 2, first or last.
        let [first, last, none] = [0, 1, 2].map(ValueId);
        let real = |value, shape: &[usize], sample| {
            let (part, left) = p.real_part(value, shape, sample, &row).unwrap();
            (part.to_vec(), left.to_vec())
        };
        assert_eq!(real(first, &[1, 2, 2, 2], 0), (vec![0.0, 1.0, 4.0, 5.0], vec![1, 2, 1, 2]));
        assert_eq!(real(first, &[1, 2, 2, 2], 1), (vec![0.0, 2.0, 4.0, 6.0], vec![1, 2, 2, 1]));
        assert_eq!(real(last, &[1, 2, 2, 2], 0), (vec![0.0, 1.0, 2.0, 3.0], vec![1, 1, 2, 2]));
        assert_eq!(real(last, &[1, 2, 2, 2], 1), (vec![0.0, 1.0, 4.0, 5.0], vec![1, 2, 1, 2]));
        assert_eq!(real(none, &[1, 8], 0), (row.clone(), vec![1, 8]));
    }

    #[test]
    fn padding_of_flat_maps_is_left_out_and_blanked() {
        // The upper half of a canvas of 4 x 4, in maps of 4 x 2 and 2 x 1, the cells of the second twice.
        let pieces = vec![Piece { before: 1, size: [4, 2], behind: 1 }, Piece { before: 1, size: [2, 1], behind: 2 }];
        let places = vec![Some(Place::Image(channels::Place::Flat(1, pieces)))];
        let p = Padding { real: Real::Images(vec![[0..2, 0..4]], [4, 4]), places };
        let row: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let (part, left) = p.real_part(ValueId(0), &[1, 12, 2], 0, &row).unwrap();
        let real: Vec<f32> = (0..8).chain(16..20).map(|v| v as f32).collect();
        assert_eq!((&*part, &*left), (&real[..], &[1, 6, 2][..]));
        let blanked = p.blank(ValueId(0), &[1, 12, 2], Rows::new(1, row)).unwrap();
        let kept: Vec<f32> = blanked.row(0).unwrap().iter().copied().filter(|v| !v.is_nan()).collect();
        assert_eq!(kept, real);
    }

    #[test]
    fn losses_of_an_images_padding_weigh_nothing() {
        let mut b = Builder::new();
        let x = b.input("x", [1, 3, 4, 4].map(Dim::Known).to_vec());
        let y = b.node(Op::Unary(Unary::Relu), &[x]);
        let g = b.finish(&[y]);
        let facts = facts::infer(&g, &[vec![1, 3, 4, 4]]).unwrap();
        let unit = Unit { nodes: vec![NodeId(0)], inputs: vec![x], outputs: vec![y], ..Unit::default() };
        let plan = Plan { units: vec![unit], ..Plan::default() };
        let shown = vec![[0..2, 0..4], [0..4, 0..4]];
        let places = channels::rows(&g, &facts, x, 2).into_iter().map(|p| p.map(Place::Image)).collect();
        let p = Padding { real: Real::Images(shown, [4, 4]), places };
        let mut weights = Weights::new();
        p.exclude(&facts, &plan, &mut weights).unwrap();
        let (half, whole) = (weights[&y].positions.row(0).unwrap(), weights[&y].positions.row(1).unwrap());
        let each = 1.0 / 0.75;
        assert_eq!(*half, [[each; 8], [0.0; 8]].concat());
        assert_eq!((*whole).to_vec(), [each; 16]);
        assert_eq!((weights[&y].channels.len(), weights[&y].outer), (3, 1));
    }

    /// Grids of a network for images of `size`, of which all but the `rows` upper ones hold what no image holds.
    fn grids(rows: usize, [height, width]: [usize; 2]) -> Vec<Grid> {
        let mut b = Builder::new();
        let mut y = b.input("x", [1, 3, height, width].map(Dim::Known).to_vec());
        for (i, cin) in [3, 4].into_iter().enumerate() {
            let (w, bias) = (b.constant(&format!("w{i}"), &[4, cin, 1, 1]), b.constant(&format!("b{i}"), &[4]));
            let conv = b.node(Op::Conv { window: window(vec![0; 4]), group: 1 }, &[y, w, bias]);
            let relu = b.relu(conv);
            let window = Window { kernel: vec![2, 2], strides: vec![2, 2], ..window(vec![0; 4]) };
            y = b.node(Op::MaxPool { window, ceil_mode: false }, &[relu]);
        }
        let graph = &b.finish(&[y]);
        let value = |i: usize| match i / width % height < rows {
            true => {
                (((i / (height * width) * rows + i / width % height) * 8 + i % width) * 37 % 53) as f32 / 20.0 - 0.3
            }
            false => 500.0,
        };
        let inner = samples(&[3, height, width], (0..6 * 3 * height * width).map(value).collect(), None);
        let geometries = vec![corner(rows, width, [height, width]); 6];
        let samples = &Placed { inner, geometries };
        let (recipe, facts) = (&Recipe::default(), &facts::infer(graph, &[vec![1, 3, height, width]]).unwrap());
        let plan = &plan::plan(graph, facts, recipe).unwrap();
        let (device, store) = (&processors(1).unwrap(), &RowStore::memory());
        let calibration = Calibration { graph, facts, plan, recipe, samples, device, store };
        calibration.observe(&mut Silent).unwrap().sites.fit(plan).unwrap()
    }

    #[test]
    fn first_grids_do_not_know_of_an_images_padding() {
        assert!(!grids(4, [4, 8]).is_empty());
        assert_eq!(grids(4, [16, 8]), grids(4, [4, 8]));
    }

    #[test]
    fn images_tell_where_their_padding_is() {
        let mut b = Builder::new();
        let x = b.input("x", [1, 3, 8, 6].map(Dim::Known).to_vec());
        let y = b.node(Op::Unary(Unary::Relu), &[x]);
        let g = b.finish(&[y]);
        let facts = facts::infer(&g, &[vec![1, 3, 8, 6]]).unwrap();
        let read = |geometry: Geometry, layout| {
            let inner = samples(&[3, 8, 6], vec![0.0; 288], None);
            let mut recipe = Recipe::default();
            recipe.input.layout = layout;
            let samples = Placed { inner, geometries: vec![geometry; 2] };
            Padding::read(&g, &facts, &recipe, &samples).unwrap()
        };
        let half = corner(4, 6, [8, 6]);
        let real = |p: Padding| p.real_part(y, &[1, 3, 8, 6], 1, &[0.0; 144]).unwrap().0.len();
        assert_eq!(read(half, None).map(real), Some(72));
        assert!(read(corner(8, 6, [8, 6]), None).is_none(), "nothing is padded");
        assert!(read(corner(4, 6, [8, 8]), None).is_none(), "no input has this canvas");
        assert!(read(half, Some(Layout::Nhwc)).is_none(), "rows and columns are others");
    }
}
