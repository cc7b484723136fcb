//! An hour on a cluster of three with faults at random: nothing lost, nothing twice, and a worker that nothing befalls
//! takes no more memory and no more open files in the end than in the beginning. `make soak`, which takes MINUTES and SEED.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use litflow::bus::publisher::Publisher;
use litflow::bus::reader::{From, Reader};
use litflow::bus::topics;
use litflow::tagger::Tag as _;
use litflow::worker;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use support::child::{self, Told};
use support::disturb::{Fault, Workers};
use support::nodes::Nodes;
use support::{article, dictionary};

/// Articles a second, …
const RATE: usize = 100;
/// … of which so many are published at a time, as long as no more than ten times as many wait.
const PORTION: usize = 200;
/// Between two faults, in seconds.
const PAUSE: std::ops::Range<u64> = 10..40;
/// How long nothing may be committed.
const PATIENCE: Duration = Duration::from_secs(180);
/// By how much the steady worker may grow after the first tenth of the time.
const GROWTH: f64 = 1.15;

#[test]
#[ignore = "a worker that the other tests start as a process"]
fn worker_process() {
    child::run();
}

#[test]
#[ignore = "an hour: make soak"]
fn faults_at_random() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (minutes, seed) = (number("MINUTES", 60), number("SEED", 1));
    let Some(mut nodes) = Nodes::start(&topics::all(&dictionary().entity_types()).unwrap()) else { return };
    let servers = nodes.servers().to_owned();
    let options = worker::Options { transaction_articles: 200, ..Default::default() };
    let mut steady = Workers::start(1, |_| Told::new(&servers, "steady", options.clone()));
    let mut shaken = Workers::start(2, |worker| Told::new(&servers, &worker.to_string(), options.clone()));

    let mut publisher = Publisher::new(&support::options(&servers, "publisher"), None).unwrap();
    let mut reader =
        Reader::new(&support::options(&servers, "reader"), &[topics::ANNOTATIONS], From::Beginning).unwrap();
    let (began, end) = (Instant::now(), Duration::from_secs(60 * minutes));
    let (mut random, mut published, mut seen) = (Random(seed), 0, HashSet::new());
    let (mut faults, mut next_fault, mut last) = (0, Duration::from_secs(PAUSE.end), Instant::now());
    let mut samples: Vec<Sample> = Vec::new();
    let mut fenced = 0;
    while began.elapsed() < end || seen.len() < published {
        fenced = steady.tend() + shaken.tend();
        let due = published < RATE * began.elapsed().as_secs() as usize;
        if began.elapsed() < end && due && published < seen.len() + 10 * PORTION {
            for number in published..published + PORTION {
                publisher.article(&article(number)).unwrap();
            }
            publisher.flush().unwrap();
            published += PORTION;
        }
        if let Some(entry) = reader.next(Duration::from_millis(100)).unwrap() {
            let key = entry.key.unwrap();
            assert!(seen.insert(key.clone()), "{key} twice");
            last = Instant::now();
        }
        if seen.len() == published {
            last = Instant::now();
        }
        assert!(last.elapsed() < PATIENCE, "{} of {published} were committed, then nothing", seen.len());
        if began.elapsed() > next_fault && began.elapsed() < end {
            let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
            fault.befall(random.below(6) as usize, &mut nodes, &mut shaken);
            faults += 1;
            next_fault = began.elapsed() + Duration::from_secs(PAUSE.start + random.below(PAUSE.end - PAUSE.start));
            last = Instant::now();
        }
        if began.elapsed() > end / 60 * samples.len() as u32 && began.elapsed() < end {
            let sample = Sample::of(steady.process_id(0));
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            eprintln!("{minutes:5.1} min  {:7} articles  {faults:4} faults  {sample:?}", seen.len());
            samples.push(sample);
        }
    }
    steady.stop_all();
    shaken.stop_all();
    while !reader.at_end() {
        let entry = reader.next(Duration::from_secs(1)).unwrap();
        assert!(entry.is_none(), "twice: {entry:?}");
    }
    assert_eq!(seen, (0..published).map(|number| article(number).id).collect());

    let (begin, end) = (&samples[samples.len() / 10..samples.len() / 5 + 1], &samples[samples.len() * 9 / 10..]);
    let most = |samples: &[Sample], of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap() as f64;
    let (memory, files) = (|sample: &Sample| sample.memory_mb, |sample: &Sample| sample.open_files);
    eprintln!(
        "{published} articles, {faults} faults (seed {seed}), {fenced} workers fenced, {minutes} min: none missing, none twice; the steady worker: \
         {} MB then {} MB, {} open files then {}",
        most(begin, memory),
        most(end, memory),
        most(begin, files),
        most(end, files)
    );
    assert!(most(end, memory) <= GROWTH * most(begin, memory), "memory grows: {samples:?}");
    assert!(most(end, files) <= most(begin, files) + 8.0, "open files grow: {samples:?}");
}

/// What a process takes.
#[derive(Debug, Clone)]
struct Sample {
    memory_mb: u64,
    open_files: u64,
}

impl Sample {
    fn of(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = resident.split_whitespace().next().unwrap().parse().unwrap();
        let open_files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64;
        Self { memory_mb: kilobytes / 1024, open_files }
    }
}

/// Numbers that a seed decides (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}
