//! The engine with made-up models: what it promises about windows, budgets, failures and huge input.

use super::clock::Clock;
use super::engine::{Engine, Options};
use super::testing::{Labeller, document, engine, id, spelled_genes, tag};
use super::{Error, Tag, TaggedDocument};
use futures::executor::block_on;
use futures::future::join_all;
use futures::poll;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

fn genes(max_length: usize, options: Options) -> Engine {
    engine(Labeller(|window: &[u32]| Ok(spelled_genes(window))), max_length, options)
}

fn texts(tagged: &TaggedDocument) -> Vec<&str> {
    tagged.mentions.iter().map(|mention| mention.text.as_str()).collect()
}

/// Lets no batch through before it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open).unwrap());
    }

    fn engine(&self, options: Options) -> Engine {
        let gate = self.clone();
        let labels = move |window: &[u32]| {
            gate.pass();
            Ok(spelled_genes(window))
        };
        engine(Labeller(labels), 64, options)
    }
}

#[test]
fn a_document_comes_back_with_its_mentions() {
    let tagged =
        tag(&genes(64, Options::default()), document("pmid:1", ["In x1 y2", "", "α x. Then x (y z)."])).unwrap();
    assert_eq!(tagged.sentences, [vec![(0, 8)], vec![], vec![(0, 4), (5, 18)]]);
    let found: Vec<_> =
        tagged.mentions.iter().map(|m| (m.passage, m.begin, m.end, m.document_begin, m.sentence)).collect();
    assert_eq!(found, [(0, 3, 8, 3, 0), (2, 2, 3, 12, 0), (2, 10, 11, 20, 1), (2, 13, 14, 23, 1)]);
    assert_eq!(texts(&tagged), ["x1 y2", "x", "x", "y"]);
    assert!(tagged.mentions.iter().all(|m| m.entity_type == "Gene" && m.score > 0.9));
    assert_eq!((tagged.tokens, tagged.model.name.as_str()), (19, "fake"));
}

#[test]
fn nothing_comes_of_nothing() {
    let engine = genes(64, Options::default());
    for texts in [vec![], vec![""], vec!["", " \n\t"], vec!["\0\u{1}\u{7f}\u{200b}"]] {
        let tagged = tag(&engine, document("pmid:1", texts.clone())).unwrap();
        assert_eq!((tagged.mentions.len(), tagged.tokens, tagged.sentences.len()), (0, 0, texts.len()));
    }
    let tagged = tag(&engine, document("pmid:1", ["\0x\u{1}\u{0}1 \u{85}y\u{b}"])).unwrap();
    assert_eq!(
        texts(&tagged),
        ["\0x\u{1}\u{0}1 \u{85}y\u{b}".trim_matches(['\0', '\u{b}'])],
        "control characters stay"
    );
}

/// A mention of every length at every place of a sentence of many windows.
#[test]
fn a_mention_is_whole_wherever_a_window_ends() {
    let sentence = (1..40).map(|length| format!("x{} a b", " y".repeat(length))).collect::<Vec<_>>().join(" ");
    let whole = tag(&genes(100_000, Options::default()), document("a", [&sentence])).unwrap();
    assert_eq!(whole.mentions.len(), 39);
    for (max_length, window_overlap) in [(8, 0), (9, 3), (16, 7), (64, 16), (129, 64)] {
        let cut = tag(&genes(max_length, Options { window_overlap, ..Options::default() }), document("a", [&sentence]));
        let cut = cut.unwrap();
        assert_eq!(cut.mentions, whole.mentions);
        assert!(cut.tokens >= whole.tokens);
    }
}

/// The same over the segments of a "sentence" of 200 kB.
#[test]
fn a_mention_is_whole_wherever_a_segment_ends() {
    let table = "x y1 y yy a ".repeat(16_000);
    let tagged = tag(&genes(512, Options::default()), document("a", [table.trim_end()])).unwrap();
    assert_eq!(tagged.sentences[0].len(), 1);
    assert_eq!(tagged.mentions.len(), 16_000);
    assert!(tagged.mentions.iter().all(|mention| mention.text == "x y1 y yy"));
}

#[test]
fn documents_share_batches_and_keep_apart() {
    let engine = genes(64, Options { threads: 2, batch_tokens: 64, ..Options::default() });
    let documents =
        (0..200).map(|n| document(&format!("pmid:{n}"), [format!("{}x{n} z. And y.", "a ".repeat(n % 50))]));
    let tagged = block_on(join_all(documents.map(|document| engine.tag(document))));
    for (n, tagged) in tagged.into_iter().enumerate() {
        let tagged = tagged.unwrap();
        assert_eq!(tagged.document.article_id, format!("pmid:{n}"));
        assert_eq!(texts(&tagged), [format!("x{n}"), "y".to_owned()]);
    }
}

#[test]
fn a_document_costs_what_its_rows_cost() {
    // Both share each batch, which takes as long as it takes.
    let labels = |window: &[u32]| {
        let clock = Clock::of_thread();
        while clock.seconds() < 0.002 {
            std::hint::spin_loop();
        }
        Ok(spelled_genes(window))
    };
    let engine = engine(Labeller(labels), 64, Options { threads: 1, ..Options::default() });
    let documents = [("short", 1), ("long", 20)].map(|(id, sentences)| document(id, ["So x was. ".repeat(sentences)]));
    let [short, long] = documents.map(|document| engine.tag(document));
    let (short, long) = block_on(async { futures::join!(short, long) });
    let (short, long) = (short.unwrap().compute_seconds, long.unwrap().compute_seconds);
    assert!(short >= 0.0015 && long >= 0.035 && long > 5.0 * short, "{short} and {long}");
}

fn fails_at(letter: &'static str, fail: fn() -> Result<(), String>) -> Engine {
    let poison = id(letter);
    let labels = move |window: &[u32]| {
        if window.contains(&poison) {
            fail()?;
        }
        Ok(spelled_genes(window))
    };
    engine(Labeller(labels), 64, Options { threads: 1, ..Options::default() })
}

#[test]
fn one_document_fails_alone() {
    for (fail, reason) in [
        ((|| Err("too hot".into())) as fn() -> _, "the document cannot be tagged: too hot"),
        (|| panic!("ouch"), "the document cannot be tagged: internal: panicked: ouch"),
    ] {
        let engine = fails_at("q", fail);
        let documents = ["x is", "a q. And x. And q.", "x was"].map(|text| document(text, [text]));
        let [before, poison, after] = documents.map(|document| engine.tag(document));
        let (before, poison, after) = block_on(async { futures::join!(before, poison, after) });
        assert_eq!(poison.unwrap_err().to_string(), reason);
        assert_eq!((texts(&before.unwrap()), texts(&after.unwrap())), (vec!["x"], vec!["x"]));
        assert_eq!(texts(&tag(&engine, document("later", ["x"])).unwrap()), ["x"]);
    }
}

#[test]
fn a_broken_model_stops_the_engine_and_blames_no_document() {
    let engine = engine(Labeller(|_: &[u32]| Err("no device".into())), 64, Options::default());
    let documents = (0..20).map(|n| document(&n.to_string(), ["x y z"]));
    for tagged in block_on(join_all(documents.map(|document| engine.tag(document)))) {
        assert!(matches!(tagged, Err(Error::Stopped(reason)) if reason == "no device"));
    }
    assert!(matches!(tag(&engine, document("later", [""])), Err(Error::Stopped(_))));
}

#[test]
fn text_beyond_the_budget_waits_outside_in_order() {
    let gate = Gate::default();
    let engine = gate.engine(Options { queue_bytes: 10_000, ..Options::default() });
    let text = "x ".repeat(3_000);
    let mut waiting: Vec<_> = (0..4).map(|n| engine.tag(document(&n.to_string(), [&text]))).collect();
    // Larger than the whole budget: it takes all of it, and the small one behind it does not overtake.
    waiting.push(engine.tag(document("large", ["x ".repeat(50_000)])));
    waiting.push(engine.tag(document("small", ["x"])));
    block_on(async {
        for tagged in &mut waiting {
            assert!(poll!(tagged).is_pending());
        }
        assert!(engine.free_bytes() < text.len());
        gate.open();
        let counts: Vec<usize> = join_all(waiting).await.into_iter().map(|t| t.unwrap().mentions.len()).collect();
        assert_eq!(counts, [3_000, 3_000, 3_000, 3_000, 50_000, 1]);
    });
    assert_eq!(engine.free_bytes(), 10_000);
}

#[test]
fn a_dropped_future_gives_its_share_back() {
    let gate = Gate::default();
    // A queue of 512 rows, which the first document fills several times over.
    let engine = gate.engine(Options { queue_bytes: 10_000, threads: 1, batch_tokens: 64, ..Options::default() });
    block_on(async {
        let mut given_up = engine.tag(document("given up", ["x ".repeat(5_000)]));
        assert!(poll!(&mut given_up).is_pending());
        drop(given_up);
        gate.open();
        // It needs the whole budget, so it comes through only when all of it was given back.
        let tagged = engine.tag(document("all of it", ["x ".repeat(6_000)])).await.unwrap();
        assert_eq!(tagged.mentions.len(), 6_000);
    });
}

#[test]
fn a_passage_has_its_share_of_the_budget_however_short_it_is() {
    let gate = Gate::default();
    let engine = gate.engine(Options { queue_bytes: 100_000, ..Options::default() });
    block_on(async {
        let mut waiting = engine.tag(document("a", vec!["x"; 300]));
        assert!(poll!(&mut waiting).is_pending());
        assert_eq!(engine.free_bytes(), 100_000 - 1024 - 300 * (256 + 1));
        let mut after = engine.tag(document("b", vec!["x"; 300]));
        assert!(poll!(&mut after).is_pending());
        gate.open();
        assert_eq!(waiting.await.unwrap().mentions.len(), 300);
        // It came in when the first one's share was given back.
        assert_eq!(after.await.unwrap().mentions.len(), 300);
    });
}

#[test]
fn too_many_mentions_are_refused() {
    let engine = genes(64, Options { max_mentions: 10, ..Options::default() });
    assert_eq!(tag(&engine, document("a", ["x ".repeat(10)])).unwrap().mentions.len(), 10);
    let error = tag(&engine, document("a", ["x ".repeat(11)])).unwrap_err();
    assert!(error.to_string().contains("more than 10 mentions"), "{error}");
}

#[test]
fn a_hundred_thousand_sentences() {
    let text = "So x was. ".repeat(100_000);
    let tagged = tag(&genes(64, Options::default()), document("a", [&text])).unwrap();
    assert_eq!((tagged.sentences[0].len(), tagged.mentions.len()), (100_000, 100_000));
    assert_eq!(tagged.mentions.last().map(|m| (m.sentence, m.begin)), Some((99_999, 999_993)));
}

#[test]
fn fifty_megabytes_in_one_article() {
    const SIZE: usize = 50_000_000;
    let engine = genes(512, Options::default());
    for text in ["\0".repeat(SIZE), "α".repeat(SIZE / 2), "x ".repeat(500_000) + &"\u{85}".repeat(SIZE / 2)] {
        let expected = text.matches('x').count();
        let tagged = tag(&engine, document("a", [text.as_str()])).unwrap();
        assert_eq!(tagged.mentions.len(), expected);
        assert_eq!(tagged.document.passages[0].text, text);
    }
}

/// Batches are sorted by length, but not so many at a time that the oldest document has to wait for long.
#[test]
fn a_slow_model_answers_about_in_order() {
    const DOCUMENTS: usize = 40;
    let labels = |window: &[u32]| {
        std::thread::sleep(Duration::from_millis(4 * window.len() as u64));
        Ok(spelled_genes(window))
    };
    let options = Options { threads: 1, tokenizer_threads: 1, batch_tokens: 64, ..Options::default() };
    let engine = engine(Labeller(labels), 64, options);
    let answered = Mutex::new(Vec::new());
    block_on(join_all((0..DOCUMENTS).map(|number| {
        let text = "a ".repeat(2 + number * 37 % 50); // of all lengths
        let answer = engine.tag(document(&number.to_string(), [text]));
        let answered = &answered;
        async move {
            answer.await.unwrap();
            answered.lock().unwrap().push(number);
        }
    })));
    let late = answered.lock().unwrap().iter().enumerate().map(|(place, &number)| place.saturating_sub(number)).max();
    assert!(late < Some(10), "{late:?}: {answered:?}");
}
