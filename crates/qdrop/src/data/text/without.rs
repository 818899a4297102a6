//! What stands for tokenizers in builds without the feature `text`.

use crate::error::{Error, Result};
use std::path::Path;

/// Tokens of one sample.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub ids: Vec<u32>,
    pub mask: Vec<u32>,
    pub types: Vec<u32>,
}

/// Bytes of a text under each token of a sample.
pub(super) type Offsets = Vec<Option<(u32, u32)>>;

/// There is none.
pub(super) enum Encoder {}

impl Encoder {
    pub fn open(_: &Path, _: usize) -> Result<Self> {
        let error = Error::unsupported("this program was built without tokenizers, so text tasks are not supported");
        Err(error.hint("build it with the feature `text`"))
    }

    /// Never reached.
    pub fn shorten(&mut self, _: usize) -> Result<()> {
        match *self {}
    }

    pub fn room(&self) -> (usize, u32) {
        match *self {}
    }

    pub fn encode(&self, _: &str, _: Option<&str>) -> Result<Tokens> {
        match *self {}
    }

    pub fn windows(&self, _: &str, _: &str, _: usize) -> Result<Vec<(Tokens, Offsets)>> {
        match *self {}
    }
}
