//! A network that is loaded in the runtime.

use super::api::{self, MemoryInfo, RunOptions, SessionOptions, TypeInfo};
use super::library::{Library, text};
use super::value::{self, Handle};
use crate::error::{Error, Kind, Result};
use crate::graph::{Dim, Fact};
use crate::tensor::Tensor;
use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two looks at whether a run should end.
const LOOK: Duration = Duration::from_millis(50);

/// The source of a network.
#[derive(Debug, Clone, Copy)]
pub enum Model<'a> {
    /// A file, with its external data next to it.
    File(&'a Path),
    /// The bytes of a file that contains all its data.
    Bytes(&'a [u8]),
}

impl<'a> From<&'a Path> for Model<'a> {
    fn from(path: &'a Path) -> Self {
        Model::File(path)
    }
}

impl<'a> From<&'a [u8]> for Model<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Model::Bytes(bytes)
    }
}

/// Options of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Number of threads on which an operator runs; 0 leaves the choice to the runtime.
    pub threads: usize,
    /// Whether the runtime optimises the network as it does by default (`ORT_ENABLE_ALL`), or not at all
    /// (`ORT_DISABLE_ALL`).
    pub optimize: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { threads: 0, optimize: true }
    }
}

/// An input or output as the network declares it. Initializers do not count as inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Type and sizes; empty if it is not a tensor.
    pub fact: Fact,
}

/// A network that is loaded in the runtime and runs on the CPU. It may be run from several threads at once.
#[derive(Debug)]
pub struct Session {
    library: Library,
    session: *mut api::Session,
    memory: *mut MemoryInfo,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

// SAFETY: the runtime's sessions may be used and released from any thread; the memory information is only read.
unsafe impl Send for Session {}
// SAFETY: the runtime's sessions may be run from several threads at once.
unsafe impl Sync for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: both were made by this library, or are null, which it takes, and are released once.
        unsafe {
            (self.library.api().release_session)(self.session);
            (self.library.api().release_memory)(self.memory);
        }
    }
}

impl Session {
    /// Loads `model` in `library`. If the runtime refuses it, the error has the runtime's own message.
    pub fn new<'a>(library: &Library, model: impl Into<Model<'a>>, options: &Options) -> Result<Self> {
        match model.into() {
            Model::File(path) => {
                let text = path_text(path)?;
                // SAFETY: the path ends in 0 and lives during the call.
                let make = |options: *const SessionOptions, out: *mut *mut api::Session| unsafe {
                    (library.api().create_session)(library.env(), text.as_ptr(), options, out)
                };
                Self::made(library, options, make).map_err(|e| e.at(path.display()))
            }
            Model::Bytes(bytes) => {
                // SAFETY: so many bytes lie there during the call, which copies what it needs.
                let make = |options: *const SessionOptions, out: *mut *mut api::Session| unsafe {
                    let api = library.api();
                    (api.create_session_from_array)(library.env(), bytes.as_ptr().cast(), bytes.len(), options, out)
                };
                Self::made(library, options, make)
            }
        }
    }

    fn made(
        library: &Library,
        options: &Options,
        make: impl Fn(*const SessionOptions, *mut *mut api::Session) -> api::Outcome,
    ) -> Result<Self> {
        let api = library.api();
        let threads = c_int::try_from(options.threads)
            .map_err(|_| Error::recipe(format!("expected a number of threads, got {}", options.threads)))?;
        let level = if options.optimize { api::OPTIMIZE_ALL } else { api::OPTIMIZE_NOTHING };
        let chosen = Chosen::new(library)?;
        let (mut session, mut memory) = (null_mut(), null_mut());
        // SAFETY: options are alive; answers go to pointers of ours.
        unsafe {
            library.check((api.set_optimization)(chosen.options, level))?;
            library.check((api.set_threads)(chosen.options, threads))?;
        }
        library.check(make(chosen.options, &mut session))?;
        // From here on dropping it releases what there is.
        let mut made = Session { library: library.clone(), session, memory, inputs: Vec::new(), outputs: Vec::new() };
        // SAFETY: the answer goes to a pointer of ours.
        library.check(unsafe { (api.create_cpu_memory)(api::DEVICE_ALLOCATOR, api::DEFAULT_MEMORY, &mut memory) })?;
        made.memory = memory;
        made.inputs = made.ports(api.input_count, api.input_name, api.input_type)?;
        made.outputs = made.ports(api.output_count, api.output_name, api.output_type)?;
        Ok(made)
    }

    /// The inputs of the network.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs of the network.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The library that runs the network.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Runs the network on the named `inputs` and returns all outputs, in order. It is an error if a name, type or
    /// shape does not fit, if the run fails, or if an output is not a tensor of numbers.
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        let names: Vec<&str> = self.outputs.iter().map(|p| p.name.as_str()).collect();
        self.run_for(inputs, &names)
    }

    /// Like [`Session::run`], but returns only the outputs `wanted`.
    pub fn run_for(&self, inputs: &[(&str, &Tensor)], wanted: &[&str]) -> Result<Vec<Tensor>> {
        self.run_with(inputs, wanted, null())
    }

    /// Like [`Session::run_for`], but ends, with [`Kind::Interrupted`], soon after `stopped` says so: before the next
    /// operator.
    pub(crate) fn run_unless(
        &self,
        inputs: &[(&str, &Tensor)],
        wanted: &[&str],
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Tensor>> {
        let run = Run::new(&self.library)?;
        let done = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if stopped() {
                        return run.terminate();
                    }
                    std::thread::park_timeout(LOOK);
                }
            });
            let outcome = Error::caught(|| self.run_with(inputs, wanted, run.options));
            done.store(true, Ordering::Relaxed);
            watch.thread().unpark();
            outcome
        });
        match outcome {
            Err(_) if stopped() => Err(Error::new(Kind::Interrupted, "stopped on request")),
            outcome => outcome,
        }
    }

    /// Runs with `options`, of this library or null.
    fn run_with(&self, inputs: &[(&str, &Tensor)], wanted: &[&str], options: *const RunOptions) -> Result<Vec<Tensor>> {
        let library = &self.library;
        let views = inputs
            .iter()
            .map(|(name, tensor)| {
                Handle::view(library, self.memory, tensor).map_err(|e| e.at(format!("input `{name}`")))
            })
            .collect::<Result<Vec<_>>>()?;
        let values: Vec<*const api::Value> = views.iter().map(Handle::pointer).collect();
        let input_names = inputs.iter().map(|(name, _)| c_text(name)).collect::<Result<Vec<_>>>()?;
        let output_names = wanted.iter().map(|name| c_text(name)).collect::<Result<Vec<_>>>()?;
        let pointers = |names: &[CString]| names.iter().map(|n| n.as_ptr()).collect::<Vec<*const c_char>>();
        let (input_names, output_names) =
            ((pointers(&input_names), input_names), (pointers(&output_names), output_names));
        let mut results = vec![null_mut(); wanted.len()];
        // SAFETY: names, values and places for results have the stated lengths and live during the call, and so do the
        // options; the session may be run from any thread.
        let outcome = unsafe {
            (library.api().run)(
                self.session,
                options,
                input_names.0.as_ptr(),
                values.as_ptr(),
                values.len(),
                output_names.0.as_ptr(),
                results.len(),
                results.as_mut_ptr(),
            )
        };
        let results: Vec<Handle> = results.into_iter().map(|v| Handle::owned(library, v)).collect();
        library.check(outcome)?;
        results.iter().zip(wanted).map(|(r, n)| r.tensor().map_err(|e| e.at(format!("output `{n}`")))).collect()
    }

    #[allow(clippy::type_complexity)]
    fn ports(
        &self,
        count: unsafe extern "system" fn(*const api::Session, *mut usize) -> api::Outcome,
        name: unsafe extern "system" fn(
            *const api::Session,
            usize,
            *mut api::Allocator,
            *mut *mut c_char,
        ) -> api::Outcome,
        kind: unsafe extern "system" fn(*const api::Session, usize, *mut *mut TypeInfo) -> api::Outcome,
    ) -> Result<Vec<Port>> {
        let (library, api) = (&self.library, self.library.api());
        let (mut n, mut allocator) = (0, null_mut());
        // SAFETY: the session is alive; answers go to places of ours.
        unsafe {
            library.check(count(self.session, &mut n))?;
            library.check((api.default_allocator)(&mut allocator))?;
        }
        let port = |i| {
            let (mut told, mut info) = (null_mut(), null_mut());
            // SAFETY: `i` is below the count. The name is ours to free, once, after it was copied; the type is ours to
            // release, once, after it was read.
            unsafe {
                library.check(name(self.session, i, allocator, &mut told))?;
                let name = text(told);
                library.check((api.free)(allocator, told.cast()))?;
                library.check(kind(self.session, i, &mut info))?;
                let fact = declared(library, info);
                (api.release_type)(info);
                Ok(Port { name, fact: fact? })
            }
        };
        (0..n).map(port).collect()
    }
}

/// What `info` says of a tensor; nothing of other types.
///
/// # Safety
/// `info` is alive and of `library`.
unsafe fn declared(library: &Library, info: *const TypeInfo) -> Result<Fact> {
    let api = library.api();
    let mut tensor = null();
    // SAFETY: the caller's word on `info`, whose part `tensor` is; names belong to it and are copied at once.
    unsafe {
        library.check((api.cast_to_tensor)(info, &mut tensor))?;
        if tensor.is_null() {
            return Ok(Fact::default());
        }
        let (code, sizes) = value::described(library, tensor)?;
        let mut symbols = vec![null(); sizes.len()];
        library.check((api.symbols)(tensor, symbols.as_mut_ptr(), symbols.len()))?;
        let dim = |(&size, &symbol): (&i64, &*const c_char)| match usize::try_from(size) {
            Ok(size) => Dim::Known(size),
            Err(_) => match text(symbol) {
                name if name.is_empty() => Dim::Unknown,
                name => Dim::Symbol(name),
            },
        };
        Ok(Fact { dtype: value::dtype(code), shape: Some(sizes.iter().zip(&symbols).map(dim).collect()) })
    }
}

/// Options of one run, by which it can be ended.
struct Run<'a> {
    library: &'a Library,
    options: *mut RunOptions,
}

// SAFETY: the runtime sets and reads the one flag that is used here from several threads.
unsafe impl Sync for Run<'_> {}

impl<'a> Run<'a> {
    fn new(library: &'a Library) -> Result<Self> {
        let mut options = null_mut();
        // SAFETY: the answer goes to a pointer of ours.
        library.check(unsafe { (library.api().create_run_options)(&mut options) })?;
        Ok(Run { library, options })
    }

    /// Ends the run that has these options. It goes on where the runtime refuses.
    fn terminate(&self) {
        // SAFETY: the options are alive.
        let _ = self.library.check(unsafe { (self.library.api().terminate)(self.options) });
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // SAFETY: made by this library, released once, after the run.
        unsafe { (self.library.api().release_run_options)(self.options) }
    }
}

/// Options that are ours to release.
struct Chosen<'a> {
    library: &'a Library,
    options: *mut SessionOptions,
}

impl<'a> Chosen<'a> {
    fn new(library: &'a Library) -> Result<Self> {
        let mut options = null_mut();
        // SAFETY: the answer goes to a pointer of ours.
        library.check(unsafe { (library.api().create_options)(&mut options) })?;
        Ok(Chosen { library, options })
    }
}

impl Drop for Chosen<'_> {
    fn drop(&mut self) {
        // SAFETY: made by this library, released once; sessions keep a copy.
        unsafe { (self.library.api().release_options)(self.options) }
    }
}

fn c_text(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::model(format!("the name {name:?} contains a zero byte")))
}

/// `path` as the interface takes it, with a 0 at its end.
#[cfg(unix)]
fn path_text(path: &Path) -> Result<Vec<api::PathChar>> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(Error::model(format!("the path {path:?} contains a zero byte")));
    }
    Ok(bytes.iter().map(|&b| b as api::PathChar).chain([0]).collect())
}

/// `path` as the interface takes it, with a 0 at its end.
#[cfg(windows)]
fn path_text(path: &Path) -> Result<Vec<api::PathChar>> {
    use std::os::windows::ffi::OsStrExt;
    let units: Vec<u16> = path.as_os_str().encode_wide().collect();
    if units.contains(&0) {
        return Err(Error::model(format!("the path {path:?} contains a zero byte")));
    }
    Ok(units.into_iter().chain([0]).collect())
}
