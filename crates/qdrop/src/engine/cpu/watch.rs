//! The values at the sites of a program, seen where they arise.

use super::run::Shared;
use super::{CpuInference, check};
use crate::engine::device::{See, Values};
use crate::engine::program::ProgramSite;
use crate::error::{Error, Result};
use crate::tensor::Rows;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Shows `see` what every site of the program holds for `inputs` (per input of the program) when nothing is quantized.
/// Groups of samples run in parallel, but of one site they are shown one after the other in order, so that what
/// becomes of them does not depend on the number of threads.
pub(super) fn watch(ready: &CpuInference, inputs: &[Rows], see: See) -> Result<()> {
    let n = inputs.first().map_or(0, Rows::len);
    check(&ready.code, inputs, n)?;
    let program = &ready.code.program;
    let off = vec![None; program.sites.len()];
    let shared = Shared { code: &ready.code, weights: &[], tiled: &[], sites: &off };
    let turns = Turns::new(program.sites.len());
    let group = |number: usize| {
        let first = number * ready.code.group;
        let samples = (n - first).min(ready.code.group);
        let mut frame = ready.frames.take(&ready.code, false);
        frame.feed(&ready.code, inputs, first, samples)?;
        let mut tap = |site: ProgramSite, all: &[f32]| {
            turns.wait(site, number)?;
            see(site, first, Values::new(all, samples, ready.code.layouts[program.sites[site.0]].channels))?;
            turns.pass(site);
            Ok(())
        };
        frame.forward(&shared, None, Some(&mut tap))?;
        ready.frames.give(frame);
        Ok(())
    };
    let (groups, next) = (n.div_ceil(ready.code.group), AtomicUsize::new(0));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    // Groups begin in order, so that the one that others wait for is always at work.
    let work = |_: rayon::BroadcastContext| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= groups || turns.failed.load(Ordering::Relaxed) {
                return;
            }
            let unless_done = Failing(&turns);
            match group(number) {
                Ok(()) => std::mem::forget(unless_done),
                Err(error) => {
                    // What waits in vain for a group that failed fails after it.
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    };
    ready.threads.run(|| rayon::broadcast(work));
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Lets groups pass each site in order.
struct Turns {
    /// Per site: the group whose turn it is.
    next: Vec<(Mutex<usize>, Condvar)>,
    failed: AtomicBool,
}

impl Turns {
    fn new(sites: usize) -> Self {
        Turns { next: (0..sites).map(|_| Default::default()).collect(), failed: AtomicBool::new(false) }
    }

    /// Waits for the turn of `group` at `site`; an error when a group failed.
    fn wait(&self, site: ProgramSite, group: usize) -> Result<()> {
        let (next, changed) = &self.next[site.0];
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        while *next != group {
            if self.failed.load(Ordering::Relaxed) {
                return Err(Error::internal("another group of samples failed"));
            }
            next = changed.wait(next).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn pass(&self, site: ProgramSite) {
        let (next, changed) = &self.next[site.0];
        *next.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        changed.notify_all();
    }
}

/// Tells all that wait that a group failed, also when it panics.
struct Failing<'a>(&'a Turns);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Relaxed);
        for (next, changed) in &self.0.next {
            // Who has looked and not yet begun to wait holds the lock.
            drop(next.lock().unwrap_or_else(PoisonError::into_inner));
            changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::Inference;
    use crate::engine::facts;
    use crate::engine::program::{Region, compile};
    use crate::graph::testing::{Builder, window};
    use crate::graph::{Op, Unary};
    use crate::tensor::RowStore;

    /// A convolution and a rectifier, with sites on the images and on the result.
    fn ready() -> CpuInference {
        let mut b = Builder::new();
        let x = b.images(2, 5);
        let w = b.constant("w", &[3, 2, 3, 3]);
        let y = b.node(Op::Conv { window: window(vec![1; 4]), group: 1 }, &[x, w]);
        let y = b.node(Op::Unary(Unary::Relu), &[y]);
        let facts = facts::infer(&b.graph, &[vec![1, 2, 5, 5]]).unwrap();
        let (nodes, sites) = (b.graph.node_ids().collect(), vec![(x, None), (y, None)]);
        let region = Region { nodes, inputs: vec![x], outputs: vec![y], sites, ..Region::default() };
        CpuInference::new(&compile(&b.graph, &facts, &region).unwrap()).unwrap()
    }

    fn images() -> Rows {
        Rows::new(100, (0..5000).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect())
    }

    #[test]
    fn sites_are_shown_in_order_whatever_the_threads() {
        let (ready, images) = (ready(), images());
        let outputs = ready.run(&[], &[None, None], std::slice::from_ref(&images), &RowStore::memory()).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let seen = Mutex::new([Vec::new(), Vec::new()]);
            let see = |site: ProgramSite, first: usize, values: Values| {
                for i in 0..values.samples() {
                    let mut row = Vec::new();
                    values.sample(i, &mut row);
                    let most = row.iter().copied().fold(f32::MIN, f32::max);
                    assert!(values.all().contains(&most) && values.holder(f32::NAN).is_none());
                    seen.lock().unwrap()[site.0].push((first + i, row));
                }
                Ok(())
            };
            pool.install(|| ready.watch(std::slice::from_ref(&images), &see)).unwrap();
            for (rows, want) in seen.into_inner().unwrap().iter().zip([&images, &outputs[0]]) {
                assert_eq!(rows.len(), 100);
                for (i, (sample, row)) in rows.iter().enumerate() {
                    assert_eq!((*sample, row.as_slice()), (i, &*want.row(i).unwrap()), "{threads} threads");
                }
            }
        }
    }

    #[test]
    fn an_error_ends_all_groups() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let see = |site: ProgramSite, first: usize, _: Values| match (site, first) {
            (ProgramSite(1), 32..) => Err(Error::data("enough")),
            _ => Ok(()),
        };
        let error = pool.install(|| ready().watch(&[images()], &see)).unwrap_err();
        assert_eq!(error.message(), "enough");
    }
}
