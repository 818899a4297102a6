//! Semantic segmentation: intersection over union (IoU) of classes, from the pixels of all images together.
//!
//! [`Confusion`] counts a confusion matrix, as far as the figures need it: its diagonal and the sums of its rows and columns.
//! [`ClassMap`] reads the class of any place from what a network puts out.
//!
//! ```
//! use qdrop::eval::segmentation::Confusion;
//!
//! let mut confusion = Confusion::default();
//! for (truth, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1)] {
//!     confusion.add(truth, predicted);
//! }
//! let figures = confusion.figures(&[255]).expect("there are pixels");
//! assert_eq!(figures.pixel_accuracy, 75.0);
//! // Class 0: 2 of 3 pixels; class 1: 1 of 2.
//! assert!((figures.miou - 100.0 * (2.0 / 3.0 + 1.0 / 2.0) / 2.0).abs() < 1e-9);
//! ```

mod class_map;

pub use class_map::{ClassMap, Place};

/// A confusion matrix over the pixels of all images, as far as figures need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confusion {
    counts: Vec<Count>,
}

/// Counts for one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    /// Pixels of this class in truth and prediction.
    both: u64,
    truth: u64,
    predicted: u64,
}

impl Count {
    /// Pixels of this class in truth or prediction.
    fn union(&self) -> u64 {
        self.truth + self.predicted - self.both
    }
}

/// The figures of a segmentation, in per cent.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Mean IoU of the classes that occur in truth or prediction.
    pub miou: f64,
    /// The part of all pixels whose class is right.
    pub pixel_accuracy: f64,
    /// Mean recall of the classes that occur in truth.
    pub mean_accuracy: f64,
    /// The classes that occur in truth or prediction, ascending.
    pub classes: Vec<ClassFigures>,
}

/// The figures of one class, in per cent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassFigures {
    /// Its number.
    pub class: usize,
    /// Pixels of the class in truth and prediction, as a part of those in truth or prediction.
    pub iou: f64,
    /// Pixels of the class in truth and prediction, as a part of those in truth; `None` where it does not occur there.
    pub recall: Option<f64>,
    /// Pixels of the class in truth.
    pub pixels: u64,
}

impl Confusion {
    /// Adds a pixel of class `truth` for which `predicted` was found.
    pub fn add(&mut self, truth: u16, predicted: u16) {
        let (truth, predicted) = (usize::from(truth), usize::from(predicted));
        let most = truth.max(predicted);
        if most >= self.counts.len() {
            self.counts.resize(most + 1, Count::default());
        }
        self.counts[truth].truth += 1;
        self.counts[predicted].predicted += 1;
        self.counts[truth].both += u64::from(truth == predicted);
    }

    /// Adds the pixels of `other`.
    pub fn merge(&mut self, other: &Confusion) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), Count::default());
        }
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            count.both += other.both;
            count.truth += other.truth;
            count.predicted += other.predicted;
        }
    }

    /// Number of pixels.
    pub fn len(&self) -> u64 {
        self.counts.iter().map(|c| c.truth).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The figures; `None` without a pixel. The numbers in `ignored` are no classes: they have no part in the means, even if
    /// the network predicts them.
    pub fn figures(&self, ignored: &[u16]) -> Option<Figures> {
        let all = self.len();
        let per_cent = |part: u64, of: u64| 100.0 * part as f64 / of as f64;
        let counted = self.counts.iter().enumerate();
        let counted = counted.filter(|(class, c)| c.union() > 0 && !ignored.iter().any(|&i| usize::from(i) == *class));
        let classes: Vec<ClassFigures> = counted
            .map(|(class, c)| ClassFigures {
                class,
                iou: per_cent(c.both, c.union()),
                recall: (c.truth > 0).then(|| per_cent(c.both, c.truth)),
                pixels: c.truth,
            })
            .collect();
        let recalls: Vec<f64> = classes.iter().filter_map(|c| c.recall).collect();
        if recalls.is_empty() {
            return None;
        }
        let right = self.counts.iter().map(|c| c.both).sum();
        Some(Figures {
            miou: classes.iter().map(|c| c.iou).sum::<f64>() / classes.len() as f64,
            pixel_accuracy: per_cent(right, all),
            mean_accuracy: recalls.iter().sum::<f64>() / recalls.len() as f64,
            classes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error of a figure, in per cent.
    const ROUNDING: f64 = 1e-9;

    fn counted(matrix: &[[u64; 4]; 4]) -> Confusion {
        let mut confusion = Confusion::default();
        for (truth, row) in matrix.iter().enumerate() {
            for (predicted, &n) in row.iter().enumerate() {
                (0..n).for_each(|_| confusion.add(truth as u16, predicted as u16));
            }
        }
        confusion
    }

    #[test]
    fn figures_are_those_of_the_confusion_matrix() {
        // Class 2 occurs nowhere, class 3 in predictions alone.
        let confusion = counted(&[[6, 2, 0, 0], [1, 4, 0, 3], [0; 4], [0; 4]]);
        let found = confusion.figures(&[255]).unwrap();
        let iou = [6.0 / 9.0, 4.0 / 10.0, 0.0];
        assert_eq!(found.classes.iter().map(|c| c.class).collect::<Vec<_>>(), [0, 1, 3]);
        for (class, want) in found.classes.iter().zip(iou) {
            assert!((class.iou - 100.0 * want).abs() < ROUNDING, "{class:?}");
        }
        assert!((found.miou - 100.0 * iou.iter().sum::<f64>() / 3.0).abs() < ROUNDING);
        assert!((found.pixel_accuracy - 100.0 * 10.0 / 16.0).abs() < ROUNDING);
        assert!((found.mean_accuracy - 100.0 * (6.0 / 8.0 + 4.0 / 8.0) / 2.0).abs() < ROUNDING);
        assert_eq!(found.classes.iter().map(|c| c.pixels).collect::<Vec<_>>(), [8, 8, 0]);
        assert_eq!((found.classes[2].recall, confusion.len(), confusion.is_empty()), (None, 16, false));
        // A number that is ignored is no class, though it is predicted: what is then missed stays missed.
        let ignored = confusion.figures(&[3]).unwrap();
        assert!((ignored.miou - 100.0 * (iou[0] + iou[1]) / 2.0).abs() < ROUNDING);
        assert_eq!(ignored.pixel_accuracy, found.pixel_accuracy);
    }

    #[test]
    fn parts_add_up() {
        let (a, b) = (counted(&[[1, 0, 0, 0]; 4]), counted(&[[0, 1, 0, 0], [0; 4], [0; 4], [0; 4]]));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b);
        ba.merge(&a);
        assert_eq!(ab, ba);
        assert_eq!(ab.len(), 5);
        assert_eq!(Confusion::default().figures(&[]), None);
    }
}
