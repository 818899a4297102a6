//! Metrics: accuracy of classifiers, metrics of text benchmarks, the figures of detectors and of segmentation, and
//! distances between the values of two networks.
//!
//! This module works on plain slices and runs no networks. The counters take one sample at a time and can be merged,
//! so that samples may be distributed over threads; if they are fed and merged in sample order, the result does not
//! depend on the number of threads. The metrics of text, [`language`] and [`squad`], and of detectors, [`coco`], take all
//! predictions at once.
//!
//! ```
//! use qdrop::eval::{Classification, Comparison};
//!
//! // Three samples, three classes.
//! let mut counts = Classification::default();
//! counts.add("0.png", &[0.1, 2.0, 0.3], 1)?;
//! counts.add("1.png", &[0.5, 0.5, 0.1], 1)?; // a tie goes to the lower class
//! counts.add("2.png", &[9.0, 1.0, 2.0], 0)?;
//! let metrics = counts.metrics().expect("there are samples");
//! assert_eq!(metrics.samples, 3);
//! assert!((metrics.top1 - 200.0 / 3.0).abs() < 1e-9);
//! assert_eq!(metrics.top5, 100.0);
//!
//! let error = counts.add("3.png", &[0.0, 0.0, 0.0], 7).unwrap_err();
//! assert_eq!(error.to_string(), "sample `3.png`: label 7 is out of range, the network has 3 classes (0 to 2)");
//!
//! let mut distance = Comparison::new("conv1");
//! distance.add(&[1.0, -2.0], &[1.0, -1.98])?;
//! let distance = distance.finish();
//! assert!((distance.snr_db.unwrap() - 40.97).abs() < 0.01);
//! # Ok::<(), qdrop::Error>(())
//! ```

mod chance;
mod classify;
pub mod coco;
mod compare;
pub mod detect;
pub mod language;
pub mod segmentation;
pub mod squad;

pub use chance::Chance;
pub use classify::{Classification, Metrics};
pub use compare::{Comparison, Difference};
