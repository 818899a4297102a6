//! A tokenizer at work: texts to token numbers of one fixed length.

use crate::error::{Error, Kind, Result};
use std::path::Path;
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

/// Most bytes of a tokenizer's file.
const LARGEST: u64 = 1 << 28;
/// Lengths of samples that follow the texts are multiples of this.
const STEP: usize = 8;
/// Names of the token that fills up samples where the file does not say.
const PADDING: [&str; 2] = ["[PAD]", "<pad>"];

/// Tokens of one sample without padding, all lists of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Numbers of the tokens.
    pub ids: Vec<u32>,
    /// 1 for tokens that the network is to attend to.
    pub mask: Vec<u32>,
    /// 0 in the first text, 1 in the second.
    pub types: Vec<u32>,
}

/// Bytes of a text under each token of a sample, `None` under tokens of no text or of another.
pub(super) type Offsets = Vec<Option<(u32, u32)>>;

/// A tokenizer that makes samples of one length.
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    /// The same, never cutting.
    whole: Tokenizer,
    length: usize,
    padding: u32,
}

impl Encoder {
    /// Reads the tokenizer in `path`; every sample will have `length` tokens.
    pub fn open(path: &Path, length: usize) -> Result<Self> {
        let at = |e: Error| e.at(path.display());
        let file = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                at(Error::new(Kind::Io, "no such tokenizer").hint("give the network's tokenizer.json with --tokenizer"))
            }
            _ => Error::io(path, e),
        })?;
        if !file.is_file() || file.len() > LARGEST {
            return Err(at(Error::data(format!("expected a tokenizer, a file of at most {LARGEST} bytes"))));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let none = |e: String| {
            at(Error::data(format!("expected a tokenizer, got another file: {e}")))
                .hint("give the tokenizer.json of the `tokenizers` library, not a vocabulary or a configuration")
        };
        // The library panics on some files.
        let read = Error::caught(|| Ok(Tokenizer::from_bytes(bytes)));
        let mut tokenizer = read.map_err(|e| none(e.message().into()))?.map_err(|e| none(e.to_string()))?;
        let named = || PADDING.iter().find_map(|name| tokenizer.token_to_id(name));
        let padding = tokenizer.get_padding().map(|p| p.pad_id).or_else(named).ok_or_else(|| {
            let message = format!("expected a token for padding ({}), found none", PADDING.join(" or "));
            at(Error::data(message).hint("add `padding` to the tokenizer"))
        })?;
        let special = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(true).max(p.added_tokens(false)));
        if special >= length {
            let message = format!("expected samples longer than the {special} tokens around texts, got {length}");
            return Err(at(Error::data(message).hint("raise --max-length")));
        }
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| at(failed(e)))?;
        let whole = tokenizer.clone();
        let mut encoder = Encoder { tokenizer, whole, length, padding };
        encoder.cut(length).map_err(at)?;
        Ok(encoder)
    }

    /// Makes samples no longer than `longest` needs, in whole steps of [`STEP`].
    pub fn shorten(&mut self, longest: usize) -> Result<()> {
        self.cut(longest.next_multiple_of(STEP).min(self.length))
    }

    /// Has texts cut to `length` tokens.
    fn cut(&mut self, length: usize) -> Result<()> {
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        self.length = length;
        self.tokenizer.with_truncation(Some(truncation)).map(drop).map_err(failed)
    }

    /// Tokens of a sample, and the number of the token that fills up shorter texts.
    pub fn room(&self) -> (usize, u32) {
        (self.length, self.padding)
    }

    /// One text or a pair, cut to the length, the longer text first.
    pub fn encode(&self, first: &str, second: Option<&str>) -> Result<Tokens> {
        let encode = || match second {
            Some(second) => self.tokenizer.encode((first, second), true),
            None => self.tokenizer.encode(first, true),
        };
        self.fitting(&guarded(encode)?)
    }

    /// `question` before each window over `context`; neighbouring windows share `stride` tokens.
    pub fn windows(&self, question: &str, context: &str, stride: usize) -> Result<Vec<(Tokens, Offsets)>> {
        let question = guarded(|| self.whole.encode(question, false))?;
        let special = self.whole.get_post_processor().map_or(0, |p| p.added_tokens(true));
        let room = self.length.saturating_sub(special + question.len());
        if stride >= room {
            let message = format!(
                "expected room for more than the {stride} tokens that windows share, got {room} next to a question of {}",
                question.len()
            );
            return Err(Error::data(message).hint("raise --max-length, or lower --doc-stride"));
        }
        let mut first = guarded(|| self.whole.encode(context, false))?;
        first.truncate(room, stride, TruncationDirection::Right);
        let rest = first.take_overflowing();
        let window = |part: Encoding| {
            let encoding = guarded(|| self.whole.post_process(question.clone(), Some(part), true))?;
            let inside = encoding.get_sequence_ids();
            let place = |(&(start, end), of): (&(usize, usize), &Option<usize>)| {
                (*of == Some(1)).then_some((u32::try_from(start).ok()?, u32::try_from(end).ok()?))
            };
            let offsets = encoding.get_offsets().iter().zip(&inside).map(place).collect();
            Ok((self.fitting(&encoding)?, offsets))
        };
        std::iter::once(first).chain(rest).map(window).collect()
    }

    /// The tokens of `encoding`, which must be no more than samples have.
    fn fitting(&self, encoding: &Encoding) -> Result<Tokens> {
        if encoding.len() > self.length {
            // Templates may take a text twice, and texts are cut before.
            let message = format!(
                "expected at most {} tokens, got {} after the tokenizer's post-processor",
                self.length,
                encoding.len()
            );
            return Err(Error::data(message).hint("use a tokenizer whose post-processor takes every text once"));
        }
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            mask: encoding.get_attention_mask().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }
}

/// What the tokenizer comes to, which panics on some files.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    Error::caught(|| work().map_err(failed)).map_err(|e| match e.kind() {
        Kind::Internal => failed(e.message()),
        _ => e,
    })
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::data(format!("the tokenizer failed: {error}"))
}
