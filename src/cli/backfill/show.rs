//! How far a backfill is, on stderr, and what it did, on stdout.

use super::super::paint::{Painter, sanitized};
use super::super::{input, progress};
use anstyle::Style;
use indicatif::{HumanCount, HumanDuration, ProgressBar};
use litflow::article;
use litflow::backfill::diff::Change;
use litflow::backfill::report::{Changes, Example, Named};
use litflow::backfill::{Event, Phase, Progress, Report};
use litflow::tagger::ModelRef;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often a line is written where there is no terminal for a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Digits of a digest that people are shown.
const DIGEST_SHOWN: usize = 12;
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// A bar on a terminal, else a line now and then.
pub struct Display {
    bar: ProgressBar,
    /// Whom it waits for.
    group: String,
    /// How much of the files is read, where there are any.
    read: Option<article::Progress>,
    has_total: bool,
    /// Since when it tags without a pause, and how many articles were done then.
    pace: Option<(Instant, u64)>,
    next_line: Instant,
    last: Progress,
}

impl Display {
    pub fn new(group: String, read: Option<article::Progress>) -> Self {
        let next_line = Instant::now() + LINE_INTERVAL;
        let bar = progress::spinner("starting");
        Self { bar, group, read, has_total: false, pace: None, next_line, last: Progress::default() }
    }

    pub fn tell(&mut self, event: Event<'_>) {
        let progress = match event {
            Event::LeftOut(told) => return input::tell_left_out(&sanitized(told)),
            Event::Progress(progress) => progress,
        };
        let waits = |progress: &Progress| matches!(progress.phase, Phase::Yielding(_));
        let turns = waits(&self.last) != waits(progress);
        if progress.phase == Phase::Tagging && (turns || self.pace.is_none()) {
            self.pace = Some((Instant::now(), progress.done));
            self.bar.reset_eta();
        }
        self.last = progress.clone();
        let total = self.read.as_ref().map_or(progress.due, |read| read.total);
        if let Some(total) = total.filter(|_| !self.has_total && self.pace.is_some()) {
            self.has_total = true;
            progress::set_total(&self.bar, total);
        }
        if self.has_total {
            self.bar.set_position(self.read.as_ref().map_or(progress.done, article::Progress::consumed));
        }
        if !self.bar.is_hidden() {
            self.bar.set_message(self.line(progress));
        } else if turns || Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_INTERVAL;
            anstream::eprintln!("{}{}", self.line(progress), self.time_left(progress));
        }
    }

    fn line(&self, progress: &Progress) -> String {
        let of_due = progress.due.map(|due| format!(" of {}", HumanCount(due))).unwrap_or_default();
        let (done, mentions) = (HumanCount(progress.done), HumanCount(progress.mentions));
        let line = format!("{done}{of_due} articles, {mentions} mentions");
        match progress.phase {
            Phase::Starting => "starting".to_owned(),
            Phase::Surveying(records) => format!("{} records surveyed", HumanCount(records)),
            Phase::Yielding(lag) => {
                format!("{line}, waiting: the group {} is {} articles behind", self.group, HumanCount(lag))
            }
            Phase::Tagging | Phase::Committing => {
                let rate = self.rate(progress);
                format!("{line}, {rate:.decimals$}/s", decimals = usize::from(rate < 10.0))
            }
        }
    }

    /// Articles a second since the last pause.
    fn rate(&self, progress: &Progress) -> f64 {
        let Some((since, done)) = self.pace else { return 0.0 };
        let seconds = since.elapsed().as_secs_f64();
        if seconds > 0.0 { (progress.done - done) as f64 / seconds } else { 0.0 }
    }

    fn time_left(&self, progress: &Progress) -> String {
        let (Some(due), rate) = (progress.due, self.rate(progress)) else { return String::new() };
        if rate == 0.0 || matches!(progress.phase, Phase::Yielding(_)) {
            return String::new();
        }
        let left = Duration::try_from_secs_f64((due.saturating_sub(progress.done)) as f64 / rate);
        left.map(|left| format!(", {} left", HumanDuration(left))).unwrap_or_default()
    }

    /// Takes the bar away. After a failure nothing else says what stays done.
    pub fn finish(&mut self, failed: bool) {
        self.bar.finish_and_clear();
        if failed && self.last.retagged > 0 {
            let articles = input::counted(self.last.retagged, "article", "articles");
            anstream::eprintln!("{articles} were tagged again before the failure, and stay so");
        }
    }
}

/// The end report.
pub fn report(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    if json {
        return Ok(writeln!(out, "{}", serde_json::to_string(report)?)?);
    }
    write_report(&mut out, &Painter::for_stdout(), report)?;
    Ok(out.flush()?)
}

fn write_report(out: &mut impl Write, painter: &Painter, report: &Report) -> std::io::Result<()> {
    let articles = |count: u64| input::counted(count, "article", "articles");
    let to = version(&report.model);
    if report.dry_run {
        let due = report.from.iter().map(|from| from.articles).sum();
        writeln!(out, "{} to be tagged again by {to}", articles(due))?;
    } else {
        let how = if report.interrupted { ", then interrupted" } else { "" };
        let took = HumanDuration(Duration::try_from_secs_f64(report.seconds).unwrap_or_default());
        writeln!(out, "{} tagged again by {to} in {took}{how}", articles(report.retagged))?;
    }
    for from in &report.from {
        writeln!(out, "  {:>10}  from {}", HumanCount(from.articles).to_string(), version(&from.model))?;
    }
    let counts = [
        (report.up_to_date, "up to date already"),
        (report.deleted, "deleted"),
        (report.repaired, "put right, as a newer event came during a commit"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "  {:>10}  {what}", HumanCount(count).to_string())?;
    }
    for (reason, count) in &report.left {
        writeln!(out, "  {:>10}  left: {reason}", HumanCount(*count).to_string())?;
    }
    if report.compared > 0 {
        write_changes(out, painter, report)?;
    }
    Ok(())
}

fn write_changes(out: &mut impl Write, painter: &Painter, report: &Report) -> std::io::Result<()> {
    let types: Vec<(String, &Changes)> =
        report.types.iter().map(|(name, changes)| (sanitized(name), changes)).collect();
    let width = types.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max("all".len());
    let heading = format!(
        "{:width$} {:>11} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "before", "after", "unchanged", "boundary", "added", "removed", "retyped →", "→ retyped", "score"
    );
    writeln!(out, "\n{}", painter.styled(DIM, &heading))?;
    let mut row = |name: &str, shown: String, changes: &Changes| {
        let padding = " ".repeat(width - name.chars().count());
        let numbers = [changes.before, changes.after, changes.unchanged]
            .map(|count| format!("{:>11}", HumanCount(count).to_string()));
        let more = [changes.boundary, changes.added, changes.removed, changes.retyped_from, changes.retyped_to];
        let more = more.map(|count| format!("{:>9}", HumanCount(count).to_string()));
        let score = changes.score_shift.map_or_else(String::new, |shift| format!("{shift:+.4}"));
        writeln!(out, "{shown}{padding} {} {} {score:>9}", numbers.join(" "), more.join(" "))
    };
    for (name, changes) in &types {
        row(name, painter.entity_type(name), changes)?;
    }
    row("all", painter.styled(BOLD, "all"), &report.all)?;
    if report.compared < report.retagged {
        writeln!(out, "over {} articles; the others have another text now", HumanCount(report.compared))?;
    }
    if !report.examples.is_empty() {
        writeln!(out)?;
    }
    let mut examples: Vec<&Example> = report.examples.iter().collect();
    examples.sort_by_key(|example| example.change);
    for Example { change, article_id, before, after } in examples {
        let named = |named: &Named| {
            let text = painter.plain(&named.text, 40);
            format!("{} {}", painter.entity_type(&sanitized(&named.entity_type)), painter.styled(BOLD, &text))
        };
        let sides: Vec<String> = [before, after].into_iter().flatten().map(named).collect();
        let name = match change {
            Change::Unchanged => "unchanged",
            Change::Boundary => "boundary",
            Change::Retyped => "retyped",
            Change::Added => "added",
            Change::Removed => "removed",
        };
        writeln!(out, "{name:8}  {}  {}", sides.join(" → "), painter.styled(DIM, &sanitized(article_id)))?;
    }
    Ok(())
}

/// `biored-minilm 1.0.0 (0a1b2c3d4e5f)`.
fn version(model: &ModelRef) -> String {
    let digest: String = model.digest.trim_start_matches("sha256:").chars().take(DIGEST_SHOWN).collect();
    sanitized(&format!("{} {} ({digest})", model.name, model.version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use litflow::backfill::report::From;

    fn model(version: &str) -> ModelRef {
        ModelRef { name: "m".into(), version: version.into(), digest: format!("sha256:{version}{}", "0".repeat(64)) }
    }

    fn written(report: &Report) -> String {
        let mut out = Vec::new();
        write_report(&mut out, &Painter::plain_text(), report).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_report_tells_what_changed_and_foreign_text_is_harmless() {
        let gene = Changes {
            before: 1_200,
            after: 1_000,
            unchanged: 900,
            boundary: 50,
            added: 50,
            removed: 250,
            ..Changes::default()
        };
        let gene = Changes { score_shift: Some(0.0125), ..gene };
        let named = |text: &str| Some(Named { entity_type: "Gene".into(), text: text.into() });
        let mut report = Report {
            from: vec![From { model: model("1"), articles: 1_000 }],
            retagged: 1_000,
            compared: 999,
            up_to_date: 5,
            seconds: 61.0,
            ..Report::new(model("2"))
        };
        report.left.insert("expired", 7);
        report.types.insert("Gene".into(), gene.clone());
        report.all = gene;
        report.examples = vec![
            Example {
                change: Change::Removed,
                article_id: "pmid:1".into(),
                before: named("a\u{1b}[31m\u{202e}b"),
                after: None,
            },
            Example {
                change: Change::Boundary,
                article_id: "pmid:2".into(),
                before: named("p53"),
                after: named("p53 gene"),
            },
        ];
        let text = written(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "1,000 articles tagged again by m 2 (200000000000) in 61 seconds");
        assert_eq!(lines[1], "       1,000  from m 1 (100000000000)");
        assert_eq!((lines[2], lines[3]), ("           5  up to date already", "           7  left: expired"));
        let row =
            "Gene       1,200       1,000         900        50        50       250         0         0   +0.0125";
        assert_eq!((lines[6], lines[7].replace("all ", "Gene")), (row, row.to_owned()));
        assert_eq!(lines[8], "over 999 articles; the others have another text now");
        assert_eq!(lines[10], "boundary  Gene p53 → Gene p53 gene  pmid:2");
        assert!(lines[11].starts_with("removed   Gene a") && !text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert_eq!(lines[5].split_whitespace().filter(|word| *word != "→").count(), 9);
    }

    #[test]
    fn a_display_follows_a_run() {
        let mut display = Display::new("workers".into(), None);
        let mut tell = |phase, done| {
            let progress = Progress { phase, due: Some(2_000), done, mentions: 3 * done, ..Progress::default() };
            display.tell(Event::Progress(&progress));
            (display.line(&progress), display.has_total)
        };
        assert_eq!(tell(Phase::Surveying(12_001), 0), ("12,001 records surveyed".to_owned(), false));
        tell(Phase::Tagging, 0);
        let (line, has_total) = tell(Phase::Tagging, 1_000);
        assert!(has_total && line.starts_with("1,000 of 2,000 articles, 3,000 mentions, "), "{line}");
        let (line, _) = tell(Phase::Yielding(7_000), 1_000);
        assert!(line.ends_with("3,000 mentions, waiting: the group workers is 7,000 articles behind"), "{line}");
        // The pace counts from the end of the wait, not from the beginning.
        let (line, _) = tell(Phase::Tagging, 1_000);
        assert!(line.ends_with(", 0.0/s"), "{line}");
        tell(Phase::Tagging, 1_001);
        assert!(display.time_left(&display.last).ends_with(" left"));
    }

    #[test]
    fn a_dry_run_says_what_is_due() {
        let from = vec![From { model: model("1"), articles: 1 }];
        let report = Report { dry_run: true, from, ..Report::new(model("2")) };
        assert!(
            written(&report)
                .starts_with("1 article to be tagged again by m 2 (200000000000)\n           1  from m 1 (")
        );
    }
}
