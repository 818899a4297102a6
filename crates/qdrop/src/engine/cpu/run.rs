//! Runs compiled code on a group of samples.

use super::code::{Code, Kernel, Place};
use super::conv::Wanted;
use super::direct::Direct;
use super::matrix::{View, product};
use super::pass::{self, Quantizer};
use super::winograd::Winograd;
use crate::engine::fused::MaskIndex;
use crate::engine::ops;
use crate::engine::program::{ProgramSite, Step};
use crate::engine::train::Keep;
use crate::error::{Error, Result};
use crate::tensor::Rows;

/// Working memory of one group; made once and used again.
#[derive(Debug)]
pub(super) struct Frame {
    pub buffers: Vec<Vec<f32>>,
    pub masks: Vec<Vec<u8>>,
    pub scratch: Vec<f32>,
    /// Memory of operands and results of operators that run by their specification, to be used again.
    spare: Vec<Vec<f32>>,
    /// Per slot: whether its gradient has a first contribution.
    pub written: Vec<bool>,
    pub samples: usize,
}

/// What a run reads besides its inputs.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub code: &'a Code,
    /// Content of the weights, in the program's order.
    pub weights: &'a [&'a [f32]],
    /// Weights of tiled convolutions in their domain, in the program's order; empty where no kernel wants them.
    pub tiled: &'a [Vec<f32>],
    /// Per site: its grid; `None` where it is off.
    pub sites: &'a [Option<Quantizer>],
}

impl<'a> Shared<'a> {
    /// The tiled form of a convolution with weight `w`, and that weight in its domain.
    pub fn tiled(&self, form: &'a Option<Winograd>, w: usize) -> Option<(&'a Winograd, &'a [f32])> {
        match self.code.places[w] {
            Place::Weight(i) => form.as_ref().map(|form| (form, self.tiled[i].as_slice())),
            _ => None,
        }
    }
}

/// Gradients of what is learned, added to.
pub(super) struct Sums<'a> {
    pub weights: &'a mut [Vec<f32>],
    pub scales: &'a mut [f64],
    /// Sees the gradient of what each site hands on, for the whole group.
    pub watch: Option<Watch<'a>>,
}

/// Is called with a site and the group's values there.
pub(super) type Tap<'a> = &'a mut dyn FnMut(ProgramSite, &[f32]) -> Result<()>;

/// Is called with a site and a gradient there.
pub(super) type Watch<'a> = &'a mut dyn FnMut(ProgramSite, &[f32]);

impl Frame {
    pub fn new(code: &Code, learn: bool) -> Self {
        let mask = |&n: &usize| vec![0; if learn { n * code.group } else { 0 }];
        Frame {
            buffers: code.buffers.iter().map(|&n| vec![0.0; n * code.group]).collect(),
            masks: code.masks.iter().map(mask).collect(),
            scratch: Vec::new(),
            spare: Vec::new(),
            written: vec![false; code.places.len()],
            samples: 0,
        }
    }

    /// Begins a group of `samples`.
    pub fn start(&mut self, samples: usize) {
        self.samples = samples;
        self.written.fill(false);
    }

    /// Begins a group of `samples`, of which the rows of `inputs` from `first` on are fed.
    pub fn feed(&mut self, code: &Code, inputs: &[Rows], first: usize, samples: usize) -> Result<()> {
        self.start(samples);
        for (&slot, rows) in code.program.inputs.iter().zip(inputs) {
            for sample in 0..samples {
                let row = rows.row(first + sample)?;
                self.fill(code, slot, sample, |range, out| out.copy_from_slice(&row[range]));
            }
        }
        Ok(())
    }

    /// Values of a slot for the whole group, or those that all samples share.
    pub fn read<'a>(&'a self, shared: &Shared<'a>, slot: usize) -> &'a [f32] {
        match shared.code.places[slot] {
            Place::Buffer(b) => &self.buffers[b][..shared.code.layouts[slot].numel() * self.samples],
            Place::Constant => shared.code.program.slots[slot].constant.as_deref().unwrap_or_default(),
            Place::Weight(i) => shared.weights[i],
        }
    }

    /// Writes the rows of one sample (contiguous, of the slot's shape) where `f` is given each channel's range.
    pub fn fill(
        &mut self,
        code: &Code,
        slot: usize,
        sample: usize,
        mut f: impl FnMut(std::ops::Range<usize>, &mut [f32]),
    ) {
        let Place::Buffer(b) = code.places[slot] else { return };
        let layout = code.layouts[slot];
        for c in 0..layout.channels {
            let at = (c * self.samples + sample) * layout.inner;
            f(c * layout.inner..(c + 1) * layout.inner, &mut self.buffers[b][at..at + layout.inner]);
        }
    }

    /// One sample of a slot, contiguous, added to the end of `out`.
    pub fn append(&self, shared: &Shared, slot: usize, sample: usize, out: &mut Vec<f32>) {
        let data = self.read(shared, slot);
        if !matches!(shared.code.places[slot], Place::Buffer(_)) {
            return out.extend_from_slice(data);
        }
        let layout = shared.code.layouts[slot];
        for c in 0..layout.channels {
            out.extend_from_slice(&data[(c * self.samples + sample) * layout.inner..][..layout.inner]);
        }
    }

    fn clean(&mut self, code: &Code, slot: usize) {
        (0..self.samples).for_each(|sample| self.fill(code, slot, sample, |_, x| pass::clean(x)));
    }

    pub fn take(&mut self, code: &Code, slot: usize) -> Result<(usize, Vec<f32>)> {
        match code.places[slot] {
            Place::Buffer(b) => Ok((b, std::mem::take(&mut self.buffers[b]))),
            _ => Err(Error::internal(format!("slot {slot} is written but has no buffer"))),
        }
    }

    /// Runs all kernels; `keep` tells per site which elements keep the quantized value (masks lie in the frame) when
    /// learning. `tap` sees what every site hands on.
    pub fn forward(&mut self, shared: &Shared, learn: Option<&[Keep]>, mut tap: Option<Tap>) -> Result<()> {
        let code = shared.code;
        if learn.is_some() {
            code.program.inputs.iter().for_each(|&slot| self.clean(code, slot));
        }
        for kernel in &code.kernels {
            match kernel {
                Kernel::Conv { .. } | Kernel::Depthwise { .. } => self.convolve(shared, kernel)?,
                Kernel::Dense { rows, k, n, transposed, x, w, bias, y } => {
                    let (at, mut out) = self.take(code, *y)?;
                    let rows = rows * self.samples;
                    if let Some(b) = bias {
                        let bias = self.read(shared, *b);
                        out[..rows * n].chunks_exact_mut(*n).for_each(|row| row.copy_from_slice(bias));
                    }
                    let weight = (self.read(shared, *w), weight_view(*k, *n, *transposed));
                    let input = (self.read(shared, *x), View::rows(0, rows, *k, *k));
                    product((&mut out, View::rows(0, rows, *n, *n)), bias.is_some(), input, weight);
                    self.buffers[at] = out;
                }
                Kernel::Pass { act, site, x, other, y, trace, mask } => {
                    let (at, mut out) = self.take(code, *y)?;
                    let n = code.layouts[*y].numel() * self.samples;
                    let quantizer = site.and_then(|s| shared.sites[s.0]);
                    match learn.filter(|_| code.program.slots[*y].learned) {
                        None => {
                            let other = other.map(|o| self.read(shared, o));
                            pass::infer(*act, quantizer, self.read(shared, *x), other, &mut out[..n]);
                        }
                        Some(keep) => {
                            let mut traced = std::mem::take(&mut self.buffers[*trace]);
                            if code.places[*x] != Place::Buffer(*trace) {
                                traced[..n].copy_from_slice(self.read(shared, *x));
                            }
                            let mut bytes = std::mem::take(&mut self.masks[mask.0]);
                            let other = other.map(|o| self.read(shared, o));
                            let quantizer = quantizer.zip(site.map(|s| keep[s.0]));
                            pass::forward(*act, quantizer, &mut traced[..n], other, &mut bytes, &mut out[..n]);
                            (self.buffers[*trace], self.masks[mask.0]) = (traced, bytes);
                        }
                    }
                    if let (Some(tap), Some(site)) = (&mut tap, site) {
                        tap(*site, &out[..n])?;
                    }
                    self.buffers[at] = out;
                }
                Kernel::Direct { direct, step, .. } => {
                    let Step::Node { operands, results, .. } = &code.program.steps[*step] else { continue };
                    let Some(Some(y)) = results.first() else { continue };
                    let (at, mut out) = self.take(code, *y)?;
                    let n = code.layouts[*y].numel() * self.samples;
                    let x: Vec<&[f32]> = operands.iter().flatten().map(|&s| self.read(shared, s)).collect();
                    direct.forward(&x, &mut out[..n]);
                    self.buffers[at] = out;
                    if learn.is_some() && direct.makes_nan() {
                        self.clean(code, *y);
                    }
                }
                Kernel::Node { step, flat } => self.node(shared, *step, *flat, learn.is_some())?,
            }
        }
        Ok(())
    }

    fn node(&mut self, shared: &Shared, step: usize, flat: bool, learn: bool) -> Result<()> {
        let code = shared.code;
        let Step::Node { op, operands, results, place } = &code.program.steps[step] else { return Ok(()) };
        let rounds = if flat { 1 } else { self.samples };
        let mut spare = std::mem::take(&mut self.spare);
        for sample in 0..rounds {
            let gathered = self.gather(shared, operands, sample, flat, &mut spare);
            let arrays = ops::forward::<f32>(op, &gathered.views(), results.len()).map_err(|e| e.at(place))?;
            gathered.give(&mut spare);
            for (slot, array) in results.iter().zip(pass::numbers(learn, arrays)) {
                let Some(slot) = *slot else { continue };
                let Place::Buffer(b) = code.places[slot] else { continue };
                if flat {
                    self.buffers[b][..array.data.len()].copy_from_slice(&array.data);
                } else {
                    self.fill(code, slot, sample, |range, out| out.copy_from_slice(&array.data[range]));
                }
                keep(array.data, &mut spare);
            }
        }
        self.spare = spare;
        Ok(())
    }

    /// Operands of a node for one sample, or for the whole group as one vector when `flat`.
    fn gather<'a>(
        &self,
        shared: &Shared<'a>,
        slots: &[Option<usize>],
        sample: usize,
        flat: bool,
        spare: &mut Vec<Vec<f32>>,
    ) -> Gathered<'a> {
        let code = shared.code;
        let mut room = || {
            let mut room = spare.pop().unwrap_or_default();
            room.clear();
            room
        };
        let mut one = |slot: &Option<usize>| {
            let slot = (*slot)?;
            let description = &code.program.slots[slot];
            Some(match code.places[slot] {
                Place::Constant => Operand::Shared(description, description.constant.as_deref().unwrap_or_default()),
                Place::Weight(i) => Operand::Shared(description, shared.weights[i]),
                Place::Buffer(_) if flat => {
                    let mut data = room();
                    data.extend_from_slice(self.read(shared, slot));
                    Operand::Own(description.dtype, vec![data.len()], data)
                }
                Place::Buffer(_) => {
                    let mut data = room();
                    data.reserve_exact(code.layouts[slot].numel());
                    self.append(shared, slot, sample, &mut data);
                    Operand::Own(description.dtype, description.shape.clone(), data)
                }
            })
        };
        Gathered(slots.iter().map(&mut one).collect())
    }

    /// Adds `values` to the gradient of a slot, or begins it with them.
    fn contribute(&mut self, code: &Code, slot: usize, values: &[f32]) {
        let Some(b) = code.gradients[slot] else { return };
        let to = &mut self.buffers[b][..values.len()];
        if std::mem::replace(&mut self.written[slot], true) {
            to.iter_mut().zip(values).for_each(|(t, &v)| *t += v);
        } else {
            to.copy_from_slice(values);
        }
    }

    /// Puts the gradient of an output where `values` are its values, by `f` on each channel of each sample.
    pub fn upstream(
        &mut self,
        shared: &Shared,
        slot: usize,
        mut f: impl FnMut(usize, std::ops::Range<usize>, &mut [f32]),
    ) {
        let code = shared.code;
        // An output that no sample changes has nothing to learn.
        if !matches!(code.places[slot], Place::Buffer(_)) {
            return;
        }
        let layout = code.layouts[slot];
        let rows = layout.channels * self.samples;
        let fresh = |b: &usize| !self.written[slot] && code.places[slot] != Place::Buffer(*b);
        let first = code.gradients[slot].filter(fresh);
        let mut values = first.map_or_else(Vec::new, |b| std::mem::take(&mut self.buffers[b]));
        let own = self.read(shared, slot);
        let n = own.len();
        values.resize(values.len().max(n), 0.0);
        values[..n].copy_from_slice(own);
        for row in 0..rows {
            let (c, sample) = (row / self.samples, row % self.samples);
            let range = c * layout.inner..(c + 1) * layout.inner;
            f(sample, range, &mut values[row * layout.inner..(row + 1) * layout.inner]);
        }
        match first {
            Some(b) => (self.buffers[b], self.written[slot]) = (values, true),
            None => self.contribute(code, slot, &values[..n]),
        }
    }

    /// Runs all kernels backwards from the gradients of the outputs.
    pub fn backward(&mut self, shared: &Shared, sums: &mut Sums) -> Result<()> {
        let code = shared.code;
        for kernel in code.kernels.iter().rev() {
            match kernel {
                Kernel::Conv { .. } | Kernel::Depthwise { .. } => self.convolve_back(shared, kernel, sums),
                Kernel::Dense { rows, k, n, transposed, x, w, bias, y } => {
                    let Some(mut taken) = self.take_gradients(code, *x, *y) else { continue };
                    let (xs, ws) = (self.read_learned(shared, *x, *w), self.read(shared, *w));
                    let (dys, dx) = taken.parts();
                    sums.add_bias(code, *bias, dys, true);
                    let wanted = Wanted { w: sums.weight(code, *w), x: dx };
                    dense_backward([rows * self.samples, *k, *n], *transposed, xs, ws, dys, wanted);
                    self.put_back(taken);
                }
                Kernel::Pass { site, x, other, y, trace, mask, .. } => {
                    let Some(up) = code.gradients[*y].filter(|_| self.written[*y]) else { continue };
                    let n = code.layouts[*y].numel() * self.samples;
                    let mut dy = std::mem::take(&mut self.buffers[up]);
                    if let (Some(watch), Some(site)) = (&mut sums.watch, site) {
                        watch(*site, &dy[..n]);
                    }
                    let on = site.filter(|s| shared.sites[s.0].is_some());
                    let sum = pass::backward(&mut dy[..n], &self.buffers[*trace], &self.masks[mask.0], on.is_some());
                    if let Some(s) = on {
                        sums.scales[s.0] += sum;
                    }
                    if let Some(o) = other {
                        self.contribute(code, *o, &dy[..n]);
                    }
                    if code.gradients[*x] == Some(up) {
                        self.written[*x] = true;
                    } else {
                        self.contribute(code, *x, &dy[..n]);
                    }
                    self.buffers[up] = dy;
                }
                Kernel::Direct { direct, step, .. } => self.direct_backward(shared, direct, *step, sums),
                Kernel::Node { step, flat } => self.node_backward(shared, *step, *flat, sums)?,
            }
        }
        Ok(())
    }

    fn direct_backward(&mut self, shared: &Shared, direct: &Direct, step: usize, sums: &mut Sums) {
        let code = shared.code;
        let Step::Node { operands, results, .. } = &code.program.steps[step] else { return };
        let Some(Some(y)) = results.first() else { return };
        let Some(up) = code.gradients[*y].filter(|_| self.written[*y]) else { return };
        let dy = std::mem::take(&mut self.buffers[up]);
        let dys = &dy[..code.layouts[*y].numel() * self.samples];
        for (i, &slot) in operands.iter().flatten().enumerate() {
            let gradient = match code.places[slot] {
                Place::Constant => None,
                _ => code.program.slots[slot].learned.then_some(slot),
            };
            let Some(slot) = gradient else { continue };
            let n = self.read(shared, slot).len();
            // The first contribution is written where it belongs, others beside it.
            let own = code.gradients[slot].filter(|_| !self.written[slot]);
            let mut dx = std::mem::take(own.map_or(&mut self.scratch, |b| &mut self.buffers[b]));
            dx.resize(dx.len().max(n), 0.0);
            let x: Vec<&[f32]> = operands.iter().flatten().map(|&s| self.read(shared, s)).collect();
            direct.backward(i, &x, self.read(shared, *y), dys, &mut dx[..n]);
            match (code.places[slot], own) {
                (_, Some(b)) => (self.buffers[b], self.written[slot]) = (dx, true),
                (Place::Weight(w), None) => {
                    sums.weights[w].iter_mut().zip(&dx).for_each(|(s, g)| *s += g);
                    self.scratch = dx;
                }
                (_, None) => {
                    self.contribute(code, slot, &dx[..n]);
                    self.scratch = dx;
                }
            }
        }
        self.buffers[up] = dy;
    }

    fn node_backward(&mut self, shared: &Shared, step: usize, flat: bool, sums: &mut Sums) -> Result<()> {
        let code = shared.code;
        let Step::Node { op, operands, results, place } = &code.program.steps[step] else { return Ok(()) };
        let slots = &code.program.slots;
        let wanted: Vec<bool> = operands.iter().map(|s| s.is_some_and(|s| slots[s].learned)).collect();
        let arrived = |s: &Option<usize>| s.is_some_and(|s| code.gradients[s].is_some() && self.written[s]);
        if !wanted.contains(&true) || !results.iter().any(arrived) {
            return Ok(());
        }
        let read = ops::reads_results(op);
        if read && results.iter().any(Option::is_none) {
            return Err(Error::unsupported("omitted results have no gradient").at(place));
        }
        let rounds = if flat { 1 } else { self.samples };
        let mut found: Vec<Option<Vec<f32>>> = vec![None; operands.len()];
        for sample in 0..rounds {
            let inputs = self.gather(shared, operands, sample, flat, &mut Vec::new());
            let outputs = self.gather(shared, if read { results } else { &[] }, sample, flat, &mut Vec::new());
            let output_views: Vec<_> = outputs.views().into_iter().flatten().collect();
            let up: Vec<Option<Vec<f32>>> = results.iter().map(|s| self.gradient_of(code, *s, sample, flat)).collect();
            let up: Vec<Option<&[f32]>> = up.iter().map(Option::as_deref).collect();
            let down = ops::backward(op, &inputs.views(), &output_views, &up, &wanted).map_err(|e| e.at(place))?;
            for ((slot, gradient), found) in operands.iter().zip(down).zip(&mut found) {
                let (Some(slot), Some(gradient)) = (*slot, gradient) else { continue };
                match code.places[slot] {
                    Place::Weight(i) => {
                        sums.weights[i].iter_mut().zip(gradient).for_each(|(s, g)| *s += g);
                    }
                    Place::Constant => {}
                    Place::Buffer(_) if flat => *found = Some(gradient),
                    Place::Buffer(_) => {
                        let layout = code.layouts[slot];
                        let all = found.get_or_insert_with(|| vec![0.0; layout.numel() * self.samples]);
                        for c in 0..layout.channels {
                            all[(c * self.samples + sample) * layout.inner..][..layout.inner]
                                .copy_from_slice(&gradient[c * layout.inner..(c + 1) * layout.inner]);
                        }
                    }
                }
            }
        }
        for (slot, found) in operands.iter().zip(found) {
            if let (Some(slot), Some(found)) = (*slot, found)
                && slots[slot].learned
            {
                self.contribute(code, slot, &found);
            }
        }
        Ok(())
    }

    fn gradient_of(&self, code: &Code, slot: Option<usize>, sample: usize, flat: bool) -> Option<Vec<f32>> {
        let slot = slot.filter(|&s| self.written[s])?;
        let data = &self.buffers[code.gradients[slot]?];
        let layout = code.layouts[slot];
        if flat {
            return Some(data[..layout.numel() * self.samples].to_vec());
        }
        let mut out = Vec::with_capacity(layout.numel());
        for c in 0..layout.channels {
            out.extend_from_slice(&data[(c * self.samples + sample) * layout.inner..][..layout.inner]);
        }
        Some(out)
    }

    /// Makes room in `mask` for a sample drawn by `draw`, in the group's layout.
    pub fn draw(
        &mut self,
        code: &Code,
        mask: MaskIndex,
        slot: usize,
        sample: usize,
        draw: impl FnOnce(&mut [u8]) -> Keep,
    ) -> Keep {
        let layout = code.layouts[slot];
        let bytes = &mut self.masks[mask.0];
        if self.samples == 1 {
            return draw(&mut bytes[..layout.numel()]);
        }
        let mut own = vec![0; layout.numel()];
        let keep = draw(&mut own);
        if keep == Keep::Masked {
            for c in 0..layout.channels {
                bytes[(c * self.samples + sample) * layout.inner..][..layout.inner]
                    .copy_from_slice(&own[c * layout.inner..(c + 1) * layout.inner]);
            }
        }
        keep
    }
}

fn weight_view(k: usize, n: usize, transposed: bool) -> View {
    if transposed { View::rows(0, n, k, k).t() } else { View::rows(0, k, n, n) }
}

fn dense_backward([rows, k, n]: [usize; 3], transposed: bool, x: &[f32], w: &[f32], dy: &[f32], wanted: Wanted) {
    let (xv, up) = (View::rows(0, rows, k, k), (dy, View::rows(0, rows, n, n)));
    if let Some(dw) = wanted.w {
        if transposed {
            product((dw, View::rows(0, n, k, k)), true, (dy, up.1.t()), (x, xv));
        } else {
            product((dw, View::rows(0, k, n, n)), true, (x, xv.t()), up);
        }
    }
    if let Some((dx, add)) = wanted.x {
        product((dx, xv), add, up, (w, weight_view(k, n, transposed).t()));
    }
}

enum Operand<'a> {
    Shared(&'a crate::engine::program::Slot, &'a [f32]),
    Own(crate::tensor::DType, Vec<usize>, Vec<f32>),
}

struct Gathered<'a>(Vec<Option<Operand<'a>>>);

/// Pieces of memory that are kept for another operator at most.
const SPARE: usize = 4;

/// Keeps `data` for another operator.
fn keep(data: Vec<f32>, spare: &mut Vec<Vec<f32>>) {
    if spare.len() < SPARE {
        spare.push(data);
    }
}

impl Gathered<'_> {
    /// Gives back the memory of the operands.
    fn give(self, spare: &mut Vec<Vec<f32>>) {
        for operand in self.0.into_iter().flatten() {
            if let Operand::Own(_, _, data) = operand {
                keep(data, spare);
            }
        }
    }

    fn views(&self) -> Vec<Option<ops::View<'_, f32>>> {
        (self.0.iter())
            .map(|o| {
                o.as_ref().map(|o| match o {
                    Operand::Shared(slot, data) => ops::View { dtype: slot.dtype, shape: &slot.shape, data },
                    Operand::Own(dtype, shape, data) => ops::View { dtype: *dtype, shape, data },
                })
            })
            .collect()
    }
}
