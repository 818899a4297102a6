//! Detections that another program made, and pictures of those that were made here.

use crate::data::{Samples, read_coco, spread};
use crate::error::{Error, Result};
use crate::pipeline::{self, Detected, Drawing};
use crate::report::{Event, Picture, Score, Sink};
use std::path::Path;

/// Pictures of a report, and how they are made: small enough that a page can be sent by mail.
const PICTURES: usize = 6;
const DRAWING: Drawing = Drawing { side: 320, above: 0.3 };

impl Detected {
    /// What another program detected: the detections in the file `detections` (COCO's format of results), measured in all
    /// images of the annotation file `truth`. Figures of sizes that no object has are left out.
    pub fn read(detections: impl AsRef<Path>, truth: impl AsRef<Path>) -> Result<Self> {
        let (path, truth) = (detections.as_ref(), read_coco(truth.as_ref())?);
        let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let found = truth.detections(&file).map_err(|e| e.at(path.display()))?;
        let images: Vec<i64> = truth.images().iter().map(|image| image.id).collect();
        Ok(Detected { score: Score::new(images.len(), truth.figures(&images, &found)?.iter()), found })
    }

    /// Pictures of at most `count` of the `samples` in which these were detected, spread over them; images are decoded anew.
    pub fn pictures(&self, samples: &dyn Samples, count: usize, drawing: Drawing) -> Result<Vec<Picture>> {
        let indices: Vec<usize> = spread(samples.len(), Some(count)).collect();
        pipeline::pictures(samples, &indices, (None, &self.found), drawing)
    }
}

/// Pictures for a report of what the float network, if it was measured, and the `result` detected in `samples`. A run does
/// not fail for them.
pub(super) fn report_pictures(
    samples: &dyn Samples,
    (float, result): (Option<&Detected>, &Detected),
    sink: &mut dyn Sink,
) -> Vec<Picture> {
    let found = (float.map(|d| &d.found[..]), &result.found[..]);
    let made = pipeline::shown(samples, PICTURES).and_then(|i| pipeline::pictures(samples, &i, found, DRAWING));
    made.unwrap_or_else(|error| {
        sink.event(&Event::Note { message: format!("the report shows no images: {error}") });
        Vec::new()
    })
}
