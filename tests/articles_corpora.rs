//! The readers against real files of `../shared/corpora`; skipped, and said so, where they are not.

use litflow::article::{ArticleEvent, Articles, Format, Options, Passage, RecordError, Section};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

fn corpora(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora").join(folder);
    if !path.is_dir() {
        eprintln!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

fn read(path: &Path, from: Option<Format>) -> (Vec<ArticleEvent>, Vec<RecordError>) {
    let (mut events, mut errors) = (Vec::new(), Vec::new());
    for article in Articles::new(&[path.to_owned()], from, &Options::default()) {
        match article {
            Ok(event) => events.push(event),
            Err(error) => errors.push(error),
        }
    }
    (events, errors)
}

#[test]
fn pubmed_files_are_read() {
    let Some(folder) = corpora("pubmed_xml") else { return };
    let (events, errors) = read(&folder, None);
    for error in &errors {
        eprintln!("{error}");
    }
    // NCBI's other XML (gene reports, MedGen summaries, Medline text) is refused, a file at a time.
    assert!(errors.iter().all(|error| error.position.is_none()), "{errors:?}");
    let citations: Vec<_> = events.iter().filter(|event| event.id.starts_with("pmid:")).collect();
    eprintln!("{} citations", citations.len());
    assert!(citations.len() >= 90);
    for event in citations {
        assert!(event.title.is_some() && event.published.is_some(), "{}", event.id);
        assert_eq!(event.language.as_ref().map(String::len), Some(3), "{}", event.id);
    }
}

#[test]
fn publishers_jats_is_read() {
    let Some(folder) = corpora("jats_xml") else { return };
    let (events, errors) = read(&folder, None);
    for error in &errors {
        eprintln!("{error}");
    }
    eprintln!("{} articles", events.len());
    assert!(events.len() >= 90 && errors.len() <= 4, "{errors:?}");
    let mut sections: HashMap<Section, usize> = HashMap::new();
    for event in &events {
        assert!(event.title.is_some(), "{}", event.id);
        for passage in &event.passages {
            assert!(!passage.text.is_empty() && passage.text.trim_matches([' ', '\n']) == passage.text, "{passage:?}");
            *sections.entry(passage.section).or_default() += 1;
        }
    }
    eprintln!("{sections:?}");
    for section in
        [Section::Abstract, Section::Introduction, Section::Methods, Section::Results, Section::Caption, Section::Table]
    {
        assert!(sections[&section] > 50, "{section:?}");
    }
}

/// CRAFT gives each article as JATS and as text. Every word of the text must be read; what is read
/// besides are tables, which the text leaves out.
#[test]
fn the_words_of_craft_are_those_of_its_text() {
    let Some(folder) = corpora("craft/articles") else { return };
    let mappings = std::fs::read_to_string(folder.join("ids/craft-idmappings.txt")).unwrap();
    let (mut common, mut ours, mut theirs, mut articles) = (0, 0, 0, 0);
    for line in mappings.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<_> = line.split('\t').collect();
        let (events, errors) = read(&folder.join("nxml").join(columns[0]), None);
        let ([event], []) = (&events[..], &errors[..]) else { panic!("{line}: {errors:?}") };
        let expected = words(&std::fs::read_to_string(folder.join(format!("txt/{}.txt", columns[2]))).unwrap());
        let is_prose = |passage: &&Passage| passage.section != Section::Table;
        let passages: Vec<_> = event.passages.iter().filter(is_prose).collect();
        let titles = titles(passages.iter().filter_map(|passage| passage.heading.as_deref()));
        let texts = event.title.iter().chain(passages.iter().map(|passage| &passage.text)).map(String::as_str);
        let found = words(&texts.chain(titles).collect::<Vec<_>>().join(" "));
        let of = |words: &HashMap<String, usize>, word: &String| words.get(word).copied().unwrap_or(0);
        common += found.iter().map(|(word, n)| (*n).min(of(&expected, word))).sum::<usize>();
        ours += found.values().sum::<usize>();
        theirs += expected.values().sum::<usize>();
        articles += 1;
    }
    let (recall, precision) = (common as f64 / theirs as f64, common as f64 / ours as f64);
    eprintln!(
        "{articles} articles: {recall:.4} of the text's words are read, {precision:.4} of the words read are the text's"
    );
    assert_eq!(articles, 97);
    assert!(recall > 0.995 && precision > 0.97, "{recall} {precision}");
}

/// The titles of sections that the headings of passages are made of, each once.
fn titles<'a>(headings: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = HashSet::new();
    let mut titles = Vec::new();
    for heading in headings {
        let ends = heading.match_indices(" / ").map(|(at, _)| at).chain([heading.len()]);
        let paths = ends.map(|end| &heading[..end]).filter(|path| known.insert(*path));
        titles.extend(paths.map(|path| path.rsplit(" / ").next().unwrap_or(path)));
    }
    titles
}

fn words(text: &str) -> HashMap<String, usize> {
    let mut words = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *words.entry(word.to_lowercase()).or_default() += 1;
    }
    words
}
