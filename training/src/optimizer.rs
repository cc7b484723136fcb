//! AdamW with a learning rate per parameter, gradient clipping, and the learning rate's schedule.

use crate::fused;
use crate::recipe::OptimizerOptions;
use tch::{Kind, TchError, Tensor};

/// A trainable tensor and how it learns.
pub struct Trainable {
    /// Its name in the model's weights file.
    pub name: String,
    /// The tensor itself, not a copy, with a gradient.
    pub tensor: Tensor,
    /// Its learning rate relative to the schedule's.
    pub rate: f64,
    /// Whether weight decay applies.
    pub decays: bool,
    /// Whether a batch touches only few of its rows, as of an embedding.
    pub sparse: bool,
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>,
/// algorithm 2). The state can be saved, which libtorch's own optimisers in tch cannot.
pub struct AdamW {
    options: OptimizerOptions,
    trainables: Vec<Trainable>,
    mean: Vec<Tensor>,
    mean_square: Vec<Tensor>,
    steps: u64,
}

/// A tensor in the CPU's memory, or the rows of it that have a gradient: a batch touches some hundred of an embedding's
/// 30,000 rows, and the others, whose moments rest (as in TensorFlow's `LazyAdam`), would be half of the optimiser's
/// work. On a GPU all rows are updated: how many are touched, it would have to be waited for.
struct Plain {
    index: usize,
    /// Parameter, mean and mean square.
    tensors: [Tensor; 3],
    gradient: Tensor,
}

impl AdamW {
    /// An optimiser at its start.
    pub fn new(trainables: Vec<Trainable>, options: &OptimizerOptions) -> Self {
        let zeros = || trainables.iter().map(|trainable| trainable.tensor.zeros_like().detach()).collect();
        Self { options: options.clone(), mean: zeros(), mean_square: zeros(), steps: 0, trainables }
    }

    /// One step down the gradient of `loss` at this learning rate. The gradient is first scaled down where
    /// its Euclidean norm over all parameters is longer than `clip_norm`; returns the norm before that, `[]` on the
    /// parameters' device: nothing here waits for a GPU.
    pub fn step(&mut self, loss: &Tensor, learning_rate: f64) -> Result<Tensor, TchError> {
        let parameters: Vec<&Tensor> = self.trainables.iter().map(|trainable| &trainable.tensor).collect();
        let gradients = Tensor::f_run_backward(&[loss], &parameters, false, false)?;
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        // What the loss does not depend on (a CRF's transitions, in a batch of one-word sentences) has none.
        let gradients = || gradients.iter().enumerate().filter(|(_, gradient)| gradient.defined());
        let squares = gradients().map(|(_, gradient)| gradient.f_norm()?.f_square()).collect::<Result<Vec<_>, _>>()?;
        let norm = Tensor::f_stack(&squares, 0)?.f_sum(Kind::Double)?.f_sqrt()?;
        let scale = norm.f_add_scalar(1e-12)?.f_reciprocal()?.f_mul_scalar(self.options.clip_norm)?.f_clamp_max(1.0)?;
        let scale = scale.f_to_kind(Kind::Float)?;
        let mut plain = Vec::new();
        let mut rows = Vec::new();
        for (index, gradient) in gradients() {
            let tensors = self.tensors(index);
            if !tensors.iter().chain([gradient]).all(fused::is_plain) {
                let [parameter, mean, mean_square] = tensors;
                self.update(index, parameter, mean, mean_square, &gradient.f_mul(&scale)?, learning_rate)?;
            } else if self.trainables[index].sparse {
                let touched = gradient.f_abs()?.f_amax([1], false)?.f_nonzero()?.f_squeeze_dim(1)?;
                let select = |tensor: &Tensor| tensor.f_index_select(0, &touched);
                let [parameter, mean, mean_square] = &tensors;
                let parts = [select(parameter)?, select(mean)?, select(mean_square)?];
                plain.push(Plain {
                    index,
                    tensors: parts.each_ref().map(Tensor::shallow_clone),
                    gradient: select(gradient)?,
                });
                rows.push((tensors, touched, parts));
            } else {
                plain.push(Plain { index, tensors, gradient: gradient.shallow_clone() });
            }
        }
        if !plain.is_empty() {
            self.update_at_once(&plain, scale.f_double_value(&[])?, learning_rate);
        }
        for (tensors, touched, parts) in rows {
            for (mut tensor, part) in tensors.into_iter().zip(&parts) {
                let _ = tensor.f_index_copy_(0, &touched, part)?;
            }
        }
        Ok(norm)
    }

    /// Updates tensors in the CPU's memory, all in one pass.
    fn update_at_once(&self, plain: &[Plain], scale: f64, learning_rate: f64) {
        let OptimizerOptions { beta1, beta2, epsilon, .. } = self.options;
        let steps = self.steps as f64;
        let step = fused::Step {
            scale: scale as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            root_correction: (1.0 - beta2.powf(steps)).sqrt().recip() as f32,
            epsilon: epsilon as f32,
        };
        let mut updates = Vec::with_capacity(plain.len());
        for Plain { index, tensors: [parameter, mean, mean_square], gradient } in plain {
            let rate = learning_rate * self.trainables[*index].rate;
            // SAFETY: parameters, their moments and the gradients are tensors of their own, each stands in `plain` once,
            // and they are this thread's until the step is over.
            updates.push(unsafe {
                fused::Update {
                    parameter: fused::elements_mut(parameter),
                    mean: fused::elements_mut(mean),
                    mean_square: fused::elements_mut(mean_square),
                    gradient: fused::elements(gradient),
                    rate: (rate / (1.0 - beta1.powf(steps))) as f32,
                    keep: (1.0 - rate * self.decay(*index)) as f32,
                }
            });
        }
        fused::step(step, updates);
    }

    /// The weight decay of a tensor, per unit of learning rate.
    fn decay(&self, index: usize) -> f64 {
        if self.trainables[index].decays { self.options.weight_decay } else { 0.0 }
    }

    /// What is in no CPU's memory:
    /// m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ), θ ← θ - η (m̂ / (√v̂ + ε) + λ θ), in place.
    fn update(
        &self,
        index: usize,
        mut parameter: Tensor,
        mut mean: Tensor,
        mut mean_square: Tensor,
        gradient: &Tensor,
        learning_rate: f64,
    ) -> Result<(), TchError> {
        let OptimizerOptions { beta1, beta2, epsilon, .. } = self.options;
        let (steps, rate) = (self.steps as f64, learning_rate * self.trainables[index].rate);
        let mean = mean.f_lerp_(gradient, 1.0 - beta1)?;
        let mean_square = mean_square.f_lerp_(&gradient.f_square()?, 1.0 - beta2)?;
        let root_correction = (1.0 - beta2.powf(steps)).sqrt();
        let root = mean_square.f_sqrt()?.f_div_scalar_(root_correction)?.f_add_scalar_(epsilon)?;
        let update = mean.f_div(&root)?.f_mul_scalar_(-rate / (1.0 - beta1.powf(steps)))?;
        let _ = parameter.f_mul_scalar_(1.0 - rate * self.decay(index))?;
        let _ = parameter.f_add_(&update)?;
        Ok(())
    }

    fn tensors(&self, index: usize) -> [Tensor; 3] {
        [&self.trainables[index].tensor, &self.mean[index], &self.mean_square[index]].map(Tensor::shallow_clone)
    }

    /// What is trained.
    pub fn trainables(&self) -> &[Trainable] {
        &self.trainables
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The state under its parameters' names: `NAME.mean` and `NAME.mean_square`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |kind: &str, tensors: &[Tensor]| -> Vec<(String, Tensor)> {
            let pairs = self.trainables.iter().zip(tensors);
            pairs.map(|(trainable, tensor)| (format!("{}.{kind}", trainable.name), tensor.shallow_clone())).collect()
        };
        let mut state = named("mean", &self.mean);
        state.extend(named("mean_square", &self.mean_square));
        state
    }

    /// Goes on from a saved state after `steps` steps; `tensor` gives the tensor of a name and a shape.
    pub fn restore<E: From<TchError>>(
        &mut self,
        steps: u64,
        tensor: impl Fn(&str, &[i64]) -> Result<Tensor, E>,
    ) -> Result<(), E> {
        for (kind, state) in [("mean", &mut self.mean), ("mean_square", &mut self.mean_square)] {
            for (trainable, state) in self.trainables.iter().zip(state.iter_mut()) {
                let saved = tensor(&format!("{}.{kind}", trainable.name), &state.size())?;
                state.f_copy_(&saved)?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

/// Learning rate at `step` of `steps`, relative to the highest: a linear rise over the first `warmup`
/// share of the steps, then a linear fall to zero.
pub fn schedule(step: u64, steps: u64, warmup: f64) -> f64 {
    let (at, rise, end) = (step as f64 + 1.0, warmup * steps as f64, steps as f64 + 1.0);
    if at < rise { at / rise } else { ((end - at) / (end - rise)).max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trainable(values: &[f32], rate: f64, decays: bool) -> Trainable {
        Trainable {
            name: "w".into(),
            tensor: Tensor::from_slice(values).set_requires_grad(true),
            rate,
            decays,
            sparse: false,
        }
    }

    fn of_kind(trainable: Trainable, kind: Kind) -> Trainable {
        Trainable { tensor: trainable.tensor.detach().to_kind(kind).set_requires_grad(true), ..trainable }
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double)).unwrap()
    }

    /// Three steps on f(w) = ½ Σ w² against the algorithm in plain numbers, in the CPU's one pass and by operators.
    #[test]
    fn steps_are_those_of_the_algorithm() {
        [Kind::Float, Kind::Double].into_iter().for_each(follows_the_algorithm);
    }

    fn follows_the_algorithm(kind: Kind) {
        let options = OptimizerOptions { clip_norm: 2.0, weight_decay: 0.1, ..OptimizerOptions::default() };
        let start = [3.0f32, -1.0, 0.5];
        let mut optimizer = AdamW::new(vec![of_kind(trainable(&start, 0.5, true), kind)], &options);
        let mut expected: Vec<f64> = start.iter().map(|&w| f64::from(w)).collect();
        let (mut mean, mut square) = ([0.0; 3], [0.0; 3]);
        for step in 1..=3 {
            let loss = optimizer.trainables()[0].tensor.square().sum(kind) * 0.5;
            let norm = optimizer.step(&loss, 0.1).unwrap();
            let expected_norm = expected.iter().map(|w| w * w).sum::<f64>().sqrt();
            assert!((norm.double_value(&[]) - expected_norm).abs() < 1e-5);
            let clip = (2.0 / expected_norm).min(1.0);
            for i in 0..3 {
                let gradient = expected[i] * clip;
                mean[i] = 0.9 * mean[i] + 0.1 * gradient;
                square[i] = 0.98 * square[i] + 0.02 * gradient * gradient;
                let (m, v) = (mean[i] / (1.0 - 0.9f64.powi(step)), square[i] / (1.0 - 0.98f64.powi(step)));
                expected[i] -= 0.05 * (m / (v.sqrt() + 1e-8) + 0.1 * expected[i]);
            }
            for (found, expected) in values(&optimizer.trainables()[0].tensor).iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{found} != {expected}");
            }
        }
    }

    #[test]
    fn a_restored_optimizer_goes_on_as_if_never_stopped() {
        let options = OptimizerOptions::default();
        let run = |optimizer: &mut AdamW, steps: usize| {
            for _ in 0..steps {
                let loss = optimizer.trainables()[0].tensor.exp().sum(Kind::Float);
                let _norm = optimizer.step(&loss, 0.01).unwrap();
            }
        };
        let mut whole = AdamW::new(vec![trainable(&[1.0, -2.0], 1.0, false)], &options);
        run(&mut whole, 3);
        let saved: Vec<(String, Tensor)> = whole.state().into_iter().map(|(name, t)| (name, t.copy())).collect();
        let weights: Vec<f32> = values(&whole.trainables()[0].tensor).iter().map(|&w| w as f32).collect();
        run(&mut whole, 2);
        let mut resumed = AdamW::new(vec![trainable(&weights, 1.0, false)], &options);
        let find = |name: &str, _: &[i64]| -> Result<Tensor, TchError> {
            Ok(saved.iter().find(|(saved, _)| saved == name).unwrap().1.shallow_clone())
        };
        resumed.restore(3, find).unwrap();
        run(&mut resumed, 2);
        assert_eq!(values(&resumed.trainables()[0].tensor), values(&whole.trainables()[0].tensor));
    }

    /// Rows that every batch touches learn as without `sparse`; the others stay.
    #[test]
    fn sparse_rows_learn_alike_and_untouched_ones_rest() {
        let options = OptimizerOptions { weight_decay: 0.0, ..OptimizerOptions::default() };
        let run = |sparse: bool| {
            let tensor = Tensor::from_slice(&[1f32, 2., 3., 4., 5., 6.]).view([3, 2]).detach().set_requires_grad(true);
            let trainable = Trainable { name: "e".into(), tensor, rate: 1.0, decays: true, sparse };
            let mut optimizer = AdamW::new(vec![trainable], &options);
            for _ in 0..3 {
                let rows = optimizer.trainables()[0].tensor.index_select(0, &Tensor::from_slice(&[0i64, 2]));
                let _norm = optimizer.step(&rows.square().sum(Kind::Float), 0.1).unwrap();
            }
            values(&optimizer.trainables()[0].tensor.view([-1]))
        };
        let (sparse, dense) = (run(true), run(false));
        assert_eq!(sparse, dense);
        assert_eq!(sparse[2..4], [3.0, 4.0]);
        assert!(sparse[0] < 0.9 && sparse[5] < 5.9);
    }

    #[test]
    fn the_schedule_rises_to_one_and_falls_to_nearly_zero() {
        let rates: Vec<f64> = (0..100).map(|step| schedule(step, 100, 0.1)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-9 && (rates[9] - 1.0).abs() < 1e-9);
        assert!(rates[..10].is_sorted() && rates[9..].is_sorted_by(|a, b| a >= b) && rates[99] > 0.0);
        assert!(schedule(0, 100, 0.0) > 0.98);
    }
}
