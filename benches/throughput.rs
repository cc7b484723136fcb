//! Real tokens per second, as `make bench` prints them: word pieces of the text, without padding and
//! without special tokens.
//!
//! - `engine`: windows that are tokenised already → labels and scores, on the model threads alone.
//! - `tag`: documents → sentences, tokens, batches, labels, verified mentions, through [`Engine`].
//!
//! The two take turns, and a warm-up of each is not counted. The text is real abstracts: those of
//! `../shared/corpora` where it lies beside the repository, else those of `demo/`, or what `--text` names.
//! `benches/peers/compare.py` drives this program round by round beside other software.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::StreamExt;
use litflow::article::{self, Articles, Document, Passage, Section};
use litflow::model::{self, Model, PackedBatch};
use litflow::tagger::decode::Decoder;
use litflow::tagger::encode::{SentenceTokenizer, Word};
use litflow::tagger::{Engine, Options, Tag};
use litflow::text::sentences;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Measures real tokens per second of a model.
///
/// Example: cargo bench --bench throughput -- --model models/biored-minilm --rounds 9
#[derive(Parser)]
struct Args {
    /// Model directory; the shipped model, or else the encoder's stand-in
    #[arg(long)]
    model: Option<PathBuf>,
    /// Text to measure with: lines of a .txt or .txt.gz, or articles in any format that litflow reads
    #[arg(long)]
    text: Option<PathBuf>,
    /// Rounds that are measured
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Word pieces in one round, about
    #[arg(long, default_value_t = 60_000)]
    tokens: usize,
    /// Model threads; 0: one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Word pieces in one batch; 0: the engine's default
    #[arg(long, default_value_t = 0)]
    batch_tokens: usize,
    /// `auto`, `fp32` or `bf16`
    #[arg(long, default_value = "auto")]
    precision: model::device::Precision,
    /// `auto`, `cpu` or `cuda:N`
    #[arg(long, default_value = "auto")]
    device: model::device::DeviceChoice,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write the sentences that are measured to this file, a JSON array, and go on
    #[arg(long)]
    dump_sentences: Option<PathBuf>,
    /// Wait for a line on stdin before each round (`engine` or `tag`), and answer with the round's seconds
    #[arg(long)]
    paced: bool,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured: the documents, and their sentences as the engine alone gets them.
struct Workload {
    documents: Vec<Document>,
    sentences: Vec<String>,
    windows: Vec<Window>,
    /// Word pieces, each counted once.
    tokens: usize,
}

/// A whole sentence, tokenised.
struct Window {
    ids: Vec<u32>,
    words: Vec<Word>,
}

/// The seconds of each round.
struct Measured {
    name: &'static str,
    seconds: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let directory =
        args.model.clone().or_else(default_model).context(
            "no model: train the shipped one with `make model`, or name a directory with --model (after `--`)",
        )?;
    let load = || {
        let options = model::Options { device: args.device, precision: args.precision };
        Model::load(&directory, &options)
    };
    let options = Options { threads: args.threads, batch_tokens: args.batch_tokens, ..Options::default() };
    let threads = if args.threads == 0 { std::thread::available_parallelism()?.get() } else { args.threads };
    let batch_tokens = if args.batch_tokens == 0 { 1024 } else { args.batch_tokens };

    let alone = EngineAlone::new(load()?, threads, batch_tokens)?;
    let workload = Workload::select(&read_documents(args.text.as_deref())?, args.tokens, &alone)?;
    if let Some(path) = &args.dump_sentences {
        std::fs::write(path, serde_json::to_vec(&workload.sentences)?).with_context(|| path.display().to_string())?;
    }
    let batches = alone.batches(&workload.windows);
    let whole = Engine::start(load()?, &options)?;
    let run_engine = || timed(|| alone.run(&workload.windows, &batches));
    let run_tag = || timed(|| tag_all(&whole, &workload.documents));

    run_engine()?;
    run_tag()?;
    if args.paced {
        return answer_lines(&workload, run_engine, run_tag);
    }
    let mut measured =
        [Measured { name: "engine", seconds: Vec::new() }, Measured { name: "tag", seconds: Vec::new() }];
    for round in 0..args.rounds {
        eprint!("\rround {} of {}", round + 1, args.rounds);
        measured[0].seconds.push(run_engine()?);
        measured[1].seconds.push(run_tag()?);
    }
    eprintln!();
    report(&args, &directory, &workload, threads, &measured);
    Ok(())
}

fn default_model() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = ["models/biored-minilm", "encoders/standin-ner"].map(|path| root.join(path));
    known.into_iter().find(|path| path.join("config.json").exists())
}

/// Lines of a `.txt` or `.txt.gz` are documents; anything else is read as articles.
fn read_documents(named: Option<&Path>) -> Result<Vec<Document>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let abstracts = root.join("../shared/corpora/unlabelled/ohsumed_abstracts_txt.txt.gz");
    let known = if abstracts.exists() { abstracts } else { root.join("demo") };
    let path = named.unwrap_or(&known);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.ends_with(".txt") && !name.ends_with(".txt.gz") {
        let articles = Articles::new(&[path.to_owned()], None, &article::Options::default());
        return articles.map(|article| Ok(article?.into_document())).collect();
    }
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let reader: Box<dyn Read> =
        if name.ends_with(".gz") { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let lines = BufReader::new(reader).lines().enumerate().map(|(number, text)| {
        let passage = Passage { section: Section::Abstract, heading: None, language: None, text: text? };
        Ok(Document { article_id: format!("line:{number}"), article_version: 1, passages: vec![passage] })
    });
    lines.collect()
}

impl Workload {
    /// Documents spread evenly over the file, until they have about `tokens` word pieces. Documents with a
    /// sentence longer than a window are left out: other software would cut it off.
    fn select(documents: &[Document], tokens: usize, alone: &EngineAlone) -> Result<Self> {
        let mut workload = Self { documents: Vec::new(), sentences: Vec::new(), windows: Vec::new(), tokens: 0 };
        // Steps of a prime visit every document once, unless their number is a multiple of it.
        let order = (0..documents.len()).map(|n| n * 7919 % documents.len());
        for document in order.map(|index| &documents[index]) {
            if workload.tokens >= tokens {
                break;
            }
            let passages = document.passages.iter().map(|passage| passage.text.as_str());
            let found: Vec<&str> = passages.flat_map(|text| sentences(text).into_iter().map(|at| &text[at])).collect();
            let encoded: Vec<_> = found.iter().map(|text| alone.tokenizer.encode(text, 0)).collect::<Result<_, _>>()?;
            if encoded.iter().any(|sentence| alone.tokenizer.windows(sentence).len() != 1) {
                continue;
            }
            workload.tokens += encoded.iter().map(|sentence| sentence.ids.len()).sum::<usize>();
            workload.sentences.extend(found.into_iter().map(str::to_owned));
            workload.windows.extend(
                encoded.into_iter().map(|sentence| Window {
                    ids: alone.tokenizer.input(&sentence.ids).collect(),
                    words: sentence.words,
                }),
            );
            workload.documents.push(document.clone());
        }
        ensure!(workload.tokens > 0, "the text has no words");
        Ok(workload)
    }
}

/// The model on its threads, with nothing around it.
struct EngineAlone {
    model: Model,
    tokenizer: SentenceTokenizer,
    decoder: Decoder,
    threads: usize,
    batch_tokens: usize,
}

impl EngineAlone {
    fn new(model: Model, threads: usize, batch_tokens: usize) -> Result<Self> {
        let tokenizer = SentenceTokenizer::new(model.tokenizer().clone(), model.config().max_length(), 0)?;
        let decoder = Decoder::new(model.label_set(), model.head());
        Ok(Self { model, tokenizer, decoder, threads, batch_tokens })
    }

    /// Windows sorted by length and filled up to the budget, as indices.
    fn batches(&self, windows: &[Window]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..windows.len()).collect();
        order.sort_by_key(|&index| windows[index].ids.len());
        let mut batches: Vec<Vec<usize>> = vec![Vec::new()];
        let mut rows = 0;
        for index in order {
            let length = windows[index].ids.len();
            if rows + length > self.batch_tokens && rows > 0 {
                batches.push(Vec::new());
                rows = 0;
            }
            rows += length;
            if let Some(batch) = batches.last_mut() {
                batch.push(index);
            }
        }
        batches
    }

    /// Runs all batches; returns the number of spans found.
    fn run(&self, windows: &[Window], batches: &[Vec<usize>]) -> Result<usize> {
        let next = AtomicUsize::new(0);
        let worker = || -> Result<usize> {
            tch::set_num_threads(1);
            let mut spans = 0;
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                spans += self.run_batch(batch.iter().map(|&index| &windows[index]))?;
            }
            Ok(spans)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(worker)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a model thread panicked")).sum()
        })
    }

    fn run_batch<'w>(&self, windows: impl Iterator<Item = &'w Window> + Clone) -> Result<usize> {
        let mut packed = PackedBatch::default();
        for window in windows.clone() {
            packed.ids.extend(&window.ids);
            packed.lengths.push(window.ids.len() as u32);
        }
        let emissions = self.model.emissions(&packed)?;
        let (mut first_row, mut spans) = (0, 0);
        for window in windows {
            let rows =
                window.words.iter().map(|word| first_row + self.tokenizer.prefix_len() + word.first_piece as usize);
            let words: Vec<f32> = rows.flat_map(|row| emissions.row(row)).copied().collect();
            spans += self.decoder.decode(&words).len();
            first_row += window.ids.len();
        }
        Ok(spans)
    }
}

/// Tags all documents, many at a time, as a worker does; returns the number of mentions found.
fn tag_all(engine: &Engine, documents: &[Document]) -> Result<usize> {
    const IN_FLIGHT: usize = 256;
    let tagged = futures::stream::iter(documents).map(|document| engine.tag(document.clone()));
    let tagged: Vec<_> = futures::executor::block_on(tagged.buffer_unordered(IN_FLIGHT).collect());
    tagged.into_iter().map(|document| Ok(document?.mentions.len())).sum()
}

fn timed(body: impl FnOnce() -> Result<usize>) -> Result<f64> {
    let started = Instant::now();
    let found = body()?;
    let seconds = started.elapsed().as_secs_f64();
    std::hint::black_box(found);
    Ok(seconds)
}

/// Runs a round for each line of stdin. What is first written are the word pieces of a round.
fn answer_lines(
    workload: &Workload,
    run_engine: impl Fn() -> Result<f64>,
    run_tag: impl Fn() -> Result<f64>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", workload.tokens)?;
    for line in std::io::stdin().lock().lines() {
        let seconds = match line?.as_str() {
            "engine" => run_engine()?,
            "tag" => run_tag()?,
            other => anyhow::bail!("`{other}` is no round: engine or tag"),
        };
        writeln!(out, "{seconds}")?;
    }
    Ok(())
}

impl Measured {
    /// Median, lowest and highest tokens per second.
    fn rates(&self, tokens: usize) -> [f64; 3] {
        let mut rates: Vec<f64> = self.seconds.iter().map(|seconds| tokens as f64 / seconds).collect();
        rates.sort_by(f64::total_cmp);
        [rates[rates.len() / 2], rates[0], rates[rates.len() - 1]]
    }
}

fn report(args: &Args, directory: &Path, workload: &Workload, threads: usize, measured: &[Measured]) {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    if args.json {
        let rounds = measured.iter().map(|stage| {
            let [median, lowest, highest] = stage.rates(workload.tokens);
            let rates = serde_json::json!({"median": median, "lowest": lowest, "highest": highest});
            (stage.name.to_owned(), serde_json::json!({"tokens_per_second": rates, "seconds": stage.seconds}))
        });
        let stages: serde_json::Map<_, _> = rounds.collect();
        let (tokens, sentences) = (workload.tokens, workload.sentences.len());
        let documents = workload.documents.len();
        let json = serde_json::json!({
            "model": name, "threads": threads, "documents": documents, "sentences": sentences, "tokens": tokens,
            "stages": stages,
        });
        return println!("{json}");
    }
    println!(
        "{name}: {} documents, {} sentences, {} real tokens a round, {threads} model threads",
        workload.documents.len(),
        workload.sentences.len(),
        workload.tokens
    );
    println!("{:8}{:>18}{:>10}{:>10}{:>8}", "", "tokens/s (median)", "lowest", "highest", "rounds");
    for stage in measured {
        let [median, lowest, highest] = stage.rates(workload.tokens);
        println!("{:8}{median:>18.0}{lowest:>10.0}{highest:>10.0}{:>8}", stage.name, stage.seconds.len());
    }
}
