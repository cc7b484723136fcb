//! Whether a version does its work as the one before it did: pure counting.

use super::Options;
use crate::tagger::{Mention, ModelRef, TaggedDocument};
use std::sync::Arc;

/// What a version made of the articles that it was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub articles: u64,
    /// Articles that it could not tag.
    pub failed: u64,
    pub sentences: u64,
    /// Sentences in which a mention begins.
    pub with_mentions: u64,
}

impl Counts {
    /// One article; none: it could not be tagged.
    pub fn of(tagged: Option<&TaggedDocument>) -> Self {
        let Some(tagged) = tagged else { return Self { articles: 1, failed: 1, ..Self::default() } };
        let sentence = |mention: &Mention| (mention.passage, mention.sentence);
        let places = tagged.mentions.iter().map(sentence);
        // Mentions come in the order of the text, so those of a sentence stand together.
        let mut last = None;
        let with_mentions = places.filter(|place| last.replace(*place) != Some(*place)).count() as u64;
        Self { articles: 1, failed: 0, sentences: tagged.sentences.iter().map(|p| p.len() as u64).sum(), with_mentions }
    }

    fn add(&mut self, other: &Self) {
        self.articles += other.articles;
        self.failed += other.failed;
        self.sentences += other.sentences;
        self.with_mentions += other.with_mentions;
    }

    fn share_with_mentions(&self) -> f64 {
        self.with_mentions as f64 / self.sentences as f64
    }
}

/// What was found about a version on trial.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It stays. The text says what was found.
    Passed(String),
    /// It is to go, for these reasons.
    Failed(String),
}

/// The version that others are measured against, and the one that took its place, as long as that is on trial.
pub(super) struct Trials {
    options: Options,
    baseline: Baseline,
    trial: Option<Trial>,
}

/// A version that is trusted, and what it made of its newest articles.
struct Baseline {
    model: Arc<ModelRef>,
    /// The last full stretch of articles, and the one that is filling: what is long ago does not count.
    older: Counts,
    newer: Counts,
}

struct Trial {
    model: Arc<ModelRef>,
    counts: Counts,
    /// It has failed, and is counted no more as long as it stays in force.
    over: bool,
}

impl Trials {
    /// The version in force at the start is trusted: there is nothing to measure it against.
    pub fn new(options: &Options, model: Arc<ModelRef>) -> Self {
        Self { options: options.clone(), baseline: Baseline::new(model, Counts::default()), trial: None }
    }

    /// Notes what became of an article. One of a version that is neither trusted nor on trial does not count.
    pub fn count(&mut self, model: &ModelRef, counts: &Counts) {
        if model.digest == self.baseline.model.digest {
            self.baseline.count(counts, &self.options);
        } else if let Some(trial) = self.trial.as_mut().filter(|trial| trial.model.digest == model.digest) {
            trial.counts.add(counts);
        }
    }

    /// Notes which version is in force. One that took the place of another goes on trial.
    pub fn in_force(&mut self, model: &Arc<ModelRef>) {
        let on_trial = self.trial.as_ref().is_some_and(|trial| trial.model.digest == model.digest);
        if model.digest == self.baseline.model.digest {
            self.trial = None;
        } else if !on_trial {
            // One that did not pass its trial is no measure for the next: the baseline stays.
            self.trial = Some(Trial { model: model.clone(), counts: Counts::default(), over: false });
        }
    }

    /// The version on trial, and what it has done so far.
    pub fn on_trial(&self) -> Option<(&Arc<ModelRef>, Counts)> {
        self.trial.as_ref().filter(|trial| !trial.over).map(|trial| (&trial.model, trial.counts))
    }

    /// The verdict on the version on trial, once, as soon as there is one.
    pub fn verdict(&mut self) -> Option<(Arc<ModelRef>, Verdict)> {
        let trial = self.trial.as_mut().filter(|trial| !trial.over)?;
        let verdict = judge(&self.options, &self.baseline.counts(), &trial.counts)?;
        let model = trial.model.clone();
        if let Verdict::Passed(_) = verdict {
            self.baseline = Baseline::new(model.clone(), trial.counts);
            self.trial = None;
        } else {
            trial.over = true;
        }
        Some((model, verdict))
    }
}

impl Baseline {
    fn new(model: Arc<ModelRef>, older: Counts) -> Self {
        Self { model, older, newer: Counts::default() }
    }

    fn count(&mut self, counts: &Counts, options: &Options) {
        self.newer.add(counts);
        if self.newer.articles >= options.articles && self.newer.sentences >= options.min_sentences {
            self.older = std::mem::take(&mut self.newer);
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = self.older;
        counts.add(&self.newer);
        counts
    }
}

fn judge(options: &Options, before: &Counts, now: &Counts) -> Option<Verdict> {
    // Whatever the articles that are still to come: so many are too many among all of them.
    if now.failed as f64 > options.max_failed * options.articles.max(now.articles) as f64 {
        let Counts { articles, failed, .. } = now;
        let most = options.max_failed;
        return Some(Verdict::Failed(format!("{failed} of {articles} articles failed, a share of more than {most}")));
    }
    let enough = |counts: &Counts| counts.sentences >= options.min_sentences;
    if now.articles < options.articles || (enough(before) && !enough(now)) {
        return None;
    }
    let failed = format!("{} of {} articles failed", now.failed, now.articles);
    if !enough(before) || before.with_mentions == 0 {
        let passed = format!("{failed}; the version before has done too little to compare its mentions with");
        return Some(Verdict::Passed(passed));
    }
    let (share, share_before) = (now.share_with_mentions(), before.share_with_mentions());
    let ratio = share / share_before;
    let found = format!(
        "{:.2} % of {} sentences have a mention, {:.2} % of {} had before: {ratio:.2} times",
        100.0 * share,
        now.sentences,
        100.0 * share_before,
        before.sentences
    );
    if (options.min_ratio..=options.max_ratio).contains(&ratio) {
        return Some(Verdict::Passed(format!("{failed}; {found}")));
    }
    Some(Verdict::Failed(format!("{found}, not from {} to {}", options.min_ratio, options.max_ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::article::{Document, Passage, Section};
    use crate::tagger::{Dictionary, Tag as _};

    fn options() -> Options {
        Options { articles: 10, max_failed: 0.2, min_ratio: 0.5, max_ratio: 2.0, min_sentences: 40 }
    }

    fn model(digest: &str) -> Arc<ModelRef> {
        Arc::new(ModelRef { name: "m".into(), version: digest.into(), digest: digest.into() })
    }

    /// An article of ten sentences, so many of them with mentions.
    fn article(with_mentions: u64) -> Counts {
        Counts { articles: 1, failed: 0, sentences: 10, with_mentions }
    }

    fn failure() -> Counts {
        Counts::of(None)
    }

    /// The first version is in force and has tagged so many articles, with mentions in every second sentence.
    fn after(articles: usize) -> Trials {
        let mut trials = Trials::new(&options(), model("1"));
        trials.in_force(&model("1"));
        count(&mut trials, "1", articles, article(5));
        trials
    }

    fn count(trials: &mut Trials, digest: &str, times: usize, counts: Counts) {
        (0..times).for_each(|_| trials.count(&model(digest), &counts));
    }

    fn verdict(trials: &mut Trials, digest: &str, times: usize, counts: Counts) -> Option<Verdict> {
        trials.in_force(&model(digest));
        count(trials, digest, times, counts);
        trials.verdict().map(|(of, verdict)| {
            assert_eq!(of.digest, digest);
            verdict
        })
    }

    fn failed(verdict: Option<Verdict>) -> String {
        match verdict {
            Some(Verdict::Failed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sentences_with_mentions_count_once() {
        let passage = |text: &str| Passage { section: Section::Body, heading: None, language: None, text: text.into() };
        let texts = ["BRCA1 and p53 fell. Nothing here. Then p53 rose.", "p53.", ""];
        let document = Document { article_id: "a".into(), article_version: 1, passages: texts.map(passage).into() };
        let dictionary = Dictionary::new([("BRCA1", "Gene"), ("p53", "Gene")]).unwrap();
        let tagged = futures::executor::block_on(dictionary.tag(document)).unwrap();
        assert_eq!(Counts::of(Some(&tagged)), Counts { articles: 1, failed: 0, sentences: 4, with_mentions: 3 });
    }

    #[test]
    fn a_version_within_the_bounds_passes_and_becomes_the_measure() {
        let mut trials = after(100);
        assert_eq!(trials.verdict(), None, "nothing is on trial");
        assert_eq!(verdict(&mut trials, "2", 9, article(10)), None, "too early");
        assert!(matches!(verdict(&mut trials, "2", 1, article(10)), Some(Verdict::Passed(_))), "twice as many");
        assert!(trials.on_trial().is_none());
        let reason = failed(verdict(&mut trials, "3", 10, article(4)));
        assert!(reason.contains("40.00 % of 100 sentences") && reason.contains("100.00 % of 100 had"), "{reason}");
    }

    #[test]
    fn too_few_and_too_many_mentions_fail_once() {
        let reason = failed(verdict(&mut after(100), "2", 10, article(0)));
        assert!(reason.contains("0.00 times, not from 0.5 to 2"), "{reason}");
        let mut trials = after(100);
        count(&mut trials, "1", 100, article(4));
        assert!(failed(verdict(&mut trials, "2", 10, article(9))).contains("40.00 % of"), "what was long ago is over");
        assert_eq!(verdict(&mut trials, "2", 100, article(9)), None, "no second verdict");
    }

    #[test]
    fn failures_are_told_as_soon_as_they_are_too_many() {
        let mut trials = after(100);
        assert_eq!(verdict(&mut trials, "2", 2, failure()), None);
        assert!(failed(verdict(&mut trials, "2", 1, failure())).starts_with("3 of 3 articles failed"));
        let mut trials = after(0); // and without anything to compare with
        assert_eq!(verdict(&mut trials, "2", 2, failure()), None);
        assert!(matches!(verdict(&mut trials, "2", 8, article(0)), Some(Verdict::Passed(_))));
    }

    #[test]
    fn shares_of_few_sentences_say_nothing() {
        let short = |with_mentions| Counts { articles: 1, failed: 0, sentences: 1, with_mentions };
        let mut trials = after(100);
        assert_eq!(verdict(&mut trials, "2", 39, short(0)), None, "it waits for more");
        failed(verdict(&mut trials, "2", 1, short(0)));
        let mut trials = Trials::new(&options(), model("1"));
        count(&mut trials, "1", 39, short(1));
        assert!(matches!(verdict(&mut trials, "2", 10, short(0)), Some(Verdict::Passed(_))), "nothing to compare with");
        let mut trials = Trials::new(&options(), model("1"));
        count(&mut trials, "1", 50, short(0));
        assert!(matches!(verdict(&mut trials, "2", 50, short(1)), Some(Verdict::Passed(_))), "from nothing");
    }

    #[test]
    fn what_failed_is_no_measure_for_what_comes_after_it() {
        let mut trials = after(100);
        failed(verdict(&mut trials, "2", 10, article(0)));
        // Rolled back: the first is not tried against the failed one.
        assert_eq!(verdict(&mut trials, "1", 50, article(5)), None);
        assert!(trials.on_trial().is_none());
        // Promoted again it is tried again.
        failed(verdict(&mut trials, "2", 10, article(0)));
        // A third is measured against the first, and late articles of the second do not count.
        trials.in_force(&model("3"));
        count(&mut trials, "2", 100, failure());
        assert!(matches!(verdict(&mut trials, "3", 10, article(5)), Some(Verdict::Passed(_))));
    }
}
