//! From what a detector's file puts out to boxes, classes and scores.
//!
//! [`Detector::recognise`] tells the family of a file by the shapes of its outputs and the size of its input, the canvas;
//! [`Detector::decode`] turns the values of one sample into what was found, in pixels of the canvas, after the suppression
//! of overlapping boxes that the family's published evaluation uses.
//!
//! ```
//! use qdrop::eval::detect::{Detector, Output};
//!
//! // Ultralytics' files with the suppression inside: rows of x0, y0, x1, y1, score, class.
//! let output = Output { name: "output0", shape: &[1, 2, 6], integer: false };
//! let detector = Detector::recognise(&[output], (64, 64), Some(80), None)?;
//! assert_eq!(detector.family().as_str(), "end-to-end");
//! let rows = [4.0, 4.0, 20.0, 30.0, 0.9, 16.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
//! let found = detector.decode(&[&rows])?;
//! assert_eq!((found.len(), found[0].class, found[0].bbox), (1, 16, [4.0, 4.0, 20.0, 30.0]));
//! # Ok::<(), qdrop::Error>(())
//! ```

mod anchors;
mod cells;
mod classes;
mod distributions;
mod ends;
mod family;
mod nms;
mod queries;
mod recognise;
mod scores;
#[cfg(test)]
mod tests;

pub use classes::Numbering;
pub use family::Family;
pub use nms::Found;

use crate::error::{Error, Kind, Result};
use recognise::Form;

/// An output of a network, as far as it is known before the network runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Output<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape for one sample; the batch axis is 1 where there is one.
    pub shape: &'a [usize],
    /// Whether its elements are integers.
    pub integer: bool,
}

/// How the outputs of a network become detections.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    family: Family,
    form: Form,
    /// Height and width of the network's input.
    canvas: (usize, usize),
    /// Numbers of the outputs that are read, in the order in which they are.
    outputs: Vec<usize>,
    /// Elements of each.
    sizes: Vec<usize>,
    /// The outputs that are read, in words.
    shapes: String,
}

impl Detector {
    /// The detector that puts out `outputs` for an input of `canvas` (height and width); `classes` are the categories of the
    /// set on which it is measured, as far as they are known. Where the `family` is given, the outputs must be of that one.
    pub fn recognise(
        outputs: &[Output<'_>],
        canvas: (usize, usize),
        classes: Option<usize>,
        family: Option<Family>,
    ) -> Result<Self> {
        recognise::recognise(outputs, canvas, classes, family)
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Numbers of the outputs that [`Detector::decode`] reads, in order.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// Classes that the network tells apart; `None` where its outputs do not say.
    pub fn classes(&self) -> Option<usize> {
        self.form.classes()
    }

    /// Whether a class that the network names is the number of a category, even where the outputs do not say how many there
    /// are.
    pub fn names_categories(&self) -> bool {
        matches!(self.form, Form::Ends(ends::Ends::Lists { by_number: true, .. }))
    }

    /// Whether boxes are cut at the edges of the image, as the family's published evaluation does.
    pub fn clips(&self) -> bool {
        self.family.rules().clips
    }

    /// What shapes leave open is decided by the `values` of a sample: whether boxes of a file with the shapes of YOLOX are
    /// decoded in it. A family that was given stays.
    pub fn settle(&mut self, values: &[&[f32]]) -> Result<()> {
        self.check(values)?;
        if let Form::Cells { ref form, raw: None } = self.form {
            let raw = cells::is_raw(form, values[0], self.canvas);
            self.family = if raw { Family::Yolox } else { Family::YoloxDecoded };
            self.form = Form::Cells { form: form.clone(), raw: Some(raw) };
        }
        Ok(())
    }

    /// What the detector found in a sample whose outputs have these `values`, the best first. Boxes that are no finite
    /// numbers are left out.
    pub fn decode(&self, values: &[&[f32]]) -> Result<Vec<Found>> {
        self.check(values)?;
        let at = |e: Error| e.at(self.place());
        let (canvas, rules) = (self.canvas, self.family.rules());
        let candidates = match &self.form {
            Form::Cells { form, raw } => {
                let raw = raw.unwrap_or_else(|| cells::is_raw(form, values[0], canvas));
                cells::cells(form, raw, values[0], canvas, rules)
            }
            Form::Channels(form) => cells::channels(form, values[0], rules).map_err(at)?,
            Form::Distributions(form) => distributions::decode(form, values, canvas, rules),
            Form::Anchors(form) => anchors::decode(form, values, canvas, rules),
            Form::Queries(form) => queries::decode(form, values, canvas, rules),
            Form::Ends(form) => ends::decode(form, values),
        };
        Ok(nms::finish(candidates, rules))
    }

    /// For every element of the outputs with these `values` the best score of the cell, anchor or query that it belongs to:
    /// how much a detection depends on it. Empty for files that put out final boxes.
    pub(crate) fn scores(&self, values: &[&[f32]]) -> Result<Vec<Vec<f32>>> {
        self.check(values)?;
        Ok(scores::scores(&self.form, values, self.canvas))
    }

    fn place(&self) -> String {
        format!("outputs of family `{}`", self.family)
    }

    fn check(&self, values: &[&[f32]]) -> Result<()> {
        let at = |e: Error| e.at(self.place());
        let lengths: Vec<usize> = values.iter().map(|v| v.len()).collect();
        let fits = match &self.form {
            Form::Ends(ends) => lengths.len() == self.sizes.len() && ends.fits(&lengths),
            _ => lengths == self.sizes,
        };
        if !fits {
            let message = format!("expected outputs of {:?} elements, got {lengths:?}", self.sizes);
            return Err(at(Error::data(message)));
        }
        if values.iter().flat_map(|v| v.iter()).any(|x| x.is_nan()) {
            return Err(at(Error::new(Kind::Numeric, "an element is NaN")));
        }
        Ok(())
    }
}

impl std::fmt::Display for Detector {
    /// What is read in which outputs, and what counts as a detection.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} with {}", self.family, self.shapes, self.form)?;
        let rules = self.family.rules();
        if rules.score > 0.0 {
            write!(f, "; scores above {}", rules.score)?;
        }
        if let Some(overlap) = rules.overlap {
            write!(f, ", boxes of a class that overlap by more than {overlap} suppressed")?;
        }
        if rules.most < usize::MAX { write!(f, ", at most {} an image", rules.most) } else { Ok(()) }
    }
}
