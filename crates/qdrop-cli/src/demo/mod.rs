//! The built-in network of the demo and the pictures it was trained to name.

mod draw;

pub use draw::CLASSES;

use qdrop::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The float network, trained by `scripts/train_demo.py`.
pub const NETWORK: &[u8] = include_bytes!("../../assets/demo.onnx");
/// The input preset that the network was trained with.
pub const PRESET: &str = "imagenet-norm";

/// Files of `count` pictures in `dir`, class after class in turn: `dir/CLASS/NUMBER.png`, or `dir/NUMBER.png` without
/// their labels. An error if the folder holds anything else: it would be taken for pictures of the demo.
pub fn paths(dir: &Path, count: usize, labels: bool) -> Result<Vec<PathBuf>> {
    let name = |index: usize| {
        let folder = if labels { dir.join(format!("{:02}", index % CLASSES)) } else { dir.to_path_buf() };
        folder.join(format!("{index:05}.png"))
    };
    let paths: Vec<PathBuf> = (0..count).map(name).collect();
    if dir.exists() {
        refuse_strangers(dir, &paths.iter().collect())?;
    }
    Ok(paths)
}

/// Draws the pictures of the stream `seed` into the files of [`paths`].
pub fn draw(paths: &[PathBuf], seed: u64) -> Result<()> {
    for (index, path) in paths.iter().enumerate() {
        if let Some(folder) = path.parent().filter(|_| index < CLASSES) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture = draw::picture(seed, index, index % CLASSES);
        let encoded = picture.write_to(&mut bytes, image::ImageFormat::Png);
        encoded.map_err(|e| Error::internal(format!("a drawn picture cannot be encoded: {e}")).at(path.display()))?;
        std::fs::write(path, bytes.into_inner()).map_err(|e| Error::io(path, e))?;
    }
    Ok(())
}

/// The pixels of `count` pictures of the stream `seed`, in red, green and blue: `[count, 32, 32, 3]` in row-major order. Picture
/// `i` shows class `i` modulo [`CLASSES`].
pub fn pixels(count: usize, seed: u64) -> Vec<u8> {
    (0..count).flat_map(|index| draw::picture(seed, index, index % CLASSES).into_raw()).collect()
}

/// An error if a file below `dir` is none of `own`.
fn refuse_strangers(dir: &Path, own: &BTreeSet<&PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        if path.is_dir() {
            refuse_strangers(&path, own)?;
        } else if !own.contains(&path) {
            let error = Error::data("the folder for the demo's pictures contains another file").at(path.display());
            return Err(error.hint("give an empty or new folder with --output-dir"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_drawn_again_but_not_among_others() {
        let dir = tempfile::tempdir().unwrap();
        let pictures = dir.path().join("test");
        for _ in 0..2 {
            draw(&paths(&pictures, 25, true).unwrap(), 1).unwrap();
        }
        assert!(pictures.join("04/00024.png").exists());
        std::fs::write(pictures.join("04/holiday.png"), "mine").unwrap();
        let error = paths(&pictures, 25, true).unwrap_err().to_string();
        assert!(error.contains("holiday.png"), "{error}");
        assert_eq!(std::fs::read(pictures.join("04/holiday.png")).unwrap(), b"mine");
    }
}
