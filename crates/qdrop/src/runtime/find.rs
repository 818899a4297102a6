//! Finds the shared library of ONNX Runtime.

use crate::error::{Error, Kind, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The variable that names the library.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Advice if there is no library.
const REMEDY: &str = "pip install onnxruntime in the active Python environment, or name the library with \
                      --runtime-library or in the environment variable ORT_DYLIB_PATH";

/// The surroundings in which a library is searched for.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The library that the user names.
    pub named: Option<PathBuf>,
    /// The value of [`VARIABLE`].
    pub variable: Option<OsString>,
    /// Roots of active Python environments, with the names of the variables that hold them.
    pub environments: Vec<(&'static str, PathBuf)>,
    /// Directories with programs.
    pub path: Vec<PathBuf>,
    /// The user's own directory.
    pub home: Option<PathBuf>,
}

impl Surroundings {
    /// The surroundings of this process; `named` is the library that the user names.
    pub fn new(named: Option<&Path>) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = |name| set(name).map(|value| (name, PathBuf::from(value)));
        Surroundings {
            named: named.map(Path::to_path_buf),
            variable: set(VARIABLE),
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(root).collect(),
            path: set("PATH").iter().flat_map(std::env::split_paths).collect(),
            home: set(if cfg!(windows) { "APPDATA" } else { "HOME" }).map(PathBuf::from),
        }
    }

    /// The library: the one that the user names, else the one that the variable names, else that of the first Python
    /// package found. It is an error if a named library is missing; no other is searched for then.
    pub fn find(&self) -> Result<PathBuf> {
        let variable = self.variable.as_ref().map(|path| (PathBuf::from(path), Some(VARIABLE)));
        if let Some((path, origin)) = self.named.clone().map(|path| (path, None)).or(variable) {
            if path.is_file() {
                return Ok(path);
            }
            let what = if path.is_dir() { "expected a file, got a directory" } else { "no such file" };
            let error = Error::new(Kind::Io, what).at(path.display());
            let error = origin.into_iter().fold(error, |e, name| e.at(format!("environment variable {name}")));
            return Err(error.hint("name the shared library of ONNX Runtime, such as libonnxruntime.so.1.32.0"));
        }
        let mut looked = vec![format!("{VARIABLE} (not set)")];
        for (name, root) in &self.environments {
            match packages(root).iter().find_map(|p| library(p)) {
                Some(found) => return Ok(found),
                None => looked.push(missing(&format!("{name}={}", root.display()), &packages(root))),
            }
        }
        for python in self.pythons() {
            let packages: Vec<PathBuf> = roots(&python).iter().flat_map(|r| packages(r)).collect();
            match packages.iter().find_map(|p| library(p)) {
                Some(found) => return Ok(found),
                None => looked.push(missing(&python.display().to_string(), &packages)),
            }
        }
        if let Some(home) = &self.home {
            let root = if cfg!(windows) { home.join("Python") } else { home.join(".local") };
            match packages(&root).iter().find_map(|p| library(p)) {
                Some(found) => return Ok(found),
                None => looked.push(missing(&root.display().to_string(), &packages(&root))),
            }
        }
        let message = format!("found no shared library of ONNX Runtime; looked at {}", looked.join(", "));
        Err(Error::new(Kind::Io, message).hint(REMEDY))
    }

    /// Python interpreters on the path, each once.
    fn pythons(&self) -> Vec<PathBuf> {
        let names = if cfg!(windows) { ["python3.exe", "python.exe"] } else { ["python3", "python"] };
        let mut found: Vec<PathBuf> = Vec::new();
        for python in self.path.iter().flat_map(|dir| names.map(|name| dir.join(name))).filter(|p| p.is_file()) {
            // Both names in one directory lead to one environment.
            if !found.iter().any(|f| f.parent() == python.parent()) {
                found.push(python);
            }
        }
        found
    }
}

/// Roots of the environments that the interpreter `python` may belong to: an environment's interpreter is a link to
/// another one. A script in its place (a shim of a version manager) is asked, so that no site code runs.
fn roots(python: &Path) -> Vec<PathBuf> {
    let above = |file: &Path| file.parent().and_then(Path::parent).map(Path::to_path_buf);
    let mut roots: Vec<PathBuf> = above(python).into_iter().collect();
    if is_script(python) {
        roots.extend(asked(python));
    } else {
        roots.extend(python.canonicalize().ok().and_then(|real| above(&real)));
    }
    // Windows has the interpreter in the root itself.
    if cfg!(windows) {
        roots.extend(python.parent().map(Path::to_path_buf));
    }
    // Debian puts there what pip installs for all users.
    if roots.iter().any(|root| root == Path::new("/usr")) {
        roots.push("/usr/local".into());
    }
    roots
}

fn is_script(file: &Path) -> bool {
    let mut start = [0; 2];
    let read = std::fs::File::open(file).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut start));
    read.is_ok() && start == *b"#!"
}

/// The root that the interpreter states, isolated and without site code.
fn asked(python: &Path) -> Option<PathBuf> {
    let mut command = Command::new(python);
    command.args(["-I", "-S", "-c", "import sys; print(sys.prefix)"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|o| o.status.success())?;
    let root = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(root.trim())).filter(|root| root.is_dir())
}

/// Places of the native part of the package below `root`, that of the newest Python first.
fn packages(root: &Path) -> Vec<PathBuf> {
    let mut sites = vec![root.join("Lib").join("site-packages")];
    for lib in ["lib", "lib64"] {
        let lib = root.join(lib);
        let versions = |dir: &Path| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let name = |e: std::fs::DirEntry| e.file_name().to_str().map(str::to_string);
            entries.filter_map(name).filter(|n| n.starts_with("python3")).collect::<Vec<_>>()
        };
        let mut found = versions(&lib);
        found.sort_by_key(|n| std::cmp::Reverse(numbers(n)));
        for name in found {
            sites.extend(["site-packages", "dist-packages"].map(|s| lib.join(&name).join(s)));
        }
    }
    let mut places: Vec<PathBuf> = sites.into_iter().map(|s| s.join("onnxruntime").join("capi")).collect();
    places.retain(|p| p.is_dir());
    places
}

/// The library in the native part of a package; the newest where there are several.
fn library(place: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| is_library(p)).collect();
    found.sort_by_key(|p| p.file_name().map(|n| numbers(&n.to_string_lossy())));
    found.pop()
}

/// `libonnxruntime.so.1.20.1`, `libonnxruntime.1.20.1.dylib`, `onnxruntime.dll`.
fn is_library(file: &Path) -> bool {
    let Some(name) = file.file_name().and_then(|n| n.to_str()) else { return false };
    let Some(rest) = name.strip_prefix("libonnxruntime.") else { return name == "onnxruntime.dll" };
    rest == "so" || rest.starts_with("so.") || rest == "dylib" || rest.ends_with(".dylib")
}

/// The numbers in a name, so that 1.9 comes before 1.10.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

/// Describes a place without a library, which has `packages`.
fn missing(place: &str, packages: &[PathBuf]) -> String {
    match packages.first() {
        None => format!("{place} (no package onnxruntime)"),
        Some(p) => format!("{place} (no library in {}: Linux packages contain it from 1.19 on)", p.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An environment with an interpreter and a package; `libraries` lie in it.
    fn environment(root: &Path, python: &str, libraries: &[&str]) -> PathBuf {
        let capi = root.join("lib").join(python).join("site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::write(root.join("bin/python3"), b"\x7fELF").unwrap();
        for name in libraries {
            std::fs::write(capi.join(name), b"").unwrap();
        }
        capi
    }

    #[test]
    fn a_named_library_comes_first_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libonnxruntime.so");
        std::fs::write(&file, b"").unwrap();
        let variable = Some("/nowhere/lib.so".into());
        let named = Surroundings { named: Some(file.clone()), variable: variable.clone(), ..Default::default() };
        assert_eq!(named.find().unwrap(), file);
        let error = Surroundings { variable, ..Default::default() }.find().unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.to_string().starts_with("environment variable ORT_DYLIB_PATH: /nowhere/lib.so: no such file"));
        let error = Surroundings { named: Some(dir.path().into()), ..Default::default() }.find().unwrap_err();
        assert_eq!(error.message(), "expected a file, got a directory");
    }

    #[cfg(unix)]
    #[test]
    fn packages_are_found_in_environments_and_by_interpreters() {
        let dir = tempfile::tempdir().unwrap();
        let (venv, other) = (dir.path().join("venv"), dir.path().join("other"));
        let shared = "libonnxruntime_providers_shared.so";
        let capi = environment(&venv, "python3.11", &["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.20.1", shared]);
        let newer = environment(&other, "python3.13", &["libonnxruntime.so.1.32.0"]);
        let active = Surroundings { environments: vec![("VIRTUAL_ENV", venv.clone())], ..Default::default() };
        assert_eq!(active.find().unwrap(), capi.join("libonnxruntime.so.1.20.1"));
        let on_path = Surroundings { path: vec![other.join("bin"), venv.join("bin")], ..Default::default() };
        assert_eq!(on_path.find().unwrap(), newer.join("libonnxruntime.so.1.32.0"));
        // An interpreter that is a link belongs to the environment it lies in, and to the one it leads to.
        let links = dir.path().join("links/bin");
        std::fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink(other.join("bin/python3"), links.join("python")).unwrap();
        let linked = Surroundings { path: vec![links], ..Default::default() };
        assert_eq!(linked.find().unwrap(), newer.join("libonnxruntime.so.1.32.0").canonicalize().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn shims_are_asked() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (shims, real) = (dir.path().join("shims"), dir.path().join("real"));
        let capi = environment(&real, "python3.12", &["libonnxruntime.so.1.30.0"]);
        std::fs::create_dir(&shims).unwrap();
        let script = format!("#!/bin/sh\n[ \"$1 $2\" = \"-I -S\" ] && echo {}\n", real.display());
        std::fs::write(shims.join("python3"), script).unwrap();
        std::fs::set_permissions(shims.join("python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = Surroundings { path: vec![shims], ..Default::default() }.find().unwrap();
        assert_eq!(found, capi.join("libonnxruntime.so.1.30.0"));
    }

    #[cfg(unix)]
    #[test]
    fn what_was_looked_at_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (old, bare) = (dir.path().join("old"), dir.path().join("bare"));
        let capi = environment(&old, "python3.11", &[]);
        std::fs::create_dir_all(bare.join("bin")).unwrap();
        std::fs::write(bare.join("bin/python"), b"").unwrap();
        let surroundings = Surroundings {
            environments: vec![("VIRTUAL_ENV", old.clone())],
            path: vec![bare.join("bin")],
            home: Some(dir.path().into()),
            ..Default::default()
        };
        let error = surroundings.find().unwrap_err();
        let want = format!(
            "found no shared library of ONNX Runtime; looked at ORT_DYLIB_PATH (not set), VIRTUAL_ENV={} (no library in \
             {}: Linux packages contain it from 1.19 on), {} (no package onnxruntime), {} (no package onnxruntime)",
            old.display(),
            capi.display(),
            bare.join("bin/python").display(),
            dir.path().join(".local").display(),
        );
        assert_eq!((error.kind(), error.message()), (Kind::Io, want.as_str()));
        assert!(error.advice().is_some_and(|a| a.starts_with("pip install onnxruntime")));
    }
}
