//! The built-in network of the demo and the pictures it was trained to name.

mod draw;

pub use draw::CLASSES;

use qdrop::{Error, Result};
use std::path::Path;

/// The float network, trained by `scripts/train_demo.py`.
pub const NETWORK: &[u8] = include_bytes!("../../assets/demo.onnx");
/// The input preset that the network was trained with.
pub const PRESET: &str = "imagenet-norm";

/// Draws `count` pictures into `dir`, class after class in turn: `dir/CLASS/NUMBER.png`, or `dir/NUMBER.png` without
/// their labels.
pub fn draw(dir: &Path, seed: u64, count: usize, labels: bool) -> Result<()> {
    for index in 0..count {
        let class = index % CLASSES;
        let folder = if labels { dir.join(format!("{class:02}")) } else { dir.to_path_buf() };
        if index < CLASSES {
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        }
        let path = folder.join(format!("{index:05}.png"));
        let mut bytes = std::io::Cursor::new(Vec::new());
        let encoded = draw::picture(seed, index, class).write_to(&mut bytes, image::ImageFormat::Png);
        encoded.map_err(|e| Error::internal(format!("a drawn picture cannot be encoded: {e}")).at(path.display()))?;
        std::fs::write(&path, bytes.into_inner()).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}
