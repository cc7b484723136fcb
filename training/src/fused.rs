//! AdamW's update of many tensors on the CPU in one pass over memory. libtorch's operators need a dozen passes, which
//! for a small encoder is a tenth of the step's time; its own fused kernel is not to be reached from Rust.

use std::thread;
use tch::{Device, Kind, Tensor};

/// Elements that one thread works on at a time.
const CHUNK: usize = 1 << 16;

/// What is the same for all tensors of a step; θ is a parameter, m and v its moments, g its gradient.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// g is multiplied by this.
    pub scale: f32,
    /// Decay of m.
    pub beta1: f32,
    /// Decay of v.
    pub beta2: f32,
    /// 1 / √(1 − β₂ᵗ)
    pub root_correction: f32,
    /// Added to the denominator.
    pub epsilon: f32,
}

/// A tensor's part of a step.
pub struct Update<'a> {
    /// θ
    pub parameter: &'a mut [f32],
    /// m
    pub mean: &'a mut [f32],
    /// v
    pub mean_square: &'a mut [f32],
    /// g
    pub gradient: &'a [f32],
    /// η / (1 − β₁ᵗ)
    pub rate: f32,
    /// 1 − η λ
    pub keep: f32,
}

/// Does all updates, on as many threads as libtorch has. Each element is computed alone, so the result does not depend
/// on their number.
pub fn step(step: Step, updates: Vec<Update>) {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    let mut shares: Vec<Vec<Update>> = (0..threads).map(|_| Vec::new()).collect();
    let chunks = updates.into_iter().flat_map(|update| {
        let Update { parameter, mean, mean_square, gradient, rate, keep } = update;
        let moments = mean.chunks_mut(CHUNK).zip(mean_square.chunks_mut(CHUNK));
        let chunks = parameter.chunks_mut(CHUNK).zip(moments).zip(gradient.chunks(CHUNK));
        chunks.map(move |((parameter, (mean, mean_square)), gradient)| Update {
            parameter,
            mean,
            mean_square,
            gradient,
            rate,
            keep,
        })
    });
    for (number, chunk) in chunks.enumerate() {
        shares[number % threads].push(chunk);
    }
    thread::scope(|scope| {
        let mut shares = shares.into_iter();
        let own = shares.next();
        for share in shares {
            scope.spawn(move || share.into_iter().for_each(|chunk| update(step, chunk)));
        }
        own.into_iter().flatten().for_each(|chunk| update(step, chunk));
    });
}

fn update(step: Step, update: Update) {
    let Step { scale, beta1, beta2, root_correction, epsilon } = step;
    let Update { parameter, mean, mean_square, gradient, rate, keep } = update;
    let moments = mean.iter_mut().zip(mean_square);
    for ((parameter, (mean, mean_square)), gradient) in parameter.iter_mut().zip(moments).zip(gradient) {
        let gradient = gradient * scale;
        *mean += (1.0 - beta1) * (gradient - *mean);
        *mean_square += (1.0 - beta2) * (gradient * gradient - *mean_square);
        *parameter = keep * *parameter - rate * *mean / (mean_square.sqrt() * root_correction + epsilon);
    }
}

/// Whether the tensor's elements can be had as a slice: fp32, on the CPU, contiguous.
pub fn is_plain(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous()
}

/// The elements of a plain tensor.
///
/// # Safety
/// Nothing writes to the tensor, or to another that shares its memory, while the slice lives.
pub unsafe fn elements(tensor: &Tensor) -> &[f32] {
    assert!(is_plain(tensor));
    // SAFETY: a plain tensor's memory holds `numel` numbers in a row, as long as the tensor lives; the caller's promise.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The elements of a plain tensor, to be changed.
///
/// # Safety
/// Nothing else reads or writes the tensor, or another that shares its memory, while the slice lives.
#[allow(clippy::mut_from_ref)] // a tensor is a handle
pub unsafe fn elements_mut(tensor: &Tensor) -> &mut [f32] {
    assert!(is_plain(tensor));
    // SAFETY: as in `elements`.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}
