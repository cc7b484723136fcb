//! Whether a candidate may take the champion's place. It may not be worse, in any of the ways that are checked;
//! every reason against it is given, not only the first.

use crate::report::Report;
use serde::{Deserialize, Serialize};

/// What a candidate must keep to on the frozen hold-out: beside the champion, or as the first version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateOptions {
    /// Without a champion: the points of strict micro F1 that a candidate must reach, 0 to 100. One that finds nothing right
    /// is refused at 0 too.
    pub first_min_f1: f64,
    /// By how many points of strict micro F1 it may be worse at the lower end of the difference's 95 % interval
    /// (bootstrap over documents, in pairs): a test of non-inferiority with this margin.
    pub margin_points: f64,
    /// By how many points a single type's strict F1 may fall …
    pub type_drop_points: f64,
    /// … where the hold-out has at least so many mentions of it: of fewer, chance alone moves the score.
    pub type_min_mentions: u64,
    /// By which share its tokens per second may fall, 0 to 1.
    pub speed_drop: f64,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self { first_min_f1: 0.0, margin_points: 1.0, type_drop_points: 3.0, type_min_mentions: 50, speed_drop: 0.2 }
    }
}

/// What is known of the candidate beside its scores.
#[derive(Debug, Clone)]
pub struct Checks {
    /// Its tokens per second over the champion's, measured in turns on the same documents; none without a champion.
    pub speed_ratio: Option<f64>,
    /// Whether a second run over the golden sentences gave the same, or what differed.
    pub self_test: Result<(), String>,
}

/// The gate's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Why the candidate is refused; empty where it is let through.
    pub reasons: Vec<String>,
}

impl Decision {
    /// Whether the candidate may be published.
    pub fn is_passed(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Judges a candidate by its report, which holds the champion's scores where there is a champion.
pub fn decide(options: &GateOptions, candidate: &Report, checks: &Checks) -> Decision {
    let mut reasons = Vec::new();
    if let Err(reason) = &checks.self_test {
        reasons.push(format!("its self-test does not repeat: {reason}"));
    }
    if candidate.documents == 0 {
        reasons.push("the hold-out is empty: nothing can be said about it".to_owned());
    }
    if let Some(champion) = &candidate.champion {
        let low = 100.0 * champion.difference.low;
        if low < -options.margin_points {
            reasons.push(format!(
                "it may be worse than {} {}: {:+.2} points of strict micro F1, at the lower end {low:+.2}; {:.2} below is \
                 allowed (`gate.margin_points`)",
                champion.model.name,
                champion.model.version,
                100.0 * champion.difference.value,
                options.margin_points
            ));
        }
        for (name, before) in &champion.metrics.strict.types {
            let after = candidate.metrics.strict.types.get(name).map_or(0.0, |scores| scores.f1);
            let drop = 100.0 * (before.f1 - after);
            if before.support >= options.type_min_mentions && drop > options.type_drop_points {
                reasons.push(format!(
                    "{name} falls by {drop:.1} points of strict F1, from {:.1} to {:.1} on {} mentions; {:.1} are allowed \
                     (`gate.type_drop_points`)",
                    100.0 * before.f1,
                    100.0 * after,
                    before.support,
                    options.type_drop_points
                ));
            }
        }
    } else {
        let f1 = 100.0 * candidate.metrics.strict.micro.f1;
        if f1 == 0.0 || f1 < options.first_min_f1 {
            reasons.push(format!(
                "its strict micro F1 is {f1:.2}; a first version must be above 0 and reach {:.2} (`gate.first_min_f1`)",
                options.first_min_f1
            ));
        }
    }
    if let Some(ratio) = checks.speed_ratio.filter(|ratio| *ratio < 1.0 - options.speed_drop) {
        reasons.push(format!(
            "it runs at {:.0} % of the champion's speed; {:.0} % is the least (`gate.speed_drop`)",
            100.0 * ratio,
            100.0 * (1.0 - options.speed_drop)
        ));
    }
    Decision { reasons }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::passage;
    use crate::analysis::{Metrics, Outcome, Training, bootstrap};
    use crate::report::Champion;
    use litflow::tagger::ModelRef;

    const MENTIONS: u32 = 60;

    /// A model that finds the first `genes` and the first `diseases` of [`MENTIONS`] mentions each, one a document.
    fn outcomes(genes: u32, diseases: u32) -> Vec<Outcome> {
        let document = |index: u32| {
            let mut predicted = Vec::new();
            predicted.extend((index < genes).then_some((0, 1, 0, 0.9)));
            predicted.extend((index < diseases).then_some((2, 3, 1, 0.9)));
            Outcome { id: index.to_string(), passages: vec![passage(4, &[(0, 1, 0), (2, 3, 1)], &predicted)] }
        };
        (0..MENTIONS).map(document).collect()
    }

    fn judge(champion: Option<(u32, u32)>, candidate: (u32, u32), checks: &Checks) -> Vec<String> {
        judge_by(&GateOptions::default(), champion, candidate, checks)
    }

    fn judge_by(
        options: &GateOptions,
        champion: Option<(u32, u32)>,
        candidate: (u32, u32),
        checks: &Checks,
    ) -> Vec<String> {
        let types = ["Gene".to_owned(), "Disease".to_owned()];
        let model = ModelRef { name: "m".into(), version: "1.0.0".into(), digest: String::new() };
        let candidate = outcomes(candidate.0, candidate.1);
        let metrics = |outcomes: &[Outcome]| Metrics::of(outcomes, &types, &Training::default());
        let champion = champion.map(|(genes, diseases)| {
            let champion = outcomes(genes, diseases);
            let difference = bootstrap::difference(&champion, &candidate).unwrap();
            Champion { model: model.clone(), metrics: metrics(&champion), difference }
        });
        let report = Report { model, documents: candidate.len(), metrics: metrics(&candidate), champion };
        let decision = decide(options, &report, checks);
        assert_eq!(decision.is_passed(), decision.reasons.is_empty());
        decision.reasons
    }

    fn good() -> Checks {
        Checks { speed_ratio: Some(0.97), self_test: Ok(()) }
    }

    #[test]
    fn the_same_and_the_better_pass() {
        assert_eq!(judge(Some((50, 50)), (50, 50), &good()), [""; 0]);
        assert_eq!(judge(Some((50, 50)), (55, 52), &good()), [""; 0]);
        assert_eq!(judge(None, (5, 5), &Checks { speed_ratio: None, self_test: Ok(()) }), [""; 0]);
    }

    #[test]
    fn the_first_must_be_of_use() {
        let alone = Checks { speed_ratio: None, self_test: Ok(()) };
        let reasons = judge(None, (0, 0), &alone);
        assert!(reasons.len() == 1 && reasons[0].contains("F1 is 0.00"), "{reasons:?}");
        // Half of what there is and nothing else: an F1 of two thirds.
        for (first_min_f1, reasons) in [(66.0, 0), (67.0, 1)] {
            let options = GateOptions { first_min_f1, ..GateOptions::default() };
            assert_eq!(judge_by(&options, None, (30, 30), &alone).len(), reasons, "{first_min_f1}");
            assert_eq!(judge_by(&options, Some((30, 30)), (30, 30), &good()), [""; 0], "it is for the first alone");
        }
    }

    #[test]
    fn the_worse_is_refused() {
        let reasons = judge(Some((50, 50)), (46, 48), &good());
        assert!(reasons.iter().any(|reason| reason.contains("margin_points")), "{reasons:?}");
    }

    #[test]
    fn one_type_may_not_pay_for_another() {
        let reasons = judge(Some((40, 50)), (55, 47), &good());
        assert!(reasons.len() == 1 && reasons[0].starts_with("Disease falls by"), "{reasons:?}");
    }

    #[test]
    fn the_slow_and_the_unrepeatable_are_refused_with_every_reason() {
        let checks = Checks { speed_ratio: Some(0.5), self_test: Err("sentence 3: a score of NaN".into()) };
        let reasons = judge(Some((50, 50)), (55, 55), &checks);
        assert!(reasons.len() == 2 && reasons[0].contains("NaN") && reasons[1].contains("50 %"), "{reasons:?}");
    }
}
