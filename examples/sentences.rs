//! Prints the sentence bounds of text files, one JSON line a document: `[[begin, end], …]`, Unicode
//! code points, half-open.
//!
//! ```text
//! cargo run --example sentences -- article.txt               # one document a file
//! cat texts.jsonl | cargo run --example sentences -- --jsonl -   # one document a line, a JSON string
//! ```

use anyhow::Context;
use litflow::text::{CodePoints, sentences};
use std::io::{Read, Write};

fn main() -> anyhow::Result<()> {
    let (flags, paths): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let jsonl = match flags.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--jsonl"] => true,
        _ => anyhow::bail!("usage: sentences [--jsonl] FILE…|-"),
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for path in &paths {
        let text = read(path).with_context(|| format!("cannot read {path}"))?;
        if jsonl {
            for (at, line) in text.lines().enumerate() {
                let document: String =
                    serde_json::from_str(line).with_context(|| format!("{path}:{}: not a JSON string", at + 1))?;
                print(&mut out, &document)?;
            }
        } else {
            print(&mut out, &text)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn read(path: &str) -> std::io::Result<String> {
    if path != "-" {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn print(out: &mut impl Write, text: &str) -> anyhow::Result<()> {
    let offsets = CodePoints::new(text);
    let spans: Vec<(u32, u32)> = sentences(text).iter().map(|bytes| offsets.span(bytes)).collect();
    serde_json::to_writer(&mut *out, &spans)?;
    writeln!(out)?;
    Ok(())
}
