//! Top-1 and top-5 accuracy of a classifier.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Running counts of right answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classification {
    /// Samples counted.
    pub samples: usize,
    /// Samples whose class has the largest logit.
    pub top1: usize,
    /// Samples whose class is among the five largest logits.
    pub top5: usize,
}

/// Accuracy over labelled samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Samples counted, above 0.
    pub samples: usize,
    /// Share of samples whose class has the largest logit, in percent.
    pub top1: f64,
    /// Share of samples whose class is among the five largest logits, in percent; 100 with five classes or fewer.
    pub top5: f64,
}

impl Classification {
    /// Counts one sample: `logits` has one value per class. Among equal logits the lowest class comes first.
    /// An error, naming the sample by `name`, when the label is out of range or a logit is NaN; nothing is counted then.
    pub fn add(&mut self, name: &str, logits: &[f32], label: usize) -> Result<()> {
        let at = |e: Error| e.at(format!("sample `{name}`"));
        let classes = logits.len();
        if classes == 0 {
            return Err(at(Error::data("expected one logit per class, got none")));
        }
        let Some(&own) = logits.get(label) else {
            let last = classes - 1;
            let message = format!("label {label} is out of range, the network has {classes} classes (0 to {last})");
            return Err(at(Error::data(message)));
        };
        if let Some(class) = logits.iter().position(|x| x.is_nan()) {
            return Err(at(Error::new(Kind::Numeric, format!("the logit of class {class} is NaN"))));
        }
        let before = |&(class, &x): &(usize, &f32)| x > own || (x == own && class < label);
        let rank = logits.iter().enumerate().filter(before).count();
        self.samples += 1;
        self.top1 += usize::from(rank < 1);
        self.top5 += usize::from(rank < 5);
        Ok(())
    }

    /// Adds the counts of other samples.
    pub fn merge(&mut self, other: &Classification) {
        self.samples += other.samples;
        self.top1 += other.top1;
        self.top5 += other.top5;
    }

    /// The accuracy, or `None` when nothing was counted.
    pub fn metrics(&self) -> Option<Metrics> {
        let percent = |count: usize| 100.0 * count as f64 / self.samples as f64;
        let Classification { samples, top1, top5 } = *self;
        (samples > 0).then(|| Metrics { samples, top1: percent(top1), top5: percent(top5) })
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "top-1 {:.2} %, top-5 {:.2} % of {} samples", self.top1, self.top5, self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_class() {
        let logits = [1.0f32; 8];
        let ranks: Vec<(usize, usize)> = (0..8)
            .map(|label| {
                let mut c = Classification::default();
                c.add("s", &logits, label).unwrap();
                (c.top1, c.top5)
            })
            .collect();
        assert_eq!(ranks, [(1, 1), (0, 1), (0, 1), (0, 1), (0, 1), (0, 0), (0, 0), (0, 0)]);
    }

    #[test]
    fn infinite_logits_are_ordered() {
        let mut c = Classification::default();
        c.add("s", &[f32::NEG_INFINITY, f32::INFINITY, 0.0], 1).unwrap();
        c.add("s", &[f32::NEG_INFINITY, f32::INFINITY, 0.0], 0).unwrap();
        assert_eq!(c, Classification { samples: 2, top1: 1, top5: 2 });
    }

    #[test]
    fn bad_rows_are_named_and_not_counted() {
        let mut c = Classification::default();
        let e = c.add("a.png", &[0.0, f32::NAN], 0).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Numeric, "sample `a.png`: the logit of class 1 is NaN"));
        let e = c.add("a.png", &[0.0, 1.0], 2).unwrap_err();
        assert_eq!(e.kind(), Kind::Data);
        assert_eq!(e.to_string(), "sample `a.png`: label 2 is out of range, the network has 2 classes (0 to 1)");
        assert_eq!(c.add("a.png", &[], 0).unwrap_err().message(), "expected one logit per class, got none");
        assert_eq!(c.metrics(), None);
    }

    #[test]
    fn counts_merge_and_metrics_are_percents() {
        let mut a = Classification { samples: 3, top1: 1, top5: 2 };
        a.merge(&Classification { samples: 1, top1: 1, top5: 1 });
        let m = a.metrics().unwrap();
        assert_eq!(serde_json::to_string(&m).unwrap(), r#"{"samples":4,"top1":50.0,"top5":75.0}"#);
        assert_eq!(m.to_string(), "top-1 50.00 %, top-5 75.00 % of 4 samples");
    }
}
