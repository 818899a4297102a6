//! Images of an annotation file of COCO.

use super::{Limits, Objects, Prepare, Samples, Target, files, forward_files, spread};
use crate::error::{Error, Result};
use crate::eval::coco::{Image, Truth};
use crate::eval::detect::Family;
use crate::plan::{self, Task};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How an annotation file becomes samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coco {
    /// The folder in which its images lie, or a folder of such folders; `None` to look next to the file.
    pub images: Option<PathBuf>,
    /// The family of the network whose detections are measured; `None` where the shapes of its outputs tell.
    pub detector: Option<Family>,
}

impl Coco {
    /// What `input` says about detection, `None` with another task or none.
    pub fn resolve(input: &plan::Input) -> Result<Option<Coco>> {
        if input.task != Some(Task::Coco) {
            return Ok(None);
        }
        let detector = input.detector.as_deref().map(str::parse).transpose()?;
        Ok(Some(Coco { images: input.images.as_ref().map(PathBuf::from), detector }))
    }
}

/// The annotated set in the file at `path`.
pub fn read_coco(path: &Path) -> Result<Truth> {
    let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    Truth::parse(&file).map_err(|e| e.at(path.display()))
}

/// Opens the images of the annotation file at `path`, prepared as by [`super::open`]: at most `limit` of them, spread over the
/// file.
pub fn open_coco(
    path: &Path,
    coco: &Coco,
    prepare: &Prepare,
    limit: Option<usize>,
    limits: &Limits,
) -> Result<Box<dyn Samples + Send + Sync>> {
    let truth = read_coco(path)?;
    let images: Vec<&Image> = spread(truth.images().len(), limit).map(|i| &truth.images()[i]).collect();
    let at = |e: Error| e.at(path.display());
    let Some(first) = images.first() else {
        return Err(at(Error::data("expected images, the list `images` is empty")));
    };
    let folder = folder(path, coco.images.as_deref(), first).map_err(at)?;
    let (mut paths, mut ids) = (Vec::new(), BTreeMap::new());
    let mut missing = Vec::new();
    for image in &images {
        let place = || format!("image {}", image.id);
        if image.file_name.is_empty() {
            return Err(at(Error::data("the field `file_name` is missing").at(place())));
        }
        let file = folder.join(&image.file_name);
        if !file.is_file() {
            missing.push(image.file_name.as_str());
        }
        if ids.insert(file.display().to_string(), image.id).is_some() {
            let message = format!("the file `{}` is that of another image too", image.file_name);
            return Err(at(Error::data(message).at(place())));
        }
        paths.push(file);
    }
    if let Some(name) = missing.first() {
        let (all, count) = (images.len(), missing.len());
        let error = format!("{count} of {all} images are missing in `{}`, the first: `{name}`", folder.display());
        return Err(at(Error::data(error).hint("give the folder that has them with --images")));
    }
    let inner = files::images(paths, prepare, limits).map_err(at)?;
    let id = |i: usize| ids.get(&inner.name(i)).copied();
    let ids: Option<Vec<i64>> = (0..inner.len()).map(id).collect();
    let ids = ids.ok_or_else(|| Error::internal("an image has the name of none that was opened"))?;
    Ok(Box::new(Annotated { inner, ids, truth: Arc::new(truth), detector: coco.detector }))
}

/// The folder that has the file of `image`: the one that is `named`, or below it the one with the name of the annotation file
/// at `path`; or else the same beside that file.
fn folder(path: &Path, named: Option<&Path>, image: &Image) -> Result<PathBuf> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let set = stem.strip_prefix("instances_").map(str::to_string);
    let beside = path.parent().unwrap_or(Path::new(""));
    let mut folders = Vec::new();
    match named {
        Some(named) if !named.is_dir() => {
            return Err(Error::data("--images: no such folder").at(named.display()));
        }
        Some(named) => {
            folders.push(named.to_path_buf());
            folders.extend([Some(stem), set].into_iter().flatten().map(|name| named.join(name)));
        }
        None => {
            folders.extend([beside.join(&stem), beside.to_path_buf()]);
            // COCO's own layout: annotations/instances_val2017.json and val2017/.
            folders.extend(set.iter().flat_map(|set| [beside.join(set), beside.join("..").join(set)]));
        }
    }
    if let Some(found) = folders.iter().find(|f| f.join(&image.file_name).is_file()) {
        return Ok(found.clone());
    }
    let tried: Vec<String> = folders.iter().map(|f| format!("`{}`", f.display())).collect();
    Err(Error::data(format!("found no image `{}` in {}", image.file_name, tried.join(", ")))
        .hint("give the folder that has the images with --images"))
}

/// Images with what they show.
struct Annotated {
    inner: files::ImageFiles,
    /// Numbers of the images, in the order of the samples.
    ids: Vec<i64>,
    truth: Arc<Truth>,
    detector: Option<Family>,
}

impl Samples for Annotated {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.inner.get(index)
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        let objects = |&image: &i64| Objects { truth: self.truth.clone(), image, detector: self.detector };
        Ok(self.ids.get(index).map(objects).map(Target::Objects))
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    forward_files!(inner);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Subset;
    use tempfile::TempDir;

    /// A set of these images, without objects, in `name`.
    fn set(dir: &TempDir, name: &str, images: &[(i64, &str)]) -> PathBuf {
        let image = |&(id, file): &(i64, &str)| format!("{{\"id\": {id}, \"file_name\": \"{file}\"}}");
        let images: Vec<String> = images.iter().map(image).collect();
        let categories = r#""categories": [{"id": 1, "name": "cat"}], "annotations": []"#;
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{{\"images\": [{}], {categories}}}", images.join(", "))).unwrap();
        path
    }

    fn draw(dir: &TempDir, file: &str, level: u8) {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(4, 2, image::Rgb([level; 3])).save(path).unwrap();
    }

    fn opened(path: &Path, coco: &Coco, prepare: &Prepare) -> Result<Box<dyn Samples + Send + Sync>> {
        open_coco(path, coco, prepare, None, &Limits::default())
    }

    fn image(samples: &dyn Samples, index: usize) -> i64 {
        match samples.target(index).unwrap() {
            Some(Target::Objects(objects)) => objects.image,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn images_lie_where_annotation_files_have_them() {
        let dir = tempfile::tempdir().unwrap();
        draw(&dir, "val/a.png", 1);
        draw(&dir, "val/b.png", 2);
        let val = set(&dir, "val.json", &[(7, "b.png"), (3, "a.png")]);
        let coco = Coco { detector: Some(Family::Yolov8), ..Coco::default() };
        let samples = opened(&val, &coco, &Prepare::default()).unwrap();
        // In the order of the file.
        assert_eq!((samples.len(), image(&samples, 0), image(&samples, 1)), (2, 7, 3));
        assert_eq!(samples.get(0).unwrap()[0].as_f32().unwrap()[0], 2.0);
        assert_eq!((samples.label(0), samples.geometry(1).unwrap().image), (None, [2, 4]));
        assert!(samples.name(0).ends_with("b.png") && samples.target(2).unwrap().is_none());
        let part = Subset::new(&samples, vec![1]).unwrap();
        assert_eq!(image(&part, 0), 3);
        // As COCO unpacks, beside the file, and where they are said to be.
        for file in ["annotations/instances_val.json", "val/all.json", "instances_val.json"] {
            let path = set(&dir, file, &[(7, "b.png")]);
            assert_eq!(opened(&path, &Coco::default(), &Prepare::default()).unwrap().len(), 1, "{file}");
        }
        let elsewhere = set(&dir, "elsewhere/val.json", &[(7, "b.png")]);
        for folder in [dir.path().to_path_buf(), dir.path().join("val")] {
            let coco = Coco { images: Some(folder), detector: None };
            assert_eq!(opened(&elsewhere, &coco, &Prepare::default()).unwrap().len(), 1);
        }
        let limited = open_coco(&val, &Coco::default(), &Prepare::default(), Some(1), &Limits::default()).unwrap();
        assert_eq!((limited.len(), image(&limited, 0)), (1, 7));
    }

    #[test]
    fn missing_images_are_named() {
        let dir = tempfile::tempdir().unwrap();
        draw(&dir, "val/a.png", 1);
        let refused = |path: &Path, coco: &Coco| opened(path, coco, &Prepare::default()).err().unwrap().to_string();
        let path = set(&dir, "val.json", &[(1, "a.png"), (2, "b.png"), (3, "c.png")]);
        let error = refused(&path, &Coco::default());
        assert!(error.contains("val.json: 2 of 3 images are missing in `"), "{error}");
        assert!(error.ends_with("the first: `b.png`; give the folder that has them with --images"), "{error}");
        let error = refused(&set(&dir, "other.json", &[(1, "z.png")]), &Coco::default());
        assert!(error.contains("found no image `z.png` in `") && error.contains("/other`, `"), "{error}");
        let nowhere = Coco { images: Some(dir.path().join("nowhere")), detector: None };
        assert!(refused(&path, &nowhere).contains("nowhere: --images: no such folder"));
        let twice = set(&dir, "val.json", &[(1, "a.png"), (2, "a.png")]);
        assert!(refused(&twice, &Coco::default()).contains("image 2: the file `a.png` is that of another image too"));
        let empty = set(&dir, "val.json", &[]);
        assert!(refused(&empty, &Coco::default()).ends_with("expected images, the list `images` is empty"));
        std::fs::write(&path, "[]").unwrap();
        assert!(refused(&path, &Coco::default()).contains("val.json: expected an object with the lists `images`, "));
        assert!(read_coco(&dir.path().join("none.json")).is_err());
    }

    #[test]
    fn images_that_are_skipped_leave_the_others_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        draw(&dir, "val/a.png", 1);
        draw(&dir, "val/c.png", 1);
        std::fs::write(dir.path().join("val/b.png"), "no image").unwrap();
        let path = set(&dir, "val.json", &[(1, "a.png"), (2, "b.png"), (3, "c.png")]);
        assert!(opened(&path, &Coco::default(), &Prepare::default()).is_err());
        let prepare = Prepare { skip_bad: true, ..Prepare::default() };
        let samples = opened(&path, &Coco::default(), &prepare).unwrap();
        assert_eq!((samples.len(), samples.skipped(), image(&samples, 0), image(&samples, 1)), (2, 1, 1, 3));
    }

    #[test]
    fn only_the_task_of_detection_makes_annotated_images() {
        let mut input =
            plan::Input { images: Some("val".into()), detector: Some("YOLOv7".into()), ..plan::Input::default() };
        assert_eq!(Coco::resolve(&input).unwrap(), None);
        input.task = Some(Task::Coco);
        let want = Coco { images: Some("val".into()), detector: Some(Family::Yolov5) };
        assert_eq!(Coco::resolve(&input).unwrap(), Some(want));
        input.detector = Some("yolo".into());
        assert!(Coco::resolve(&input).unwrap_err().to_string().starts_with("expected one of the families yolox, "));
    }
}
