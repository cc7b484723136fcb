//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once. SIGHUP: look for another model.

use super::progress;
use litflow::worker::Stop;
use litflow::worker::reload::Handle;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long the end may wait for the terminal, which another thread may be writing to.
const CLEARING: Duration = Duration::from_millis(200);

/// The number of the first signal, once there was one.
pub type Received = Arc<OnceLock<i32>>;

/// Says [`Stop::Now`] at the first signal; ends the process at the second. `asked` is told on stderr.
pub fn stop_on_signals(stop: watch::Sender<Stop>, asked: &'static str) -> std::io::Result<Received> {
    let received = Received::default();
    let first = received.clone();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let number = either(&mut interrupt, &mut terminate).await;
        first.get_or_init(|| number);
        stop.send_replace(Stop::Now);
        // Elsewhere, because a stalled terminal must not keep the second signal from being heard.
        spawn_blocking(move || progress::suspended(|| anstream::eprintln!("{asked}; a second signal ends at once")));
        let number = either(&mut interrupt, &mut terminate).await;
        let _ = timeout(CLEARING, spawn_blocking(progress::clear)).await; // it ends even if that does not
        end(128 + number);
    });
    Ok(received)
}

/// From now on SIGHUP does not end the process any more.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// At each SIGHUP the worker looks which model it is to serve.
pub fn look_on_hangups(mut hangups: Signal, reload: Handle) {
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP: looking for another model");
            reload.look_now().await; // the log tells what came of it
        }
    });
}

/// Ends the process without the destructors that `exit` runs: libtorch's would take away what the model
/// threads are computing with, and the process would die of SIGSEGV instead of with its own exit code.
pub fn end(code: i32) -> ! {
    // SAFETY: `_exit` takes any number, does not return, and runs no code of this process.
    unsafe { libc::_exit(code) }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => libc::SIGINT,
        _ = terminate.recv() => libc::SIGTERM,
    }
}
