//! Images, categories and annotated boxes, and what a detector found in them.

use super::json;
use super::score::{Figures, figures};
use crate::error::{Error, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// An image of the set.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its number, by which annotations and detections name it.
    pub id: i64,
    /// Its file, relative to the folder of images; empty where the set names none.
    pub file_name: String,
}

/// A kind of object.
#[derive(Debug, Clone, PartialEq)]
pub struct Category {
    /// Its number, by which annotations and detections name it.
    pub id: i64,
    /// What it is called; empty where the set does not say.
    pub name: String,
}

/// An object in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Number of the image.
    pub image: i64,
    /// Number of the category.
    pub category: i64,
    /// Left, top, width and height, in pixels of the image.
    pub bbox: [f64; 4],
    /// Its area in pixels, by which it counts as small, medium or large: that of its outline, not of its box.
    pub area: f64,
    /// Whether it is a crowd: detections inside it count neither as right nor as wrong.
    pub crowd: bool,
}

/// What a detector found.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Number of the image.
    pub image: i64,
    /// Number of the category.
    pub category: i64,
    /// How sure the detector is; only the order counts.
    pub score: f64,
    /// Left, top, width and height, in pixels of the image.
    pub bbox: [f64; 4],
}

impl Detection {
    /// `found` as a file of results of COCO: a list of objects with `image_id`, `category_id`, `bbox` and `score`, a line each.
    /// Numbers are read back to the last bit.
    pub fn results(found: &[Detection]) -> Result<String> {
        #[derive(Serialize)]
        struct Row {
            image_id: i64,
            category_id: i64,
            bbox: [f64; 4],
            score: f64,
        }
        let row = |d: &Detection| {
            let row = Row { image_id: d.image, category_id: d.category, bbox: d.bbox, score: d.score };
            serde_json::to_string(&row).map_err(|e| Error::internal(format!("no JSON: {e}")))
        };
        let rows = found.iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(format!("[{}]\n", rows.join(",\n")))
    }
}

/// A set of images with all objects of some categories annotated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    images: Vec<Image>,
    categories: Vec<Category>,
    annotations: Vec<Annotation>,
    /// Where the annotations of an image lie among all, which are sorted by image.
    ranges: BTreeMap<i64, (usize, usize)>,
}

/// The remedy where a number names nothing.
const NUMBERS: &str = "images and categories are named by the field `id` of the annotation file, which need not begin with 0 or 1 or be without gaps";

impl Truth {
    /// A set from its parts. Images keep their order; categories are sorted by number. An error where a number is used
    /// twice, or an annotation names an image or a category that is not there or has a box that is none.
    pub fn new(images: Vec<Image>, mut categories: Vec<Category>, mut annotations: Vec<Annotation>) -> Result<Self> {
        if categories.is_empty() {
            return Err(Error::data("the set has no categories"));
        }
        let ids = distinct("images", images.iter().map(|i| i.id))?;
        let kinds = distinct("categories", categories.iter().map(|c| c.id))?;
        for (i, a) in annotations.iter().enumerate() {
            let at = |e: Error| e.at(format!("annotations[{i}]"));
            check(a.image, a.category, &a.bbox, (&ids, &kinds)).map_err(at)?;
            if !(a.area >= 0.0 && a.area.is_finite()) {
                return Err(at(Error::data(format!("expected an area of 0 or more, got {}", a.area))));
            }
        }
        categories.sort_by_key(|c| c.id);
        // Stable: the order within an image decides between equal matches.
        annotations.sort_by_key(|a| a.image);
        let mut ranges = BTreeMap::new();
        for (i, a) in annotations.iter().enumerate() {
            ranges.entry(a.image).or_insert((i, i)).1 = i + 1;
        }
        Ok(Truth { images, categories, annotations, ranges })
    }

    /// The set in an annotation file of COCO: an object with the lists `images` (with `id` and `file_name`), `categories`
    /// (`id`, `name`) and `annotations` (`id`, `image_id`, `category_id`, `bbox`, `area` and, for crowds, `iscrowd` 1).
    pub fn parse(file: &[u8]) -> Result<Self> {
        let (mut images, mut categories) = (Vec::new(), Vec::new());
        let (mut numbers, mut annotations) = (Vec::new(), Vec::new());
        json::lists(file, &["images", "categories", "annotations"], &mut |list, _, f| {
            match list {
                0 => images.push(Image { id: f.integer("id")?, file_name: f.text("file_name")? }),
                1 => categories.push(Category { id: f.integer("id")?, name: f.text("name")? }),
                _ => {
                    numbers.push(f.integer("id")?);
                    annotations.push(Annotation {
                        image: f.integer("image_id")?,
                        category: f.integer("category_id")?,
                        bbox: f.bbox("bbox")?,
                        area: f.number("area")?,
                        crowd: f.flag("iscrowd")?,
                    });
                }
            }
            Ok(())
        })?;
        distinct("annotations", numbers.into_iter())?;
        Truth::new(images, categories, annotations)
    }

    /// The detections in a file of results of COCO: a list of objects with `image_id`, `category_id`, `bbox` and `score`.
    pub fn detections(&self, file: &[u8]) -> Result<Vec<Detection>> {
        let mut found = Vec::new();
        json::list(file, "detections", &mut |_, _, f| {
            found.push(Detection {
                image: f.integer("image_id")?,
                category: f.integer("category_id")?,
                score: f.number("score")?,
                bbox: f.bbox("bbox")?,
            });
            Ok(())
        })?;
        self.check(&found)?;
        Ok(found)
    }

    /// The twelve figures of `detections` in the images with the numbers `images`; those in other images count nowhere.
    pub fn figures(&self, images: &[i64], detections: &[Detection]) -> Result<Figures> {
        let known = self.numbers();
        if let Some(id) = images.iter().find(|id| !known.contains(id)) {
            return Err(Error::data(format!("no image has the id {id}")).hint(NUMBERS));
        }
        self.check(detections)?;
        Ok(figures(self, &images.iter().copied().collect(), detections))
    }

    /// The images, in the order of the file.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The categories, by number.
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// The objects in the image with the number `image`.
    pub fn annotations(&self, image: i64) -> &[Annotation] {
        self.ranges.get(&image).map_or(&[], |&(start, end)| &self.annotations[start..end])
    }

    fn numbers(&self) -> BTreeSet<i64> {
        self.images.iter().map(|i| i.id).collect()
    }

    fn check(&self, detections: &[Detection]) -> Result<()> {
        let (images, kinds) = (self.numbers(), self.categories.iter().map(|c| c.id).collect());
        for (i, d) in detections.iter().enumerate() {
            let at = |e: Error| e.at(format!("detections[{i}]"));
            check(d.image, d.category, &d.bbox, (&images, &kinds)).map_err(at)?;
            if !d.score.is_finite() {
                return Err(at(Error::data(format!("expected a finite score, got {}", d.score))));
            }
        }
        Ok(())
    }
}

/// `ids`, which the elements of the list `name` have.
fn distinct(name: &str, ids: impl Iterator<Item = i64>) -> Result<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    for (i, id) in ids.enumerate() {
        if !found.insert(id) {
            return Err(Error::data(format!("the id {id} is used twice")).at(format!("{name}[{i}]")));
        }
    }
    Ok(found)
}

/// That an object lies in one of these images, is of one of these categories, and has a box.
fn check(
    image: i64,
    category: i64,
    bbox: &[f64; 4],
    (images, categories): (&BTreeSet<i64>, &BTreeSet<i64>),
) -> Result<()> {
    for (what, id, known) in [("image", image, images), ("category", category, categories)] {
        if !known.contains(&id) {
            return Err(Error::data(format!("no {what} has the id {id}")).hint(NUMBERS));
        }
    }
    if bbox.iter().any(|x| !x.is_finite()) || bbox[2] < 0.0 || bbox[3] < 0.0 {
        let message = format!("expected a box of finite numbers with a width and a height of 0 or more, got {bbox:?}");
        return Err(Error::data(message).hint("boxes are left, top, width and height in pixels"));
    }
    Ok(())
}
