//! Work directories: solutions of finished units, and measurements, from which a run that was stopped continues.

use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::report::{Event, Sink};
use crate::tensor::Rows;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Changes with the layout of the files, and with every change of the engine that changes a bit of a solution.
pub(crate) const REVISION: &[u8] = concat!("qdrop ", env!("CARGO_PKG_VERSION"), " 9").as_bytes();
/// Extension of files with solutions.
pub(crate) const UNIT: &str = "unit";
/// Extension of files with the measurements from which bits are chosen.
pub(crate) const MEASURED: &str = "sensitivity";
/// The file that is locked while a run uses the directory.
const LOCK: &str = "lock";
/// Bytes of the checksum that a file begins with.
const CHECKSUM: usize = blake3::OUT_LEN;

/// A directory with the solutions of finished units, from which a run that was stopped continues.
///
/// Each solution is stored under the hash of everything that determines it: the unit's problem with all samples, the
/// settings, and the seed. A directory can therefore serve any number of runs. The hash is in the file too, so a renamed
/// file is never mistaken for another solution.
#[derive(Debug, Clone)]
pub struct WorkDir {
    path: PathBuf,
    /// Locked as long as this and its clones live.
    _lock: Arc<File>,
}

impl WorkDir {
    /// Opens the directory at `path`, which is created if it is missing, and locks it. Files that an earlier run left
    /// incomplete are removed. It is an error if the directory cannot be created or written, or if another run uses it.
    pub fn open(path: &Path) -> Result<Self> {
        let work = Self::locked(path, File::try_lock)?;
        let io = |e| Error::io(path, e).hint("give another work directory");
        for entry in std::fs::read_dir(path).map_err(io)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(disk::UNFINISHED) {
                std::fs::remove_file(entry.path()).map_err(|e| Error::io(&entry.path(), e))?;
            }
        }
        Ok(work)
    }

    /// As [`WorkDir::open`], for a run that solves a share of the units ([`crate::Quantizer::solve_share`]): other such
    /// runs may use the directory at the same time.
    pub fn open_shared(path: &Path) -> Result<Self> {
        Self::locked(path, File::try_lock_shared)
    }

    fn locked(path: &Path, lock: impl Fn(&File) -> std::result::Result<(), TryLockError>) -> Result<Self> {
        let io = |e| Error::io(path, e).hint("give another work directory");
        std::fs::create_dir_all(path).map_err(io)?;
        let name = path.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(io)?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::Io, "another run is using this directory")
                    .at(path.display())
                    .hint("wait for it, or give another work directory"));
            }
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        Ok(WorkDir { path: path.to_path_buf(), _lock: Arc::new(file) })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of solutions in it.
    pub fn solutions(&self) -> usize {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter(|e| e.path().extension().is_some_and(|e| e == UNIT)).count()
    }

    /// Whether it contains the measurements from which bits are chosen.
    pub fn measured(&self) -> bool {
        let mut entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.any(|e| e.path().extension().is_some_and(|e| e == MEASURED))
    }

    /// Removes the files that this library put there, and the directory if nothing else is in it.
    pub fn remove(self) -> Result<()> {
        let io = |e| Error::io(&self.path, e);
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|e| e == UNIT || e == MEASURED)
                || path.file_name().is_some_and(|n| n == LOCK)
            {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        match std::fs::remove_dir(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(io(e)),
            _ => Ok(()),
        }
    }

    /// What is kept under `key`, if anything. A file that is damaged or belongs to another key is ignored, which `sink` is
    /// told.
    pub(crate) fn found<T: Kept>(&self, key: &blake3::Hash, sink: &mut dyn Sink) -> Option<T> {
        let path = self.file::<T>(key);
        let bytes = std::fs::read(&path).ok()?;
        let content = bytes.split_at_checked(CHECKSUM).filter(|(sum, content)| blake3::hash(content).as_bytes() == sum);
        let why =
            match content.and_then(|(_, content)| postcard::from_bytes::<([u8; blake3::OUT_LEN], T)>(content).ok()) {
                Some((own, kept)) if own == *key.as_bytes() => return Some(kept),
                Some(_) => "belongs to another problem; it is ignored, and the work is done again",
                None => "is damaged; it is ignored, and the work is done again",
            };
        sink.event(&Event::Note { message: format!("`{}` {why}", path.display()) });
        None
    }

    /// Stores `what` under `key`. No partial file is ever left behind.
    pub(crate) fn keep<T: Kept>(&self, key: &blake3::Hash, what: &T) -> Result<()> {
        let path = self.file::<T>(key);
        let content = encode(&(key.as_bytes(), what))?;
        disk::write(&path, &[blake3::hash(&content).as_bytes(), &content]).map_err(|e| {
            Error::io(&path, e).hint("make room and give the same command again: it continues after the last kept unit")
        })
    }

    fn file<T: Kept>(&self, key: &blake3::Hash) -> PathBuf {
        self.path.join(format!("{}.{}", &key.to_hex()[..32], T::EXTENSION))
    }
}

/// Something that is stored in a work directory.
pub(crate) trait Kept: Serialize + DeserializeOwned {
    /// Extension of its files.
    const EXTENSION: &str;
}

/// The hash of `what` and samples.
pub(crate) fn key_of(what: &impl Serialize, samples: &[&Rows]) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(REVISION);
    hasher.update(&encode(what)?);
    samples.iter().try_for_each(|rows| update(&mut hasher, rows))?;
    Ok(hasher.finalize())
}

pub(crate) fn update(hasher: &mut blake3::Hasher, rows: &Rows) -> Result<()> {
    hasher.update(&(rows.len() as u64).to_le_bytes());
    hasher.update(&(rows.width() as u64).to_le_bytes());
    for row in rows.iter() {
        hasher.update(bytemuck::cast_slice(&row?));
    }
    Ok(())
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| Error::internal(format!("cannot encode: {e}")))
}
