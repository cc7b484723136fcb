//! What an error means for the stream.
//!
//! Each module has its own `Error` (thiserror) with a `class()`; the worker decides by the class alone.

/// What the worker does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The same call may succeed when it is made again.
    Retriable,
    /// The open transaction is aborted, the consumer rewound to the last commit, and work begins again.
    Abort,
    /// This input can never succeed: it goes to the dead letters, its neighbours go on.
    Poison,
    /// The process cannot go on and ends with its own exit code.
    Fatal,
}

impl ErrorClass {
    /// The name used in logs, metrics and dead-letter headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retriable => "retriable",
            Self::Abort => "abort",
            Self::Poison => "poison",
            Self::Fatal => "fatal",
        }
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
