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

use super::{InputSpec, Samples, Target, Window};
use crate::error::{Error, Result};
use crate::plan::{self, Task};
use crate::tensor::{DType, Tensor};
use rayon::prelude::*;
use records::{Label, Record};
use squad::Question;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokens::{Encoder, Tokens};

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
    /// What `input` says about text, `None` without a task. A tokenizer that it does not name is the first file
    /// `tokenizer.json` in the folders `beside`.
    pub fn resolve(input: &plan::Input, beside: &[&Path]) -> Result<Option<Text>> {
        let Some(task) = input.task else { return Ok(None) };
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
fn feeds(task: Task, inputs: &[InputSpec]) -> Result<Vec<(Feed, DType)>> {
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

/// Opens the file of a task for a network's `inputs`, at most `limit` of its records or questions, spread over it. A
/// sample is a record; of SQuAD a window over a question's text. Texts are tokenised when they are asked for.
pub fn open_text(
    path: &Path,
    text: &Text,
    inputs: &[InputSpec],
    limit: Option<usize>,
) -> Result<Box<dyn Samples + Send + Sync>> {
    let feeds = feeds(text.task, inputs)?;
    let declared = inputs.iter().find_map(|i| i.shape.first().copied().flatten());
    let length = text.max_length.or(declared).unwrap_or(text.task.max_length());
    if let Some(declared) = declared.filter(|&d| d != length) {
        let message = format!("samples have {length} tokens, the network expects {declared}");
        return Err(Error::data(message).hint("leave out --max-length"));
    }
    let mut encoder = Encoder::open(&text.tokenizer, length)?;
    let names = inputs.iter().map(|i| i.name.clone()).collect();
    if text.task == Task::Squad {
        let shape = Shape { encoder, feeds, names };
        let questions = part(squad::read(path)?, limit);
        return Ok(Box::new(Windows::new(shape, questions, text.doc_stride).map_err(|e| e.at(path.display()))?));
    }
    let (records, skipped) = records::read(path, text.task)?;
    let records = part(records, limit);
    if text.max_length.is_none() && declared.is_none() {
        let tokens = |r: &Record| encoder.encode(&r.first, r.second.as_deref()).map(|t| t.mask.iter().sum::<u32>());
        let longest = records.par_iter().map(tokens).collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        encoder.shorten(longest as usize);
    }
    let shape = Shape { encoder, feeds, names };
    Ok(Box::new(Records { shape, records, skipped }))
}

/// At most `limit` of `items`, spread over them.
fn part<T>(items: Vec<T>, limit: Option<usize>) -> Vec<T> {
    let mut wanted = super::spread(items.len(), limit).peekable();
    items.into_iter().enumerate().filter_map(|(i, item)| wanted.next_if_eq(&i).map(|_| item)).collect()
}

/// What all samples share.
struct Shape {
    encoder: Encoder,
    feeds: Vec<(Feed, DType)>,
    names: Vec<String>,
}

impl Shape {
    /// One tensor per input of the network.
    fn tensors(&self, tokens: &Tokens) -> Result<Vec<Tensor>> {
        let one = |&(feed, dtype): &(Feed, DType)| {
            let values = match feed {
                Feed::Ids => &tokens.ids,
                Feed::Mask => &tokens.mask,
                Feed::Types => &tokens.types,
            };
            let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            Tensor::from_f64(dtype, &[values.len()], &values)
        };
        self.feeds.iter().map(one).collect()
    }
}

/// Sentences and pairs.
struct Records {
    shape: Shape,
    records: Vec<Record>,
    skipped: usize,
}

impl Samples for Records {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let record = &self.records[index];
        let tokens = self.shape.encoder.encode(&record.first, record.second.as_deref());
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

    fn name(&self, index: usize) -> String {
        format!("line {}", self.records[index].line)
    }

    fn skipped(&self) -> usize {
        self.skipped
    }

    fn held_bytes(&self) -> u64 {
        let text = |r: &Record| r.first.len() + r.second.as_ref().map_or(0, String::len) + size_of::<Record>();
        self.records.iter().map(|r| text(r) as u64).sum()
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.shape.names.clone())
    }
}

/// Windows over the texts of questions.
struct Windows {
    shape: Shape,
    questions: Vec<Question>,
    /// Question and number of each window.
    windows: Vec<(usize, usize)>,
    stride: usize,
    /// Windows of the questions that were asked for last: neighbours are mostly asked for one after the other.
    last: Mutex<VecDeque<(usize, Arc<Vec<Made>>)>>,
}

/// A window and where its tokens lie in the text.
type Made = (Tokens, tokens::Offsets);

/// Questions whose windows are kept: those of all samples that are read at a time, which are asked for their answers
/// next.
const KEPT: usize = 128;

impl Windows {
    fn new(shape: Shape, questions: Vec<Question>, stride: usize) -> Result<Self> {
        let place = |q: &Question| format!("question `{}`", q.id);
        let count = |q: &Question| Ok(encode(&shape, q, stride).map_err(|e| e.at(place(q)))?.len());
        let counts = questions.par_iter().map(count).collect::<Result<Vec<usize>>>()?;
        let windows = counts.iter().enumerate().flat_map(|(q, &n)| (0..n).map(move |w| (q, w))).collect();
        Ok(Windows { shape, questions, windows, stride, last: Mutex::default() })
    }

    fn window(&self, index: usize) -> Result<Made> {
        let (question, number) = self.windows[index];
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let found = last().iter().find(|(q, _)| *q == question).map(|(_, all)| all.clone());
        let all = match found {
            Some(all) => all,
            None => {
                let all = Arc::new(encode(&self.shape, &self.questions[question], self.stride)?);
                let mut last = last();
                last.push_back((question, all.clone()));
                let many = last.len().saturating_sub(KEPT);
                last.drain(..many);
                all
            }
        };
        let lost = || Error::internal("a text has fewer windows than before").at(self.name(index));
        all.get(number).cloned().ok_or_else(lost)
    }
}

fn encode(shape: &Shape, q: &Question, stride: usize) -> Result<Vec<Made>> {
    shape.encoder.windows(q.question.trim_start(), &q.context, stride)
}

impl Samples for Windows {
    fn len(&self) -> usize {
        self.windows.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.shape.tensors(&self.window(index)?.0)
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        let Some(&(question, _)) = self.windows.get(index) else { return Ok(None) };
        let Question { context, answers, .. } = &self.questions[question];
        if answers.is_empty() {
            return Ok(None);
        }
        let (context, answers) = (context.clone(), answers.clone());
        Ok(Some(Target::Window(Window { question, context, offsets: self.window(index)?.1, answers })))
    }

    fn name(&self, index: usize) -> String {
        let (question, number) = self.windows[index];
        format!("question {}, window {}", self.questions[question].id, number + 1)
    }

    fn held_bytes(&self) -> u64 {
        let text = |q: &Question| q.question.len() + q.answers.iter().map(String::len).sum::<usize>() + q.context.len();
        self.questions.iter().map(|q| text(q) as u64).sum()
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.shape.names.clone())
    }
}
