//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

use super::progress;
use litflow::worker::Stop;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Says [`Stop::Now`] at the first signal; ends the process at the second. `asked` is told on stderr.
pub fn stop_on_signals(stop: watch::Sender<Stop>, asked: &'static str) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        stop.send_replace(Stop::Now);
        progress::suspended(|| anstream::eprintln!("{asked}; a second signal ends at once"));
        let number = either(&mut interrupt, &mut terminate).await;
        std::process::exit(128 + number);
    });
    Ok(())
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => libc::SIGINT,
        _ = terminate.recv() => libc::SIGTERM,
    }
}
