//! `litflow tag`: the worker's work with no Kafka, from files to stdout, in the order of the input.

use super::exit::Exit;
use super::{flags, input, model, output, progress};
use futures::{FutureExt as _, StreamExt as _};
use indicatif::{HumanCount, ProgressBar};
use litflow::article::{ArticleEvent, Articles, Op, RecordError};
use litflow::config::{Config, Flag};
use litflow::tagger::{Engine, Tag as _, TaggedDocument};
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Tag articles from files or stdin, without Kafka
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow tag pubmed26n0001.xml.gz > mentions.jsonl
  litflow tag --to pubtator PMC1234.nxml corpus/
  echo 'BRCA1 mutations cause breast cancer.' | litflow tag - --from text --to tsv

Ends with 3 where records were left out; each is told on stderr with its place and the reason.")]
pub struct Args {
    #[command(flatten)]
    input: input::Paths,
    /// What to write
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "jsonl")]
    to: output::Format,
    #[command(flatten)]
    model: flags::Model,
}

/// Documents that are tagged at a time, so that sentences of the same length meet.
const DOCUMENTS_IN_FLIGHT: usize = 512;
/// KiB of text between the reader and the output: what bounds the memory, whatever the articles' size.
const KIB_IN_FLIGHT: usize = 64 << 10;

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        self.model.flags()
    }

    pub async fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        self.input.check()?;
        let engine = model::start(config)?;
        let articles = self.input.articles(&config.articles);
        let read_so_far = articles.progress();
        let bar = progress::bytes(read_so_far.total);

        let started = Instant::now();
        let mut counts = Counts::default();
        let mut receiver = read(articles);
        let read = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut results = read.map(|(item, permit)| tag(&engine, item, permit)).buffered(DOCUMENTS_IN_FLIGHT);
        let mut out = BufWriter::new(std::io::stdout().lock());
        self.to.write_header(&mut out)?;
        loop {
            // Whoever reads along gets what there is before we wait for more.
            let next = match results.next().now_or_never() {
                Some(next) => next,
                None => {
                    out.flush()?;
                    results.next().await
                }
            };
            let Some(result) = next else { break };
            counts.add(&result);
            match result {
                Outcome::Tagged(tagged, _permit) => self.to.write(&tagged, &mut out)?,
                Outcome::Deleted => {}
                Outcome::LeftOut(reason) => input::tell_left_out(&reason),
                Outcome::Failed(error) => return Err(error.into()),
            }
            counts.show(&bar, read_so_far.consumed());
        }
        out.flush()?;
        bar.finish_and_clear();
        counts.tell(&engine, started);
        Ok(if counts.left_out == 0 { Exit::Done } else { Exit::LeftOut })
    }
}

type Read = (Result<ArticleEvent, RecordError>, OwnedSemaphorePermit);

/// Reads on a thread of its own, as far ahead as the permits allow.
fn read(articles: Articles) -> mpsc::Receiver<Read> {
    let (sender, receiver) = mpsc::channel(DOCUMENTS_IN_FLIGHT);
    let room = Arc::new(Semaphore::new(KIB_IN_FLIGHT));
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        for item in articles {
            let kib = item.as_ref().map_or(1, text_kib).clamp(1, KIB_IN_FLIGHT);
            let permit = runtime.block_on(room.clone().acquire_many_owned(kib as u32));
            let permit = permit.expect("the semaphore is never closed");
            if sender.blocking_send((item, permit)).is_err() {
                return; // the output has ended
            }
        }
    });
    receiver
}

fn text_kib(event: &ArticleEvent) -> usize {
    let title = event.title.as_ref().map_or(0, String::len);
    (title + event.passages.iter().map(|passage| passage.text.len()).sum::<usize>()).div_ceil(1024)
}

/// What became of a record.
enum Outcome {
    /// The permit keeps its room until the document is written.
    Tagged(Box<TaggedDocument>, OwnedSemaphorePermit),
    /// The source says that the article is gone: nothing to write.
    Deleted,
    /// With where it stands and why.
    LeftOut(String),
    /// The engine is gone.
    Failed(litflow::tagger::Error),
}

async fn tag(engine: &Engine, item: Result<ArticleEvent, RecordError>, permit: OwnedSemaphorePermit) -> Outcome {
    let event = match item {
        Ok(event) if event.op == Op::Delete => return Outcome::Deleted,
        Ok(event) => event,
        Err(error) => return Outcome::LeftOut(error.to_string()),
    };
    let id = event.id.clone();
    match engine.tag(event.into_document()).await {
        Ok(tagged) => Outcome::Tagged(Box::new(tagged), permit),
        Err(litflow::tagger::Error::Document(reason)) => Outcome::LeftOut(format!("{id}: {reason}")),
        Err(error) => Outcome::Failed(error),
    }
}

#[derive(Default)]
struct Counts {
    articles: u64,
    deleted: u64,
    left_out: u64,
    sentences: u64,
    mentions: u64,
    tokens: u64,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Tagged(tagged, _) => {
                self.articles += 1;
                self.sentences += tagged.sentences.iter().map(|sentences| sentences.len() as u64).sum::<u64>();
                self.mentions += tagged.mentions.len() as u64;
                self.tokens += tagged.tokens;
            }
            Outcome::Deleted => self.deleted += 1,
            Outcome::LeftOut(_) => self.left_out += 1,
            Outcome::Failed(_) => {}
        }
    }

    fn show(&self, bar: &ProgressBar, consumed: u64) {
        if bar.is_hidden() {
            return;
        }
        bar.set_position(consumed);
        bar.set_message(format!("{} articles, {} mentions", HumanCount(self.articles), HumanCount(self.mentions)));
    }

    fn tell(&self, engine: &Engine, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        let model = engine.model();
        anstream::eprintln!(
            "{}, {}, {} in {seconds:.1} s, {} tokens/s, by {} {}",
            input::counted(self.articles, "article", "articles"),
            input::counted(self.sentences, "sentence", "sentences"),
            input::counted(self.mentions, "mention", "mentions"),
            HumanCount((self.tokens as f64 / seconds) as u64),
            model.name,
            model.version,
        );
        if self.deleted > 0 {
            anstream::eprintln!("{} passed over", input::counted(self.deleted, "deletion", "deletions"));
        }
        input::tell_count_left_out(self.left_out);
    }
}
