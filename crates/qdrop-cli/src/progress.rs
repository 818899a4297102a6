//! Progress on stderr: bars on a terminal, else plain lines, at most one a second besides each unit's result.

use crate::out::{self, Label};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qdrop::report::{Event, Silent, Sink, Stage, UnitReport, duration, figure, visible};
use qdrop::{Error, Kind};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Characters of a unit's name that a bar shows at most.
const NAME: usize = 30;

/// Time that work has to end by itself after Ctrl-C. Some cannot: a huge image that is decoded, a file that a runtime loads.
const GRACE: Duration = Duration::from_millis(700);

/// What is done to the error of a program that is ended before its work.
type Leaving = Box<dyn FnOnce(Error) -> Error + Send>;

static LEAVING: Mutex<Option<Leaving>> = Mutex::new(None);

/// Has `error` done to the error that the program ends with where work does not end by itself after Ctrl-C.
pub fn on_leaving(error: impl FnOnce(Error) -> Error + Send + 'static) {
    *LEAVING.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(error));
}

/// The flag that Ctrl-C sets. Work that has not ended soon after is left where it is; the second Ctrl-C leaves it at once.
pub fn interrupt_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    // Without a handler Ctrl-C ends the program at once, which is a fair answer too.
    let _ = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            leave();
        }
        std::thread::spawn(|| {
            std::thread::sleep(GRACE);
            leave();
        });
    });
    flag
}

/// Ends the program. Nothing temporary is left behind, and what is written is whole or not there, as after a kill.
fn leave() -> ! {
    qdrop::disk::abandon();
    let leaving = LEAVING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let leaving = leaving.unwrap_or_else(|| Box::new(|error| error));
    crate::complain(&leaving(Error::new(Kind::Interrupted, "stopped on request")));
    std::process::exit(130)
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing but errors.
    Quiet,
    /// Progress.
    Usual,
    /// Progress, and how long each stage took.
    Stages,
}

impl Detail {
    /// What the options ask for.
    pub fn of(quiet: bool, verbose: bool) -> Self {
        match (quiet, verbose) {
            (true, _) => Detail::Quiet,
            (false, true) => Detail::Stages,
            (false, false) => Detail::Usual,
        }
    }
}

/// The sink that fits stderr and `detail`.
pub fn sink(detail: Detail) -> Box<dyn Sink> {
    let stages = detail == Detail::Stages;
    let inner: Box<dyn Sink> = match (detail, std::io::stderr().is_terminal()) {
        (Detail::Quiet, _) => Box::new(Silent),
        (_, true) => Box::new(Bars { bar: ProgressBar::hidden(), stages }),
        (_, false) => Box::new(Lines { stages, ..Lines::default() }),
    };
    Box::new(Cancellable { inner, cancelled: interrupt_flag() })
}

/// Passes events on and answers for Ctrl-C.
struct Cancellable {
    inner: Box<dyn Sink>,
    cancelled: Arc<AtomicBool>,
}

impl Sink for Cancellable {
    fn event(&mut self, event: &Event) {
        self.inner.event(event);
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// `unit 3/12 layer1.0 (2 layers): loss 0.01 -> 0.002, 2000 iterations in 12 s`
fn unit_line(index: usize, unit: &UnitReport) -> String {
    let UnitReport { name, layers, loss_before, loss_after, iterations, resumed, seconds, .. } = unit;
    let layers = match layers.len() {
        1 => "1 layer".to_string(),
        n => format!("{n} layers"),
    };
    let how = match resumed {
        true => "kept from an earlier run".to_string(),
        false => format!("{iterations} iterations in {}", duration(*seconds)),
    };
    let (before, after) = (figure(*loss_before), figure(*loss_after));
    format!("unit {} {name} ({layers}): loss {before} -> {after}, {how}", index + 1)
}

fn took(stage: Stage, seconds: f64) -> String {
    format!("{stage}: took {}", duration(seconds))
}

fn estimate(seconds: f64) -> String {
    format!("estimated time: about {}", duration(seconds))
}

/// Progress as plain lines: the result of each unit and what must be known, and at most one line a second besides.
#[derive(Debug, Default)]
pub struct Lines {
    last: Option<Instant>,
    /// When the stage began.
    began: Option<Instant>,
    unit: String,
    /// Whether ends of stages are told.
    stages: bool,
}

impl Lines {
    /// What to print for `event`, with what kind of line it is; `None` where nothing is to be printed now.
    pub fn line(&mut self, event: &Event) -> Option<(Option<Label>, String)> {
        let soon = self.last.is_some_and(|t| t.elapsed() < Duration::from_secs(1));
        let (label, line) = match event {
            Event::StageStarted { stage, .. } => {
                self.began = Some(Instant::now());
                (None, (!soon).then(|| stage.to_string()))
            }
            Event::StageProgress { stage, done, total } => (None, (!soon).then(|| self.step(*stage, *done, *total))),
            Event::UnitStarted { index, total, name, .. } => {
                self.unit = format!("unit {}/{total} {name}", index + 1);
                (None, None)
            }
            Event::UnitProgress { iteration, iterations, loss, iterations_per_second, run_seconds_left, .. } => {
                let line = || {
                    let (unit, loss, left) = (&self.unit, figure(*loss), duration(*run_seconds_left));
                    let speed = format!("{iterations_per_second:.1} it/s");
                    format!("{unit}: iteration {iteration}/{iterations}, loss {loss}, {speed}, {left} left")
                };
                (None, (!soon).then(line))
            }
            Event::UnitFinished { index, unit } => (None, Some(unit_line(*index, unit))),
            Event::Estimate { seconds } => (None, Some(estimate(*seconds))),
            Event::Note { message } => (Some(Label::Note), Some(message.clone())),
            Event::StageFinished { stage, seconds } if self.stages => (None, Some(took(*stage, *seconds))),
            _ => (None, None),
        };
        line.map(|line| {
            self.last = Some(Instant::now());
            (label, line)
        })
    }

    fn step(&self, stage: Stage, done: usize, total: usize) -> String {
        let seconds = self.began.map_or(0.0, |t| t.elapsed().as_secs_f64());
        match (total - done) as f64 / done as f64 * seconds {
            left if seconds > 2.0 && left.is_finite() => format!("{stage}: {done}/{total}, {} left", duration(left)),
            _ => format!("{stage}: {done}/{total}"),
        }
    }
}

impl Sink for Lines {
    fn event(&mut self, event: &Event) {
        match self.line(event) {
            Some((Some(label), line)) => out::tell_as(label, &line),
            Some((None, line)) => out::tell(&line),
            None => {}
        }
    }
}

/// One bar that belongs to the current stage or unit.
struct Bars {
    bar: ProgressBar,
    /// Whether ends of stages are told.
    stages: bool,
}

impl Bars {
    fn start(&mut self, total: Option<usize>, template: &str, prefix: String) {
        self.bar.finish_and_clear();
        let bar = match total {
            Some(n) => ProgressBar::new(n as u64),
            None => ProgressBar::new_spinner(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        // A template that does not parse would only cost the bar its looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(prefix);
        self.bar = bar;
    }
}

impl Sink for Bars {
    fn event(&mut self, event: &Event) {
        match event {
            Event::StageStarted { stage, total } => {
                let template = match total {
                    Some(_) => "{prefix:20} [{bar:30}] {pos}/{len} {eta} left",
                    None => "{prefix:20} {spinner} {elapsed}",
                };
                self.start(*total, template, stage.to_string());
            }
            Event::StageProgress { done, total, .. } => {
                self.bar.set_length(*total as u64);
                self.bar.set_position(*done as u64);
            }
            Event::UnitStarted { index, total, name, iterations, .. } => {
                let name = out::shortened(&visible(name, false), NAME);
                let prefix = format!("unit {}/{total} {name}", index + 1);
                self.start(Some(*iterations), "{prefix:30} [{bar:20}] {pos}/{len} {msg}", prefix);
            }
            Event::UnitProgress { iteration, loss, iterations_per_second, run_seconds_left, .. } => {
                self.bar.set_position(*iteration as u64);
                let left = duration(*run_seconds_left);
                self.bar.set_message(format!("loss {} {iterations_per_second:.1} it/s {left} left", figure(*loss)));
            }
            Event::UnitFinished { index, unit } => self.bar.suspend(|| out::tell(&unit_line(*index, unit))),
            Event::Estimate { seconds } => self.bar.suspend(|| out::tell(&estimate(*seconds))),
            Event::Note { message } => self.bar.suspend(|| out::tell_as(Label::Note, message)),
            Event::StageFinished { stage, seconds } => {
                self.bar.finish_and_clear();
                if self.stages {
                    out::tell(&took(*stage, *seconds));
                }
            }
            _ => {}
        }
    }
}
