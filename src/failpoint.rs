//! Places at which tests have litflow fail, by the `fail` crate. Without the feature `failpoints` there are none.
//!
//! A test names them to the program by the environment (`FAILPOINTS="after_produce=2*off->return"`) or to the library by
//! `fail::cfg`. The actions `panic`, `sleep` and `pause` do what they say at any of them; `return` does what the function
//! below says.

/// A place of the way of an article; `return` is the end of the process by SIGKILL.
pub(crate) fn reach(name: &str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| {
        // SAFETY: a system call that touches no memory.
        unsafe { libc::raise(libc::SIGKILL) };
    });
    let _ = name;
}

/// A place at which something else may happen: what `return(…)` says in its brackets, `None` where nothing is set.
pub(crate) fn value(name: &str) -> Option<String> {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |value| Some(value.unwrap_or_default()));
    let _ = name;
    None
}
