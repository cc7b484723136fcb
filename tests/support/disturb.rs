//! Faults of brokers and workers: killed or stopped in order, and started again.

use super::child::{FENCED, Told};
use super::nodes::{NODES, Nodes, signal};
use std::process::Child;

/// Worker processes.
pub struct Workers<F: Fn(usize) -> Told> {
    told: F,
    processes: Vec<Child>,
    fenced: usize,
}

impl<F: Fn(usize) -> Told> Workers<F> {
    /// Starts so many; `told` says what each is told.
    pub fn start(count: usize, told: F) -> Self {
        let processes = (0..count).map(|worker| told(worker).spawn()).collect();
        Self { told, processes, fenced: 0 }
    }

    pub fn process_id(&self, worker: usize) -> u32 {
        self.processes[worker].id()
    }

    /// Starts those again that were fenced, as whoever runs workers does: a broker that is away for longer than
    /// `transaction.timeout.ms` ends a transaction, and its worker with it. How many there were.
    pub fn tend(&mut self) -> usize {
        for (worker, process) in self.processes.iter_mut().enumerate() {
            if let Some(ended) = process.try_wait().unwrap() {
                assert_eq!(ended.code(), Some(FENCED), "worker {worker}: {ended}");
                *process = (self.told)(worker).spawn();
                self.fenced += 1;
            }
        }
        self.fenced
    }

    fn kill(&mut self, worker: usize) {
        self.processes[worker].kill().unwrap();
        self.processes[worker].wait().unwrap();
        self.processes[worker] = (self.told)(worker).spawn();
    }

    fn stop(&mut self, worker: usize) {
        self.end(worker);
        self.processes[worker] = (self.told)(worker).spawn();
    }

    /// Ends all of them in order.
    pub fn stop_all(&mut self) {
        for worker in 0..self.processes.len() {
            self.end(worker);
        }
    }

    fn end(&mut self, worker: usize) {
        if self.processes[worker].try_wait().unwrap().is_none() {
            signal(self.processes[worker].id(), libc::SIGTERM);
        }
        let ended = self.processes[worker].wait().unwrap();
        let in_order = ended.success() || ended.code() == Some(FENCED);
        assert!(in_order, "worker {worker} did not end in order: {ended}");
    }
}

impl<F: Fn(usize) -> Told> Drop for Workers<F> {
    /// Those that a test that failed has left.
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What befalls a broker or a worker.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    BrokerKilled,
    WorkerKilled,
    BrokerStopped,
    WorkerStopped,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::BrokerKilled, Self::WorkerKilled, Self::BrokerStopped, Self::WorkerStopped];

    /// Of all brokers or workers it befalls one; returns when it has been started again.
    pub fn befall<F: Fn(usize) -> Told>(self, which: usize, nodes: &mut Nodes, workers: &mut Workers<F>) {
        let (node, worker) = (which % NODES, which % workers.processes.len());
        match self {
            Self::BrokerKilled => nodes.kill(node),
            Self::BrokerStopped => nodes.stop(node),
            Self::WorkerKilled => workers.kill(worker),
            Self::WorkerStopped => workers.stop(worker),
        }
        nodes.start_again(node);
        eprintln!("{self:?}: {}", if matches!(self, Self::BrokerKilled | Self::BrokerStopped) { node } else { worker });
    }
}
