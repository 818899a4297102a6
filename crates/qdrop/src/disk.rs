//! Files that are whole or not there, and that last once they are there.

use std::collections::BTreeSet;
use std::fs::{DirEntry, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::{Builder, NamedTempFile, TempDir};

/// Begins the names of files that are being written.
pub const UNFINISHED: &str = ".qdrop-";
/// Random characters behind it.
const RANDOM: usize = 6;
/// Temporary files and folders of this process; some may be gone.
static TEMPORARY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// A file that nobody has locked after this time was left behind.
const STALE: Duration = Duration::from_secs(1);
/// Time from one look at a lock to the next.
const AGAIN: Duration = Duration::from_millis(100);

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
    temporary(file.path());
    Ok(file)
}

/// A folder for temporary files, which vanishes with them.
pub fn temporary_folder() -> std::io::Result<TempDir> {
    let folder = Builder::new().prefix("qdrop-").tempdir()?;
    temporary(folder.path());
    Ok(folder)
}

/// Remembers that there is something temporary at `path`.
fn temporary(path: &Path) {
    // A relative path leads elsewhere from another folder.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
}

/// Removes the temporary files and folders of this process, for one that ends before they are given up.
pub fn abandon() {
    remove(std::mem::take(&mut *TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)));
}

fn remove(paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        // Most are gone or have their name by now.
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
}

/// Gives `file`, a [`temporary_file`] in the folder of `path`, its name. What is there then lasts: content and name are on
/// the disk, where the system can tell.
pub fn put_in_place(file: NamedTempFile, path: &Path) -> std::io::Result<()> {
    file.as_file().sync_all()?;
    let before = std::path::absolute(file.path());
    file.persist(path)?;
    if let Ok(before) = before {
        TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).remove(&before);
    }
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

/// The turn of this process at something that processes do one after the other; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    path: PathBuf,
    file: File,
}

impl Turn {
    /// Waits for the turn that the file at `path` stands for, which is locked as long as it lasts, while `go_on` says so;
    /// `None` if it no longer does. Where the file system knows no locks, every process has its turn at once.
    pub fn wait(path: &Path, go_on: &dyn Fn() -> bool) -> std::io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        while let Err(TryLockError::WouldBlock) = file.try_lock() {
            if !go_on() {
                return Ok(None);
            }
            std::thread::sleep(AGAIN);
        }
        Ok(Some(Turn { path: path.to_path_buf(), file }))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Those that wait hold the file open, so they come to their turns all the same.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
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
    fn what_is_temporary_is_removed_when_it_is_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (temporary_file(dir.path()).unwrap(), temporary_folder().unwrap());
        std::fs::write(folder.path().join("copy"), "a").unwrap();
        let (file_path, folder_path) = (file.path().to_path_buf(), folder.path().to_path_buf());
        // A process that ends drops nothing.
        std::mem::forget((file, folder));
        remove([file_path.clone(), folder_path.clone()]);
        assert!(!file_path.exists() && !folder_path.exists());
    }

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

    #[test]
    fn one_has_its_turn_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("turn.lock");
        let first = Turn::wait(&path, &|| true).unwrap().unwrap();
        assert!(Turn::wait(&path, &|| false).unwrap().is_none(), "it is another's turn");
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Turn::wait(&path, &|| true).unwrap().is_some()
        });
        std::thread::sleep(2 * AGAIN);
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.join().unwrap());
        assert!(!path.exists());
    }
}
