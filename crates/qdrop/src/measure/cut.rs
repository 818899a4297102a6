//! Texts measured at about their own lengths instead of the one that they are padded to.

use crate::data::{Remembered, Samples, Subset, forward_labels};
use crate::engine::device::Device;
use crate::error::{Kind, Result};
use crate::graph::{Dim, Graph, ValueId};
use crate::probe::{Answering, Network, shapes, shapes_of};
use crate::report::Sink;
use crate::tensor::{Rows, Tensor};
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// Lengths of samples are multiples of this, so that many have the same and few programs are compiled.
const STEP: usize = 32;
/// How far answers with and without padding may lie apart, as a part of the largest, since their sums differ in order.
const SAME: f32 = 1e-3;

/// Texts of a set without most of their padding, the longest first.
pub(super) struct Cut<'a> {
    samples: Subset<Remembered<'a>>,
    /// Tokens of each.
    lengths: Vec<usize>,
}

impl<'a> Cut<'a> {
    /// The texts in `samples`, cut for `networks` with the inputs of `graphs`. `None` where nothing can be cut: where it is
    /// not known what is padding, a network fixes the length, or the shortest text is not answered as with its padding.
    pub fn new(
        samples: &'a dyn Samples,
        graphs: &[&Graph],
        networks: &[&dyn Answering],
        sink: &dyn Sink,
    ) -> Result<Option<Self>> {
        let Some(tokens) = (0..samples.len()).map(|i| samples.tokens(i)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let whole = shapes_of(samples)?;
        let Some(&[length]) = whole.first().map(Vec::as_slice) else { return Ok(None) };
        if whole.iter().any(|s| *s != [length]) || !graphs.iter().all(|graph| is_open(graph)) {
            return Ok(None);
        }
        let cut = |i: &usize| tokens[*i].max(1).next_multiple_of(STEP).min(length);
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|i| Reverse(cut(i)));
        let lengths: Vec<usize> = order.iter().map(cut).collect();
        let last = order.len() - 1;
        if lengths[last] == length {
            return Ok(None);
        }
        let padded = samples.get(order[last])?;
        let cut = Cut { samples: Subset::new(Remembered::new(samples, [order[last]]), order)?, lengths };
        let short = cut.get(last)?;
        for network in networks {
            let wanted = network.run(std::slice::from_ref(&padded), sink)?;
            match network.run(std::slice::from_ref(&short), sink) {
                Ok(got) if alike(&wanted, &got)? => {}
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                _ => return Ok(None),
            }
        }
        Ok(Some(cut))
    }
}

impl Samples for Cut<'_> {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let length = self.lengths[index];
        let cut = |t: Tensor| Tensor::from_f64(t.dtype(), &[length], &t.to_f64()?[..length]);
        self.samples.get(index)?.into_iter().map(cut).collect()
    }

    forward_labels!(samples);
}

/// Whether the inputs of `graph` may have any size beside the batch.
fn is_open(graph: &Graph) -> bool {
    let open = |(&v, batch): (&ValueId, Option<usize>)| {
        let mut dims = graph.value(v).fact.shape.iter().flatten().enumerate();
        dims.all(|(i, dim)| Some(i) == batch || !matches!(dim, Dim::Known(_)))
    };
    graph.inputs.iter().zip(graph.batch_axes()).all(open)
}

/// Whether a sample is answered by `got` as by `padded`, as far as `got` goes.
fn alike(padded: &[Rows], got: &[Rows]) -> Result<bool> {
    for (padded, got) in padded.iter().zip(got) {
        let (padded, got) = (padded.row(0)?, got.row(0)?);
        let largest = got.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let near = |(x, y): (&f32, &f32)| x == y || (x - y).abs() <= SAME * largest;
        if got.len() > padded.len() || !padded.iter().zip(got.iter()).all(near) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A network that is compiled anew where samples are of other shapes than those before.
pub(super) struct Compiled<'a> {
    graph: &'a Graph,
    wanted: Vec<ValueId>,
    device: &'a dyn Device,
    chunk: RangeInclusive<usize>,
    /// For the shapes of the last samples.
    last: Mutex<Option<(Vec<Vec<usize>>, Network)>>,
}

impl<'a> Compiled<'a> {
    /// Prepares `graph` on `device`, at first for samples of `shapes` (no batch axis), which are the largest; running it
    /// yields the values `wanted`.
    pub fn new(graph: &'a Graph, shapes: &[Vec<usize>], wanted: Vec<ValueId>, device: &'a dyn Device) -> Result<Self> {
        let network = Network::new(graph, shapes, wanted.clone(), device)?;
        let (chunk, last) = (network.chunk(), Mutex::new(Some((shapes.to_vec(), network))));
        Ok(Compiled { graph, wanted, device, chunk, last })
    }
}

impl Answering for Compiled<'_> {
    fn chunk(&self) -> RangeInclusive<usize> {
        self.chunk.clone()
    }

    fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Rows>> {
        let shapes = samples.first().map(|sample| shapes(sample)).unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // The old one goes first, so that there is only one at a time.
        let network = match last.take() {
            Some((known, network)) if known == shapes => network,
            old => {
                drop(old);
                Network::new(self.graph, &shapes, self.wanted.clone(), self.device)?
            }
        };
        let rows = network.run(samples, sink);
        *last = Some((shapes, network));
        rows
    }
}
