//! Values inside the float network that are no numbers: those of padding do no harm, unless they reach an output.

use super::calibration::Calibration;
use super::run::{self, Network};
use crate::data::Samples;
use crate::error::{Error, Kind, Result};
use crate::graph::ValueId;
use crate::report::{Event, Sink};
use std::collections::BTreeSet;

/// A value some elements of which are NaN or infinite.
pub(crate) struct Strange<'a> {
    pub value: ValueId,
    /// How many elements.
    pub elements: u64,
    /// In which samples.
    pub samples: &'a BTreeSet<usize>,
}

/// That nothing of what is `strange` in `samples` reaches an output of real numbers; `sink` is told what is left out.
pub(crate) fn check(
    calibration: &Calibration,
    samples: &dyn Samples,
    strange: &[Strange],
    sink: &mut dyn Sink,
) -> Result<()> {
    let indices: BTreeSet<usize> = strange.iter().flat_map(|s| s.samples).copied().collect();
    let name = |v: ValueId| &calibration.graph.value(v).name;
    let (Some(first), Some(&index)) = (strange.iter().min_by_key(|s| s.samples.first()), indices.first()) else {
        return Ok(());
    };
    let outputs = run::ends(calibration.graph, calibration.facts);
    let shapes = run::shapes_of(samples)?;
    let network = Network::new(calibration.graph, &shapes, outputs.clone(), calibration.device)?;
    for some in indices.iter().copied().collect::<Vec<_>>().chunks(network.chunk) {
        let inputs = run::decode(samples, some, calibration.device, sink)?;
        let found = network.run(&inputs, sink)?;
        for (&output, rows) in outputs.iter().zip(&found) {
            for (row, &index) in rows.iter().zip(some) {
                if row?.iter().all(|v| v.is_finite()) {
                    continue;
                }
                let at = strange.iter().find(|s| s.samples.contains(&index)).map_or("?", |s| name(s.value));
                let message = format!(
                    "output `{}` is NaN or infinite, and so is activation `{at}`; expected finite numbers",
                    name(output)
                );
                let place = format!("sample `{}`", samples.name(index));
                let hint = "check this sample with the float network: repair the sample, or leave it out";
                return Err(Error::new(Kind::Numeric, message).at(place).hint(hint));
            }
        }
    }
    let elements: u64 = strange.iter().map(|s| s.elements).sum();
    let message = format!(
        "{elements} elements of activations are NaN or infinite in {} of {} samples and reach no output, as in padding; \
         they are ignored (the first: sample `{}`, activation `{}`)",
        indices.len(),
        samples.len(),
        samples.name(index),
        name(first.value)
    );
    sink.event(&Event::Note { message });
    Ok(())
}
