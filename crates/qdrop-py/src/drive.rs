//! Work on a thread of its own, while the calling thread hands progress to Python and listens for Ctrl-C.

use crate::errors::raised;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use qdrop::report::{Event, Sink};
use qdrop::{Error, Kind, Result};
use qdrop_cli::show::Lines;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Time between two looks at signals.
const TICK: Duration = Duration::from_millis(50);
/// Time that work has to end by itself after it was asked to. Some cannot: a huge image that is decoded, a file that a runtime
/// loads. It is then left to end alone, and its result is dropped.
const GRACE: Duration = Duration::from_millis(700);
/// Messages that wait for the calling thread.
const WAITING: usize = 256;
/// Bytes of the stack of the working thread: as those of a program's main thread.
const STACK: usize = 8 << 20;

/// Who is told of progress.
#[derive(FromPyObject)]
pub struct Progress(
    /// Called with a text for every event.
    Option<Py<PyAny>>,
    /// Whether the texts are lines for people; otherwise events in JSON.
    bool,
);

/// What the working thread says.
enum Message<T> {
    Event(Box<Event>),
    /// Something to be done on the calling thread.
    Task(Task),
    Done(Result<T>),
}

/// Work that needs Python.
type Task = Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>;

/// The working thread's side.
pub struct Caller<T> {
    sender: SyncSender<Message<T>>,
    stop: Arc<AtomicBool>,
    tells: bool,
}

impl<T> Clone for Caller<T> {
    fn clone(&self) -> Self {
        Caller { sender: self.sender.clone(), stop: Arc::clone(&self.stop), tells: self.tells }
    }
}

impl<T> Caller<T> {
    /// Has `task` done on the calling thread, some time.
    pub fn ask(&self, task: impl FnOnce(Python<'_>) -> PyResult<()> + Send + 'static) -> Result<()> {
        let sent = self.sender.send(Message::Task(Box::new(task)));
        sent.map_err(|_| Error::new(Kind::Interrupted, "stopped on request"))
    }
}

impl<T: Send> Sink for Caller<T> {
    fn event(&mut self, event: &Event) {
        if self.tells {
            // Nobody listens to work that was left alone.
            let _ = self.sender.send(Message::Event(Box::new(event.clone())));
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The result of `work`, which runs on a thread of its own without the interpreter's lock. A panic is an internal error; a
/// signal or an exception in Python, such as one from `progress`, ends the work and is raised.
pub fn drive<T: Send + 'static>(
    py: Python<'_>,
    progress: &Progress,
    work: impl FnOnce(&mut Caller<T>) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = sync_channel(WAITING);
    let stop = Arc::new(AtomicBool::new(false));
    let mut caller = Caller { sender: sender.clone(), stop: Arc::clone(&stop), tells: progress.0.is_some() };
    let job = move || {
        let result = Error::caught(|| work(&mut caller));
        let _ = sender.send(Message::Done(result));
    };
    let spawned = std::thread::Builder::new().name("qdrop".into()).stack_size(STACK).spawn(job);
    spawned.map_err(|e| raised(py, &Error::new(Kind::Io, format!("cannot start a thread: {e}"))))?;
    listen(py, progress, receiver, &stop)
}

fn listen<T: Send>(
    py: Python<'_>,
    progress: &Progress,
    mut receiver: Receiver<Message<T>>,
    stop: &AtomicBool,
) -> PyResult<T> {
    let mut lines = progress.1.then(Lines::default);
    let mut failed: Option<(PyErr, Instant)> = None;
    loop {
        let from = &mut receiver;
        let message = py.detach(move || from.recv_timeout(TICK));
        let done = match message {
            Ok(Message::Done(result)) => return finished(py, result, failed),
            Ok(_) if failed.is_some() => Ok(()),
            Ok(Message::Event(event)) => progress.tell(py, &event, &mut lines),
            Ok(Message::Task(task)) => task(py),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(raised(py, &Error::internal("the working thread is gone"))),
        };
        match &failed {
            Some((_, since)) if since.elapsed() > GRACE => return finished(py, Err(Error::internal("left")), failed),
            Some(_) => {}
            None => {
                if let Err(error) = done.and_then(|()| py.check_signals()) {
                    stop.store(true, Ordering::Relaxed);
                    failed = Some((error, Instant::now()));
                }
            }
        }
    }
}

/// What the caller gets of `result`, where what `failed` in Python goes first.
fn finished<T>(py: Python<'_>, result: Result<T>, failed: Option<(PyErr, Instant)>) -> PyResult<T> {
    match (failed, result) {
        (Some((error, _)), _) => Err(error),
        (None, Ok(result)) => Ok(result),
        (None, Err(error)) if error.kind() == Kind::Interrupted => Err(PyKeyboardInterrupt::new_err(())),
        (None, Err(error)) => Err(raised(py, &error)),
    }
}

impl Progress {
    /// Nobody is told.
    pub fn none() -> Self {
        Progress(None, false)
    }

    fn tell(&self, py: Python<'_>, event: &Event, lines: &mut Option<Lines>) -> PyResult<()> {
        let Some(call) = &self.0 else { return Ok(()) };
        let text = match lines {
            Some(lines) => lines.line(event),
            None => Some(serde_json::to_string(event).map_err(|e| raised(py, &Error::internal(e.to_string())))?),
        };
        text.map_or(Ok(()), |text| call.call1(py, (text,)).map(drop))
    }
}
