//! What `litflow demo` shows: entities in their sentences as they come, then a summary.

use crate::cli::input::counted;
use crate::cli::paint::{Marked, Painter, sanitized};
use crate::cli::{progress, tail};
use anstyle::Style;
use indicatif::HumanCount;
use litflow::bus::broker::Broker;
use litflow::bus::reader::{Entry, From, Reader, Value};
use litflow::bus::records::{Annotations, EntityMention, SourceRecord};
use litflow::bus::{self, topics};
use litflow::worker::Summary;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one wait for a record takes.
const WAIT: Duration = Duration::from_millis(100);
/// How long records that were committed may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads what the worker publishes, and prints an article when all its entities have come.
pub struct Viewer {
    /// Articles that are to come; unknown, and so without an end, as long as the worker works.
    expected: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Viewer {
    /// Begins to read; what is on the topics already is passed over.
    pub fn start(kafka: &bus::Options, entity_types: &[String]) -> anyhow::Result<Self> {
        let entities: Vec<String> =
            entity_types.iter().map(|entity_type| topics::entities(entity_type)).collect::<Result<_, _>>()?;
        let names: Vec<&str> = entities.iter().map(String::as_str).chain([topics::ANNOTATIONS]).collect();
        let mut reader = Reader::new(kafka, &names, From::Now)?;
        let deadline = Instant::now() + PATIENCE;
        while !reader.at_end() && Instant::now() < deadline {
            reader.next(WAIT)?;
        }
        let expected = Arc::new(AtomicU64::new(u64::MAX));
        let until = expected.clone();
        let thread = std::thread::spawn(move || show(&mut reader, &until));
        Ok(Self { expected, thread })
    }

    /// Waits until everything that was committed has been printed.
    pub fn finish(self, summary: &Summary) -> anyhow::Result<()> {
        self.expected.store(summary.tagged, Ordering::Release);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("the thread that prints entities has panicked"),
        }
    }
}

/// Topic, partition and offset of an article event. An article's id would not do: its events come one after
/// the other, and each has annotations of its own.
type Source = (String, i32, i64);

/// An article event whose records are arriving.
#[derive(Default)]
struct Arriving {
    annotations: Option<Annotations>,
    /// By passage, begin and end, so that a record that comes twice counts once.
    mentions: BTreeMap<(u32, u32, u32), EntityMention>,
}

fn show(reader: &mut Reader, expected: &AtomicU64) -> anyhow::Result<()> {
    let painter = Painter::for_stdout();
    let mut arriving: HashMap<Source, Arriving> = HashMap::new();
    let mut shown = 0;
    let mut last_arrival = Instant::now();
    while shown < expected.load(Ordering::Acquire) {
        let Some(entry) = reader.next(WAIT)? else {
            let all_is_committed = expected.load(Ordering::Acquire) != u64::MAX;
            if all_is_committed && last_arrival.elapsed() > PATIENCE {
                tracing::warn!(shown, "not everything that was committed has arrived");
                return Ok(());
            }
            continue;
        };
        last_arrival = Instant::now();
        let Some(source) = take_in(&mut arriving, entry) else { continue };
        let article = &arriving[&source];
        let Some(annotations) = &article.annotations else { continue };
        if article.mentions.len() >= annotations.mentions.len() {
            print(&painter, annotations, &article.mentions)?;
            arriving.remove(&source);
            shown += 1;
        }
    }
    Ok(())
}

/// Adds a record to its article event; returns where that stands.
fn take_in(arriving: &mut HashMap<Source, Arriving>, entry: Entry) -> Option<Source> {
    let place_of = |source: &SourceRecord| (source.topic.clone(), source.partition, source.offset);
    match entry.value {
        Value::Mention(mention) => {
            let source = place_of(&mention.source);
            let place = (mention.passage, mention.begin, mention.end);
            arriving.entry(source.clone()).or_default().mentions.insert(place, *mention);
            Some(source)
        }
        Value::Annotations(annotations) => {
            let source = place_of(&annotations.source);
            arriving.entry(source.clone()).or_default().annotations = Some(*annotations);
            Some(source)
        }
        _ => None,
    }
}

/// The article's id with what was found, then its sentences that hold entities.
fn print(
    painter: &Painter,
    annotations: &Annotations,
    mentions: &BTreeMap<(u32, u32, u32), EntityMention>,
) -> std::io::Result<()> {
    const INDENT: &str = "    ";
    let types = annotations.mentions.iter().map(|mention| mention.entity_type.as_str());
    let mut lines = vec![format!(
        "{}  {}",
        painter.styled(Style::new().bold(), &sanitized(&annotations.article_id)),
        tail::tally(painter, types)
    )];
    let all: Vec<&EntityMention> = mentions.values().collect();
    for sentence in all.chunk_by(|left, right| (left.passage, left.sentence) == (right.passage, right.sentence)) {
        let marked: Vec<Marked<'_>> = sentence
            .iter()
            .map(|mention| Marked {
                begin: mention.begin.saturating_sub(mention.sentence_begin) as usize,
                end: mention.end.saturating_sub(mention.sentence_begin) as usize,
                entity_type: &mention.entity_type,
            })
            .collect();
        let text = sentence.iter().find_map(|mention| mention.sentence_text.as_deref());
        let paragraph = painter.paragraph(text.unwrap_or("(a sentence too long to show)"), &marked, INDENT.len());
        lines.extend(paragraph.into_iter().map(|line| format!("{INDENT}{line}")));
    }
    progress::suspended(|| {
        let mut out = anstream::stdout().lock();
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        writeln!(out)?;
        out.flush()
    })
}

/// Word pieces through the encoder in a second, from the first article to the last commit.
pub fn tokens_per_second(summary: &Summary) -> u64 {
    if summary.seconds > 0.0 { (summary.tokens as f64 / summary.seconds) as u64 } else { 0 }
}

/// What was done, with a bar for each entity type.
pub fn summary(summary: &Summary, broker: &Broker) -> std::io::Result<()> {
    const BAR: u64 = 40;
    let painter = Painter::for_stdout();
    let mentions: u64 = summary.mentions.values().sum();
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{}, {}, {}, {}",
        counted(summary.articles, "article", "articles"),
        counted(summary.sentences, "sentence", "sentences"),
        counted(mentions, "entity", "entities"),
        counted(summary.dead_letters, "dead letter", "dead letters"),
    )?;
    let mut types: Vec<(&String, u64)> = summary.mentions.iter().map(|(name, count)| (name, *count)).collect();
    types.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let most = types.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let width = types.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, count) in types {
        let padding = " ".repeat(width - name.chars().count());
        let bar = "▇".repeat((count * BAR).div_ceil(most) as usize);
        let bar = painter.styled(crate::cli::paint::style_of(name), &bar);
        writeln!(out, "  {}{padding}  {:>7}  {bar}", painter.entity_type(name), HumanCount(count).to_string())?;
    }
    writeln!(
        out,
        "{} in {:.1} s: {} tokens/s, {}",
        counted(summary.tokens, "token", "tokens"),
        summary.seconds,
        HumanCount(tokens_per_second(summary)),
        counted(summary.transactions, "transaction", "transactions"),
    )?;
    writeln!(out, "on {}", broker.describe())?;
    out.flush()
}

/// How other clients reach what goes on running.
pub fn how_to_connect(servers: &str) {
    anstream::eprintln!(
        "\nThe broker and a worker go on at {servers}. In another terminal:\n\
         \n  litflow tail entities.Gene -f --bootstrap-servers {servers}\
         \n  litflow ingest FILE --bootstrap-servers {servers}\
         \n  kcat -b {servers} -L\n\
         \nCtrl-C ends it."
    );
}
