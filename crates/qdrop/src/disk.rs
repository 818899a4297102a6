//! Files that are whole or not there, and that last once they are there.

use std::fs::{DirEntry, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tempfile::{Builder, NamedTempFile};

/// Begins the names of files that are being written.
pub const UNFINISHED: &str = ".qdrop-";
/// Random characters behind it.
const RANDOM: usize = 6;
/// A file that nobody has locked after this time was left behind.
const STALE: Duration = Duration::from_secs(1);

/// Writes `parts`, one behind the other, into the file at `path`, which is whole or as it was before.
pub fn write(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut file = temporary_file(folder(path))?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    put_in_place(file, path)
}

/// A file in `dir` that vanishes unless it is given its name; it is locked while it is written. What killed runs left there
/// is removed.
pub fn temporary_file(dir: &Path) -> std::io::Result<NamedTempFile> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_left_behind(&entry) {
            // Another run may have removed it meanwhile.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    let mut builder = Builder::new();
    builder.prefix(UNFINISHED).rand_bytes(RANDOM);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask still applies.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(dir)?;
    // Where the file system knows no locks, nobody can take the file for left behind either.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Gives `file`, a [`temporary_file`] in the folder of `path`, its name. What is there then lasts: content and name are on
/// the disk, where the system can tell.
pub fn put_in_place(file: NamedTempFile, path: &Path) -> std::io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    #[cfg(unix)]
    {
        use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        match File::open(folder(path)).and_then(|folder| folder.sync_all()) {
            // A folder that may be written, not read, or a file system that knows no such thing.
            Err(e) if !matches!(e.kind(), InvalidInput | PermissionDenied | Unsupported) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file has a name that only this program gives, and nobody writes it.
fn is_left_behind(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let random = name.to_str().and_then(|n| n.strip_prefix(UNFINISHED));
    let ours = random.is_some_and(|r| r.len() == RANDOM && r.bytes().all(|b| b.is_ascii_alphanumeric()));
    let plain = || entry.file_type().is_ok_and(|t| t.is_file());
    let age = || entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    if !(ours && plain() && age().is_some_and(|age| age >= STALE)) {
        return false;
    }
    File::options().write(true).open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
}

/// The folder that the file at `path` lies in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What tells an existing file from all others, so that many are compared with it cheaply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileIdentity {
    /// There is no such file.
    Missing,
    #[cfg(unix)]
    /// Device and number there.
    Number(u64, u64),
    #[cfg(not(unix))]
    /// The whole path.
    Path(std::path::PathBuf),
}

impl FileIdentity {
    /// Of the file at `path`, through links.
    pub fn of(path: &Path) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            path.metadata().map_or(FileIdentity::Missing, |m| FileIdentity::Number(m.dev(), m.ino()))
        }
        #[cfg(not(unix))]
        path.canonicalize().map_or(FileIdentity::Missing, FileIdentity::Path)
    }

    /// Whether both are one file that exists.
    pub fn is(&self, other: &FileIdentity) -> bool {
        match (self, other) {
            #[cfg(unix)]
            (FileIdentity::Number(dev, ino), FileIdentity::Number(d, i)) => (dev, ino) == (d, i),
            #[cfg(not(unix))]
            (FileIdentity::Path(a), FileIdentity::Path(b)) => a == b,
            _ => false,
        }
    }
}

/// Whether both paths are the same, or lead to one existing file, through links too.
pub fn same_file(a: &Path, b: &Path) -> bool {
    a == b || FileIdentity::of(a).is(&FileIdentity::of(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn what_killed_runs_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        for name in [".qdrop-aB3xyz", ".qdrop-young1", ".qdrop-notes.txt", ".qdrop-aB3xyz2", "model.onnx"] {
            let file = File::create(dir.path().join(name)).unwrap();
            if name != ".qdrop-young1" {
                file.set_modified(old).unwrap();
            }
        }
        let busy = temporary_file(dir.path()).unwrap();
        busy.as_file().set_modified(old).unwrap();
        let other = temporary_file(dir.path()).unwrap();
        assert!(busy.path().exists() && other.path().exists(), "a file that is being written stays");
        drop((busy, other));
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".qdrop-aB3xyz2", ".qdrop-notes.txt", ".qdrop-young1", "model.onnx"]);
    }
}
