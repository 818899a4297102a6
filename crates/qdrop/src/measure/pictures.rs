//! Pictures of what networks detected.

use super::detection::objects;
use crate::data::Samples;
use crate::error::{Error, Result};
use crate::eval::coco::{Detection, Truth};
use crate::report::{Marked, Picture, base64};
use std::collections::BTreeMap;

/// Most boxes of a network in a picture.
const MOST: usize = 60;

/// How pictures of detections are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawing {
    /// Longest side of a picture, in pixels.
    pub side: usize,
    /// Only detections with a score above this are drawn.
    pub above: f64,
}

/// Pictures of the annotated samples with the numbers `indices`, with what the float network (if there is one) and another
/// `found` in all samples. Images are decoded anew.
pub fn pictures(
    samples: &dyn Samples,
    indices: &[usize],
    (float, result): (Option<&[Detection]>, &[Detection]),
    drawing: Drawing,
) -> Result<Vec<Picture>> {
    let (float, result) = (float.map(by_image), by_image(result));
    let picture = |&index: &usize| {
        let at = |e: Error| e.at(format!("sample `{}`", samples.name(index)));
        let (objects, geometry) = objects(samples, index)?;
        let (truth, [height, width]) = (&*objects.truth, geometry.image);
        let names: BTreeMap<i64, &str> = truth.categories().iter().map(|c| (c.id, c.name.as_str())).collect();
        let marked = |category: i64, bbox: [f64; 4], score: Option<f64>| Marked {
            name: match names.get(&category) {
                Some(name) if !name.is_empty() => (*name).to_string(),
                _ => format!("category {category}"),
            },
            score: score.map(|s| rounded(s, 1000.0)),
            bbox: within(bbox, [width as f64, height as f64]),
        };
        let found = |all: &BTreeMap<i64, Vec<&Detection>>| {
            let mut found: Vec<&Detection> = all.get(&objects.image).into_iter().flatten().copied().collect();
            found.retain(|d| d.score > drawing.above);
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
            found.into_iter().take(MOST).map(|d| marked(d.category, d.bbox, Some(d.score))).collect::<Vec<_>>()
        };
        let image = samples.picture(index).map_err(at)?;
        let jpeg = image.map(|image| image.to_jpeg(drawing.side)).transpose().map_err(at)?;
        Ok(Picture {
            id: objects.image,
            name: file(truth, objects.image).unwrap_or_else(|| samples.name(index)),
            width,
            height,
            jpeg: jpeg.map(|bytes| base64(&bytes)),
            truth: truth.annotations(objects.image).iter().map(|a| marked(a.category, a.bbox, None)).collect(),
            float: float.as_ref().map(found),
            result: found(&result),
        })
    };
    indices.iter().map(picture).collect()
}

/// Numbers of `count` samples, spread over those in which objects are annotated, or over all where none is.
pub fn shown(samples: &dyn Samples, count: usize) -> Result<Vec<usize>> {
    let mut annotated = Vec::new();
    for index in 0..samples.len() {
        let (objects, _) = objects(samples, index)?;
        if !objects.truth.annotations(objects.image).is_empty() {
            annotated.push(index);
        }
    }
    if annotated.is_empty() {
        annotated = (0..samples.len()).collect();
    }
    Ok(crate::data::spread(annotated.len(), Some(count)).map(|i| annotated[i]).collect())
}

fn by_image(found: &[Detection]) -> BTreeMap<i64, Vec<&Detection>> {
    let mut all: BTreeMap<i64, Vec<&Detection>> = BTreeMap::new();
    found.iter().for_each(|d| all.entry(d.image).or_default().push(d));
    all
}

/// The file of `image`, without folders.
fn file(truth: &Truth, image: i64) -> Option<String> {
    let file = &truth.images().iter().find(|i| i.id == image)?.file_name;
    let name = file.rsplit(['/', '\\']).next().filter(|n| !n.is_empty())?;
    Some(name.to_string())
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The part of a box (left, top, width, height) that lies in an image of `size` (width, height), to a tenth of a pixel.
fn within([left, top, width, height]: [f64; 4], size: [f64; 2]) -> [f64; 4] {
    let ends = |begin: f64, length: f64, most: f64| {
        let (begin, end) = (begin.clamp(0.0, most), (begin + length).clamp(0.0, most));
        (rounded(begin, 10.0), rounded(end - begin, 10.0))
    };
    let ((left, width), (top, height)) = (ends(left, width, size[0]), ends(top, height, size[1]));
    [left, top, width, height]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_cut_at_the_image() {
        assert_eq!(within([-5.0, 2.04, 10.0, 100.0], [40.0, 30.0]), [0.0, 2.0, 5.0, 28.0]);
        assert_eq!(within([50.0, -9.0, 10.0, 5.0], [40.0, 30.0]), [40.0, 0.0, 0.0, 0.0]);
        assert_eq!(within([1.26, 1.0, 2.0, 2.0], [40.0, 30.0]), [1.3, 1.0, 2.0, 2.0]);
    }
}
