//! CPU kernels for what libtorch is slow at: attention over short sequences, residual + layer norm, GELU.
//!
//! AVX-512 (litflow runs on x86-64, as its libtorch does), one thread, over contiguous rows of bf16 or fp32; sums are fp32. [`Kernels`] is the proof that
//! the CPU has the instructions. Each kernel has libtorch operators that compute the same: the fallback on
//! other CPUs and the oracle of the tests.

mod attention;
mod gelu;
mod norm;

pub use attention::Scratch;

use std::arch::x86_64::*;
use tch::Kind;

/// Exists only where the CPU has AVX-512F: whoever holds one may run the kernels.
#[derive(Debug, Clone, Copy)]
pub struct Kernels(());

impl Kernels {
    /// The kernels, where this CPU can run them.
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// A stored number; kernels widen it to fp32 as they load it.
pub trait Element: Copy + 'static {
    /// libtorch's name for it.
    const KIND: Kind;

    /// Sixteen numbers from `from`.
    ///
    /// # Safety
    /// `from` is valid for reads of 16 elements; the CPU has AVX-512F.
    unsafe fn load(from: *const Self) -> __m512;

    /// Sixteen numbers to `to`, rounded to nearest, ties to even.
    ///
    /// # Safety
    /// `to` is valid for writes of 16 elements; the CPU has AVX-512F.
    unsafe fn store(to: *mut Self, values: __m512);
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(to: *mut Self, values: __m512) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, values) }
    }
}

impl Element for half::bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise; bf16 is the upper half of fp32, in a transparent u16.
        let halves = unsafe { _mm256_loadu_si256(from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(to: *mut Self, values: __m512) {
        // Adding 0x7fff and the lowest bit that is kept rounds to nearest even. A NaN stays one or becomes
        // an infinity: `Model::emissions` refuses both.
        let bits = _mm512_castps_si512(values);
        let kept = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), kept);
        let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), halves) }
    }
}

/// eˣ for x ≤ 0, to a relative error of 2e-6; 0 below −87 to within 1e-38.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    // 2^(x log₂ e): the power's integer part by scaling, its fraction in [−½, ½] by the Taylor polynomial.
    let power = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0)), _mm512_set1_ps(std::f32::consts::LOG2_E));
    let whole = _mm512_roundscale_ps::<8>(power);
    let fraction = _mm512_sub_ps(power, whole);
    let mut value = _mm512_set1_ps(1.333_355_8e-3);
    for coefficient in [9.618_129e-3f32, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2, 1.0] {
        value = _mm512_fmadd_ps(value, fraction, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(value, whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use tch::{Device, Tensor};

    /// The kernels, or a message that this CPU has none.
    fn kernels() -> Option<Kernels> {
        let kernels = Kernels::detect();
        if kernels.is_none() {
            println!("skipped: this CPU has no AVX-512");
        }
        kernels
    }

    fn random<E: Element>(shape: &[i64], spread: f64) -> Tensor {
        (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * spread).to_kind(E::KIND)
    }

    fn slice<E: Element>(tensor: &Tensor) -> Vec<E> {
        assert!(tensor.kind() == E::KIND && tensor.is_contiguous());
        // SAFETY: contiguous, of this kind, on the CPU.
        unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<E>(), tensor.numel()) }.to_vec()
    }

    fn widened<E: Element>(values: &[E]) -> Tensor {
        assert_eq!(values.len() % 16, 0);
        let mut wide = vec![0f32; values.len()];
        for (from, to) in values.chunks_exact(16).zip(wide.chunks_exact_mut(16)) {
            // SAFETY: chunks of 16; the tests run only where `detect` found AVX-512.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), E::load(from.as_ptr())) }
        }
        Tensor::from_slice(&wide)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b.reshape_as(a)).abs().max().double_value(&[])
    }

    /// The rounding of a result of about this size to bf16 (8 bits), or of a few fp32 operations.
    fn tolerance<E: Element>(size: f64) -> f64 {
        if E::KIND == Kind::BFloat16 { size / 256.0 } else { size * 2e-6 }
    }

    #[test]
    fn bf16_is_rounded_as_libtorch_does() {
        if kernels().is_none() {
            return;
        }
        let values = Tensor::cat(
            &[random::<f32>(&[4096], 3.0), Tensor::from_slice(&[0.0f32, -0.0, 1e-40, 3e38]).repeat([4])],
            0,
        );
        let (wide, expected) = (slice::<f32>(&values), slice::<bf16>(&values.to_kind(Kind::BFloat16)));
        let mut rounded = vec![bf16::ZERO; wide.len()];
        for (from, to) in wide.chunks_exact(16).zip(rounded.chunks_exact_mut(16)) {
            // SAFETY: chunks of 16; AVX-512 was found.
            unsafe { bf16::store(to.as_mut_ptr(), _mm512_loadu_ps(from.as_ptr())) }
        }
        assert_eq!(rounded, expected);
    }

    fn check_add_norm<E: Element>(kernels: Kernels) {
        for (rows, width) in [(1, 16), (5, 384), (3, 768), (2, 2048)] {
            let (a, b) = (random::<E>(&[rows, width], 5.0), random::<E>(&[rows, width], 5.0));
            let (gain, bias) = (random::<f32>(&[width], 1.0), random::<f32>(&[width], 1.0));
            let sum = a.to_kind(Kind::Float) + b.to_kind(Kind::Float);
            let expected = sum.layer_norm([width], Some(&gain), Some(&bias), 1e-12, false);
            let mut output = slice::<E>(&a);
            kernels.add_norm(&slice::<E>(&a), &slice::<E>(&b), &slice(&gain), &slice(&bias), 1e-12, &mut output);
            let difference = largest_difference(&widened(&output), &expected);
            let size = expected.abs().max().double_value(&[]);
            assert!(difference < tolerance::<E>(size), "{width}: {difference:e} of {size}");
        }
    }

    #[test]
    fn add_norm_is_libtorchs() {
        let Some(kernels) = kernels() else { return };
        check_add_norm::<f32>(kernels);
        check_add_norm::<bf16>(kernels);
    }

    #[test]
    fn gelu_is_libtorchs() {
        let Some(kernels) = kernels() else { return };
        let x = Tensor::linspace(-12, 12, 16 * 4096, (Kind::Float, Device::Cpu));
        let mut values = slice::<f32>(&x);
        kernels.gelu(&mut values);
        assert!(largest_difference(&widened(&values), &x.gelu("none")) < 2e-6);
        let x = x.to_kind(Kind::BFloat16);
        let expected = x.to_kind(Kind::Float).gelu("none");
        let mut values = slice::<bf16>(&x);
        kernels.gelu(&mut values);
        // Half a unit in the last of 8 bits, and the polynomial's own error.
        let allowed = expected.abs() / 256.0 + 1e-5 + x.to_kind(Kind::Float).abs() * 3.2e-5;
        let excess = (widened(&values) - &expected).abs() - allowed;
        assert!(excess.max().double_value(&[]) <= 0.0);
    }

    fn check_attention<E: Element>(kernels: Kernels) {
        let mut scratch = Scratch::default();
        for (length, heads, head_size) in [(1, 1, 32), (3, 2, 32), (16, 1, 64), (17, 2, 64), (31, 12, 32), (70, 3, 64)]
        {
            let hidden = heads * head_size;
            let qkv = random::<E>(&[length, 3 * hidden], 1.5);
            let split = qkv.to_kind(Kind::Float).view([length, 3, heads, head_size]).permute([1, 2, 0, 3]);
            let [q, k, v] = [0, 1, 2].map(|part| split.get(part).unsqueeze(0));
            let expected = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false);
            let expected = expected.get(0).transpose(0, 1).reshape([length, hidden]);
            let mut context = slice::<E>(&random::<E>(&[length, hidden], 1.0));
            kernels.attention(&slice::<E>(&qkv), heads as usize, head_size as usize, &mut context, &mut scratch);
            let difference = largest_difference(&widened(&context), &expected);
            assert!(difference < tolerance::<E>(6.0), "{length} {heads} {head_size}: {difference:e}");
        }
    }

    #[test]
    fn attention_is_libtorchs() {
        let Some(kernels) = kernels() else { return };
        check_attention::<f32>(kernels);
        check_attention::<bf16>(kernels);
    }
}
