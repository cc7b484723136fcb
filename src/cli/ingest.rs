//! `litflow ingest`: article files onto the `articles` topic.

use super::exit::Exit;
use super::publish::publish;
use super::{flags, input, progress};
use indicatif::{HumanBytes, HumanCount};
use litflow::article::ArticleEvent;
use litflow::bus::admin::Admin;
use litflow::bus::codec::Record as _;
use litflow::bus::publisher::{Published, Publisher};
use litflow::bus::topics;
use litflow::claims::Deposit;
use litflow::config::{Config, Flag};
use std::time::Instant;
use tokio::runtime::Runtime;

/// Publish articles as events
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow ingest --bootstrap-servers broker-1:9092 pubmed26n*.xml.gz
  zcat corpus.jsonl.gz | litflow ingest - --from jsonl
  litflow ingest --claim-check s3://literature/articles theses/

Ends with 3 where records were left out; each is told on stderr with its place and the reason.")]
pub struct Args {
    #[command(flatten)]
    input: input::Paths,
    /// Store articles that are too large for the topic here, a folder or a URI, and publish where they lie. Workers
    /// fetch them as far as claims.allow allows it
    #[arg(long, value_name = "STORE")]
    claim_check: Option<String>,
    /// The size in bytes above which an event is too large [default: what the topic takes]
    #[arg(long, value_name = "BYTES", requires = "claim_check")]
    claim_above: Option<usize>,
    /// Print the counts as JSON on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: flags::Kafka,
}

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        self.kafka.flags()
    }

    pub fn run(&self, config: &Config, runtime: &Runtime) -> anyhow::Result<Exit> {
        self.input.check()?;
        let started = Instant::now();
        let mut articles_topic = topics::all(&[])?;
        articles_topic.retain(|topic| topic.name == topics::ARTICLES);
        let limits = runtime.block_on(Admin::new(&config.kafka)?.record_limits(&articles_topic));
        let publisher = Publisher::with_limits(&config.kafka, limits)?;
        let open = |store: &String| Deposit::open(store, &config.claims);
        let deposit = self.claim_check.as_ref().map(open).transpose()?;
        let largest = self.claim_above.unwrap_or(publisher.limit(topics::ARTICLES));
        let mut claimed = 0;
        let event_of = |event: ArticleEvent| match &deposit {
            Some(deposit) if size_of(&event) > largest => {
                claimed += 1;
                Ok(runtime.block_on(deposit.store(event))?)
            }
            _ => Ok(event),
        };
        let articles = self.input.articles(&config.articles);
        let read_so_far = articles.progress();
        let bar = progress::bytes(read_so_far.total);
        let (Published { records, bytes }, left_out) = publish(articles, publisher, event_of, |count| {
            bar.set_position(read_so_far.consumed());
            bar.set_message(format!("{} articles", HumanCount(count)));
        })?;
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        if self.json {
            let counts = serde_json::json!({
                "articles": records, "bytes": bytes, "claimed": claimed, "left_out": left_out,
            });
            anstream::println!("{counts}");
        }
        anstream::eprintln!(
            "{} ({}) published to {} in {seconds:.1} s",
            input::counted(records, "article", "articles"),
            HumanBytes(bytes as u64),
            config.kafka.bootstrap_servers
        );
        input::tell_count_left_out(left_out);
        Ok(if left_out == 0 { Exit::Done } else { Exit::LeftOut })
    }
}

/// Bytes of key and value. An event that does not fit its schema has none: it is left out as such.
fn size_of(event: &ArticleEvent) -> usize {
    event.encode().map_or(0, |value| event.id.len() + value.len())
}
