//! From emissions to labelled spans of words, with probabilities.
//!
//! One sentence at a time on the host: the best label sequence by Viterbi's algorithm, then, only where
//! it holds a mention, forward–backward for the probability of each span. Both heads take the same way:
//!
//! - **CRF**: learned transitions, and labels that may not follow one another (`I-Gene` after `O`) never do.
//! - **Softmax**: each word's label on its own, which is a CRF whose transitions are all 0. An `I-X` that
//!   continues no `X` begins a mention, the convention of CoNLL's and seqeval's scorers.
//!
//! The recursions are those of Sutton & McCallum 2012, "An Introduction to Conditional Random Fields",
//! section 4.1, in the probability domain with a scale factor a word (Rabiner 1989, section V.A), which is
//! several times faster than log-sum-exp. `model::crf` does the same in tensors, for training.

use crate::model::crf::Constraints;
use crate::model::{Head, LabelSet, Tag};
use std::ops::Range;

/// A mention as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledSpan {
    /// The words of the sentence it covers, never empty.
    pub words: Range<usize>,
    /// Index into [`LabelSet::entity_types`].
    pub entity_type: usize,
    /// The probability that exactly these words are one mention of this type, 0 to 1.
    pub score: f32,
}

/// Decodes sentences of one model.
#[derive(Debug)]
pub struct Decoder {
    tags: Vec<Tag>,
    /// Scores for Viterbi; what is forbidden is −∞.
    scores: Scores,
    /// `exp(score)` for forward–backward; what is forbidden is 0.
    weights: Weights,
}

/// The head's scores over K labels.
#[derive(Debug)]
struct Scores {
    /// `[K, K]`, row by row: of going from the row's label to the column's.
    between: Vec<f32>,
    /// `[K]`: of beginning and of ending with a label.
    start: Vec<f32>,
    end: Vec<f32>,
}

#[derive(Debug)]
struct Weights {
    between: Vec<f64>,
    /// `between` column by column, for the backward pass.
    transposed: Vec<f64>,
    start: Vec<f64>,
    end: Vec<f64>,
}

impl Decoder {
    /// A decoder for the model's labels and head.
    pub fn new(labels: &LabelSet, head: &Head) -> Self {
        let count = labels.tags().len();
        let (mut scores, constraints) = match head.clone() {
            Head::Softmax => {
                let zeros =
                    Scores { between: vec![0.0; count * count], start: vec![0.0; count], end: vec![0.0; count] };
                (zeros, Constraints::none(count))
            }
            Head::Crf { transitions, start, end } => {
                (Scores { between: transitions, start, end }, Constraints::bio(labels))
            }
        };
        assert_eq!((scores.between.len(), scores.start.len(), scores.end.len()), (count * count, count, count));
        forbid(&mut scores.start, &constraints.start);
        forbid(&mut scores.between, &constraints.transitions.concat());
        let weigh = |scores: &[f32]| scores.iter().map(|&score| f64::from(score).exp()).collect();
        let between: Vec<f64> = weigh(&scores.between);
        let transposed = (0..count * count).map(|at| between[at % count * count + at / count]).collect();
        let weights = Weights { between, transposed, start: weigh(&scores.start), end: weigh(&scores.end) };
        Self { tags: labels.tags().to_vec(), scores, weights }
    }

    /// The number of labels, K.
    pub fn labels(&self) -> usize {
        self.tags.len()
    }

    /// The mentions of a sentence, ascending and disjoint. `emissions` is `[words, K]`, row by row, and
    /// finite. Time is linear in the words.
    pub fn decode(&self, emissions: &[f32]) -> Vec<LabelledSpan> {
        let path = self.viterbi(emissions);
        let mut spans = self.spans(&path);
        if !spans.is_empty() {
            let lattice = Lattice::new(self, emissions);
            for span in &mut spans {
                span.score = lattice.span_probability(&path, &span.words, self.tag_inside(span.entity_type));
            }
        }
        spans
    }

    /// The best label sequence; among equals the one with the lowest labels.
    fn viterbi(&self, emissions: &[f32]) -> Vec<u16> {
        let count = self.labels();
        let mut rows = emissions.chunks_exact(count);
        let Some(first) = rows.next() else { return Vec::new() };
        let mut best: Vec<f32> = first.iter().zip(&self.scores.start).map(|(e, start)| e + start).collect();
        let mut next = vec![0.0; count];
        // For each word but the first, and each label there, the best label before it.
        let mut before: Vec<u16> = Vec::with_capacity(emissions.len() - count);
        for row in rows {
            let came_from = before.len();
            before.resize(came_from + count, 0);
            next.fill(f32::NEG_INFINITY);
            for (from, (&score, between)) in best.iter().zip(self.scores.between.chunks_exact(count)).enumerate() {
                for ((next, before), between) in next.iter_mut().zip(&mut before[came_from..]).zip(between) {
                    let score = score + between;
                    if score > *next {
                        (*next, *before) = (score, from as u16);
                    }
                }
            }
            for ((best, next), emission) in best.iter_mut().zip(&next).zip(row) {
                *best = next + emission;
            }
        }
        let last = (0..count).map(|label| best[label] + self.scores.end[label]);
        let mut label = argmax(last);
        let mut path = vec![label as u16; emissions.len() / count];
        for word in (1..path.len()).rev() {
            label = usize::from(before[(word - 1) * count + label]);
            path[word - 1] = label as u16;
        }
        path
    }

    /// Reads BIO, with its one repair: an `I-X` that continues no `X` begins a mention.
    fn spans(&self, path: &[u16]) -> Vec<LabelledSpan> {
        let mut spans: Vec<LabelledSpan> = Vec::new();
        for (word, &label) in path.iter().enumerate() {
            let (entity_type, continues) = match self.tags[usize::from(label)] {
                Tag::Outside => continue,
                Tag::Begin(entity_type) => (entity_type, false),
                Tag::Inside(entity_type) => (entity_type, true),
            };
            match spans.last_mut() {
                Some(open) if continues && open.entity_type == entity_type && open.words.end == word => {
                    open.words.end = word + 1;
                }
                _ => spans.push(LabelledSpan { words: word..word + 1, entity_type, score: 0.0 }),
            }
        }
        spans
    }

    fn tag_inside(&self, entity_type: usize) -> Option<usize> {
        self.tags.iter().position(|&tag| tag == Tag::Inside(entity_type))
    }
}

fn forbid(scores: &mut [f32], allowed: &[bool]) {
    for (score, _) in scores.iter_mut().zip(allowed).filter(|(_, allowed)| !**allowed) {
        *score = f32::NEG_INFINITY;
    }
}

/// The first of the largest.
fn argmax(values: impl Iterator<Item = f32>) -> usize {
    let (mut best, mut at) = (f32::NEG_INFINITY, 0);
    for (index, value) in values.enumerate() {
        if value > best {
            (best, at) = (value, index);
        }
    }
    at
}

/// Forward and backward weights of one sentence.
struct Lattice<'d> {
    weights: &'d Weights,
    count: usize,
    /// `[words, K]`: `exp(emission)`, each row over its largest.
    emissions: Vec<f64>,
    /// `[words, K]`, each row scaled to the sum 1.
    forward: Vec<f64>,
    /// `[words, K]`, row `t` divided by the scales of the words after `t`.
    backward: Vec<f64>,
    /// `[words]`: what each forward row was divided by.
    scales: Vec<f64>,
    /// The partition function, over all scales.
    total: f64,
}

impl<'d> Lattice<'d> {
    fn new(decoder: &'d Decoder, emissions: &[f32]) -> Self {
        let (count, weights) = (decoder.labels(), &decoder.weights);
        let mut exponentials = Vec::with_capacity(emissions.len());
        for row in emissions.chunks_exact(count) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            exponentials.extend(row.iter().map(|&emission| f64::from(emission - largest).exp()));
        }
        let emissions = exponentials;
        let words = emissions.len() / count;

        let mut forward = vec![0.0; emissions.len()];
        let mut scales = vec![1.0; words];
        for word in 0..words {
            let (before, row) = forward.split_at_mut(word * count);
            let row = &mut row[..count];
            if word == 0 {
                row.copy_from_slice(&weights.start);
            } else {
                add_product(row, &before[(word - 1) * count..], &weights.between);
            }
            for (weight, emission) in row.iter_mut().zip(&emissions[word * count..]) {
                *weight *= emission;
            }
            scales[word] = row.iter().sum();
            row.iter_mut().for_each(|weight| *weight /= scales[word]);
        }

        let mut backward = vec![0.0; emissions.len()];
        let mut next = vec![0.0; count];
        for word in (0..words).rev() {
            let (row, after) = backward[word * count..].split_at_mut(count);
            if word + 1 == words {
                row.copy_from_slice(&weights.end);
                continue;
            }
            for (label, next) in next.iter_mut().enumerate() {
                *next = emissions[(word + 1) * count + label] * after[label] / scales[word + 1];
            }
            add_product(row, &next, &weights.transposed);
        }
        let last = &forward[words.saturating_sub(1) * count..];
        let total = last.iter().zip(&weights.end).map(|(forward, end)| forward * end).sum();
        Self { weights, count, emissions, forward, backward, scales, total }
    }

    /// The probability that `words` carry the labels of `path` and that the mention ends there: summed over
    /// all that may stand around it (Culotta & McCallum 2004, "Confidence Estimation for Information
    /// Extraction"). `inside` is the label that would continue the mention.
    fn span_probability(&self, path: &[u16], words: &Range<usize>, inside: Option<usize>) -> f32 {
        let count = self.count;
        let mut label = usize::from(path[words.start]);
        let mut probability = self.forward[words.start * count + label] / self.total;
        for (word, &next) in path.iter().enumerate().take(words.end).skip(words.start + 1) {
            let next = usize::from(next);
            let emission = self.emissions[word * count + next] / self.scales[word];
            probability *= self.weights.between[label * count + next] * emission;
            label = next;
        }
        probability *= if words.end == self.scales.len() {
            self.weights.end[label]
        } else {
            let ends = (0..count).filter(|&next| Some(next) != inside).map(|next| {
                let at = words.end * count + next;
                self.weights.between[label * count + next] * self.emissions[at] * self.backward[at]
            });
            ends.sum::<f64>() / self.scales[words.end]
        };
        // Scores that lie further apart than a double can tell give 0 / 0.
        if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) as f32 }
    }
}

/// `out[k] += Σ_j row[j] matrix[j, k]`.
fn add_product(out: &mut [f64], row: &[f64], matrix: &[f64]) {
    for (&weight, columns) in row.iter().zip(matrix.chunks_exact(out.len())) {
        for (out, column) in out.iter_mut().zip(columns) {
            *out += weight * column;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::crf::Crf;
    use proptest::prelude::*;
    use tch::{Device, Kind, Tensor};

    const K: usize = 5;

    fn labels() -> LabelSet {
        LabelSet::bio(&["Gene", "Disease"]) // O 0, B-Gene 1, I-Gene 2, B-Disease 3, I-Disease 4
    }

    /// A softmax head's emissions that make each word's label nearly certain.
    fn certain(path: &[usize]) -> Vec<f32> {
        path.iter().flat_map(|&label| (0..K).map(move |k| if k == label { 30.0 } else { 0.0 })).collect()
    }

    fn found(decoder: &Decoder, emissions: &[f32]) -> Vec<(Range<usize>, usize)> {
        decoder.decode(emissions).into_iter().map(|span| (span.words, span.entity_type)).collect()
    }

    #[test]
    fn bio_is_read_as_scorers_read_it() {
        let softmax = Decoder::new(&labels(), &Head::Softmax);
        assert_eq!(found(&softmax, &certain(&[0, 1, 2, 2, 0, 3])), [(1..4, 0), (5..6, 1)]);
        assert_eq!(found(&softmax, &certain(&[1, 1, 2])), [(0..1, 0), (1..3, 0)], "B- begins anew");
        assert_eq!(found(&softmax, &certain(&[2, 2, 0, 4])), [(0..2, 0), (3..4, 1)], "I- after O begins");
        assert_eq!(found(&softmax, &certain(&[1, 4, 4])), [(0..1, 0), (1..3, 1)], "I- of another type begins");
        assert_eq!(found(&softmax, &[]), []);
        assert!(softmax.decode(&certain(&[0, 1, 2, 0])).iter().all(|span| span.score > 0.999));
    }

    #[test]
    fn a_crf_never_takes_a_forbidden_step() {
        let zeros = Head::Crf { transitions: vec![0.0; K * K], start: vec![0.0; K], end: vec![0.0; K] };
        let crf = Decoder::new(&labels(), &zeros);
        // I-Gene is by far the best at both words, and only B-Gene may lead to it.
        assert_eq!(found(&crf, &[0., 0., 30., 1., 0., 0., 0., 30., 0., 0.]), [(0..2, 0)]);
    }

    #[test]
    fn a_softmax_score_is_the_product_of_its_words() {
        let softmax = Decoder::new(&labels(), &Head::Softmax);
        let emissions = [0.1f32, 2.0, 0.3, 0.0, 0.2, 0.5, 0.1, 1.5, 0.3, 0.0, 1.0, 0.2, 0.6, 0.1, 0.0];
        let probability = |word: usize, label: usize| {
            let row = &emissions[word * K..][..K];
            row[label].exp() / row.iter().map(|e| e.exp()).sum::<f32>()
        };
        let expected = probability(0, 1) * probability(1, 2) * (1.0 - probability(2, 2));
        let spans = softmax.decode(&emissions);
        assert_eq!(spans[0].words, 0..2);
        assert!((spans[0].score - expected).abs() < 1e-6);
    }

    #[test]
    fn extreme_scores_stay_numbers() {
        let softmax = Decoder::new(&labels(), &Head::Softmax);
        let emissions = [1e4f32, -1e4, 0.0, 0.0, 0.0, -1e4, 1e4, 0.0, 0.0, 0.0];
        let spans = softmax.decode(&emissions);
        assert!(spans.len() == 1 && spans[0].score == 1.0);
    }

    /// The field in tensors, which training uses, is the oracle for sentences too long to enumerate.
    #[test]
    fn agrees_with_the_field_in_tensors() {
        let scores =
            |seed: usize, n: usize| (0..n).map(move |i| ((i * 7919 + seed * 104_729) % 997) as f32 / 200.0 - 2.5);
        let (transitions, start, end): (Vec<f32>, Vec<f32>, Vec<f32>) =
            (scores(1, K * K).collect(), scores(2, K).collect(), scores(3, K).collect());
        let emissions: Vec<f32> = scores(4, 300 * K).collect();

        let tensor = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).view(shape);
        let size = K as i64;
        let field = Crf::new(
            tensor(&transitions, &[size, size]),
            tensor(&start, &[size]),
            tensor(&end, &[size]),
            &Constraints::bio(&labels()),
        )
        .unwrap();
        let batch = tensor(&emissions, &[1, 300, size]);
        let mask = Tensor::ones([1, 300], (Kind::Bool, Device::Cpu));
        let (path, lattice) = (&field.viterbi(&batch, &mask)[0], field.lattice(&batch, &mask));

        let decoder = Decoder::new(&labels(), &Head::Crf { transitions, start, end });
        assert_eq!(&decoder.viterbi(&emissions).into_iter().map(usize::from).collect::<Vec<_>>(), path);
        let spans = decoder.decode(&emissions);
        assert!(spans.len() > 20);
        for span in spans {
            let begin = 1 + 2 * span.entity_type;
            let expected = lattice.span_probability(0, span.words.start, span.words.end, begin, begin + 1);
            // The oracle subtracts log-sums of about 1,500 in fp32.
            assert!((span.score - expected).abs() < 1e-3, "{span:?} {expected}");
        }
    }

    /// Emissions of one to four words, and transitions, start and end scores.
    fn problem() -> impl Strategy<Value = (Vec<f32>, Scores)> {
        let scores = |n: usize| prop::collection::vec(-3.0f32..3.0, n);
        let emissions = (1usize..=4).prop_flat_map(move |words| scores(words * K));
        (emissions, scores(K * K), scores(K), scores(K))
            .prop_map(|(emissions, between, start, end)| (emissions, Scores { between, start, end }))
    }

    /// All label sequences with their scores; forbidden ones are left out.
    fn paths(emissions: &[f32], scores: &Scores) -> Vec<(Vec<usize>, f64)> {
        let words = emissions.len() / K;
        let all = (0..K.pow(words as u32))
            .map(|code| (0..words).map(|word| code / K.pow(word as u32) % K).collect::<Vec<usize>>());
        let allowed = Constraints::bio(&labels());
        all.filter(|path| allowed.start[path[0]] && path.windows(2).all(|p| allowed.transitions[p[0]][p[1]]))
            .map(|path| {
                let steps = path.windows(2).map(|pair| scores.between[pair[0] * K + pair[1]]);
                let emitted = path.iter().enumerate().map(|(word, &label)| emissions[word * K + label]);
                let ends = scores.start[path[0]] + scores.end[path[words - 1]];
                let score = f64::from(emitted.sum::<f32>() + steps.sum::<f32>() + ends);
                (path, score)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn agrees_with_brute_force((emissions, scores) in problem()) {
            let all = paths(&emissions, &scores);
            let head = Head::Crf { transitions: scores.between, start: scores.start, end: scores.end };
            let decoder = Decoder::new(&labels(), &head);
            let (_, best) = all.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            let path: Vec<usize> = decoder.viterbi(&emissions).iter().map(|&label| label.into()).collect();
            let (_, score) = all.iter().find(|(other, _)| *other == path).unwrap();
            prop_assert!(best - score < 1e-4);

            let total: f64 = all.iter().map(|(_, score)| score.exp()).sum();
            let label_path: Vec<u16> = path.iter().map(|&label| label as u16).collect();
            let holds = |other: &[usize], span: &LabelledSpan| {
                decoder.spans(&other.iter().map(|&l| l as u16).collect::<Vec<_>>())
                    .iter().any(|o| o.words == span.words && o.entity_type == span.entity_type)
            };
            prop_assert_eq!(decoder.decode(&emissions).len(), decoder.spans(&label_path).len());
            for span in decoder.decode(&emissions) {
                let with: f64 = all.iter().filter(|(other, _)| holds(other, &span)).map(|(_, score)| score.exp()).sum();
                prop_assert!((f64::from(span.score) - with / total).abs() < 1e-5, "{} != {}", span.score, with / total);
            }
        }
    }
}
