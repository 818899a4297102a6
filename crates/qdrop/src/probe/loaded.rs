//! Samples that are decoded once, for all stages of a run.

use super::run::{self, Cache};
use crate::data::{Samples, forward_labels};
use crate::engine::device::Device;
use crate::error::Result;
use crate::graph::Graph;
use crate::report::{Sink, Stage};
use crate::tensor::{RowStore, Rows, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// A sample set some or all of which were decoded and lie in a store. Of these it yields what the engine computes with:
/// real numbers in single precision, whatever the type. The others are decoded whenever they are asked for.
pub(crate) struct Loaded<'a> {
    samples: &'a dyn Samples,
    /// Where samples lie in the rows.
    places: BTreeMap<usize, usize>,
    /// Shapes of the tensors of a sample.
    shapes: Vec<Vec<usize>>,
    /// One for each tensor of a sample.
    rows: Vec<Rows>,
}

impl<'a> Loaded<'a> {
    /// Decodes those of `samples` with the indices `wanted`, which are put in `store` as they are.
    pub fn new(
        samples: &'a dyn Samples,
        wanted: &BTreeSet<usize>,
        device: &dyn Device,
        store: &RowStore,
        sink: &mut dyn Sink,
    ) -> Result<Self> {
        let indices: Vec<usize> = wanted.iter().copied().collect();
        let (shapes, rows) = run::load_rows(samples, &indices, device, &store.single(), Some(Stage::Load), sink)?;
        let places = indices.into_iter().zip(0..).collect();
        Ok(Loaded { samples, places, shapes, rows })
    }

    /// Forgets what was decoded, but for the samples with the indices `wanted`, which are copied into `store` as they are.
    pub fn keep_only(&mut self, wanted: &BTreeSet<usize>, store: &RowStore) -> Result<()> {
        let (indices, places): (Vec<usize>, Vec<usize>) =
            self.places.iter().filter(|(index, _)| wanted.contains(index)).unzip();
        let some = |rows: &Rows| -> Result<Rows> {
            let mut writer = store.single().rows(places.len(), rows.width())?;
            places.iter().try_for_each(|&place| writer.push(&rows.row(place)?))?;
            Ok(writer.finish())
        };
        self.rows = self.rows.iter().map(some).collect::<Result<_>>()?;
        self.places = indices.into_iter().zip(0..).collect();
        Ok(())
    }

    /// What was decoded, per input of `graph`, as `store` keeps it: nothing is copied where that changes nothing.
    pub fn inputs(&self, graph: &Graph, store: &RowStore) -> Result<Cache> {
        graph.inputs.iter().zip(&self.rows).map(|(&v, rows)| Ok((v, store.keep(rows)?))).collect()
    }
}

impl Samples for Loaded<'_> {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let Some(&place) = self.places.get(&index) else { return self.samples.get(index) };
        let one = |(shape, rows): (&Vec<usize>, &Rows)| Ok(Tensor::f32(shape, rows.row(place)?.into_owned()));
        self.shapes.iter().zip(&self.rows).map(one).collect()
    }

    forward_labels!(samples);

    fn input_names(&self) -> Option<Vec<String>> {
        self.samples.input_names()
    }

    fn source(&self) -> Option<String> {
        self.samples.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Arrays;
    use crate::data::testing::Counted;
    use crate::engine::device::processors;
    use crate::report::{Event, Silent};
    use crate::tensor::{Data, Precision};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Two tensors a sample, one of them integers.
    fn samples() -> Counted<Arrays> {
        let numbers = (0..50).flat_map(|i| [i as f32 + 0.1, 0.5]).collect();
        let ids = Tensor::new(vec![50, 1], Data::I64((0..50).collect())).unwrap();
        let arrays = vec![("x".into(), Tensor::f32(&[50, 2, 1], numbers)), ("ids".into(), ids)];
        Counted::new(Arrays::new(arrays, None).unwrap())
    }

    #[test]
    fn what_is_wanted_is_decoded_once() {
        let (samples, device) = (samples(), processors(2).unwrap());
        let wanted = (10..50).collect();
        let loaded = Loaded::new(&samples, &wanted, &device, &RowStore::memory(), &mut Silent).unwrap();
        for _ in 0..3 {
            let sample = loaded.get(49).unwrap();
            assert_eq!(sample[0], Tensor::f32(&[2, 1], vec![49.1, 0.5]));
            assert_eq!(sample[1].to_f32().unwrap(), [49.0]);
        }
        assert_eq!((loaded.len(), samples.asked()), (50, 40));
        assert_eq!(loaded.get(3).unwrap()[0].as_f32().unwrap()[0], 3.1);
        assert_eq!(samples.asked(), 41, "what nobody wanted is decoded when it is asked for");
    }

    #[test]
    fn only_another_precision_copies() {
        let (samples, device) = (samples(), processors(1).unwrap());
        let mut graph = Graph::default();
        graph.inputs = ["x", "ids"].map(|n| graph.add_value(n, Default::default())).to_vec();
        let half = RowStore::new(u64::MAX, std::path::Path::new(""), Precision::Half);
        let loaded = Loaded::new(&samples, &(0..50).collect(), &device, &half, &mut Silent).unwrap();
        let first = |inputs: &Cache| inputs[&graph.inputs[0]].row(1).unwrap()[0];
        assert_eq!(first(&loaded.inputs(&graph, &RowStore::memory()).unwrap()), 1.1);
        assert_eq!(first(&loaded.inputs(&graph, &half).unwrap()), half::f16::from_f32(1.1).to_f32());
        assert_eq!(samples.asked(), 50);
    }

    #[test]
    fn a_sink_is_asked_while_samples_are_decoded() {
        /// Stops when it is asked for the third time.
        struct Third(AtomicUsize);
        impl Sink for Third {
            fn event(&mut self, _: &Event) {}
            fn cancelled(&self) -> bool {
                self.0.fetch_add(1, Ordering::Relaxed) >= 2
            }
        }
        let (samples, device) = (samples(), processors(2).unwrap());
        let mut sink = Third(AtomicUsize::new(0));
        let stopped = Loaded::new(&samples, &(0..50).collect(), &device, &RowStore::memory(), &mut sink);
        assert_eq!(stopped.err().map(|e| e.kind()), Some(crate::Kind::Interrupted));
        assert_eq!(samples.asked(), 2);
    }
}
