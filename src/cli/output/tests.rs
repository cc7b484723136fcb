use super::*;
use litflow::article::{Document, Passage, Section};
use litflow::tagger::{Mention, ModelRef};

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
