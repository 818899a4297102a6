//! Pictures of what a detector found, in a folder.

use crate::out;
use qdrop::data::{Target, spread};
use qdrop::report::{Picture, album};
use qdrop::{Error, Result, Samples};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Longest side of a picture, in pixels.
pub const SIDE: usize = 1024;
/// The page with all pictures.
const INDEX: &str = "index.html";

fn file(dir: &Path, image: i64) -> PathBuf {
    dir.join(format!("{image}.svg"))
}

/// That pictures of `count` of the `samples` can be drawn into `dir`: it is a folder without any other file, or can be made.
pub fn check(dir: &Path, samples: &dyn Samples, count: usize) -> Result<()> {
    let mut own = BTreeSet::from([dir.join(INDEX)]);
    for index in spread(samples.len(), Some(count)) {
        if let Some(Target::Objects(objects)) = samples.target(index)? {
            own.insert(file(dir, objects.image));
        }
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        if !own.contains(&path) {
            let error = Error::data("the folder for pictures of detections contains another file").at(path.display());
            return Err(error.hint("give an empty or new folder with --draw"));
        }
    }
    Ok(())
}

/// Writes `pictures` into `dir`, each as an SVG file, and a page with all of them.
pub fn write(dir: &Path, title: &str, pictures: &[Picture]) -> Result<()> {
    pictures.iter().try_for_each(|picture| out::file(&file(dir, picture.id), &picture.svg()))?;
    out::file(&dir.join(INDEX), &album(title, pictures, |picture| format!("{}.svg", picture.id)))
}
