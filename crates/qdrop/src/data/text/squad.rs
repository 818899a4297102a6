//! Questions on texts in the JSON format of SQuAD v1.1.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: Arc<str>,
    qas: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Truth>,
}

#[derive(Deserialize)]
struct Truth {
    text: String,
}

/// A question on a text.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub id: String,
    pub question: String,
    pub context: Arc<str>,
    /// Right answers; none in files for calibration.
    pub answers: Arc<[String]>,
}

/// The questions in `path`, in order.
pub(super) fn read(path: &Path) -> Result<Vec<Question>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let file: File = serde_json::from_slice(&bytes).map_err(|e| {
        Error::data(format!("expected questions in the format of SQuAD v1.1: {e}"))
            .at(path.display())
            .hint("give a file such as dev-v1.1.json")
    })?;
    let mut questions = Vec::new();
    for paragraph in file.data.into_iter().flat_map(|a| a.paragraphs) {
        for Entry { id, question, answers } in paragraph.qas {
            let answers = answers.into_iter().map(|a| a.text).collect();
            questions.push(Question { id, question, context: paragraph.context.clone(), answers });
        }
    }
    if questions.is_empty() {
        return Err(Error::data("the file has no questions").at(path.display()));
    }
    Ok(questions)
}
