//! How long the stream pauses when another model version takes the place of the one in force.
//!
//! Documents are tagged without a pause, as many at a time as a worker has. Meanwhile a version is loaded beside
//! the one in force and swapped in, again and again, as `worker::reload` does it. What counts is the gap between the
//! ends of two batches, whichever thread and version ran them: the longest around each swap (from the moment it is
//! made until every document under way at that moment is done), and the longest while the version was loaded, beside
//! the longest in a stretch of the same length without any of it, and beside the time of one batch under this load.

use anyhow::{Context, Result};
use clap::Parser;
use litflow::article::{self, Articles, Document};
use litflow::model;
use litflow::tagger::{self, Serving, Tag as _};
use litflow::worker::Outputs;
use litflow::worker::reload::Loader;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Measures the pause at a swap of models.
///
/// Example: cargo bench --bench swap -- --model models/biored-minilm --swaps 50
#[derive(Parser)]
struct Args {
    /// Model directory
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/models/biored-minilm"))]
    model: PathBuf,
    /// Articles to tag, in any format that litflow reads
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/demo"))]
    text: PathBuf,
    /// Swaps that are measured
    #[arg(long, default_value_t = 50)]
    swaps: usize,
    /// Documents that are tagged at a time
    #[arg(long, default_value_t = 200)]
    in_flight: usize,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many documents are done.
type Done = Arc<AtomicUsize>;

/// The longest gaps around one swap.
struct Gaps {
    without: Duration,
    loading: Duration,
    swapping: Duration,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let loader = Loader {
        model: model::Options::default(),
        tagger: tagger::Options::default(),
        registry: Default::default(),
        outputs: Arc::new(Outputs::default()),
        runtime: runtime.handle().clone(),
    };
    let documents = documents(&args)?;
    let batches = Batches::default();
    metrics::set_global_recorder(batches.clone()).context("there is another recorder")?;
    let serving = Arc::new(Serving::new(Box::new(loader.start(&args.model)?))?);
    let done = Done::default();
    let over = Arc::new(AtomicBool::new(false));
    let load = runtime.spawn(keep_tagging(serving.clone(), documents, args.in_flight, done.clone(), over.clone()));
    wait_for(&done, 2 * args.in_flight);

    let mut measured = Vec::new();
    for swap in 0..args.swaps {
        eprint!("\rswap {} of {}", swap + 1, args.swaps);
        measured.push(measure(&args, &loader, &serving, &done, &batches)?);
    }
    eprintln!();
    over.store(true, Ordering::Relaxed);
    runtime.block_on(load)??;

    println!("one batch: {:.1} ms (median)", milliseconds(batches.median()));
    println!("longest gap between the ends of two batches, over {} swaps:", args.swaps);
    for (name, of) in [
        ("at the swap", (|gaps: &Gaps| gaps.swapping) as fn(&Gaps) -> Duration),
        ("while loading", |gaps| gaps.loading),
        ("with neither", |gaps| gaps.without),
    ] {
        let mut gaps: Vec<Duration> = measured.iter().map(of).collect();
        gaps.sort_unstable();
        let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        println!("  {name:<14} median {:>7.1} ms, worst {:>7.1} ms", milliseconds(median), milliseconds(worst));
    }
    Ok(())
}

fn documents(args: &Args) -> Result<Vec<Document>> {
    let articles = Articles::new(std::slice::from_ref(&args.text), None, &article::Options::default());
    let documents: Vec<Document> = articles.map(|article| Ok(article?.into_document())).collect::<Result<_>>()?;
    anyhow::ensure!(!documents.is_empty(), "{} has no articles", args.text.display());
    Ok(documents)
}

/// Has `in_flight` documents tagged at a time, and notes when each is done.
async fn keep_tagging(
    serving: Arc<Serving>,
    documents: Vec<Document>,
    in_flight: usize,
    done: Done,
    over: Arc<AtomicBool>,
) -> Result<()> {
    let places = Arc::new(Semaphore::new(in_flight));
    for document in documents.iter().cycle() {
        let place = places.clone().acquire_owned().await?;
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (serving, document, done) = (serving.clone(), document.clone(), done.clone());
        tokio::spawn(async move {
            if serving.tag(document).await.is_ok() {
                done.fetch_add(1, Ordering::Relaxed);
            }
            drop(place);
        });
    }
    Ok(())
}

/// One load and one swap, and a stretch of the load's length before it.
fn measure(args: &Args, loader: &Loader, serving: &Serving, done: &Done, batches: &Batches) -> Result<Gaps> {
    let began = Instant::now();
    let next = Box::new(loader.start(&args.model)?);
    let loaded = Instant::now();
    serving.swap(next);
    // Those under way at the swap, and as many again by the new model.
    let documents = done.load(Ordering::Relaxed) + 2 * args.in_flight;
    wait_for(done, documents);
    let swapped = Instant::now();
    std::thread::sleep(loaded - began);
    let rested = Instant::now();
    Ok(Gaps {
        loading: batches.longest_gap(began, loaded),
        swapping: batches.longest_gap(loaded, swapped),
        without: batches.longest_gap(swapped, rested),
    })
}

fn wait_for(done: &Done, documents: usize) {
    while done.load(Ordering::Relaxed) < documents {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The batches that the engines ran, whose metrics are listened to.
#[derive(Clone, Default)]
struct Batches(Arc<Mutex<Vec<Batch>>>);

/// When a batch ended, and how long it took.
#[derive(Clone, Copy)]
struct Batch {
    end: Instant,
    took: Duration,
}

impl Batches {
    /// The longest time between the ends of two batches that reaches into `from..to`.
    fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut ends: Vec<Instant> = lock(&self.0).iter().map(|batch| batch.end).collect();
        ends.sort_unstable();
        let gaps = ends.windows(2).filter(|pair| pair[1] > from && pair[0] < to).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or(to - from)
    }

    fn median(&self) -> Duration {
        let mut times: Vec<Duration> = lock(&self.0).iter().map(|batch| batch.took).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

impl HistogramFn for Batches {
    fn record(&self, seconds: f64) {
        lock(&self.0).push(Batch { end: Instant::now(), took: Duration::from_secs_f64(seconds) });
    }
}

/// All other metrics go nowhere.
impl Recorder for Batches {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let is_batch =
            key.name() == "litflow_tagger_stage_seconds" && key.labels().any(|label| label.value() == "encode");
        if is_batch { Histogram::from_arc(Arc::new(self.clone())) } else { Histogram::noop() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
