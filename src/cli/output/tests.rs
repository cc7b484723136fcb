use super::*;
use litflow::article::pubtator::Reader;
use litflow::article::{Document, Options, Passage, Section};
use litflow::tagger::{Mention, ModelRef};
use proptest::prelude::*;

/// A document with every trap: an accent outside the BMP's first page, a line break in a text, a tab in
/// a mention, three passages.
fn tagged() -> TaggedDocument {
    let texts = [
        (Section::Title, "BRCA1 in naïve 𝛼-cells"),
        (Section::Background, "Loss of\nTP53 hurts. It does."),
        (Section::Results, "No p\t53 here."),
    ];
    let passages: Vec<Passage> = texts.iter().map(|(section, text)| Passage::new(*section, *text)).collect();
    let document = Document { article_id: "pmid:12345".into(), article_version: 2, passages };
    let offsets = document.passage_offsets();
    let mention = |passage: u32, begin: u32, end: u32, text: &str, sentence, score| Mention {
        id: format!("id-{passage}-{begin}"),
        entity_type: "Gene".into(),
        text: text.into(),
        passage,
        begin,
        end,
        document_begin: offsets[passage as usize] + begin,
        document_end: offsets[passage as usize] + end,
        sentence,
        score,
    };
    TaggedDocument {
        mentions: vec![
            mention(0, 0, 5, "BRCA1", 0, 0.993_12),
            mention(1, 8, 12, "TP53", 0, 1.0),
            mention(2, 3, 7, "p\t53", 0, 0.5),
        ],
        sentences: vec![vec![(0, 22)], vec![(0, 19), (20, 28)], vec![(0, 13)]],
        document,
        model: ModelRef { name: "biored-minilm".into(), version: "1.0.0".into(), digest: "sha256:00".into() },
        tokens: 30,
        compute_seconds: 0.0,
    }
}

fn written(format: Format, tagged: &TaggedDocument) -> String {
    let mut out = Vec::new();
    format.write_header(&mut out).unwrap();
    format.write(tagged, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn assert_golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/output").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{} differs; if that is meant: UPDATE_GOLDEN=1 cargo test", path.display());
}

#[test]
fn golden_files() {
    assert_golden("tagged.jsonl", &written(Format::Jsonl, &tagged()));
    assert_golden("tagged.pubtator", &written(Format::Pubtator, &tagged()));
    assert_golden("tagged.tsv", &written(Format::Tsv, &tagged()));
}

#[test]
fn pubtator_offsets_select_the_mentions() {
    for with_title in [true, false] {
        let mut tagged = tagged();
        if !with_title {
            tagged.document.passages[0].section = Section::Abstract;
        }
        let text = written(Format::Pubtator, &tagged);
        let mut lines = text.lines();
        let title = lines.next().unwrap().strip_prefix("12345|t|").unwrap();
        let rest = lines.next().unwrap().strip_prefix("12345|a|").unwrap();
        let document: Vec<char> = format!("{title} {rest}").chars().collect();
        let mut mentions = 0;
        for line in lines.take_while(|line| !line.is_empty()) {
            let [id, begin, end, mention, entity_type] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("five columns expected: {line:?}")
            };
            let (begin, end): (usize, usize) = (begin.parse().unwrap(), end.parse().unwrap());
            let selected: String = document[begin..end].iter().collect();
            assert_eq!((id, selected.replace('\t', " ").as_str(), entity_type), ("12345", mention, "Gene"));
            mentions += 1;
        }
        assert_eq!(mentions, 3);
    }
}

/// Of `text`, what stands where tabs and line breaks cannot.
fn spaced(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}

/// What a reader of the TSV does.
fn unescaped(column: &str) -> String {
    let mut text = String::new();
    let mut chars = column.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next().unwrap() {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                other => panic!("\\{other} is no escape"),
            },
            c => c,
        });
    }
    text
}

/// A document with a mention of any text, and what stands around it, in its title and in a passage.
fn tagged_anything(before: &str, text: &str, after: &str) -> TaggedDocument {
    let mut tagged = tagged();
    let begin = before.chars().count() as u32;
    let end = begin + text.chars().count() as u32;
    tagged.document.passages = vec![
        Passage::new(Section::Title, format!("{before}{text}{after}")),
        Passage::new(Section::Body, format!("{before}{text}{after}")),
    ];
    let offsets = tagged.document.passage_offsets();
    let mention = tagged.mentions[0].clone();
    tagged.mentions = (0..2)
        .map(|passage| Mention {
            passage,
            begin,
            end,
            text: text.into(),
            document_begin: offsets[passage as usize] + begin,
            document_end: offsets[passage as usize] + end,
            ..mention.clone()
        })
        .collect();
    tagged.sentences = vec![vec![(0, end)]; 2];
    tagged
}

proptest! {
    /// Whatever is in a text, each line has its columns and each mention is found again.
    #[test]
    fn any_text_can_be_read_back(
        before in "(\\PC|[\t\n\r\\\\\"|]){0,8}",
        text in "(\\PC|[\t\n\r\\\\\"|]){1,8}",
        after in "(\\PC|[\t\n\r\\\\\"|]){0,8}",
    ) {
        let tagged = tagged_anything(&before, &text, &after);
        let pubtator = written(Format::Pubtator, &tagged);
        let documents: Vec<_> = Reader::new(pubtator.as_bytes(), "output", &Options::default()).collect();
        prop_assert_eq!(documents.len(), 1, "{}", &pubtator);
        let document = documents[0].as_ref().unwrap();
        let selectable: Vec<char> = spaced(&document.text()).chars().collect();
        prop_assert_eq!(document.annotations.len(), 2);
        for annotation in &document.annotations {
            let selected: String = selectable[annotation.begin..annotation.end].iter().collect();
            prop_assert_eq!(&selected, &annotation.text);
            prop_assert_eq!(&selected, &spaced(&text));
        }

        let tsv = written(Format::Tsv, &tagged);
        let lines: Vec<Vec<&str>> = tsv.split_terminator('\n').map(|line| line.split('\t').collect()).collect();
        prop_assert_eq!(lines.len(), 3);
        for line in &lines[1..] {
            prop_assert_eq!(line.len(), lines[0].len());
            prop_assert_eq!(unescaped(line[10]), text.clone());
        }
        let json: serde_json::Value = serde_json::from_str(&written(Format::Jsonl, &tagged)).unwrap();
        prop_assert_eq!(json["mentions"][1]["text"].as_str(), Some(text.as_str()));
    }
}

#[test]
fn each_tsv_line_has_the_headers_columns() {
    let text = written(Format::Tsv, &tagged());
    let columns: Vec<usize> = text.lines().map(|line| line.split('\t').count()).collect();
    assert_eq!(columns, [13, 13, 13, 13]);
    assert!(text.contains("\tp\\t53\t"), "{text}");
}

#[test]
fn a_title_alone_has_an_empty_abstract_line() {
    let mut tagged = tagged();
    tagged.document.passages.truncate(1);
    tagged.sentences.truncate(1);
    tagged.mentions.truncate(1);
    tagged.document.article_id = "doi:10.1/x".into();
    let text = written(Format::Pubtator, &tagged);
    assert_eq!(text, "doi:10.1/x|t|BRCA1 in naïve 𝛼-cells\ndoi:10.1/x|a|\ndoi:10.1/x\t0\t5\tBRCA1\tGene\n\n");
}
