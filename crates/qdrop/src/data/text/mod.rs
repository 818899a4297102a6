//! Samples of text: sentences and pairs of sentences of the GLUE tasks, and questions of SQuAD, as token numbers of one
//! length.

mod records;
mod squad;
#[cfg(all(test, feature = "text"))]
mod tests;
#[cfg(feature = "text")]
mod tokens;
#[cfg(not(feature = "text"))]
#[path = "without.rs"]
mod tokens;

use super::{InputSpec, Limits, Samples, Target, Window};
use crate::error::{Error, Result};
use crate::plan::{self, Task};
use crate::tensor::{DType, Tensor};
use rayon::prelude::*;
use records::{Label, Record};
use squad::Question;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokens::{Encoder, Offsets, Tokens};

/// Tokens that neighbouring windows share, unless told.
const STRIDE: usize = 128;

/// How text becomes network input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// How files are read.
    pub task: Task,
    /// The file of the tokenizer, `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Tokens of a sample; `None` for what the network declares, else what the longest record of the set needs, at
    /// most the task's default.
    pub max_length: Option<usize>,
    /// Tokens that neighbouring windows over a long text share.
    pub doc_stride: usize,
}

impl Text {
    /// What `input` says about text, `None` without a task on text. A tokenizer that it does not name is the first file
    /// `tokenizer.json` in the folders `beside`.
    pub fn resolve(input: &plan::Input, beside: &[&Path]) -> Result<Option<Text>> {
        let Some(task) = input.task.filter(|t| t.is_text()) else { return Ok(None) };
        let found = || beside.iter().map(|folder| folder.join("tokenizer.json")).find(|p| p.is_file());
        let tokenizer = input.tokenizer.as_ref().map(PathBuf::from).or_else(found).ok_or_else(|| {
            Error::data(format!(
                "task `{task}` needs a tokenizer, found no tokenizer.json next to the model or the samples"
            ))
            .hint("give the network's tokenizer.json with --tokenizer")
        })?;
        let doc_stride = input.doc_stride.unwrap_or(STRIDE);
        Ok(Some(Text { task, tokenizer, max_length: input.max_length, doc_stride }))
    }
}

/// What a network's input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    Ids,
    Mask,
    Types,
}

/// Names of inputs and what they take.
const FEEDS: [(&str, Feed); 6] = [
    ("input_ids", Feed::Ids),
    ("ids", Feed::Ids),
    ("attention_mask", Feed::Mask),
    ("input_mask", Feed::Mask),
    ("token_type_ids", Feed::Types),
    ("segment_ids", Feed::Types),
];

/// What each of `inputs` takes, with its type.
fn feeds(task: Task, inputs: &[InputSpec]) -> Result<Feeds> {
    let one = |input: &InputSpec| {
        let name = input.name.split(':').next().unwrap_or_default();
        let refused = |message: String| Err(Error::data(message));
        let Some(&(_, feed)) = FEEDS.iter().find(|(n, _)| *n == name) else {
            return refused(format!(
                "task `{task}` provides no input `{}`, only input_ids, attention_mask and token_type_ids",
                input.name
            ));
        };
        match (input.dtype, input.shape.len()) {
            (DType::I32 | DType::I64, 1) => Ok((feed, input.dtype)),
            (dtype, rank) => refused(format!(
                "task `{task}` has lists of I64 or I32, network input `{}` expects {dtype:?} of rank {}",
                input.name,
                rank + 1
            )),
        }
    };
    inputs.iter().map(one).collect()
}

/// Opens the file of a task for a network's `inputs`. A sample is a record; of SQuAD a window over a question's text.
///
/// There are at most `limit` records or questions, spread over the file. Where the network leaves the length open, and of
/// SQuAD's files always, they are tokenized here, so that [`Samples::tokens`] tells how long they are; else when they are
/// asked for.
pub fn open_text(
    path: &Path,
    text: &Text,
    inputs: &[InputSpec],
    limit: Option<usize>,
    limits: &Limits,
) -> Result<Box<dyn Samples + Send + Sync>> {
    open_part(path, text, inputs, (limit, false), limits)
}

/// As [`open_text`]. Where the `rest` is asked for, all records are samples, and those beyond the `limit` are cut to the
/// length of those within it; of SQuAD's files the other questions are left out all the same.
pub(crate) fn open_part(
    path: &Path,
    text: &Text,
    inputs: &[InputSpec],
    (limit, rest): (Option<usize>, bool),
    limits: &Limits,
) -> Result<Box<dyn Samples + Send + Sync>> {
    let feeds = feeds(text.task, inputs)?;
    let declared = inputs.iter().find_map(|i| i.shape.first().copied().flatten());
    let length = text.max_length.or(declared).unwrap_or(text.task.max_length());
    if let Some(declared) = declared.filter(|&d| d != length) {
        let message = format!("samples have {length} tokens, the network expects {declared}");
        return Err(Error::data(message).hint("leave out --max-length"));
    }
    let encoder = Encoder::open(&text.tokenizer, length)?;
    let names = inputs.iter().map(|i| i.name.clone()).collect();
    if text.task == Task::Squad {
        let shape = Shape::new(&encoder, feeds, names);
        let questions = part(squad::read(path)?, limit);
        let windows = Windows::new(shape, questions, &encoder, text.doc_stride, limits);
        return Ok(Box::new(windows.map_err(|e| e.at(path.display()))?));
    }
    let (mut records, skipped) = records::read(path, text.task)?;
    if !rest {
        records = part(records, limit);
    }
    let open = declared.is_none();
    let wanted = open.then(|| super::spread(records.len(), limit)).into_iter().flatten().collect();
    let known = (wanted, text.max_length.is_none());
    Ok(Box::new(Records::new(records, skipped, known, encoder, (feeds, names), limits)?))
}

/// At most `limit` of `items`, spread over them.
fn part<T>(items: Vec<T>, limit: Option<usize>) -> Vec<T> {
    let mut wanted = super::spread(items.len(), limit).peekable();
    items.into_iter().enumerate().filter_map(|(i, item)| wanted.next_if_eq(&i).map(|_| item)).collect()
}

/// What each input takes, with its type.
type Feeds = Vec<(Feed, DType)>;

/// What all samples share.
struct Shape {
    /// Tokens of a sample.
    length: usize,
    /// Number of the token that fills up shorter texts.
    padding: u32,
    feeds: Feeds,
    names: Vec<String>,
}

impl Shape {
    fn new(encoder: &Encoder, feeds: Feeds, names: Vec<String>) -> Self {
        let (length, padding) = encoder.room();
        Shape { length, padding, feeds, names }
    }

    /// One tensor per input of the network.
    fn tensors(&self, tokens: &Tokens) -> Result<Vec<Tensor>> {
        let one = |&(feed, dtype): &(Feed, DType)| {
            let (values, padding) = match feed {
                Feed::Ids => (&tokens.ids, self.padding),
                Feed::Mask => (&tokens.mask, 0),
                Feed::Types => (&tokens.types, 0),
            };
            let mut values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            values.resize(self.length, f64::from(padding));
            Tensor::from_f64(dtype, &[self.length], &values)
        };
        self.feeds.iter().map(one).collect()
    }

    /// How many `tokens` there are, if an input marks what fills up the sample.
    fn marked(&self, tokens: &Tokens) -> Option<usize> {
        self.feeds.iter().any(|&(feed, _)| feed == Feed::Mask).then_some(tokens.ids.len())
    }
}

/// Bytes that `tokens` take.
fn bytes(tokens: &Tokens) -> usize {
    size_of::<Tokens>() + size_of::<u32>() * (tokens.ids.len() + tokens.mask.len() + tokens.types.len())
}

/// Sentences and pairs.
struct Records {
    shape: Shape,
    encoder: Encoder,
    /// Of those whose tokens are known the texts are empty.
    records: Vec<Record>,
    /// Tokens of the records that were tokenized when the set was opened, by index.
    known: BTreeMap<usize, Tokens>,
    skipped: usize,
}

impl Records {
    /// Samples of `records`, of which those at the indices `wanted` are tokenized now. Where these are `deciding`, no sample
    /// is longer than they need.
    fn new(
        mut records: Vec<Record>,
        skipped: usize,
        (wanted, deciding): (Vec<usize>, bool),
        mut encoder: Encoder,
        (feeds, names): (Feeds, Vec<String>),
        limits: &Limits,
    ) -> Result<Self> {
        let tokens = |&i: &usize| Ok((i, limits.go_on().and_then(|()| encode(&encoder, &records[i]))?));
        let known = wanted.par_iter().map(tokens).collect::<Result<BTreeMap<_, _>>>()?;
        if let Some(longest) = known.values().map(|t| t.ids.len()).max().filter(|_| deciding) {
            encoder.shorten(longest)?;
        }
        for &i in known.keys() {
            (records[i].first, records[i].second) = (String::new(), None);
        }
        Ok(Records { shape: Shape::new(&encoder, feeds, names), encoder, records, known, skipped })
    }
}

fn encode(encoder: &Encoder, record: &Record) -> Result<Tokens> {
    encoder.encode(&record.first, record.second.as_deref())
}

impl Samples for Records {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        if let Some(tokens) = self.known.get(&index) {
            return self.shape.tensors(tokens);
        }
        let tokens = encode(&self.encoder, &self.records[index]);
        tokens.and_then(|t| self.shape.tensors(&t)).map_err(|e| e.at(self.name(index)))
    }

    fn label(&self, index: usize) -> Option<usize> {
        match self.records.get(index)?.label? {
            Label::Class(class) => Some(class),
            Label::Number(_) => None,
        }
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        Ok(self.records.get(index).and_then(|r| r.label).map(|label| match label {
            Label::Class(class) => Target::Class(class),
            Label::Number(number) => Target::Number(number),
        }))
    }

    fn tokens(&self, index: usize) -> Option<usize> {
        self.shape.marked(self.known.get(&index)?)
    }

    fn name(&self, index: usize) -> String {
        format!("line {}", self.records[index].line)
    }

    fn skipped(&self) -> usize {
        self.skipped
    }

    fn held_bytes(&self) -> u64 {
        let text = |r: &Record| r.first.len() + r.second.as_ref().map_or(0, String::len) + size_of::<Record>();
        (self.records.iter().map(text).sum::<usize>() + self.known.values().map(bytes).sum::<usize>()) as u64
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.shape.names.clone())
    }
}

/// Windows over the texts of questions.
struct Windows {
    shape: Shape,
    questions: Vec<Question>,
    windows: Vec<Made>,
}

/// A window over the text of a question.
struct Made {
    question: usize,
    /// Its number among those of the question.
    number: usize,
    tokens: Tokens,
    /// Where its tokens lie in the text.
    offsets: Offsets,
}

impl Windows {
    /// All windows over the texts of `questions`; neighbours share `stride` tokens.
    fn new(shape: Shape, questions: Vec<Question>, encoder: &Encoder, stride: usize, limits: &Limits) -> Result<Self> {
        let place = |q: &Question| format!("question `{}`", q.id);
        let encode = |(question, q): (usize, &Question)| -> Result<Vec<Made>> {
            limits.go_on()?;
            let windows = encoder.windows(q.question.trim_start(), &q.context, stride).map_err(|e| e.at(place(q)))?;
            let made = |(number, (tokens, offsets))| Made { question, number, tokens, offsets };
            Ok(windows.into_iter().enumerate().map(made).collect())
        };
        let windows = questions.par_iter().enumerate().map(encode).collect::<Result<Vec<_>>>()?;
        Ok(Windows { shape, questions, windows: windows.into_iter().flatten().collect() })
    }
}

impl Samples for Windows {
    fn len(&self) -> usize {
        self.windows.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.shape.tensors(&self.windows[index].tokens)
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        let Some(&Made { question, ref offsets, .. }) = self.windows.get(index) else { return Ok(None) };
        let Question { context, answers, .. } = &self.questions[question];
        if answers.is_empty() {
            return Ok(None);
        }
        let (context, answers, mut offsets) = (context.clone(), answers.clone(), offsets.clone());
        offsets.resize(self.shape.length, None);
        Ok(Some(Target::Window(Window { question, context, offsets, answers })))
    }

    fn tokens(&self, index: usize) -> Option<usize> {
        self.shape.marked(&self.windows.get(index)?.tokens)
    }

    fn name(&self, index: usize) -> String {
        let Made { question, number, .. } = self.windows[index];
        format!("question {}, window {}", self.questions[question].id, number + 1)
    }

    fn held_bytes(&self) -> u64 {
        let text = |q: &Question| q.question.len() + q.answers.iter().map(String::len).sum::<usize>() + q.context.len();
        let window = |w: &Made| bytes(&w.tokens) + size_of_val(&w.offsets[..]) + size_of::<Made>();
        (self.questions.iter().map(text).sum::<usize>() + self.windows.iter().map(window).sum::<usize>()) as u64
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.shape.names.clone())
    }
}
