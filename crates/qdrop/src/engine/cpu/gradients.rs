//! What the ways back through convolutions and dense layers share.

use super::code::{Code, Place};
use super::math::{sum, vectorized};
use super::run::{Frame, Shared, Sums};

impl Sums<'_> {
    /// Where the gradient of the weight in slot `w` is added to, if it is learned.
    pub fn weight(&mut self, code: &Code, w: usize) -> Option<&mut [f32]> {
        match code.places[w] {
            Place::Weight(i) => Some(self.weights[i].as_mut_slice()),
            _ => None,
        }
    }

    /// Adds the sum of `dy` over everything but the channels, which come first, or last in a `dense` layer, to the gradient
    /// of a learned bias.
    pub fn add_bias(&mut self, code: &Code, bias: Option<usize>, dy: &[f32], dense: bool) {
        if let Some(db) = bias.and_then(|b| self.weight(code, b)) {
            bias_gradient(dy, dense, db);
        }
    }
}

/// Gradients of a product's result and operand, taken out of a frame.
pub(super) struct Taken {
    up: usize,
    dy: Vec<f32>,
    /// Elements of the result's.
    n: usize,
    /// The operand's, if anything needs it: its buffer, and whether it is added to.
    down: Option<(usize, Vec<f32>, bool)>,
    size: usize,
}

impl Taken {
    /// Gradient of the result, and that of the operand with whether it is added to.
    pub fn parts(&mut self) -> (&[f32], Option<(&mut [f32], bool)>) {
        (&self.dy[..self.n], self.down.as_mut().map(|(_, d, add)| (&mut d[..self.size], *add)))
    }
}

impl Frame {
    /// Takes the gradients of `y`, which must have arrived, and of `x`.
    pub fn take_gradients(&mut self, code: &Code, x: usize, y: usize) -> Option<Taken> {
        let up = code.gradients[y].filter(|_| self.written[y])?;
        let dy = std::mem::take(&mut self.buffers[up]);
        let down = code.gradients[x].map(|b| {
            let add = std::mem::replace(&mut self.written[x], true);
            (b, std::mem::take(&mut self.buffers[b]), add)
        });
        let [size, n] = [x, y].map(|slot| code.layouts[slot].numel() * self.samples);
        Some(Taken { up, dy, n, down, size })
    }

    /// Puts back what [`Frame::take_gradients`] took.
    pub fn put_back(&mut self, taken: Taken) {
        if let Some((b, down, _)) = taken.down {
            self.buffers[b] = down;
        }
        self.buffers[taken.up] = taken.dy;
    }

    /// The operand `x` of a product with the weight `w`; empty where the weight is not learned, since x may be gone then.
    pub fn read_learned<'a>(&'a self, shared: &Shared<'a>, x: usize, w: usize) -> &'a [f32] {
        match shared.code.places[w] {
            Place::Weight(_) => self.read(shared, x),
            _ => &[],
        }
    }
}

/// Adds the sum of dy over everything but the channels, which come first, or last in a `dense` layer.
fn bias_gradient(dy: &[f32], dense: bool, db: &mut [f32]) {
    let n = db.len().max(1);
    if dense {
        dy.chunks_exact(n).for_each(|row| db.iter_mut().zip(row).for_each(|(g, &v)| *g += v));
    } else {
        let channels = dy.chunks_exact((dy.len() / n).max(1));
        db.iter_mut().zip(channels).for_each(|(g, c)| {
            *g += vectorized(
                #[inline(always)]
                || sum(c, c, |v, _| v),
            ) as f32
        });
    }
}
