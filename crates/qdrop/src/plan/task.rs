//! Tasks: the kind of answer that a sample has, and the metrics that are measured.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A task: on text the eight of GLUE with a train and a dev file, and SQuAD v1.1; on images detection as in COCO, and
/// semantic segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Task {
    /// Sentiment of a sentence.
    Sst2,
    /// Whether two sentences mean the same.
    Mrpc,
    /// Whether a sentence is acceptable English.
    Cola,
    /// Whether a sentence follows from another.
    Rte,
    /// Whether a sentence answers a question.
    Qnli,
    /// Whether two questions ask the same.
    Qqp,
    /// Whether a hypothesis follows from a premise, contradicts it, or neither.
    Mnli,
    /// How similar two sentences are, 0 to 5.
    Stsb,
    /// Where in a text the answer to a question stands.
    Squad,
    /// Which objects are in an image, and where.
    Coco,
    /// Of which class every pixel of an image is.
    Segmentation,
}

/// What a network answers for one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Scores of these classes.
    Classes(&'static [&'static str]),
    /// A number.
    Number,
    /// Scores of every token as begin and as end of the answer.
    Span,
    /// Boxes with classes and scores.
    Boxes,
    /// A class, or scores of classes, for every pixel.
    Pixels,
}

/// Classes where the answer is no or yes.
const BINARY: &[&str] = &["0", "1"];
/// Classes of RTE and QNLI.
const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];

impl Task {
    /// All tasks.
    pub const ALL: [Task; 11] = [
        Task::Sst2,
        Task::Mrpc,
        Task::Cola,
        Task::Rte,
        Task::Qnli,
        Task::Qqp,
        Task::Mnli,
        Task::Stsb,
        Task::Squad,
        Task::Coco,
        Task::Segmentation,
    ];

    /// Its name (`sst2`).
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Sst2 => "sst2",
            Task::Mrpc => "mrpc",
            Task::Cola => "cola",
            Task::Rte => "rte",
            Task::Qnli => "qnli",
            Task::Qqp => "qqp",
            Task::Mnli => "mnli",
            Task::Stsb => "stsb",
            Task::Squad => "squad",
            Task::Coco => "coco",
            Task::Segmentation => "segmentation",
        }
    }

    /// What a network answers for a sample; classes in the order of the network's scores.
    pub fn answer(self) -> Answer {
        match self {
            Task::Sst2 | Task::Mrpc | Task::Cola | Task::Qqp => Answer::Classes(BINARY),
            Task::Rte | Task::Qnli => Answer::Classes(ENTAILMENT),
            Task::Mnli => Answer::Classes(&["entailment", "neutral", "contradiction"]),
            Task::Stsb => Answer::Number,
            Task::Squad => Answer::Span,
            Task::Coco => Answer::Boxes,
            Task::Segmentation => Answer::Pixels,
        }
    }

    /// Names of the metrics that the benchmark defines.
    pub fn metrics(self) -> &'static [&'static str] {
        match self {
            Task::Sst2 | Task::Rte | Task::Qnli | Task::Mnli => &["accuracy"],
            Task::Mrpc | Task::Qqp => &["accuracy", "f1"],
            Task::Cola => &["matthews"],
            Task::Stsb => &["pearson", "spearman"],
            Task::Squad => &["exact_match", "f1"],
            Task::Coco => {
                &["ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l", "ar1", "ar10", "ar100", "ar_s", "ar_m", "ar_l"]
            }
            Task::Segmentation => &["miou", "pixel_accuracy", "mean_accuracy"],
        }
    }

    /// Whether its samples are text.
    pub fn is_text(self) -> bool {
        !matches!(self, Task::Coco | Task::Segmentation)
    }

    /// Tokens of a sample of text where neither the recipe nor the network says.
    pub fn max_length(self) -> usize {
        if self == Task::Squad { 384 } else { 128 }
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let name = match plain.as_str() {
            "sst" => "sst2",
            "sts" => "stsb",
            "mnlim" | "mnlimm" | "mnlimatched" | "mnlimismatched" => "mnli",
            "semanticsegmentation" | "semseg" => "segmentation",
            "detection" | "cocodetection" | "coco2017" => "coco",
            "squad1" | "squad11" | "squadv1" | "squadv11" => "squad",
            other => other,
        };
        Task::ALL.into_iter().find(|t| t.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = Task::ALL.iter().map(|t| t.as_str()).collect();
            Error::recipe(format!("expected one of the tasks {}, got `{text}`", names.join(", ")))
        })
    }
}

impl TryFrom<String> for Task {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Task> for String {
    fn from(task: Task) -> Self {
        task.as_str().into()
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_have_the_usual_spellings() {
        for (text, want) in [
            ("sst2", Task::Sst2),
            ("SST-2", Task::Sst2),
            ("CoLA", Task::Cola),
            ("STS-B", Task::Stsb),
            ("mnli-mm", Task::Mnli),
            ("SQuAD v1.1", Task::Squad),
            ("semantic segmentation", Task::Segmentation),
        ] {
            assert_eq!(text.parse::<Task>().unwrap(), want, "{text}");
        }
        for task in Task::ALL {
            assert_eq!(task.as_str().parse::<Task>().unwrap(), task);
        }
        let error = "wnli".parse::<Task>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected one of the tasks sst2, mrpc, cola, rte, qnli, qqp, mnli, stsb, squad, coco, segmentation, got `wnli`"
        );
    }
}
