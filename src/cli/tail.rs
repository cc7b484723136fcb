//! `litflow tail`: a topic's records, readably, one line each.

use super::exit::Exit;
use super::flags;
use super::paint::{Marked, Painter, sanitized};
use anstyle::{AnsiColor, Style};
use litflow::article::{ArticleEvent, Op};
use litflow::bus::reader::{Entry, From, Reader, Value};
use litflow::bus::records::{Annotations, EntityMention, LabeledDocument, ModelVersion, ShadowTally};
use litflow::bus::topics;
use litflow::config::{Config, Flag};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// Show the records of a topic, entities coloured in their sentences
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  litflow tail entities.Gene entities.Disease -f
  litflow tail annotations --from-beginning --json | jq .value.article_id
  litflow tail articles.dlq -n 3")]
pub struct Args {
    /// Topics, read together
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// How many records: the last N, or the first N with --from-beginning [default: the last 10, or all]
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Begin with the oldest record
    #[arg(long)]
    from_beginning: bool,
    /// Go on with what comes, until interrupted
    #[arg(short, long, conflicts_with = "count")]
    follow: bool,
    /// One JSON object a record, with topic, partition, offset, timestamp, key, headers and value
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: flags::Kafka,
}

/// How long one wait for a record takes; the end of a topic is noticed sooner.
const WAIT: Duration = Duration::from_millis(500);
/// Records that are shown where neither a number nor the beginning is asked for.
const LAST: u32 = 10;

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        self.kafka.flags()
    }

    pub fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let mut printer = Printer::new(self.json);
        let mut reader;
        if self.from_beginning {
            reader = Reader::new(&config.kafka, &topics, From::Beginning)?;
            let mut left = self.count.unwrap_or(u32::MAX);
            while left > 0 && !reader.at_end() {
                if let Some(entry) = reader.next(WAIT)? {
                    printer.print(&entry)?;
                    left -= 1;
                }
            }
        } else {
            let entries;
            (entries, reader) = Reader::last(&config.kafka, &topics, self.count.unwrap_or(LAST) as usize)?;
            for entry in entries {
                printer.print(&entry)?;
            }
        }
        if !self.follow {
            return Ok(Exit::Done);
        }
        loop {
            if let Some(entry) = reader.next(WAIT)? {
                printer.print(&entry)?;
            }
        }
    }
}

struct Printer {
    json: bool,
    painter: Painter,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self { json, painter: Painter::for_stdout() }
    }

    fn print(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let mut out = anstream::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, entry)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", line(&self.painter, entry))?;
        }
        out.flush()?;
        Ok(())
    }
}

const DIM: Style = Style::new().dimmed();
const BAD: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));

/// Columns of the article's id.
const ID_WIDTH: usize = 20;

/// One record on one line.
pub fn line(painter: &Painter, entry: &Entry) -> String {
    let key = entry.key.as_deref().unwrap_or("(no key)");
    let id = painter.styled(DIM, &id_column(key));
    match &entry.value {
        Value::Mention(mention) => mention_line(painter, mention),
        Value::Annotations(annotations) => format!("{id}  {}", annotations_line(painter, annotations)),
        Value::Article(article) => format!("{id}  {}", article_line(painter, article)),
        Value::Labels(labels) => format!("{id}  {}", labels_line(painter, labels)),
        Value::Model(model) => format!("{id}  {}", model_line(model)),
        Value::Shadow(tally) => format!("{id}  {}", shadow_line(tally)),
        Value::Tombstone if entry.topic == topics::DEAD_LETTERS => {
            let headers: Vec<String> = entry.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{id}  {}", painter.plain(&headers.join("  "), ID_WIDTH + 2))
        }
        Value::Tombstone => format!("{id}  {}", painter.styled(BAD, "deleted")),
        Value::Bytes { bytes, error } => {
            let headers: Vec<String> = entry.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let what = match error {
                Some(error) => format!("not decoded: {error}"),
                None => headers.join("  "),
            };
            let size = format!("{bytes} bytes");
            let shown = painter.plain(&what, ID_WIDTH + size.len() + 4);
            format!("{id}  {}  {shown}", painter.styled(BAD, &size))
        }
    }
}

/// `pmid:12345  Gene      0.99  Loss of BRCA1 causes cancer.`
fn mention_line(painter: &Painter, mention: &EntityMention) -> String {
    const TYPE_WIDTH: usize = 8;
    let id = painter.styled(DIM, &id_column(&mention.article_id));
    let padding = " ".repeat(TYPE_WIDTH.saturating_sub(mention.entity_type.chars().count()));
    let entity_type = painter.entity_type(&sanitized(&mention.entity_type)) + &padding;
    let indent = ID_WIDTH + TYPE_WIDTH + 4 + 6;
    let marked =
        |begin: u32, end: u32| Marked { begin: begin as usize, end: end as usize, entity_type: &mention.entity_type };
    let text = match &mention.sentence_text {
        Some(sentence) => {
            let begin = mention.begin.saturating_sub(mention.sentence_begin);
            painter.line(sentence, marked(begin, begin + (mention.end - mention.begin)), indent)
        }
        None => painter.line(&mention.text, marked(0, mention.end - mention.begin), indent),
    };
    format!("{id}  {entity_type}  {:.2}  {text}", mention.score)
}

fn annotations_line(painter: &Painter, annotations: &Annotations) -> String {
    let sentences: usize = annotations.passages.iter().map(|passage| passage.sentences.len()).sum();
    let types = annotations.mentions.iter().map(|mention| mention.entity_type.as_str());
    format!(
        "version {}  {} {}  {sentences:4} sentences  {}",
        annotations.article_version,
        sanitized(&annotations.model.name),
        sanitized(&annotations.model.version),
        tally(painter, types)
    )
}

fn labels_line(painter: &Painter, labels: &LabeledDocument) -> String {
    let types = labels.spans.iter().map(|span| span.entity_type.as_str());
    format!("by {}  {}", sanitized(&labels.annotator), tally(painter, types))
}

fn article_line(painter: &Painter, article: &ArticleEvent) -> String {
    let op = match article.op {
        Op::Upsert => "UPSERT".to_owned(),
        Op::Delete => painter.styled(BAD, "DELETE"),
    };
    let date = article.published.as_deref().unwrap_or("");
    let title = match (&article.title, &article.raw) {
        (Some(title), _) => title.clone(),
        (None, Some(raw)) => format!("({}, {} bytes)", raw.content_type, raw.bytes.len()),
        (None, None) => article.passages.first().map(|passage| passage.text.clone()).unwrap_or_default(),
    };
    let version = article.version;
    let before = format!("version {version}  {:10}  ", sanitized(date));
    let title = painter.plain(&title, ID_WIDTH + 2 + 8 + before.len());
    format!("{op}  {before}{title}")
}

fn model_line(model: &ModelVersion) -> String {
    let overall = model.metrics.iter().filter(|(name, _)| name.ends_with(".f1") && !name.contains(".types."));
    let metrics: Vec<String> = overall.map(|(name, value)| format!("{name} {value:.3}")).collect();
    let aliases: Vec<String> = model.aliases.iter().map(|(name, of)| format!("{name}={}", of.version)).collect();
    let fields = [&model.version, &aliases.join(" "), &metrics.join(" · "), &model.location];
    fields.map(|field| sanitized(field)).join("  ")
}

fn shadow_line(tally: &ShadowTally) -> String {
    let ShadowTally { candidate, champion, worker, agreement, refused, .. } = tally;
    let f1 = agreement.micro().f1().map_or_else(|| "unknown".to_owned(), |f1| format!("{f1:.4}"));
    let compared =
        format!("{} against {}  {} articles  F1 {f1}", candidate.version, champion.version, agreement.articles);
    [&compared, worker, refused.as_deref().unwrap_or_default()].map(sanitized).join("  ")
}

/// `Gene 12 · Disease 3`, the most frequent first.
pub fn tally<'a>(painter: &Painter, types: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entity_type in types {
        *counts.entry(entity_type).or_default() += 1;
    }
    if counts.is_empty() {
        return painter.styled(DIM, "no entities");
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown: Vec<String> =
        counts.iter().map(|(name, count)| format!("{} {count}", painter.entity_type(&sanitized(name)))).collect();
    shown.join(" · ")
}

/// The id padded to its column; the middle of a longer one is left out.
fn id_column(id: &str) -> String {
    let characters: Vec<char> = sanitized(id).chars().collect();
    if characters.len() <= ID_WIDTH {
        return format!("{:ID_WIDTH$}", characters.iter().collect::<String>());
    }
    let (begin, end) = (ID_WIDTH / 3, ID_WIDTH - ID_WIDTH / 3 - 1);
    let tail = &characters[characters.len() - end..];
    characters[..begin].iter().chain(&['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fill_their_column() {
        for id in ["pmid:1", "pmid:17425782", "doi:10.1371/journal.pgen.0010011"] {
            assert_eq!(id_column(id).chars().count(), ID_WIDTH, "{id}");
        }
        assert_eq!(id_column("doi:10.1371/journal.pgen.0010011"), "doi:10….pgen.0010011");
    }

    #[test]
    fn tallies_begin_with_the_most_frequent() {
        let painter = Painter::plain_text();
        assert_eq!(tally(&painter, ["Gene", "Disease", "Gene"].into_iter()), "Gene 2 · Disease 1");
        assert_eq!(tally(&painter, [].into_iter()), "no entities");
    }
}
