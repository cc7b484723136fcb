//! A cluster of three nodes, each of which can be killed, stopped, suspended and started again.

use super::{options, wait_until};
use litflow::bus::Options;
use litflow::bus::admin::Admin;
use litflow::bus::broker::{Local, LocalOptions};
use litflow::bus::topics::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::net::TcpListener;
use std::time::Duration;
use tokio::runtime::Runtime;

pub const NODES: usize = 3;

/// Three brokers that are also the controllers: replication 3, two of them in sync for each commit.
pub struct Nodes {
    nodes: Vec<Option<Local>>,
    options: Vec<LocalOptions>,
    servers: String,
    _data: tempfile::TempDir,
}

impl Nodes {
    /// Starts them; none, with a note, where there is no Java or no Kafka.
    pub fn start(topics: &[Topic]) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let held: Vec<TcpListener> = (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let (ports, controllers) = ports.split_at(NODES);
        let voters: Vec<String> = (0..NODES).map(|n| format!("{}@127.0.0.1:{}", n + 1, controllers[n])).collect();
        let options = (0..NODES).map(|n| LocalOptions {
            data: Some(data.path().join(n.to_string())),
            port: Some(ports[n]),
            properties: properties(n + 1, ports[n], controllers[n], &voters.join(",")),
            ..LocalOptions::default()
        });
        let mut nodes = Self {
            nodes: (0..NODES).map(|_| None).collect(),
            options: options.collect(),
            servers: ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(","),
            _data: data,
        };
        drop(held);
        // One alone is no quorum: each answers when two are there.
        let started: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = nodes.options.iter().map(|options| scope.spawn(|| Local::start(options))).collect();
            starting.into_iter().map(|started| started.join().unwrap()).collect()
        });
        for (node, started) in started.into_iter().enumerate() {
            match started {
                Ok(local) => nodes.nodes[node] = Some(local),
                Err(reason) => {
                    eprintln!("skipped: {reason}");
                    return None;
                }
            }
        }
        wait_until("all nodes are registered", || nodes.leader("", 0).is_some());
        let runtime = Runtime::new().unwrap();
        let admin = Admin::new(&options_of(&nodes.servers)).unwrap();
        runtime.block_on(admin.create(topics, Some(NODES as i32))).unwrap();
        Some(nodes)
    }

    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        if let Some(local) = self.nodes[node].take() {
            signal(local.process_id().unwrap(), libc::SIGKILL);
        }
    }

    /// SIGTERM, and the time that an orderly end takes.
    pub fn stop(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    /// Starts it again with its data; returns when it answers.
    pub fn start_again(&mut self, node: usize) {
        if self.nodes[node].is_none() {
            self.nodes[node] = Some(Local::start(&self.options[node]).unwrap());
        }
    }

    /// The node that leads a partition, as the cluster says now. Of the topic without a name: any node, when all three
    /// are registered.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let client: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", "looking")
            .set("log_level", "2")
            .create()
            .unwrap();
        let topic = Some(topic).filter(|topic| !topic.is_empty());
        let metadata = client.fetch_metadata(topic, Duration::from_secs(5)).ok()?;
        let Some(topic) = topic else { return (metadata.brokers().len() == NODES).then_some(0) };
        let found = metadata.topics().iter().find(|found| found.name() == topic)?;
        let partition = found.partitions().iter().find(|found| found.id() == partition)?;
        usize::try_from(partition.leader() - 1).ok()
    }
}

fn options_of(servers: &str) -> Options {
    options(servers, "admin")
}

impl Drop for Nodes {
    /// All at once: the last one alone would wait for a quorum.
    fn drop(&mut self) {
        for node in 0..NODES {
            self.kill(node);
        }
    }
}

pub fn signal(process: u32, signal: i32) {
    // SAFETY: a system call that touches no memory; the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(process as libc::pid_t, signal) }, 0);
}

fn properties(id: usize, port: u16, controller: u16, voters: &str) -> Vec<(String, String)> {
    let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
    let id = id.to_string();
    let own = [("node.id", id.as_str()), ("listeners", &listeners), ("controller.quorum.voters", voters)];
    let common = [
        ("default.replication.factor", "3"),
        ("min.insync.replicas", "2"),
        ("offsets.topic.replication.factor", "3"),
        ("transaction.state.log.replication.factor", "3"),
        ("transaction.state.log.min.isr", "2"),
        // A killed node is to be missed soon.
        ("broker.session.timeout.ms", "3000"),
        ("broker.heartbeat.interval.ms", "500"),
        ("controlled.shutdown.enable", "true"),
        ("unclean.leader.election.enable", "false"),
    ];
    own.into_iter().chain(common).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
