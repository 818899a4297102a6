//! The error type of the library: a kind, a message, the place where the error occurred, and advice.
//!
//! Messages are lowercase, have no final period, and say what was expected and what was found.

use std::fmt;
use std::path::Path;

/// Result of every fallible function in this library.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of an [`Error`]; stable, for programs that react to errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The model file is damaged, malicious, or violates the ONNX specification.
    Model,
    /// The model is valid, but needs something that is not supported.
    Unsupported,
    /// Samples, labels or images are missing, damaged, or of the wrong shape.
    Data,
    /// A recipe or an option has a bad value or an unknown key.
    Recipe,
    /// The operating system refused to read or write.
    Io,
    /// NaN or infinity where a finite number was needed.
    Numeric,
    /// The run was stopped on request.
    Interrupted,
    /// A bug in this library.
    Internal,
}

/// An error: what happened, where, and what to do about it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    places: Vec<String>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of kind `kind` with the text `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, places: Vec::new(), message: message.into(), hint: None, source: None }))
    }

    /// An error in the content of a model file.
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }

    /// An error about something valid that is not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// An error about samples or labels.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::Data, message)
    }

    /// An error about an option of the recipe.
    pub fn recipe(message: impl Into<String>) -> Self {
        Self::new(Kind::Recipe, message)
    }

    /// An error that is a bug in this library.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// The result of `work`; a panic inside it becomes an error of kind [`Kind::Internal`].
    pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
        // State that a panic leaves inconsistent is not used again.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of unknown cause");
            Err(Self::internal(format!("a panic: {text}"))
                .hint("please report it, with the command, the model, and the output with RUST_BACKTRACE=1"))
        })
    }

    /// An operating-system error on `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        let mut error = Self::new(Kind::Io, source.to_string()).at(path.display());
        error.0.source = Some(Box::new(source));
        error
    }

    /// Adds the place where the error occurred (`file x`, ``node `a` (Conv)``, ``unit `layer1` ``). Call it first with
    /// the innermost place; outer places follow. A stop on request has no place: it happens wherever the run is then.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        if self.0.kind != Kind::Interrupted {
            self.0.places.push(place.to_string());
        }
        self
    }

    /// Sets the advice: what the user can do about the error.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The kind of this error.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message, without places and advice.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The advice, if there is any: what the user can do about the error.
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The places, innermost first.
    pub fn places(&self) -> &[String] {
        &self.0.places
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.0.places.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} error: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error() {
        let panics: [fn() -> Result<()>; 3] =
            [|| std::panic::panic_any("too many".to_string()), || panic!("too many"), || std::panic::panic_any(3)];
        for (work, want) in panics.into_iter().zip(["too many", "too many", "of unknown cause"]) {
            let error = Error::caught(work).unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::Internal, format!("a panic: {want}").as_str()));
            assert!(error.advice().is_some_and(|hint| hint.contains("report it")), "{error}");
        }
        assert_eq!(Error::caught(|| Ok(3)).ok(), Some(3));
        assert_eq!(Error::caught::<()>(|| Err(Error::data("none"))).unwrap_err().kind(), Kind::Data);
    }
}
