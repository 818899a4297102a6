//! RNN, GRU and LSTM: x [T, B, I] (or [B, T, I]), weights [D, G·H, I] and [D, G·H, H], biases [D, 2·G·H], states
//! [D, B, H] (or [B, D, H]), peepholes [D, 3·H], for T steps, D directions, G gates and H elements of the state.
//!
//! Gradients reach x and the first state and memory; weights and biases are constants in every network.

use super::call::{Back, Call, Operands, Shaped};
use super::{Real, unary};
use crate::error::{Error, Result};
use crate::graph::{Activation, Cell, Op, Recurrent};

/// Operands.
const BIASES: usize = 3;
const LENGTHS: usize = 4;
const STATE: usize = 5;
const MEMORY: usize = 6;
const PEEPHOLES: usize = 7;

fn settings(op: &Op) -> Result<&Recurrent> {
    match op {
        Op::Recurrent(r) => Ok(r),
        _ => Err(Error::internal(format!("{} is not recurrent", op.kind()))),
    }
}

/// The sizes of a call.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    /// Rows of the weights: gates times hidden.
    rows: usize,
    directions: usize,
    batch_first: bool,
}

impl Sizes {
    fn new(r: &Recurrent, x: &Operands) -> Result<Self> {
        let shape = x.need(0)?.shape;
        let recurrent = x.need(2)?.shape;
        let (&[first, second, input], &[_, _, hidden]) = (shape, recurrent) else {
            return Err(Error::model(format!("expected three axes, got shapes {shape:?} and {recurrent:?}")));
        };
        if r.hidden != 0 && usize::try_from(r.hidden) != Ok(hidden) {
            return Err(Error::model(format!("hidden_size is {}, the weights have {hidden}", r.hidden)));
        }
        let (steps, batch) = if r.batch_first { (second, first) } else { (first, second) };
        let directions = r.direction.reversed().len();
        let (gates, functions) = (r.cell.gates(), r.cell.functions().len());
        if r.activations.len() != functions * directions {
            let (wanted, found) = (functions * directions, r.activations.len());
            return Err(Error::model(format!("expected {wanted} activation functions, got {found}")));
        }
        // The longest axis: biases of both products of four gates.
        if hidden.checked_mul(8).is_none() {
            return Err(Error::model(format!("a state of {hidden} elements is too large")));
        }
        let rows = hidden * gates;
        let s = Sizes { steps, batch, input, hidden, rows, directions, batch_first: r.batch_first };
        x.expect_shape(1, &[directions, rows, input])?;
        x.expect_shape(2, &[directions, rows, hidden])?;
        x.expect_shape(BIASES, &[directions, 2 * rows])?;
        x.expect_shape(LENGTHS, &[batch])?;
        x.expect_shape(STATE, &s.state())?;
        x.expect_shape(MEMORY, &s.state())?;
        x.expect_shape(PEEPHOLES, &[directions, 3 * hidden])?;
        Ok(s)
    }

    /// Shape of a state.
    fn state(&self) -> Vec<usize> {
        match self.batch_first {
            true => vec![self.batch, self.directions, self.hidden],
            false => vec![self.directions, self.batch, self.hidden],
        }
    }

    /// Shape of all states.
    fn states(&self) -> Vec<usize> {
        match self.batch_first {
            true => vec![self.batch, self.steps, self.directions, self.hidden],
            false => vec![self.steps, self.directions, self.batch, self.hidden],
        }
    }

    /// Offset of a step in x.
    fn x(&self, step: usize, batch: usize) -> usize {
        self.input * if self.batch_first { batch * self.steps + step } else { step * self.batch + batch }
    }

    /// Offset of a step among all states.
    fn y(&self, step: usize, direction: usize, batch: usize) -> usize {
        let at = match self.batch_first {
            true => (batch * self.steps + step) * self.directions + direction,
            false => (step * self.directions + direction) * self.batch + batch,
        };
        at * self.hidden
    }

    /// Offset of a state.
    fn at(&self, direction: usize, batch: usize) -> usize {
        self.hidden
            * match self.batch_first {
                true => batch * self.directions + direction,
                false => direction * self.batch + batch,
            }
    }
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let r = settings(op)?;
    let s = Sizes::new(r, x)?;
    x.same_dtype([0, 1, 2, BIASES, STATE, MEMORY, PEEPHOLES])?;
    let dtype = x.need(0)?.dtype;
    let mut out = vec![(dtype, s.states()), (dtype, s.state())];
    if matches!(r.cell, Cell::Lstm { .. }) {
        out.push((dtype, s.state()));
    }
    Ok(out)
}

/// An activation function at x.
fn value<R: Real>(f: Activation, x: R) -> R {
    let c = |v: f32| R::of(f64::from(v));
    match f {
        Activation::Unary(u) => unary::value(u, x),
        Activation::Affine { alpha, beta } => c(alpha) * x + c(beta),
        Activation::ScaledTanh { alpha, beta } => c(alpha) * (c(beta) * x).tanh(),
    }
}

/// Its derivative at x.
fn slope<R: Real>(f: Activation, x: R) -> R {
    let c = |v: f32| R::of(f64::from(v));
    match f {
        Activation::Unary(u) => unary::slope(u, x, unary::value(u, x)),
        Activation::Affine { alpha, .. } => c(alpha),
        Activation::ScaledTanh { alpha, beta } => {
            let y = (c(beta) * x).tanh();
            c(alpha) * c(beta) * (R::one() - y * y)
        }
    }
}

/// One direction of an operator.
struct Way<'a, R> {
    cell: Cell,
    functions: &'a [Activation],
    clip: Option<R>,
    hidden: usize,
    /// Weights for x, [I, G·H].
    w: Vec<R>,
    /// Weights for the state, [H, G·H].
    r: Vec<R>,
    /// What is added to the product with x.
    bias: Vec<R>,
    /// Biases of the product with the state for the gate h of a GRU that is linear before the reset.
    reset_bias: Vec<R>,
    /// Of gates i, o and f; empty without any.
    peepholes: &'a [R],
}

/// What one step leaves for the way back.
#[derive(Clone, Default)]
struct Trace<R> {
    /// What the activation functions of the gates see, before clipping.
    pre: Vec<R>,
    /// State and memory before the step.
    h: Vec<R>,
    c: Vec<R>,
    /// Memory after it; of a GRU the product with the state for the gate h.
    next: Vec<R>,
}

/// A matrix [n, m] as [m, n].
fn transposed<R: Real>(a: &[R], m: usize) -> Vec<R> {
    let n = a.len() / m.max(1);
    (0..a.len()).map(|i| a[i % n * m + i / n]).collect()
}

/// Adds the product of a vector and the columns from `first` on of a matrix with `width` columns to y.
fn add_product<R: Real>(x: &[R], a: &[R], width: usize, first: usize, y: &mut [R]) {
    for (&x, row) in x.iter().zip(a.chunks_exact(width.max(1))) {
        let row = &row[first..first + y.len()];
        y.iter_mut().zip(row).for_each(|(y, &a)| *y += x * a);
    }
}

/// Adds the product of the same columns and a vector g to x.
fn add_transposed<R: Real>(g: &[R], a: &[R], width: usize, first: usize, x: &mut [R]) {
    for (x, row) in x.iter_mut().zip(a.chunks_exact(width.max(1))) {
        let row = &row[first..first + g.len()];
        *x += g.iter().zip(row).fold(R::zero(), |sum, (&g, &a)| sum + g * a);
    }
}

impl<'a, R: Real> Way<'a, R> {
    fn new(r: &'a Recurrent, s: &Sizes, call: &Call<'a, R>, direction: usize) -> Result<Self> {
        let part = |data: &'a [R]| {
            let len = data.len() / s.directions;
            &data[direction * len..(direction + 1) * len]
        };
        let mut bias = vec![R::zero(); s.rows];
        let mut reset_bias = vec![R::zero(); s.hidden];
        if let Some(both) = call.opt(BIASES) {
            let (x, state) = part(both.data).split_at(s.rows);
            bias = x.to_vec();
            let late = matches!(r.cell, Cell::Gru { linear_before_reset: true });
            let own = if late { 2 * s.hidden } else { s.rows };
            bias[..own].iter_mut().zip(state).for_each(|(b, &v)| *b += v);
            if late {
                reset_bias = state[own..].to_vec();
            }
        }
        let functions = r.cell.functions().len();
        Ok(Way {
            cell: r.cell,
            functions: &r.activations[direction * functions..(direction + 1) * functions],
            clip: r.clip.filter(|&c| c > 0.0).map(|c| R::of(f64::from(c))),
            hidden: s.hidden,
            w: transposed(part(call.x(1)?.data), s.input),
            r: transposed(part(call.x(2)?.data), s.hidden),
            bias,
            reset_bias,
            peepholes: call.opt(PEEPHOLES).map_or(&[], |p| part(p.data)),
        })
    }

    fn peephole(&self, gate: usize, i: usize) -> R {
        self.peepholes.get(gate * self.hidden + i).copied().unwrap_or(R::zero())
    }

    /// Activation function k at v.
    fn f(&self, k: usize, v: R) -> R {
        let clipped = self.clip.map_or(v, |c| unary::max(-c, unary::min(c, v)));
        value(self.functions[k], clipped)
    }

    /// Its derivative.
    fn df(&self, k: usize, v: R) -> R {
        match self.clip {
            Some(c) if v.abs() > c => R::zero(),
            _ => slope(self.functions[k], v),
        }
    }

    /// Gates i, f and c of an LSTM.
    fn gates(&self, pre: &[R], i: usize) -> [R; 3] {
        let n = self.hidden;
        let input = self.f(0, pre[i]);
        let forget = match self.cell {
            Cell::Lstm { input_forget: true } => R::one() - input,
            _ => self.f(0, pre[2 * n + i]),
        };
        [input, forget, self.f(1, pre[3 * n + i])]
    }

    /// Takes one step: state and memory are replaced.
    fn step(&self, x: &[R], h: &mut [R], c: &mut [R]) -> Trace<R> {
        let (n, width) = (self.hidden, self.bias.len());
        let mut pre = self.bias.clone();
        add_product(x, &self.w, width, 0, &mut pre);
        let mut trace = Trace { pre, h: h.to_vec(), c: c.to_vec(), next: Vec::new() };
        let pre = &mut trace.pre;
        match self.cell {
            Cell::Rnn => {
                add_product(&trace.h, &self.r, width, 0, pre);
                h.iter_mut().zip(pre).for_each(|(h, &mut v)| *h = self.f(0, v));
            }
            Cell::Gru { linear_before_reset } => {
                add_product(&trace.h, &self.r, width, 0, &mut pre[..2 * n]);
                let reset = |pre: &[R], i: usize| self.f(0, pre[n + i]);
                let mut product = self.reset_bias.clone();
                if linear_before_reset {
                    add_product(&trace.h, &self.r, width, 2 * n, &mut product);
                    for i in 0..n {
                        let r = reset(pre, i);
                        pre[2 * n + i] += r * product[i];
                    }
                } else {
                    let kept: Vec<R> = (0..n).map(|i| reset(pre, i) * trace.h[i]).collect();
                    add_product(&kept, &self.r, width, 2 * n, &mut pre[2 * n..]);
                }
                for i in 0..n {
                    let z = self.f(0, pre[i]);
                    h[i] = (R::one() - z) * self.f(1, pre[2 * n + i]) + z * trace.h[i];
                }
                trace.next = product;
            }
            Cell::Lstm { .. } => {
                add_product(&trace.h, &self.r, width, 0, pre);
                for i in 0..n {
                    let before = c[i];
                    pre[i] += self.peephole(0, i) * before;
                    pre[2 * n + i] += self.peephole(2, i) * before;
                    let [input, forget, new] = self.gates(pre, i);
                    c[i] = forget * before + input * new;
                    pre[n + i] += self.peephole(1, i) * c[i];
                    h[i] = self.f(0, pre[n + i]) * value(self.functions[2], c[i]);
                }
                trace.next = c.to_vec();
            }
        }
        trace
    }

    /// The way back through one step: `dh` and `dc` are gradients of state and memory after it and become those before
    /// it; `dx` is added to.
    fn back(&self, t: &Trace<R>, dx: &mut [R], dh: &mut [R], dc: &mut [R]) {
        let (n, width, one) = (self.hidden, self.bias.len(), R::one());
        let pre = &t.pre;
        let mut d = vec![R::zero(); width];
        let mut before = vec![R::zero(); n];
        match self.cell {
            Cell::Rnn => {
                (0..n).for_each(|i| d[i] = dh[i] * self.df(0, pre[i]));
                add_transposed(&d, &self.r, width, 0, &mut before);
            }
            Cell::Gru { linear_before_reset } => {
                for i in 0..n {
                    let (z, new) = (self.f(0, pre[i]), self.f(1, pre[2 * n + i]));
                    d[i] = dh[i] * (t.h[i] - new) * self.df(0, pre[i]);
                    d[2 * n + i] = dh[i] * (one - z) * self.df(1, pre[2 * n + i]);
                    before[i] = dh[i] * z;
                }
                if linear_before_reset {
                    let mut product = vec![R::zero(); n];
                    for i in 0..n {
                        product[i] = d[2 * n + i] * self.f(0, pre[n + i]);
                        d[n + i] = d[2 * n + i] * t.next[i] * self.df(0, pre[n + i]);
                    }
                    add_transposed(&product, &self.r, width, 2 * n, &mut before);
                } else {
                    let mut kept = vec![R::zero(); n];
                    add_transposed(&d[2 * n..], &self.r, width, 2 * n, &mut kept);
                    for i in 0..n {
                        d[n + i] = kept[i] * t.h[i] * self.df(0, pre[n + i]);
                        before[i] += kept[i] * self.f(0, pre[n + i]);
                    }
                }
                add_transposed(&d[..2 * n], &self.r, width, 0, &mut before);
            }
            Cell::Lstm { input_forget } => {
                for i in 0..n {
                    let [input, forget, new] = self.gates(pre, i);
                    let (out, seen) = (self.f(0, pre[n + i]), value(self.functions[2], t.next[i]));
                    d[n + i] = dh[i] * seen * self.df(0, pre[n + i]);
                    let seen_slope = slope(self.functions[2], t.next[i]);
                    let memory = dc[i] + dh[i] * out * seen_slope + d[n + i] * self.peephole(1, i);
                    let (mut to_input, to_forget) = (memory * new, memory * t.c[i]);
                    if input_forget {
                        to_input -= to_forget;
                    } else {
                        d[2 * n + i] = to_forget * self.df(0, pre[2 * n + i]);
                    }
                    d[i] = to_input * self.df(0, pre[i]);
                    d[3 * n + i] = memory * input * self.df(1, pre[3 * n + i]);
                    dc[i] = memory * forget + d[i] * self.peephole(0, i) + d[2 * n + i] * self.peephole(2, i);
                }
                add_transposed(&d, &self.r, width, 0, &mut before);
            }
        }
        add_transposed(&d, &self.w, width, 0, dx);
        dh.copy_from_slice(&before);
    }
}

/// The steps of a sequence in the order of a direction: those behind its length are left out.
fn order<R: Real>(s: &Sizes, call: &Call<R>, batch: usize, reversed: bool) -> Vec<usize> {
    let length = call.opt(LENGTHS).map_or(s.steps, |l| (l.data[batch].f64().max(0.0) as usize).min(s.steps));
    if reversed { (0..length).rev().collect() } else { (0..length).collect() }
}

/// What an operand holds at a state, or zeros.
fn first<R: Real>(s: &Sizes, call: &Call<R>, operand: usize, at: usize) -> Vec<R> {
    call.opt(operand).map_or_else(|| vec![R::zero(); s.hidden], |v| v.data[at..at + s.hidden].to_vec())
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let r = settings(op)?;
    let s = Sizes::new(r, &call.sig)?;
    let x = call.x(0)?.data;
    let mut out: Vec<Vec<R>> = call.out.iter().map(|(_, shape)| vec![R::zero(); shape.iter().product()]).collect();
    for (direction, &reversed) in r.direction.reversed().iter().enumerate() {
        let way = Way::new(r, &s, call, direction)?;
        for batch in 0..s.batch {
            let at = s.at(direction, batch);
            let [mut h, mut c] = [STATE, MEMORY].map(|i| first(&s, call, i, at));
            for step in order(&s, call, batch, reversed) {
                let from = s.x(step, batch);
                way.step(&x[from..from + s.input], &mut h, &mut c);
                let to = s.y(step, direction, batch);
                out[0][to..to + s.hidden].copy_from_slice(&h);
            }
            for (out, last) in out[1..].iter_mut().zip([&h, &c]) {
                out[at..at + s.hidden].copy_from_slice(last);
            }
        }
    }
    Ok(out)
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let r = settings(op)?;
    let call = &back.call;
    let s = Sizes::new(r, &call.sig)?;
    let x = call.x(0)?.data;
    let up = |i: usize| back.gradients.get(i).copied().flatten();
    let mut dx = vec![R::zero(); x.len()];
    let mut states = [STATE, MEMORY].map(|i| vec![R::zero(); call.opt(i).map_or(0, |v| v.data.len())]);
    for (direction, &reversed) in r.direction.reversed().iter().enumerate() {
        let way = Way::new(r, &s, call, direction)?;
        for batch in 0..s.batch {
            let at = s.at(direction, batch);
            let [mut h, mut c] = [STATE, MEMORY].map(|i| first(&s, call, i, at));
            let steps = order(&s, call, batch, reversed);
            let mut traces = Vec::with_capacity(steps.len());
            for &step in &steps {
                let from = s.x(step, batch);
                traces.push(way.step(&x[from..from + s.input], &mut h, &mut c));
            }
            let [mut dh, mut dc] =
                [1, 2].map(|i| up(i).map_or_else(|| vec![R::zero(); s.hidden], |g| g[at..at + s.hidden].to_vec()));
            for (&step, trace) in steps.iter().zip(&traces).rev() {
                if let Some(g) = up(0) {
                    let from = s.y(step, direction, batch);
                    dh.iter_mut().zip(&g[from..from + s.hidden]).for_each(|(d, &g)| *d += g);
                }
                let to = s.x(step, batch);
                way.back(trace, &mut dx[to..to + s.input], &mut dh, &mut dc);
            }
            for (all, own) in states.iter_mut().zip([&dh, &dc]) {
                if let Some(part) = all.get_mut(at..at + s.hidden) {
                    part.copy_from_slice(own);
                }
            }
        }
    }
    let [state, memory] = states;
    for (i, gradient) in [(0, dx), (STATE, state), (MEMORY, memory)] {
        if back.call.opt(i).is_some() {
            back.set(i, gradient);
        }
    }
    Ok(())
}
