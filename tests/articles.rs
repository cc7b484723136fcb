//! Each format's fixture is read as its golden file says; errors are part of what is compared.
//!
//! `UPDATE_GOLDEN=1 cargo test --test articles` writes the golden files anew: read the difference.
#![allow(clippy::unwrap_used)] // helpers of tests

use flate2::{Compression, write::GzEncoder};
use litflow::article::{Articles, Format, Options, RecordError};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/articles")
}

/// The events and errors of paths, errors with their file's name only.
fn read(paths: &[PathBuf], from: Option<Format>) -> Vec<Value> {
    let show = |mut error: RecordError| {
        error.file = Path::new(&error.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        json!({"error": error.to_string()})
    };
    Articles::new(paths, from, &Options::default())
        .map(|article| article.map_or_else(show, |event| serde_json::to_value(event).unwrap()))
        .collect()
}

#[test]
fn fixtures_are_read_as_their_golden_files_say() {
    for name in ["pubmed.xml", "jats.nxml", "bioc.xml", "bioc.json", "gold.pubtator", "articles.jsonl", "a note.txt"] {
        let items = read(&[fixtures().join(name)], None);
        let golden = fixtures().join("expected").join(format!("{name}.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, serde_json::to_string_pretty(&items).unwrap() + "\n").unwrap();
        }
        let expected: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&golden).unwrap()).unwrap();
        assert_eq!(items.len(), expected.len(), "{name}");
        for (item, expected) in items.iter().zip(&expected) {
            assert_eq!(item, expected, "{name}");
        }
    }
}

#[test]
fn the_demo_articles_are_read_whole() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let articles = Articles::new(&[demo.join("pubmed.xml"), demo.join("articles.jsonl")], None, &Options::default());
    let articles = articles.collect::<Result<Vec<_>, _>>().unwrap();
    assert!(articles.len() >= 20, "{}", articles.len());
    for event in articles {
        let text: usize = event.passages.iter().map(|passage| passage.text.len()).sum();
        assert!(text > 300 && event.title.is_some(), "{}: {text}", event.id);
    }
}

#[test]
fn a_directory_is_read_in_order_whatever_is_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("b.jsonl", br#"{"id": "b", "text": "x"}"#);
    write("a/1.jsonl.gz", &gzip(&[b"{\"id\": \"a1\", \"text\": \"x\"}\n", b"{\"id\": \"a2\", \"text\": \"x\"}\n"]));
    write("a/2.txt", b"text");
    write("a/.hidden.txt", b"text");
    write("a/picture.jpg", b"\xFF\xD8\xFF");
    write("c.xml", b"<html><body>no articles</body></html>");
    let mut cut_off = gzip(&[&[b'x'; 100]]);
    cut_off.truncate(20);
    write("d.txt.gz", &cut_off);

    let mut articles = Articles::new(&[folder.path().to_owned()], None, &Options::default());
    let progress = articles.progress();
    let items: Vec<_> = articles.by_ref().collect();
    let ids: Vec<_> = items.iter().flatten().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["jsonl:a1", "jsonl:a2", "text:2", "jsonl:b"]);
    let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2);
    assert!(errors[0].contains("c.xml: the root element `html` is of no format"), "{}", errors[0]);
    assert!(errors[1].contains("d.txt.gz") && errors[1].contains("cannot be read"), "{}", errors[1]);
    assert_eq!(Some(progress.consumed()), progress.total);

    let missing = read(&[folder.path().join("missing.xml")], None);
    assert!(missing[0]["error"].as_str().unwrap().contains("missing.xml: cannot be read"), "{missing:?}");
}

/// A gzip file of these members.
fn gzip(members: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        let mut encoder = GzEncoder::new(&mut bytes, Compression::fast());
        encoder.write_all(member).unwrap();
        encoder.finish().unwrap();
    }
    bytes
}

/// Smaller than what is looked at to tell the format.
#[test]
fn what_stands_before_the_place_where_a_small_gzip_is_cut_off_is_read() {
    let lines: String = (0..400).map(|id| format!("{{\"id\": \"{id}\", \"text\": \"no {}\"}}\n", id * 7919)).collect();
    let mut cut_off = gzip(&[lines.as_bytes()]);
    cut_off.truncate(cut_off.len() / 2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.jsonl.gz");
    std::fs::write(&path, cut_off).unwrap();

    let items: Vec<_> = Articles::new(&[path], None, &Options::default()).collect();
    let (read, error) = items.split_at(items.len() - 1);
    assert!(read.len() > 20 && read.iter().all(Result::is_ok), "{}", read.len());
    assert!(error[0].as_ref().unwrap_err().to_string().contains("cut.jsonl.gz"), "{error:?}");
}

/// The text of `xml` read as `from`.
fn read_bytes(bytes: &[u8], from: Format, options: &Options) -> Vec<Result<String, String>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Articles::new(&[file.path().to_owned()], Some(from), options)
        .map(|item| item.map(|event| event.id).map_err(|error| error.to_string()))
        .collect()
}

#[test]
fn hostile_xml_costs_only_itself() {
    let citation = |pmid: u32, title: &str| {
        format!(
            "<PubmedArticle><MedlineCitation><PMID>{pmid}</PMID><Article><ArticleTitle>{title}</ArticleTitle>\
             </Article></MedlineCitation></PubmedArticle>"
        )
    };
    let bomb = "<!DOCTYPE PubmedArticleSet [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'>\
                <!ENTITY file SYSTEM 'file:///etc/passwd'>]>";
    let hostile = [
        citation(2, "&b;"),
        citation(3, "&file;"),
        citation(4, &"<i>".repeat(100_000)),
        citation(5, "a\u{1}b"),
        citation(6, "a\0b"),
        citation(7, &"x".repeat(70_000)),
        citation(8, "<![CDATA[</PubmedArticle>]]>"),
        citation(9, "<!-- never closed"),
        citation(10, &format!("<i {}>x</i>", (0..5000).map(|n| format!("a{n}='' ")).collect::<String>())),
    ];
    let mut xml = format!("{bomb}<PubmedArticleSet>{}", citation(1, "first")).into_bytes();
    for record in &hostile {
        xml.extend_from_slice(record.as_bytes());
    }
    xml.extend_from_slice(b"<PubmedArticle><PMID>11</PMID><ArticleTitle>\xFF</ArticleTitle></PubmedArticle>");
    xml.extend_from_slice(citation(12, "last").as_bytes());
    xml.extend_from_slice(b"</PubmedArticleSet>");
    let options = Options { max_record_bytes: 60_000, ..Options::default() };
    let items = read_bytes(&xml, Format::Pubmed, &options);
    let ids: Vec<_> = items.iter().flatten().collect();
    assert_eq!(ids, ["pmid:1", "pmid:10", "pmid:12"], "{items:?}");
    let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
    for (error, reason) in errors.iter().zip([
        "record 2: undefined entity `&b;`",
        "record 3: undefined entity `&file;`",
        "record 4: longer than 60000 bytes",
        "record 5: control character 0x01",
        "record 6: control character 0x00",
        "record 7: longer than 60000 bytes",
        "record 8: not well-formed XML",
        "]]> where a record should stand",
        "record 9: not well-formed XML",
        "record 11: invalid UTF-8 at byte 44",
    ]) {
        assert!(error.contains(reason), "{error} does not say: {reason}");
    }
    let deep = read_bytes(citation(1, &"<i>".repeat(300)).as_bytes(), Format::Pubmed, &Options::default());
    assert!(deep[0].as_ref().unwrap_err().contains("nested deeper than 256"), "{deep:?}");
}

#[test]
fn an_input_that_was_cut_off_says_so() {
    for (xml, reason) in [
        ("<PubmedArticleSet><PubmedArticle><PMID>1</PMID>", "record 1: the input ends before this one's end tag"),
        ("<PubmedArticleSet>", "the input ends before </PubmedArticleSet>"),
        ("<set></set>", "has no <PubmedArticle> or <PubmedBookArticle>"),
    ] {
        let items = read_bytes(xml.as_bytes(), Format::Pubmed, &Options::default());
        assert_eq!(items.len(), 1, "{items:?}");
        assert!(items[0].as_ref().unwrap_err().contains(reason), "{items:?}");
    }
    assert!(read_bytes(b"<PubmedArticleSet/>", Format::Pubmed, &Options::default()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), format in 0..6usize) {
        read_bytes(&bytes, Format::NAMES[format].1, &Options::default());
    }

    /// Each fixture with a few bytes changed, so that the damage gets past the first tag.
    #[test]
    fn damaged_files_never_panic(
        name in prop::sample::select(vec!["pubmed.xml", "jats.nxml", "bioc.xml", "bioc.json", "gold.pubtator", "articles.jsonl"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = std::fs::read(fixtures().join(name)).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let format = Format::of_name(Path::new(name)).unwrap_or(if name == "pubmed.xml" { Format::Pubmed } else { Format::Bioc });
        read_bytes(&bytes, format, &Options::default());
    }
}
