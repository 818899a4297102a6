//! The random choices of a reconstruction as data: which samples make a batch, and which elements are dropped.

use super::philox::Stream;
use super::program::ProgramSite;
use serde::Serialize;

/// What a keep mask is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An input of the program: kept elements come from the network quantized so far, others from the float network.
    Input(usize),
    /// A site of the program: kept elements are quantized, others stay float.
    Site(ProgramSite),
}

/// Which elements keep the quantized value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of them; no mask was written.
    All,
    /// None of them; no mask was written.
    Nothing,
    /// Those whose byte in the mask is 1; all others are 0.
    Masked,
}

/// The random choices of a reconstruction. A device may draw by itself what is [drawn](Choices::Drawn): the numbers
/// depend on nothing else. What is [replayed](Choices::Replayed) it asks for.
#[derive(Clone, Copy)]
pub enum Choices<'a> {
    /// Drawn with Philox.
    Drawn(RandomDraws),
    /// Recorded elsewhere.
    Replayed(&'a dyn Draws),
}

impl Choices<'_> {
    /// Samples of the batch of `iteration` (from 1).
    pub fn batch(&self, iteration: usize) -> Vec<usize> {
        match self {
            Choices::Drawn(draws) => draws.batch(iteration),
            Choices::Replayed(draws) => draws.batch(iteration),
        }
    }

    /// Which elements of the sample at `position` of the batch keep the quantized value; `mask` has the sample's size.
    pub fn keep(&self, iteration: usize, purpose: Purpose, position: usize, mask: &mut [u8]) -> Keep {
        match self {
            Choices::Drawn(draws) => draws.keep(iteration, purpose, position, mask),
            Choices::Replayed(draws) => draws.keep(iteration, purpose, position, mask),
        }
    }
}

/// Random choices that were recorded, such as those of a run of the published code.
pub trait Draws: Sync {
    /// As [`Choices::batch`].
    fn batch(&self, iteration: usize) -> Vec<usize>;

    /// As [`Choices::keep`].
    fn keep(&self, iteration: usize, purpose: Purpose, position: usize, mask: &mut [u8]) -> Keep;
}

/// Counter-based choices: they depend on these fields and the iteration alone.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RandomDraws {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the unit, which separates its random streams from those of others.
    pub unit: u32,
    /// Batch size.
    pub batch: usize,
    /// Number of samples to draw from, with replacement.
    pub samples: usize,
    /// Probability that an input element comes from the network quantized so far.
    pub input_keep: f64,
    /// Probability that an element at a site is quantized.
    pub activation_keep: f64,
}

impl RandomDraws {
    /// Samples of the batch of `iteration` (from 1): `batch` numbers below `samples` of the stream of purpose `u32::MAX`
    /// ([`Stream::below`]).
    pub fn batch(&self, iteration: usize) -> Vec<usize> {
        Stream::new(self.seed, self.unit, u32::MAX, iteration as u32).below(self.batch, self.samples)
    }

    /// Probability that an element keeps the quantized value.
    pub fn probability(&self, purpose: Purpose) -> f64 {
        match purpose {
            Purpose::Input(_) => self.input_keep,
            Purpose::Site(_) => self.activation_keep,
        }
    }

    /// The stream of the masks of `purpose` in `iteration` ([`Stream::mask`]). Its purpose is the site's number, or
    /// `u32::MAX - 1` less the input's.
    pub fn stream(&self, iteration: usize, purpose: Purpose) -> Stream {
        let purpose = match purpose {
            Purpose::Input(i) => u32::MAX - 1 - i as u32,
            Purpose::Site(ProgramSite(i)) => i as u32,
        };
        Stream::new(self.seed, self.unit, purpose, iteration as u32)
    }

    /// As [`Choices::keep`].
    pub fn keep(&self, iteration: usize, purpose: Purpose, position: usize, mask: &mut [u8]) -> Keep {
        let keep = self.probability(purpose);
        if keep >= 1.0 {
            return Keep::All;
        }
        if keep <= 0.0 {
            return Keep::Nothing;
        }
        self.stream(iteration, purpose).mask(position, keep, mask);
        Keep::Masked
    }
}
