//! A real Apache Kafka as a child process, from the jars that `scripts/kafka/fetch` brings.
//!
//! It listens on loopback only, on free ports, in a process group of its own (Ctrl-C at the terminal is for
//! the worker, which needs the broker to drain), and goes when this process goes, however that ends.

use crate::bus::kafka::{self, Context};
use crate::bus::{Error, Options};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const RUN: &str = "run-";
const LOCK: &str = "owner.lock";
const HEAP: &str = "-Xmx256m";
/// For runs of seconds and minutes: half the processor time until it answers, and less memory.
const SHORT_RUN: [&str; 2] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
/// Any id will do: a node talks only to itself.
const CLUSTER_ID: &str = "bGl0ZmxvdyBsb2NhbCBrYQ";
const SERVER_PROPERTIES: &str = include_str!("../../../scripts/kafka/server.properties");
const LOG4J2: &str = include_str!("../../../scripts/kafka/log4j2.xml");

/// How to start a local Apache Kafka.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalOptions {
    /// The folder with `libs/`. Without one: `LITFLOW_KAFKA_HOME`, else the next `.kafka` upward from the
    /// current folder or from this program.
    pub home: Option<PathBuf>,
    /// Where the data stay. Without one they are in a temporary folder in `home` and go with the broker.
    pub data: Option<PathBuf>,
    /// The port; a free one without.
    pub port: Option<u16>,
    /// Lines after those of `scripts/kafka/server.properties`: the last line of a key counts.
    pub properties: Vec<(String, String)>,
    /// Further arguments of `StorageTool format`, such as `--add-scram`.
    pub format: Vec<String>,
    /// Whether it is to be fast in the long run rather than soon.
    pub long_run: bool,
}

/// A running Apache Kafka; dropped, it is stopped.
pub struct Local {
    bootstrap_servers: String,
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    process: Arc<OnceLock<u32>>,
    home: PathBuf,
    folder: PathBuf,
    /// Removed after the broker has stopped.
    _temporary: Option<Temporary>,
}

/// A folder that goes with the broker, locked as long as this process lives.
struct Temporary {
    _folder: tempfile::TempDir,
    _lock: File,
}

impl Local {
    /// Starts it, and returns when it answers: 3 to 10 seconds.
    pub fn start(options: &LocalOptions) -> Result<Self, Error> {
        let home = find_home(options.home.as_deref())?;
        let java = find_java()?;
        let (folder, temporary) = folder(&home, options.data.as_deref())?;
        let (port, controller_port) = free_ports(options.port)?;
        let jars = home.join("libs").join("*");
        let mut properties = SERVER_PROPERTIES
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER_PORT@", &controller_port.to_string())
            .replace("@DATA@", &folder.join("log").to_string_lossy());
        for (key, value) in &options.properties {
            properties += &format!("{key}={value}\n");
        }
        write(&folder.join("server.properties"), &properties)?;
        write(&folder.join("log4j2.xml"), LOG4J2)?;
        let log_path = folder.join("kafka.log");
        let log = File::create(&log_path).map_err(|e| cannot("create", &log_path, &e))?;
        let command = |long_run: bool| -> Result<Command, Error> {
            let output = || log.try_clone().map_err(|e| cannot("share", &log_path, &e));
            let mut command = Command::new(&java);
            command
                .arg(HEAP)
                .args(if long_run { &[] } else { SHORT_RUN.as_slice() })
                .arg(format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.xml").display()))
                .arg("-cp")
                .arg(&jars)
                .current_dir(&folder)
                .stdin(Stdio::null())
                .stdout(output()?)
                .stderr(output()?);
            Ok(command)
        };

        let mut format = command(false)?;
        format.args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id", CLUSTER_ID]);
        format.args(["--config", "server.properties"]).args(&options.format);
        let formatted = format.status().map_err(|e| cannot("run", &java, &e))?;
        if !formatted.success() {
            return Err(Error::Broker(format!("Apache Kafka's storage cannot be formatted: {}", tail(&log_path))));
        }

        let mut server = command(options.long_run)?;
        server.args(["kafka.Kafka", "server.properties"]);
        let (process, exited) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let (stop, stopped) = channel();
        let keeper = std::thread::Builder::new()
            .name("local-kafka".into())
            .spawn({
                let (process, exited) = (process.clone(), exited.clone());
                move || keep(server, &stopped, &process, &exited)
            })
            .map_err(|e| Error::Broker(format!("no thread for the local Kafka: {e}")))?;
        let local = Self {
            bootstrap_servers: format!("127.0.0.1:{port}"),
            stop: Some(stop),
            keeper: Some(keeper),
            process,
            home,
            folder,
            _temporary: temporary,
        };
        local.wait_until_it_answers(port, &exited)?;
        Ok(local)
    }

    /// Where clients connect.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The folder with the jars, `libs/`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder with the broker's data and its log, `kafka.log`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The id of the broker's process, for who wants to disturb it.
    pub fn process_id(&self) -> Option<u32> {
        self.process.get().copied()
    }

    fn wait_until_it_answers(&self, port: u16, exited: &OnceLock<String>) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut pause = Duration::from_millis(20);
        let problem = |what: &str| {
            Error::Broker(format!("the local Apache Kafka {what}: {}", tail(&self.folder.join("kafka.log"))))
        };
        loop {
            if let Some(status) = exited.get() {
                return Err(problem(&format!("ended while it started ({status})")));
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() && self.has_a_broker() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(problem(&format!("did not answer within {} s", START_TIMEOUT.as_secs())));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    fn has_a_broker(&self) -> bool {
        let options = Options { bootstrap_servers: self.bootstrap_servers.clone(), ..Options::default() };
        let config = options.client(&[], &options.consumer);
        let client: Result<BaseConsumer<Context>, _> =
            kafka::create(config.create_with_context(Context::new(&options)));
        let metadata = client.ok().and_then(|client| client.fetch_metadata(None, Duration::from_secs(2)).ok());
        metadata.is_some_and(|metadata| !metadata.brokers().is_empty())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Runs the server until it ends or `stop` is dropped. The thread outlives the child, because the kernel
/// tells the child of its parent's death when the thread that made it ends.
fn keep(mut server: Command, stop: &Receiver<()>, process: &OnceLock<u32>, exited: &OnceLock<String>) {
    let parent = std::process::id();
    server.process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory of the parent.
    unsafe {
        server.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)); // it has died already
            }
            Ok(())
        });
    }
    let mut child = match server.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = exited.set(error.to_string());
            return;
        }
    };
    let _ = process.set(child.id());
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(Duration::from_millis(50)) {
        if let Ok(Some(status)) = child.try_wait() {
            let _ = exited.set(status.to_string());
            return;
        }
    }
    end(&mut child);
}

/// SIGTERM, a deadline, SIGKILL.
fn end(child: &mut Child) {
    // SAFETY: the child has not been waited for, so its id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn find_home(given: Option<&Path>) -> Result<PathBuf, Error> {
    let has_kafka = |home: &Path| {
        let Ok(jars) = fs::read_dir(home.join("libs")) else { return false };
        jars.flatten().any(|jar| jar.file_name().to_string_lossy().starts_with("kafka_"))
    };
    let named = given.map(Path::to_path_buf).or_else(|| std::env::var_os("LITFLOW_KAFKA_HOME").map(PathBuf::from));
    if let Some(home) = named {
        return match has_kafka(&home) {
            true => absolute(&home),
            false => Err(no_kafka(&format!("{} has none in libs/", home.display()))),
        };
    }
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    for start in starts.into_iter().flatten() {
        if let Some(home) = start.ancestors().map(|folder| folder.join(".kafka")).find(|home| has_kafka(home)) {
            return absolute(&home);
        }
    }
    Err(no_kafka("there is no .kafka/libs here or above"))
}

fn no_kafka(found: &str) -> Error {
    Error::Broker(format!(
        "no Apache Kafka: {found}; `scripts/kafka/fetch` brings it (with Java 17 and Maven), LITFLOW_KAFKA_HOME names \
         its folder, `--broker embedded` does without"
    ))
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|e| cannot("open", path, &e))
}

fn find_java() -> Result<PathBuf, Error> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = home.into_iter().chain(std::env::split_paths(&path));
    folders
        .find_map(|folder| Some(folder.join("java")).filter(|java| java.is_file()))
        .ok_or_else(|| Error::Broker("a local Apache Kafka needs Java 17: no `java` in JAVA_HOME/bin or PATH".into()))
}

fn folder(home: &Path, data: Option<&Path>) -> Result<(PathBuf, Option<Temporary>), Error> {
    match data {
        Some(data) => {
            fs::create_dir_all(data).map_err(|e| cannot("create", data, &e))?;
            Ok((absolute(data)?, None))
        }
        None => {
            sweep(home);
            let temporary =
                tempfile::Builder::new().prefix(RUN).tempdir_in(home).map_err(|e| cannot("write to", home, &e))?;
            let path = temporary.path().to_owned();
            let lock = File::create(path.join(LOCK)).and_then(|lock| lock.lock().map(|()| lock));
            let lock = lock.map_err(|e| cannot("lock", &path, &e))?;
            Ok((path, Some(Temporary { _folder: temporary, _lock: lock })))
        }
    }
}

/// Removes what processes that were killed have left: their locks went with them.
fn sweep(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let is_run = entry.file_name().to_string_lossy().starts_with(RUN);
        let left_behind = || File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_run && left_behind() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A port for clients and one for the controller. Both are held while they are chosen, so they differ.
fn free_ports(wanted: Option<u16>) -> Result<(u16, u16), Error> {
    let bind = |port: u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|e| Error::Broker(format!("port {port} cannot be had for the local Apache Kafka: {e}")))
    };
    let (clients, controller) = (bind(wanted.unwrap_or(0))?, bind(0)?);
    let port = |listener: &TcpListener| {
        listener.local_addr().map(|address| address.port()).map_err(|e| Error::Broker(e.to_string()))
    };
    Ok((port(&clients)?, port(&controller)?))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|e| cannot("write", path, &e))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Broker(format!("the local Apache Kafka: cannot {what} {}: {error}", path.display()))
}

/// The last lines of the broker's log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
