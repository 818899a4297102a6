//! Buffers for values by the times of their lives.

use crate::engine::lives::Life;

pub(super) enum What {
    Value(usize),
    Gradient(usize),
    Trace(usize),
}

pub(super) struct Request {
    pub life: Life,
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
        let free = (0..self.sizes.len()).filter(|&b| self.free_from[b] <= r.life.0);
        let fitting = free.clone().filter(|&b| self.sizes[b] >= r.size).min_by_key(|&b| (self.sizes[b], b));
        let buffer = fitting.or_else(|| free.max_by_key(|&b| (self.sizes[b], b))).unwrap_or_else(|| {
            self.sizes.push(0);
            self.free_from.push(0);
            self.sizes.len() - 1
        });
        self.sizes[buffer] = self.sizes[buffer].max(r.size);
        self.free_from[buffer] = r.life.1 + 1;
        buffer
    }
}
