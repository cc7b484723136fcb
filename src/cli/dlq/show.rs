//! Letters as tables, as JSON, and one of them whole.

use super::super::exit::Exit;
use super::super::models::date;
use super::super::paint::{Painter, sanitized};
use super::with_bar;
use anstyle::{AnsiColor, Style};
use litflow::bus::reader::{Value, decode};
use litflow::bus::wire::Wire;
use litflow::dlq::{DeadLetters, Error, Letter, Mark, Marked};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::ControlFlow;

const DIM: Style = Style::new().dimmed();
const BAD: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const GOOD: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));

/// Columns of the table; what is longer shifts its line. The error takes what is left.
const PLACE: usize = 10;
const TIME: usize = 16;
const REASON: usize = 19;
const STAGE: usize = 6;
const ATTEMPT: usize = 7;
const STATE: usize = 8;
const KEY: usize = 20;
/// Bytes of a value that is shown as a hex dump.
const DUMP: usize = 512;
const DUMP_LINE: usize = 16;

/// The letters, one a line.
pub fn list(letters: &mut DeadLetters, all: bool, count: Option<u64>, json: bool) -> anyhow::Result<Exit> {
    let painter = Painter::for_stdout();
    let mut out = anstream::stdout().lock();
    if !json {
        let state = if all { format!("{:STATE$}  ", "STATE") } else { String::new() };
        writeln!(
            out,
            "{:PLACE$}  {:TIME$}  {:REASON$}  {:STAGE$}  {:>ATTEMPT$}  {state}{:KEY$}  ERROR",
            "PLACE", "DIED", "REASON", "STAGE", "ATTEMPT", "KEY"
        )?;
    }
    let mut left = count.unwrap_or(u64::MAX);
    letters.for_each(all, &mut |_, _| {}, |letter, mark| {
        match json {
            true => writeln!(out, "{}", letter_json(letter, mark))?,
            false => writeln!(out, "{}", line(&painter, letter, mark, all))?,
        }
        left -= 1;
        anyhow::Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    out.flush()?;
    Ok(Exit::Done)
}

fn line(painter: &Painter, letter: &Letter, mark: Option<Mark>, all: bool) -> String {
    let place = format!("{:PLACE$}", letter.place().to_string());
    let died = format!("{:TIME$}", letter.timestamp().map(date).unwrap_or_default());
    let reason = format!("{:REASON$}", sanitized(letter.reason().unwrap_or("unknown")));
    let stage = format!("{:STAGE$}", sanitized(letter.stage().unwrap_or("?")));
    let state = match (all, mark) {
        (false, _) => String::new(),
        (true, None) => format!("{:STATE$}  ", "open"),
        (true, Some(mark)) => painter.styled(GOOD, &format!("{:STATE$}", mark.name())) + "  ",
    };
    let key = format!("{:KEY$}", shortened(&key(letter).unwrap_or_else(|| "(no key)".into()), KEY));
    let before = PLACE + TIME + REASON + STAGE + ATTEMPT + KEY + 6 * 2 + if all { STATE + 2 } else { 0 };
    let error = painter.plain(letter.error().unwrap_or_default(), before);
    let place = painter.styled(DIM, &place);
    let reason = painter.styled(BAD, &reason);
    format!("{place}  {died}  {reason}  {stage}  {:ATTEMPT$}  {state}{key}  {error}", letter.attempt())
}

/// How many letters there are by reason and stage, the commonest first.
pub fn summary(letters: &mut DeadLetters, all: bool, json: bool) -> anyhow::Result<Exit> {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let text = |text: Option<&str>, none: &str| text.unwrap_or(none).to_owned();
    with_bar("counting", |progress| {
        letters.for_each(all, progress, |letter, _| {
            *counts.entry((text(letter.reason(), "unknown"), text(letter.stage(), "?"))).or_default() += 1;
            Ok::<_, Error>(ControlFlow::Continue(()))
        })
    })?;
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut out = anstream::stdout().lock();
    if json {
        let row = |((reason, stage), count): &((String, String), u64)| json!({"reason": reason, "stage": stage, "letters": count});
        writeln!(out, "{:#}", json!(counts.iter().map(row).collect::<Vec<_>>()))?;
        return Ok(Exit::Done);
    }
    writeln!(out, "{:>9}  {:REASON$}  STAGE", "LETTERS", "REASON")?;
    let painter = Painter::for_stdout();
    for ((reason, stage), count) in counts {
        let reason = painter.styled(BAD, &format!("{:REASON$}", sanitized(&reason)));
        writeln!(out, "{count:>9}  {reason}  {}", sanitized(&stage))?;
    }
    Ok(Exit::Done)
}

/// The original value, and nothing else.
pub fn raw(letter: &Letter) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    out.write_all(letter.value().unwrap_or_default())?;
    out.flush()?;
    Ok(Exit::Done)
}

/// One letter whole.
pub fn letter(letter: &Letter, wire: &Wire, mark: Option<&Marked>, json: bool) -> anyhow::Result<Exit> {
    let value = decoded(letter, wire);
    let mut out = anstream::stdout().lock();
    if json {
        let mut shown = letter_json(letter, mark.map(|mark| mark.mark));
        let headers: Vec<Json> = letter.headers().map(|(name, value)| json!([name, value.map(text_or_hex)])).collect();
        shown["headers"] = json!(headers);
        shown["value"] = json!(value.as_ref().ok());
        shown["mark"] = json!(mark.map(|mark| json!({"mark": mark.mark.name(), "by": mark.by, "at": mark.at})));
        writeln!(out, "{shown:#}")?;
        return Ok(Exit::Done);
    }
    let painter = Painter::for_stdout();
    let died = letter.timestamp().map(date).unwrap_or_default();
    writeln!(out, "{}  died {died}, attempt {}", letter.place(), letter.attempt())?;
    if let Some(Marked { mark, by, at, .. }) = mark {
        let at = at.map(date).unwrap_or_default();
        writeln!(out, "{} {at} by {}", painter.styled(GOOD, mark.name()), sanitized(by))?;
    }
    let key = key(letter).unwrap_or_else(|| "(no key)".into());
    writeln!(out, "{} {}", painter.styled(DIM, "key"), sanitized(&key))?;
    for (name, value) in letter.headers() {
        let value = value.map(text_or_hex).unwrap_or_default();
        writeln!(out, "{} {}", painter.styled(DIM, &sanitized(name)), sanitized(&value))?;
    }
    let bytes = letter.value().unwrap_or_default();
    match value {
        Ok(value) => {
            writeln!(out, "{}", painter.styled(DIM, &format!("value, {} bytes", bytes.len())))?;
            for line in format!("{value:#}").lines() {
                writeln!(out, "{}", sanitized(line))?;
            }
        }
        Err(why) => {
            writeln!(out, "{}", painter.styled(DIM, &format!("value, {} bytes: {}", bytes.len(), sanitized(&why))))?;
            out.write_all(dump(bytes).as_bytes())?;
            if bytes.len() > DUMP {
                writeln!(out, "… {} bytes more; --raw writes them all", bytes.len() - DUMP)?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// The value as JSON, or why it is not shown so.
fn decoded(letter: &Letter, wire: &Wire) -> Result<Json, String> {
    let topic = letter.origin().map(|origin| origin.topic).unwrap_or_default();
    match decode(&topic, letter.value(), wire).map_err(|error| error.to_string())? {
        Value::Tombstone => Err("none".into()),
        Value::Bytes { error, .. } => Err(error.unwrap_or_else(|| "not decoded".into())),
        value => serde_json::to_value(value).map_err(|error| error.to_string()),
    }
}

fn letter_json(letter: &Letter, mark: Option<Mark>) -> Json {
    let place = letter.place();
    let origin = letter.origin().map(|origin| {
        json!({
            "topic": origin.topic, "partition": origin.partition, "offset": origin.offset,
            "timestamp": origin.timestamp,
        })
    });
    json!({
        "place": place.to_string(), "partition": place.partition, "offset": place.offset,
        "timestamp": letter.timestamp(), "state": mark.map_or("open", Mark::name),
        "reason": letter.reason(), "stage": letter.stage(), "class": letter.class(), "attempt": letter.attempt(),
        "error": letter.error(), "key": key(letter), "origin": origin, "worker": letter.worker(),
        "bytes": letter.value().map_or(0, <[u8]>::len),
    })
}

fn key(letter: &Letter) -> Option<String> {
    letter.key().map(|key| String::from_utf8_lossy(key).into_owned())
}

fn text_or_hex(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| format!("0x{}", hex::encode(bytes)), str::to_owned)
}

/// At most `columns` characters, fit for a terminal.
fn shortened(text: &str, columns: usize) -> String {
    let text = sanitized(text);
    if text.chars().count() <= columns {
        return text;
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}

/// `00000010  ff 00 …  |..ab|`, as `hexdump -C` writes it, of the first [`DUMP`] bytes.
fn dump(bytes: &[u8]) -> String {
    let lines = bytes[..bytes.len().min(DUMP)].chunks(DUMP_LINE).enumerate().map(|(number, line)| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = line
            .iter()
            .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' })
            .collect();
        format!("{:08x}  {:width$}  |{text}|\n", number * DUMP_LINE, hex.join(" "), width = DUMP_LINE * 3 - 1)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_dumped_beside_their_text() {
        let shown = dump(b"\xc3\x01 <xml>\x1b[2J and more text");
        let expected = "00000000  c3 01 20 3c 78 6d 6c 3e 1b 5b 32 4a 20 61 6e 64  |.. <xml>.[2J and|\n\
                        00000010  20 6d 6f 72 65 20 74 65 78 74                    | more text|\n";
        assert_eq!(shown, expected);
        assert_eq!(dump(&[0; DUMP + 1]).lines().count(), DUMP / DUMP_LINE);
    }

    #[test]
    fn long_keys_are_cut() {
        assert_eq!(shortened("doi:10.1371/journal.pgen.0010011", 10), "doi:10.13…");
        assert_eq!(shortened("a\u{1b}b", 10), "a\u{fffd}b");
    }
}
