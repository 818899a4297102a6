//! When the values and gradients of a fused program are needed, so that a device can plan its memory.

use super::fused::{Fused, Operation};

/// First and last moment at which something is touched. Moment 0 is the feeding of inputs, t + 1 the forward run of
/// operation t, count + 1 the loss, 2·count + 1 - t the backward run of operation t.
pub(super) type Life = (usize, usize);

/// The lives of what a program works on. A slot that all samples share has none.
#[derive(Debug)]
pub(super) struct Lives {
    /// Per slot: its value's.
    pub values: Vec<Option<Life>>,
    /// Per slot: its gradient's.
    pub gradients: Vec<Option<Life>>,
    /// Operation and life of what a pass keeps for its way back, as many elements as its result has, where its operand
    /// x is needed unchanged. Any other pass that has a way back may keep it in the place of x.
    pub traces: Vec<(usize, Life)>,
    /// Slots (x, y) of the passes that may turn the gradient of y into that of x where it lies, in backward order. Such an
    /// x has no life of its own among the gradients.
    pub in_place: Vec<(usize, usize)>,
}

impl Lives {
    /// Of `fused`, for learning or for inference alone.
    pub fn new(fused: &Fused, learn: bool) -> Self {
        let program = fused.program;
        let (slots, count) = (program.slots.len(), fused.operations.len());
        let mut lives =
            Lives { values: vec![None; slots], gradients: vec![None; slots], traces: vec![], in_place: vec![] };
        for (t, operation) in fused.operations.iter().enumerate() {
            let (reads, writes) = fused.touched(operation);
            reads.iter().chain(&writes).for_each(|&s| lives.touch(s, t + 1));
        }
        program.inputs.iter().for_each(|&s| lives.touch(s, 0));
        program.outputs.iter().filter(|&&s| !program.shared(s)).for_each(|&s| lives.touch(s, count + 1));
        if learn {
            lives.keep(fused);
            lives.follow_gradients(fused);
            lives.join_gradients(fused);
        }
        lives
    }

    fn touch(&mut self, slot: usize, moment: usize) {
        let (birth, death) = self.values[slot].unwrap_or((moment, moment));
        self.values[slot] = Some((birth.min(moment), death.max(moment)));
    }

    /// Lets the values live that the backward pass reads.
    fn keep(&mut self, fused: &Fused) {
        let slots = &fused.program.slots;
        let readers = fused.program.readers();
        let mut by_product = vec![false; slots.len()];
        for (t, operation) in fused.operations.iter().enumerate() {
            let back = 2 * fused.operations.len() + 1 - t;
            match operation {
                Operation::Convolution { x, w, y, .. }
                | Operation::Depthwise { x, w, y, .. }
                | Operation::Dense { x, w, y, .. } => {
                    by_product[*y] = true;
                    if slots[*w].learned {
                        self.touch(*x, back);
                    }
                }
                Operation::Pass { x, y, .. } if slots[*y].learned => {
                    // The pass may overwrite x where it alone reads it, and what gives x does not need it again.
                    if readers[*x] == 1 && by_product[*x] {
                        self.touch(*x, back);
                    } else {
                        self.traces.push((t, (t + 1, back)));
                    }
                }
                Operation::Pass { .. } => {}
                Operation::Node { .. } => {
                    let (reads, writes) = fused.touched(operation);
                    if writes.iter().any(|&s| slots[s].learned) {
                        reads.iter().chain(&writes).for_each(|&s| self.touch(s, back));
                    }
                }
            }
        }
    }

    /// A gradient lives from its first contribution to the backward run of what gives the value.
    fn follow_gradients(&mut self, fused: &Fused) {
        let (slots, count) = (&fused.program.slots, fused.operations.len());
        let life = &mut self.gradients;
        for &s in &fused.program.outputs {
            if slots[s].learned {
                life[s] = Some((count + 1, count + 1));
            }
        }
        for (t, operation) in fused.operations.iter().enumerate().rev() {
            let back = 2 * count + 1 - t;
            let (reads, writes) = fused.touched(operation);
            let arrives = writes.iter().any(|&s| life[s].is_some());
            for s in writes {
                if let Some((_, death)) = &mut life[s] {
                    *death = back;
                }
            }
            if !arrives {
                continue;
            }
            for s in reads.into_iter().filter(|&s| slots[s].learned) {
                life[s] = Some((life[s].map_or(back, |(birth, _)| birth), back));
            }
        }
    }

    /// Finds the passes that may work in place on gradients.
    fn join_gradients(&mut self, fused: &Fused) {
        let count = fused.operations.len();
        let mut root: Vec<usize> = (0..fused.program.slots.len()).collect();
        for (t, operation) in fused.operations.iter().enumerate().rev() {
            let Operation::Pass { x, y, .. } = *operation else { continue };
            let (Some((birth, death)), Some(_)) = (self.gradients[x], self.gradients[root[y]]) else { continue };
            if birth != 2 * count + 1 - t {
                continue;
            }
            root[x] = root[y];
            self.gradients[x] = None;
            if let Some((_, end)) = &mut self.gradients[root[y]] {
                *end = death.max(*end);
            }
            self.in_place.push((x, y));
        }
    }
}
