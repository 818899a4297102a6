//! The loaded shared library.

use super::api::{self, Api, Env};
use super::find::Surroundings;
use crate::error::{Error, Kind, Result};
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::Arc;

/// Advice for a file that is not a library of ONNX Runtime.
const WRONG: &str = "name the shared library of ONNX Runtime for this machine, such as libonnxruntime.so.1.32.0";

/// A loaded ONNX Runtime. Copies share it, and it stays loaded until the process ends.
#[derive(Debug, Clone)]
pub struct Library(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    api: &'static Api,
    env: *mut Env,
    version: String,
    path: PathBuf,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

// SAFETY: the environment may be used and released from any thread; the rest is plain data that is only read.
unsafe impl Send for Loaded {}
// SAFETY: as above; functions on the environment may be called at once.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: the environment was made by this library, and every session holds this value, so none is left.
        unsafe { (self.api.release_env)(self.env) }
    }
}

impl Library {
    /// Loads the library `named`, else the one that the environment variable `ORT_DYLIB_PATH` names, else that of the
    /// first Python package `onnxruntime` found: in the active environment (`VIRTUAL_ENV`, `CONDA_PREFIX`), in a Python
    /// on the `PATH`, or in the user's packages.
    ///
    /// It is an error if no library is found (the error lists the places that were searched) or if the file is not a
    /// library of ONNX Runtime.
    pub fn find(named: Option<&Path>) -> Result<Self> {
        Self::load(&Surroundings::new(named).find()?)
    }

    /// Loads the library at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let refuse = |message: String| Error::new(Kind::Io, message).at(path.display()).hint(WRONG);
        // A bare name would be looked for elsewhere.
        let path = std::path::absolute(path).map_err(|e| Error::io(path, e))?;
        // SAFETY: the user names this file, or it lies where ONNX Runtime's package has its library; its initialisers
        // are as trusted as the program that would import it.
        let library = unsafe { libloading::Library::new(&path) };
        let library = library.map_err(|e| refuse(format!("cannot be loaded: {e}")))?;
        // SAFETY: a symbol of this name has this type in every ONNX Runtime.
        let base = unsafe { library.get::<api::GetBase>(b"OrtGetApiBase\0").map(|get| get()) };
        let base =
            base.map_err(|_| refuse("expected a library of ONNX Runtime, got one without OrtGetApiBase".into()))?;
        // SAFETY: null, or the static table of a library that is never unloaded.
        let Some(base) = (unsafe { base.as_ref() }) else { return Err(refuse("the library has no interface".into())) };
        // SAFETY: the function answers with a static string.
        let version = unsafe { text((base.version)()) };
        // SAFETY: null, or the static table of that version.
        let Some(api) = (unsafe { (base.api)(api::VERSION).as_ref() }) else {
            return Err(refuse(format!("ONNX Runtime {version} has no interface of version {}", api::VERSION)));
        };
        // Threads that the library starts, and its own clean-up, outlive any handle.
        std::mem::forget(library);
        let mut env = null_mut();
        // SAFETY: the name is a string, and the answer goes to a pointer of ours.
        let outcome = unsafe { (api.create_env)(api::FATAL, c"qdrop".as_ptr(), &mut env) };
        let library = Library(Arc::new(Loaded { api, env, version, path }));
        library.check(outcome)?;
        // SAFETY: the environment was just made.
        library.check(unsafe { (api.disable_telemetry)(env) })?;
        Ok(library)
    }

    /// The version, such as `1.32.0`.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Name and version: `ONNX Runtime 1.32.0`.
    pub fn name(&self) -> String {
        format!("ONNX Runtime {}", self.version())
    }

    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn api(&self) -> &'static Api {
        self.0.api
    }

    pub(super) fn env(&self) -> *mut Env {
        self.0.env
    }

    /// The error that a function answered with, if any.
    pub(super) fn check(&self, outcome: api::Outcome) -> Result<()> {
        if outcome.is_null() {
            return Ok(());
        }
        let api = self.api();
        // SAFETY: the status is one of this library, alive until it is released here, once.
        let (code, message) = unsafe {
            let told = ((api.error_code)(outcome), text((api.error_message)(outcome)));
            (api.release_status)(outcome);
            told
        };
        let kind = match code {
            api::NO_SUCH_FILE => Kind::Io,
            api::NOT_IMPLEMENTED => Kind::Unsupported,
            _ => Kind::Model,
        };
        let message: Vec<&str> = message.split_whitespace().collect();
        Err(Error::new(kind, message.join(" ").trim_end_matches('.')).at(self.name()))
    }
}

/// A string of the library.
///
/// # Safety
/// `text` is null or a string that ends in 0 and stays as it is during the call.
pub(super) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
