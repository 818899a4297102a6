//! Detections that another program made.

use crate::data::read_coco;
use crate::error::{Error, Result};
use crate::report::Score;
use std::path::Path;

/// The twelve figures of COCO, in per cent, of the detections in the file `detections` (COCO's format of results) in all
/// images of the annotation file `truth`. Figures of sizes that no object has are left out.
pub fn score_detections(detections: impl AsRef<Path>, truth: impl AsRef<Path>) -> Result<Score> {
    let (path, truth) = (detections.as_ref(), read_coco(truth.as_ref())?);
    let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let found = truth.detections(&file).map_err(|e| e.at(path.display()))?;
    let images: Vec<i64> = truth.images().iter().map(|image| image.id).collect();
    Ok(Score::new(images.len(), truth.figures(&images, &found)?.iter()))
}
