//! How fast files run in a runtime.

use super::deployed::Deployed;
use crate::engine::philox::Stream;
use crate::error::{Error, Result};
use crate::graph::Dim;
use crate::probe::go_on;
use crate::report::{Event, Sink, Stage};
use crate::runtime::processor_seconds;
use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Runs before the first that is measured.
const WARM: usize = 3;
/// Runs of each file at least, and at most.
const RUNS: (usize, usize) = (20, 2000);
/// Time for which all files together are run, in seconds, between the bounds of [`RUNS`].
const SECONDS: f64 = 2.0;
/// Values of noise between its ends.
const LEVELS: usize = 1 << 16;
/// The input that tells padding apart from text.
const MASK: &str = "attention_mask";

/// Time of one run, in milliseconds: the minimum over many runs, which is least affected by other programs, and the
/// median.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// The requested number of threads; 0 leaves the choice to the runtime.
    pub threads: usize,
    /// Number of runs measured.
    pub runs: usize,
    /// Processor time of all threads, in user mode and in the kernel; the wall-clock time if the system does not
    /// provide it.
    pub processor_ms: [f64; 2],
    /// Wall-clock time.
    pub wall_ms: [f64; 2],
}

impl Deployed {
    /// Random inputs, with ones for `attention_mask` and zeros for other integers, in the shapes that the file
    /// declares, or that `shapes` (with batch axis) gives if the file leaves them open; an open batch is one sample. It
    /// is an error if a size is open and not given, or if `shapes` do not fit.
    pub fn noise(&self, shapes: Option<&[Vec<usize>]>) -> Result<Vec<Tensor>> {
        let inputs = self.inputs().count();
        if let Some(given) = shapes
            && given.len() != inputs
        {
            return Err(Error::data(format!("the network has {inputs} inputs, got {} shapes", given.len())));
        }
        let axes = self.batch_axes();
        let one = |(i, (name, fact)): (usize, (&str, &crate::graph::Fact))| {
            let at = |e: Error| e.at(format!("input `{name}`")).at(self.path().display());
            let dims = fact.shape.as_deref().unwrap_or_default();
            let shape = match shapes {
                Some(shapes) => {
                    let fits = |(dim, n): (&Dim, &usize)| !matches!(dim, Dim::Known(k) if k != n);
                    let shape = &shapes[i];
                    if fact.shape.is_some() && (dims.len() != shape.len() || !dims.iter().zip(shape).all(fits)) {
                        let message = format!("the shape {shape:?} does not fit what the file declares");
                        return Err(at(Error::data(message)));
                    }
                    shape.clone()
                }
                None if fact.shape.is_none() => {
                    let hint = "give it with --shape, batch first, such as 1,3,224,224";
                    return Err(at(Error::unsupported("the file leaves its shape open").hint(hint)));
                }
                None => {
                    let size = |(axis, dim): (usize, &Dim)| match dim {
                        Dim::Known(n) => Ok(*n),
                        _ if Some(axis) == axes[i] => Ok(1),
                        _ => {
                            let hint = "give it with --shape, batch first, such as 1,3,224,224";
                            Err(at(Error::unsupported(format!("the file leaves size {axis} open")).hint(hint)))
                        }
                    };
                    dims.iter().enumerate().map(size).collect::<Result<_>>()?
                }
            };
            let numel = shape.iter().product();
            let level = |l: usize| (l as f64 / (LEVELS - 1) as f64 - 0.5) * 3.4;
            let dtype = fact.dtype.unwrap_or(DType::F32);
            let values: Vec<f64> = match dtype.is_float() {
                true => Stream::new(0, 0, i as u32, 0).below(numel, LEVELS).into_iter().map(level).collect(),
                false => vec![if name == MASK { 1.0 } else { 0.0 }; numel],
            };
            Tensor::from_f64(dtype, &shape, &values).map_err(at)
        };
        self.inputs().enumerate().map(one).collect()
    }

    /// `sample` (without batch axis) as inputs of one run, repeated if the file has a fixed batch.
    pub fn batch_of(&self, sample: &[Tensor]) -> Result<Vec<Tensor>> {
        let n = self.batch().filter(|_| self.stacks(sample)).unwrap_or(1);
        self.joined(&vec![sample; n])
    }
}

/// Measures the time that each of `files` takes for its `inputs`, with one run of each in turn, so that disturbances
/// affect all of them.
pub fn pace(files: &[(&Deployed, &[Tensor])], sink: &mut dyn Sink) -> Result<Vec<Pace>> {
    let mut times: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); files.len()];
    let run = |(deployed, inputs): &(&Deployed, &[Tensor])| deployed.measured(inputs, &deployed.outputs()).map(drop);
    for (deployed, inputs) in files {
        (0..WARM).try_for_each(|_| deployed.run(inputs, &deployed.outputs(), sink).map(drop))?;
    }
    let start = Instant::now();
    for done in 1..=RUNS.1 {
        for (file, (processor, wall)) in files.iter().zip(&mut times) {
            go_on(sink)?;
            let (clock, ticks) = (Instant::now(), processor_seconds());
            run(file)?;
            let passed = clock.elapsed().as_secs_f64();
            processor.push(ticks.zip(processor_seconds()).map_or(passed, |(from, to)| to - from));
            wall.push(passed);
        }
        if done >= RUNS.0 && start.elapsed().as_secs_f64() >= SECONDS {
            break;
        }
        if done < RUNS.0 {
            sink.event(&Event::StageProgress { stage: Stage::Bench, done, total: RUNS.0 });
        }
    }
    let ends = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        [times[0] * 1e3, times[times.len() / 2] * 1e3]
    };
    let mut paces = Vec::new();
    for ((deployed, _), (processor, wall)) in files.iter().zip(&mut times) {
        let (threads, runs) = (deployed.threads(), wall.len());
        paces.push(Pace { threads, runs, processor_ms: ends(processor), wall_ms: ends(wall) });
    }
    Ok(paces)
}
