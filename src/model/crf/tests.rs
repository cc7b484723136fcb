//! Everything against brute force over all K^n tag sequences.

use super::*;
use crate::model::Head;
use crate::tagger::decode::Decoder;
use proptest::prelude::*;

/// A small problem in plain numbers: emissions `[n][K]`, parameters, constraints.
#[derive(Debug, Clone)]
struct Problem {
    emissions: Vec<Vec<f64>>,
    transitions: Vec<Vec<f64>>,
    start: Vec<f64>,
    end: Vec<f64>,
    constraints: Constraints,
}

/// O 0, B-Gene 1, I-Gene 2, B-Disease 3, I-Disease 4.
fn labels() -> LabelSet {
    LabelSet::bio(&["Gene", "Disease"])
}

const TAGS: usize = 5;

impl Problem {
    fn tags(&self) -> usize {
        self.start.len()
    }

    /// `score(y)`, or `None` where the constraints forbid `y`.
    fn score(&self, path: &[usize]) -> Option<f64> {
        let mut score = self.start[path[0]] + self.end[path[path.len() - 1]];
        let mut allowed = self.constraints.start[path[0]];
        for (word, &tag) in path.iter().enumerate() {
            score += self.emissions[word][tag];
            if word > 0 {
                score += self.transitions[path[word - 1]][tag];
                allowed &= self.constraints.transitions[path[word - 1]][tag];
            }
        }
        allowed.then_some(score)
    }

    /// All allowed paths with their scores.
    fn paths(&self) -> Vec<(Vec<usize>, f64)> {
        let (n, tags) = (self.emissions.len() as u32, self.tags());
        (0..tags.pow(n))
            .map(|code| (0..n).map(|word| code / tags.pow(word) % tags).collect::<Vec<_>>())
            .filter_map(|path| self.score(&path).map(|score| (path, score)))
            .collect()
    }

    fn log_sum(&self, keep: impl Fn(&[usize]) -> bool) -> f64 {
        self.paths().iter().filter(|(path, _)| keep(path)).map(|(_, score)| score.exp()).sum::<f64>().ln()
    }

    fn crf(&self) -> Crf {
        let tags = self.tags() as i64;
        let tensor = |values: Vec<f64>| Tensor::from_slice(&values).to_kind(Kind::Float);
        Crf::new(
            tensor(self.transitions.concat()).view([tags, tags]).set_requires_grad(true),
            tensor(self.start.clone()).set_requires_grad(true),
            tensor(self.end.clone()).set_requires_grad(true),
            &self.constraints,
        )
        .unwrap()
    }
}

/// Emissions `[B, L, K]` and mask `[B, L]`; the padding holds values that must not matter.
fn batch(problems: &[Problem]) -> (Tensor, Tensor) {
    let words = problems.iter().map(|p| p.emissions.len()).max().unwrap();
    let tags = problems[0].tags();
    let mut emissions = Vec::new();
    let mut mask = Vec::new();
    for problem in problems {
        for word in 0..words {
            emissions.extend(problem.emissions.get(word).cloned().unwrap_or_else(|| vec![77.0; tags]));
            mask.push(word < problem.emissions.len());
        }
    }
    let shape = [problems.len() as i64, words as i64];
    let emissions = Tensor::from_slice(&emissions).to_kind(Kind::Float).view([shape[0], shape[1], tags as i64]);
    (emissions, Tensor::from_slice(&mask).view(shape))
}

/// Several sequences of different lengths under one field.
fn problems() -> impl Strategy<Value = Vec<Problem>> {
    let score = -3.0..3.0f64;
    let tags = TAGS;
    let vector = prop::collection::vec(score.clone(), tags);
    let matrix = prop::collection::vec(vector.clone(), tags);
    let rows = prop::collection::vec(prop::collection::vec(vector.clone(), 1..5), 1..4);
    (rows, matrix, vector.clone(), vector, any::<bool>()).prop_map(move |(rows, transitions, start, end, bio)| {
        let constraints = if bio { Constraints::bio(&labels()) } else { Constraints::none(tags) };
        let problem = |emissions| Problem {
            emissions,
            transitions: transitions.clone(),
            start: start.clone(),
            end: end.clone(),
            constraints: constraints.clone(),
        };
        rows.into_iter().map(problem).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn partition_viterbi_and_marginals_agree_with_brute_force(problems in problems()) {
        let crf = problems[0].crf();
        let (emissions, mask) = batch(&problems);
        let log_z = to_host::<f32>(&crf.log_partition(&emissions, &mask));
        let decoded = crf.viterbi(&emissions, &mask);
        let lattice = crf.lattice(&emissions, &mask);
        for (row, problem) in problems.iter().enumerate() {
            let expected = problem.log_sum(|_| true);
            prop_assert!((f64::from(log_z[row]) - expected).abs() < 1e-3, "{} != {expected}", log_z[row]);

            let best = problem.paths().into_iter().map(|(_, score)| score).fold(f64::MIN, f64::max);
            let found = problem.score(&decoded[row]);
            prop_assert_eq!(decoded[row].len(), problem.emissions.len());
            prop_assert!(found.is_some_and(|found| (found - best).abs() < 1e-4), "{found:?} != {best}");

            for word in 0..problem.emissions.len() {
                for tag in 0..problem.tags() {
                    let expected = (problem.log_sum(|path| path[word] == tag) - expected).exp();
                    let found = f64::from(lattice.tag_probability(row, word, tag));
                    prop_assert!((found - expected).abs() < 1e-4, "{found} != {expected}");
                }
            }
        }
    }

    #[test]
    fn span_probabilities_agree_with_brute_force(problems in problems()) {
        let crf = problems[0].crf();
        let (emissions, mask) = batch(&problems);
        let lattice = crf.lattice(&emissions, &mask);
        let (first, inside) = (1, 2);
        for (row, problem) in problems.iter().enumerate() {
            let words = problem.emissions.len();
            let log_z = problem.log_sum(|_| true);
            for begin in 0..words {
                for end in begin + 1..=words {
                    let is_the_span = |path: &[usize]| {
                        path[begin] == first
                            && path[begin + 1..end].iter().all(|&tag| tag == inside)
                            && path.get(end) != Some(&inside)
                    };
                    let expected = (problem.log_sum(is_the_span) - log_z).exp();
                    let found = f64::from(lattice.span_probability(row, begin, end, first, inside));
                    prop_assert!((found - expected).abs() < 1e-4, "{found} != {expected}");
                }
            }
        }
    }

    /// The tagger decodes on the host, word by word: the same paths, spans and probabilities.
    #[test]
    fn the_decoder_on_the_host_says_the_same(mut problems in problems()) {
        for problem in &mut problems {
            problem.constraints = Constraints::bio(&labels());
        }
        let crf = problems[0].crf();
        let (emissions, mask) = batch(&problems);
        let (paths, lattice) = (crf.viterbi(&emissions, &mask), crf.lattice(&emissions, &mask));
        let head = Head::Crf {
            transitions: to_host(&crf.transitions),
            start: to_host(&crf.start),
            end: to_host(&crf.end),
        };
        let decoder = Decoder::new(&labels(), &head);
        for (row, problem) in problems.iter().enumerate() {
            let emissions: Vec<f32> = problem.emissions.concat().iter().map(|&score| score as f32).collect();
            let spans = decoder.decode(&emissions);
            let begins = |label: &&usize| **label == 1 || **label == 3;
            prop_assert_eq!(spans.len(), paths[row].iter().filter(begins).count());
            for span in spans {
                let (first, inside) = (1 + 2 * span.entity_type, 2 + 2 * span.entity_type);
                prop_assert_eq!(paths[row][span.words.start], first);
                prop_assert!(paths[row][span.words.start + 1..span.words.end].iter().all(|&label| label == inside));
                let expected = lattice.span_probability(row, span.words.start, span.words.end, first, inside);
                prop_assert!((span.score - expected).abs() < 1e-4, "{} != {expected}", span.score);
            }
        }
    }

    #[test]
    fn likelihoods_agree_with_brute_force(problems in problems(), seed in any::<u64>()) {
        let crf = problems[0].crf();
        let (emissions, mask) = batch(&problems);
        let (rows, words, tags) = emissions.size3().unwrap();
        // An allowed path as the gold one, and around it further allowed tags at random.
        let (mut gold, mut allowed) = (Vec::new(), Vec::new());
        for (row, problem) in problems.iter().enumerate() {
            let paths = problem.paths();
            let path = &paths[(seed as usize).wrapping_add(row * 7919) % paths.len()].0;
            for word in 0..words as usize {
                gold.push(path.get(word).map_or(3, |&tag| tag as i64));
                for tag in 0..tags as usize {
                    let extra = (seed >> ((word * 7 + tag * 3 + row) % 60)) & 1 == 1;
                    allowed.push(path.get(word) == Some(&tag) || extra);
                }
            }
        }
        let tags_tensor = Tensor::from_slice(&gold).view([rows, words]);
        let allowed_tensor = Tensor::from_slice(&allowed).view([rows, words, tags]);
        let full = to_host::<f32>(&crf.log_likelihood(&emissions, &tags_tensor, &mask));
        let partial = to_host::<f32>(&crf.marginal_log_likelihood(&emissions, &allowed_tensor, &mask));
        for (row, problem) in problems.iter().enumerate() {
            let log_z = problem.log_sum(|_| true);
            let at = |word: usize| row * words as usize + word;
            let path: Vec<usize> = (0..problem.emissions.len()).map(|word| gold[at(word)] as usize).collect();
            let expected = problem.score(&path).unwrap() - log_z;
            prop_assert!((f64::from(full[row]) - expected).abs() < 1e-3, "{} != {expected}", full[row]);

            let agrees = |path: &[usize]| path.iter().enumerate().all(|(word, &tag)| allowed[at(word) * tags as usize + tag]);
            let expected = problem.log_sum(agrees) - log_z;
            prop_assert!((f64::from(partial[row]) - expected).abs() < 1e-3, "{} != {expected}", partial[row]);
        }
    }
}

/// The gradient of `log Z` by an emission is the tag's marginal, by a transition the expected count of it.
#[test]
fn gradients_are_the_expected_counts_of_brute_force() {
    let values =
        |seed: usize, n: usize| (0..n).map(|i| ((i * 37 + seed * 101) % 23) as f64 / 8.0 - 1.4).collect::<Vec<_>>();
    let tags = TAGS;
    let problem = Problem {
        emissions: (0..4).map(|word| values(word, tags)).collect(),
        transitions: (0..tags).map(|tag| values(10 + tag, tags)).collect(),
        start: values(20, tags),
        end: values(21, tags),
        constraints: Constraints::bio(&labels()),
    };
    let crf = problem.crf();
    let (emissions, mask) = batch(std::slice::from_ref(&problem));
    let emissions = emissions.set_requires_grad(true);
    crf.log_partition(&emissions, &mask).sum(Kind::Float).backward();

    let log_z = problem.log_sum(|_| true);
    let expected = |keep: &dyn Fn(&[usize]) -> f64| -> f64 {
        problem.paths().iter().map(|(path, score)| keep(path) * (score - log_z).exp()).sum()
    };
    let close =
        |found: f32, expected: f64| assert!((f64::from(found) - expected).abs() < 1e-4, "{found} != {expected}");
    let by_emission = to_host::<f32>(&emissions.grad());
    let by_transition = to_host::<f32>(&crf.transitions.grad());
    let (by_start, by_end) = (to_host::<f32>(&crf.start.grad()), to_host::<f32>(&crf.end.grad()));
    for tag in 0..tags {
        for word in 0..4 {
            close(by_emission[word * tags + tag], expected(&|path| f64::from(path[word] == tag)));
        }
        for next in 0..tags {
            let count = |path: &[usize]| path.windows(2).filter(|pair| pair == &[tag, next]).count() as f64;
            close(by_transition[tag * tags + next], expected(&count));
        }
        close(by_start[tag], expected(&|path| f64::from(path[0] == tag)));
        close(by_end[tag], expected(&|path| f64::from(path[3] == tag)));
    }
}

/// The likelihood's own gradient against central differences.
#[test]
fn likelihood_gradient_agrees_with_finite_differences() {
    let problem = Problem {
        emissions: vec![vec![0.3, -0.2, 0.9, 0.1, 0.0], vec![1.0, 0.4, -0.6, 0.2, 0.5], vec![0.1, 0.2, 0.3, -0.4, 0.7]],
        transitions: vec![vec![0.2, -0.1, 0.4, 0.3, -0.5]; 5],
        start: vec![0.1, 0.2, -0.3, 0.4, 0.0],
        end: vec![-0.2, 0.3, 0.1, 0.0, 0.6],
        constraints: Constraints::bio(&labels()),
    };
    let crf = problem.crf();
    let (emissions, mask) = batch(std::slice::from_ref(&problem));
    let emissions = emissions.set_requires_grad(true);
    let tags = Tensor::from_slice(&[1i64, 2, 0]).view([1, 3]);
    crf.log_likelihood(&emissions, &tags, &mask).sum(Kind::Float).backward();
    let gradient = to_host::<f32>(&emissions.grad());
    let likelihood = |problem: &Problem| problem.score(&[1, 2, 0]).unwrap() - problem.log_sum(|_| true);
    for word in 0..3 {
        for tag in 0..5 {
            let moved = |by: f64| {
                let mut problem = problem.clone();
                problem.emissions[word][tag] += by;
                likelihood(&problem)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let found = f64::from(gradient[word * 5 + tag]);
            assert!((found - expected).abs() < 1e-3, "{found} != {expected}");
        }
    }
}

#[test]
fn what_is_forbidden_is_never_decoded_however_high_it_scores() {
    let crf = Crf::zeros(&Constraints::bio(&labels()), Device::Cpu);
    // I-Gene shouts everywhere; only a B-Gene may lead to it.
    let emissions = Tensor::from_slice(&[0f32, 0., 50., 1., 0., 0., 0., 50., 0., 0.]).view([1, 2, 5]);
    let mask = Tensor::from_slice(&[true, true]).view([1, 2]);
    assert_eq!(crf.viterbi(&emissions, &mask), vec![vec![1, 2]]);
}

#[test]
fn a_wrong_shape_is_named() {
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let error = Crf::new(zeros(&[5, 4]), zeros(&[5]), zeros(&[5]), &Constraints::none(5)).unwrap_err();
    assert_eq!(error.to_string(), "the CRF's transitions have shape [5, 4], the tag set asks for [5, 5]");
}
