//! Buffers for values by the times of their lives.

/// First and last moment at which slots are touched. Moment 0 is the feeding of inputs, t + 1 the forward run of kernel
/// t, count + 1 the loss, 2·count + 1 - t the backward run of kernel t.
pub(super) struct Lives {
    pub value: Vec<Option<(usize, usize)>>,
    pub gradient: Vec<Option<(usize, usize)>>,
}

impl Lives {
    pub fn touch(&mut self, slot: usize, moment: usize) {
        let (birth, death) = self.value[slot].unwrap_or((moment, moment));
        self.value[slot] = Some((birth.min(moment), death.max(moment)));
    }
}

pub(super) enum What {
    Value(usize),
    Gradient(usize),
    Trace(usize),
}

pub(super) struct Request {
    pub birth: usize,
    pub death: usize,
    pub size: usize,
    pub what: What,
}

/// Gives each request the smallest buffer that is free and large enough, else the largest free one, else a new one.
#[derive(Default)]
pub(super) struct Planner {
    pub sizes: Vec<usize>,
    free_from: Vec<usize>,
}

impl Planner {
    pub fn place(&mut self, r: &Request) -> usize {
        let free = (0..self.sizes.len()).filter(|&b| self.free_from[b] <= r.birth);
        let fitting = free.clone().filter(|&b| self.sizes[b] >= r.size).min_by_key(|&b| (self.sizes[b], b));
        let buffer = fitting.or_else(|| free.max_by_key(|&b| (self.sizes[b], b))).unwrap_or_else(|| {
            self.sizes.push(0);
            self.free_from.push(0);
            self.sizes.len() - 1
        });
        self.sizes[buffer] = self.sizes[buffer].max(r.size);
        self.free_from[buffer] = r.death + 1;
        buffer
    }
}
