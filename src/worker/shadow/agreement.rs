//! How far two versions agree: counted article by article, added up, and judged.
//!
//! The champion is the reference, without being the truth: agreement says how much would change, not what is better.

use crate::bus::records::{Agreement, TypeAgreement};
use crate::tagger::Mention;
use std::collections::BTreeMap;

/// What a candidate must keep to, to become champion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Articles that must have been compared.
    pub articles: u64,
    /// The least F1 against the champion.
    pub agreement: f64,
    /// The most that an article may cost, in times of what it costs the champion.
    pub latency_ratio: f64,
    /// Articles that the candidate may fail at.
    pub failed: u64,
}

impl Agreement {
    /// Counts the mentions of one article: the same passage, begin, end and type is the same mention.
    pub(super) fn compare(&mut self, champion: &[Mention], candidate: &[Mention]) {
        fn by_place(mentions: &[Mention]) -> BTreeMap<(u32, u32, u32, &str), f32> {
            let place = |mention: &'_ Mention| (mention.passage, mention.begin, mention.end);
            mentions
                .iter()
                .map(|mention| {
                    let (passage, begin, end) = place(mention);
                    ((passage, begin, end, mention.entity_type.as_str()), mention.score)
                })
                .collect()
        }
        let mut of_champion = by_place(champion);
        for (place, score) in by_place(candidate) {
            let of_type = self.of_type(place.3);
            match of_champion.remove(&place) {
                Some(reference) => {
                    of_type.agreed += 1;
                    of_type.score_shift += f64::from(score) - f64::from(reference);
                }
                None => of_type.added += 1,
            }
        }
        for (.., entity_type) in of_champion.into_keys() {
            self.of_type(entity_type).missing += 1;
        }
    }

    fn of_type(&mut self, entity_type: &str) -> &mut TypeAgreement {
        if !self.types.contains_key(entity_type) {
            self.types.insert(entity_type.to_owned(), TypeAgreement::default());
        }
        self.types.get_mut(entity_type).expect("it was inserted where it was missing")
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.articles += other.articles;
        self.sentences += other.sentences;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.champion_seconds += other.champion_seconds;
        self.candidate_seconds += other.candidate_seconds;
        for (entity_type, of_type) in &other.types {
            self.of_type(entity_type).add(of_type);
        }
    }

    /// All types together.
    pub fn micro(&self) -> TypeAgreement {
        let mut all = TypeAgreement::default();
        self.types.values().for_each(|of_type| all.add(of_type));
        all
    }

    /// What an article costs the candidate, in times of what it costs the champion; none where nothing was measured.
    pub fn latency_ratio(&self) -> Option<f64> {
        (self.champion_seconds > 0.0).then(|| self.candidate_seconds / self.champion_seconds)
    }

    /// Every reason why the candidate should not become champion; none where it keeps to `bounds`.
    pub fn reasons_against(&self, bounds: &Bounds) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.articles < bounds.articles as i64 {
            reasons.push(format!("only {} of {} articles were compared", self.articles, bounds.articles));
        }
        match self.micro().f1() {
            None => reasons.push("neither version has found a mention, so nothing is known".to_owned()),
            Some(f1) if f1 < bounds.agreement => {
                reasons.push(format!("its F1 against the champion is {f1:.4}, less than {}", bounds.agreement));
            }
            Some(_) => {}
        }
        match self.latency_ratio() {
            None => reasons.push("what the articles cost was not measured".to_owned()),
            Some(ratio) if ratio > bounds.latency_ratio => {
                let most = bounds.latency_ratio;
                reasons.push(format!("an article costs {ratio:.2} times what it costs the champion, more than {most}"));
            }
            Some(_) => {}
        }
        if self.failed > bounds.failed as i64 {
            let (failed, most) = (self.failed, bounds.failed);
            reasons.push(format!("it has failed at {failed} articles that the champion tagged, more than {most}"));
        }
        reasons
    }
}

impl TypeAgreement {
    fn add(&mut self, other: &Self) {
        self.agreed += other.agreed;
        self.added += other.added;
        self.missing += other.missing;
        self.score_shift += other.score_shift;
    }

    /// Strict F1 with the champion as the reference (the same the other way round); none without a mention.
    pub fn f1(&self) -> Option<f64> {
        let either = 2 * self.agreed + self.added + self.missing;
        (either > 0).then(|| (2 * self.agreed) as f64 / either as f64)
    }

    /// Mean of the candidate's score less the champion's over the agreed mentions; none without one.
    pub fn mean_shift(&self) -> Option<f64> {
        (self.agreed > 0).then(|| self.score_shift / self.agreed as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mention(passage: u32, begin: u32, end: u32, entity_type: &str, score: f32) -> Mention {
        Mention {
            id: String::new(),
            entity_type: entity_type.into(),
            text: String::new(),
            passage,
            begin,
            end,
            document_begin: begin,
            document_end: end,
            sentence: 0,
            score,
        }
    }

    const BOUNDS: Bounds = Bounds { articles: 2, agreement: 0.8, latency_ratio: 1.5, failed: 0 };

    #[test]
    fn the_same_place_and_type_is_the_same_mention() {
        let champion = [
            mention(0, 0, 5, "Gene", 0.75),
            mention(0, 8, 12, "Gene", 0.5),
            mention(1, 0, 5, "Gene", 1.0),
            mention(1, 7, 9, "Disease", 1.0),
        ];
        let candidate = [
            mention(0, 0, 5, "Gene", 1.0),
            mention(0, 8, 13, "Gene", 0.5),      // another end
            mention(1, 0, 5, "Disease", 1.0),    // another type
            mention(2, 7, 9, "Disease", 1.0),    // another passage
            mention(2, 11, 12, "Species", 0.25), // of a type that the champion lacks
        ];
        let mut agreement = Agreement::default();
        agreement.compare(&champion, &candidate);
        let gene = TypeAgreement { agreed: 1, added: 1, missing: 2, score_shift: 0.25 };
        assert_eq!(agreement.types["Gene"], gene);
        assert_eq!(agreement.types["Disease"], TypeAgreement { added: 2, missing: 1, ..Default::default() });
        assert_eq!(agreement.types["Species"], TypeAgreement { added: 1, ..Default::default() });
        assert_eq!((gene.f1(), gene.mean_shift()), (Some(0.4), Some(0.25)));
        let mut both = agreement.clone();
        both.add(&agreement);
        let micro = both.micro();
        assert_eq!((micro.agreed, micro.added, micro.missing, micro.score_shift), (2, 8, 6, 0.5));
        assert_eq!(micro.f1(), agreement.micro().f1());
        assert_eq!(Agreement::default().micro().f1(), None);
    }

    #[test]
    fn every_reason_is_told_and_a_good_candidate_has_none() {
        let mut good = Agreement { articles: 2, champion_seconds: 2.0, candidate_seconds: 3.0, ..Default::default() };
        good.types.insert("Gene".into(), TypeAgreement { agreed: 8, added: 2, missing: 2, score_shift: 0.0 });
        assert_eq!(good.reasons_against(&BOUNDS), Vec::<String>::new(), "the bounds themselves are kept to");

        let mut bad = Agreement { articles: 1, failed: 1, candidate_seconds: 3.1, ..good.clone() };
        bad.types.insert("Disease".into(), TypeAgreement { missing: 1, ..Default::default() });
        let reasons = bad.reasons_against(&BOUNDS).join("; ");
        for part in ["only 1 of 2 articles", "0.7619, less than 0.8", "1.55 times", "failed at 1 articles"] {
            assert!(reasons.contains(part), "{part} is not in {reasons}");
        }
        let nothing = Agreement { articles: 2, ..Default::default() }.reasons_against(&BOUNDS);
        assert_eq!(nothing.len(), 2, "{nothing:?}");
    }
}
