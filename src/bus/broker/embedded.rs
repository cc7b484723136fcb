//! librdkafka's mock cluster, for a machine without Java.
//!
//! It keeps 5 MiB or 100,000 records a partition and drops older ones without a word, it does not fence, and
//! it shows aborted records to everyone. So it is used at-least-once, with one worker, and with input that
//! fits into a single partition; all else is refused.

use crate::bus::Error;
use crate::bus::topics::Topic;
use rdkafka::mocking::MockCluster;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// The most bytes of articles that may be published: less than one partition keeps, however they spread.
pub(super) const BUDGET: usize = 4 << 20;

/// A mock cluster on a thread of its own.
pub struct Embedded {
    bootstrap_servers: String,
    requests: Option<Sender<Request>>,
    keeper: Option<JoinHandle<()>>,
}

/// A topic to be made, and where the answer goes.
struct Request {
    topic: String,
    partitions: i32,
    answer: SyncSender<Result<(), String>>,
}

impl Embedded {
    /// Starts it.
    pub fn start() -> Result<Self, Error> {
        let (requests, received) = channel();
        let (started, starting) = sync_channel(1);
        // The cluster's handle must stay on one thread.
        let keeper = std::thread::Builder::new()
            .name("embedded-broker".into())
            .spawn(move || keep(&started, &received))
            .map_err(|e| failed(&e.to_string()))?;
        let bootstrap_servers = starting.recv().map_err(|e| failed(&e.to_string()))?.map_err(|e| failed(&e))?;
        Ok(Self { bootstrap_servers, requests: Some(requests), keeper: Some(keeper) })
    }

    /// Where clients connect.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Creates topics; their policies do not apply.
    pub fn create_topics(&self, topics: &[Topic]) -> Result<(), Error> {
        for topic in topics {
            let (answer, answered) = sync_channel(1);
            let request = Request { topic: topic.name.clone(), partitions: topic.partitions, answer };
            let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok());
            let result = if sent { answered.recv().ok() } else { None };
            match result {
                Some(Ok(())) => {}
                Some(Err(reason)) => return Err(failed(&reason)),
                None => return Err(failed("its thread has ended")),
            }
        }
        Ok(())
    }
}

fn failed(reason: &str) -> Error {
    Error::Broker(format!("the embedded broker: {reason}"))
}

fn keep(started: &SyncSender<Result<String, String>>, requests: &Receiver<Request>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            let _ = started.send(Err(error.to_string()));
            return;
        }
    };
    let _ = started.send(Ok(cluster.bootstrap_servers()));
    for request in requests {
        let made = cluster.create_topic(&request.topic, request.partitions, 1).map_err(|e| e.to_string());
        let _ = request.answer.send(made);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}
