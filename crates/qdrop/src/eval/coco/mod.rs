//! Detection as COCO measures it: ground truth, detections, and the twelve figures of bounding boxes.
//!
//! [`Truth::parse`] reads an annotation file (`instances_val2017.json`), [`Truth::detections`] a file of results, and
//! [`Truth::figures`] computes from both what pycocotools prints. The one difference: an annotation with the id 0 counts
//! like any other, which pycocotools takes for no match.
//!
//! ```
//! use qdrop::eval::coco::{Detection, Truth};
//!
//! let truth = Truth::parse(br#"{
//!     "images": [{"id": 7, "file_name": "cat.jpg"}],
//!     "categories": [{"id": 17, "name": "cat"}],
//!     "annotations": [{"id": 1, "image_id": 7, "category_id": 17, "bbox": [10, 10, 40, 50], "area": 1800, "iscrowd": 0}]
//! }"#)?;
//! let found = Detection { image: 7, category: 17, score: 0.9, bbox: [10.0, 10.0, 40.0, 40.0] };
//! let figures = truth.figures(&[7], &[found])?;
//! // The boxes overlap by 0.8 of their union: a match at seven of the ten thresholds.
//! assert!((figures.get("ap").unwrap() - 70.0).abs() < 1e-9);
//! assert_eq!(figures.get("ap50"), Some(100.0));
//! assert_eq!(figures.get("ap_l"), None, "no object is large");
//! # Ok::<(), qdrop::Error>(())
//! ```

mod json;
mod score;
#[cfg(test)]
mod tests;
mod truth;

pub use score::{FIGURES, Figures};
pub use truth::{Annotation, Category, Detection, Image, Truth};
