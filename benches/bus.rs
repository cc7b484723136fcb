//! Articles per second through a whole worker on a real Apache Kafka on the same machine, as `make bench` prints them.
//!
//! - `bus`: a dictionary tags, so that what is measured is consuming, Avro both ways, producing and committing: five
//!   entity records and one of annotations for a small article.
//! - `model`: the shipped model tags real abstracts.
//!
//! Each is run exactly-once and at-least-once in turns, over the same articles by a group of its own, and the first run of
//! each is not counted. The broker is started for it and goes with it.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use litflow::article::{self, ArticleEvent, Articles, Passage, Section};
use litflow::bus::admin::Admin;
use litflow::bus::broker::{Local, LocalOptions};
use litflow::bus::producer::Delivery;
use litflow::bus::publisher::Publisher;
use litflow::bus::{Options, topics};
use litflow::model::{self, Model};
use litflow::tagger::{Dictionary, Engine, Tag};
use litflow::worker::{self, Stop, Worker};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Measures articles per second of a worker on a real Apache Kafka.
///
/// Example: cargo bench --bench bus -- --rounds 5
#[derive(Parser)]
struct Args {
    /// Articles of a run with the dictionary
    #[arg(long, default_value_t = 50_000)]
    articles: usize,
    /// Articles of a run with the model; 0: no such run
    #[arg(long, default_value_t = 500)]
    model_articles: usize,
    /// Rounds that are measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Articles in a transaction
    #[arg(long, default_value_t = 1_000)]
    transaction_articles: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A broker with articles on it.
struct Stage {
    broker: Local,
    runtime: Runtime,
    tagger: Arc<dyn Tag>,
    articles: usize,
    transaction_articles: usize,
    runs: usize,
}

/// Articles per second of each round.
struct Measured {
    name: &'static str,
    exactly_once: Vec<f64>,
    at_least_once: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let terms = ["BRCA1", "p53", "TNF", "aspirin", "HeLa"].map(|term| (term, "Gene"));
    let small = (0..args.articles).map(small_article).collect();
    let mut measured = vec![measure("bus", &args, Arc::new(Dictionary::new(terms)?), small)?];
    if args.model_articles > 0 {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let model = Model::load(&root.join("models/biored-minilm"), &model::Options::default())?;
        let abstracts = abstracts(&root.join("demo"), args.model_articles)?;
        measured.push(measure("model", &args, Arc::new(Engine::start(model, &Default::default())?), abstracts)?);
    }
    print(&measured, args.json)
}

fn measure(name: &'static str, args: &Args, tagger: Arc<dyn Tag>, articles: Vec<ArticleEvent>) -> Result<Measured> {
    let mut stage = Stage::new(tagger, &articles, args.transaction_articles)?;
    let mut measured = Measured { name, exactly_once: Vec::new(), at_least_once: Vec::new() };
    for round in 0..=args.rounds {
        let (exactly, at_least) = (stage.run(Delivery::ExactlyOnce)?, stage.run(Delivery::AtLeastOnce)?);
        eprintln!("{name}, round {round}: exactly once {exactly:.0}/s, at least once {at_least:.0}/s");
        if round > 0 {
            measured.exactly_once.push(exactly);
            measured.at_least_once.push(at_least);
        }
    }
    Ok(measured)
}

impl Stage {
    fn new(tagger: Arc<dyn Tag>, articles: &[ArticleEvent], transaction_articles: usize) -> Result<Self> {
        let broker = Local::start(&LocalOptions { long_run: true, ..LocalOptions::default() })?;
        let runtime = Runtime::new()?;
        let stage = Self { broker, runtime, tagger, articles: articles.len(), transaction_articles, runs: 0 };
        let topics = topics::all(&stage.tagger.entity_types())?;
        stage.runtime.block_on(Admin::new(&stage.options())?.create(&topics, None))?;
        let mut publisher = Publisher::new(&stage.options(), None)?;
        for event in articles {
            publisher.article(event)?;
        }
        publisher.finish()?;
        Ok(stage)
    }

    /// Options of a group that has read nothing yet.
    fn options(&self) -> Options {
        let name = format!("bench-{}", self.runs);
        let bootstrap_servers = self.broker.bootstrap_servers().to_owned();
        Options { bootstrap_servers, group_id: name.clone(), transactional_id: Some(name), ..Options::default() }
    }

    /// All articles once more; articles per second from the first to the last commit.
    fn run(&mut self, delivery: Delivery) -> Result<f64> {
        self.runs += 1;
        let transaction_articles = self.transaction_articles;
        let in_flight_articles = 2 * transaction_articles;
        let options = worker::Options { delivery, transaction_articles, in_flight_articles, ..Default::default() };
        let (tagger, runtime) = (self.tagger.clone(), self.runtime.handle().clone());
        let worker = Worker::build(&options, &self.options(), &Default::default(), tagger, runtime)?;
        let (_stop, stopped) = watch::channel(Stop::AtEnd);
        let summary = worker.run(stopped)?;
        ensure!(summary.tagged == self.articles as u64, "{} of {} articles were tagged", summary.tagged, self.articles);
        Ok(self.articles as f64 / summary.seconds)
    }
}

/// A small article with five mentions.
fn small_article(number: usize) -> ArticleEvent {
    let mut event = ArticleEvent::new(format!("pmid:{number}"), "pubmed");
    let text = format!("In study {number}, BRCA1 and p53 were silenced in HeLa cells. TNF rose with aspirin.");
    event.title = Some(format!("Article {number}"));
    event.passages = vec![Passage::new(Section::Abstract, text)];
    event
}

/// So many articles of the demo, which come again under other ids where there are fewer.
fn abstracts(folder: &Path, count: usize) -> Result<Vec<ArticleEvent>> {
    let read = Articles::new(&[folder.to_owned()], None, &article::Options::default());
    let events: Vec<ArticleEvent> = read.filter_map(Result::ok).collect();
    ensure!(!events.is_empty(), "no articles in {}", folder.display());
    let number = |number: usize| ArticleEvent { id: format!("pmid:{number}"), ..events[number % events.len()].clone() };
    Ok((0..count).map(number).collect())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn print(measured: &[Measured], json: bool) -> Result<()> {
    if json {
        let rows: Vec<_> = measured
            .iter()
            .map(|of| serde_json::json!({"name": of.name, "exactly_once": of.exactly_once, "at_least_once": of.at_least_once}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows).context("JSON")?);
        return Ok(());
    }
    println!("{:8}{:>24}{:>24}{:>24}", "", "exactly once, /s", "at least once, /s", "ratio of each round");
    for of in measured {
        let ratios: Vec<f64> =
            of.exactly_once.iter().zip(&of.at_least_once).map(|(exactly, least)| exactly / least).collect();
        let range = |values: &[f64], digits: usize| {
            let (least, most) =
                values.iter().fold((f64::MAX, f64::MIN), |(least, most), &v| (least.min(v), most.max(v)));
            format!("{:.digits$} ({least:.digits$}–{most:.digits$})", median(values))
        };
        println!(
            "{:8}{:>24}{:>24}{:>24}",
            of.name,
            range(&of.exactly_once, 0),
            range(&of.at_least_once, 0),
            range(&ratios, 3)
        );
    }
    Ok(())
}
