//! Residual addition and layer norm in one pass.

use super::{Element, Kernels};
use std::arch::x86_64::*;

/// Rows up to this wide are kept in fp32 on the stack between the passes.
const WIDEST_ROW: usize = 2048;

impl Kernels {
    /// Whether [`Kernels::add_norm`] takes rows this wide.
    pub fn can_norm(self, width: usize) -> bool {
        width.is_multiple_of(16) && width <= WIDEST_ROW
    }

    /// `output = layer_norm(a + b) · gain + bias` for each row of `gain.len()` elements
    /// (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>). All of one length.
    pub fn add_norm<E: Element>(self, a: &[E], b: &[E], gain: &[f32], bias: &[f32], eps: f32, output: &mut [E]) {
        let width = gain.len();
        assert!(self.can_norm(width) && bias.len() == width);
        assert!(a.len().is_multiple_of(width) && b.len() == a.len() && output.len() == a.len());
        // SAFETY: `self` proves AVX-512F.
        unsafe { add_norm(a, b, gain, bias, eps, output) }
    }
}

#[target_feature(enable = "avx512f")]
fn add_norm<E: Element>(a: &[E], b: &[E], gain: &[f32], bias: &[f32], eps: f32, output: &mut [E]) {
    let width = gain.len();
    let scale = 1.0 / width as f32;
    let mut row = [0f32; WIDEST_ROW];
    for ((a, b), output) in a.chunks_exact(width).zip(b.chunks_exact(width)).zip(output.chunks_exact_mut(width)) {
        let mut sum = _mm512_setzero_ps();
        for i in (0..width).step_by(16) {
            // SAFETY: `a`, `b` and `row` have at least `width` elements, a multiple of 16.
            unsafe {
                let value = _mm512_add_ps(E::load(a.as_ptr().add(i)), E::load(b.as_ptr().add(i)));
                _mm512_storeu_ps(row.as_mut_ptr().add(i), value);
                sum = _mm512_add_ps(sum, value);
            }
        }
        let mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) * scale);
        let mut squares = _mm512_setzero_ps();
        for i in (0..width).step_by(16) {
            // SAFETY: as above.
            let centred = _mm512_sub_ps(unsafe { _mm512_loadu_ps(row.as_ptr().add(i)) }, mean);
            squares = _mm512_fmadd_ps(centred, centred, squares);
        }
        let deviation = (_mm512_reduce_add_ps(squares) * scale + eps).sqrt();
        let factor = _mm512_set1_ps(1.0 / deviation);
        for i in (0..width).step_by(16) {
            // SAFETY: as above; `gain`, `bias` and `output` have `width` elements too.
            unsafe {
                let centred = _mm512_sub_ps(_mm512_loadu_ps(row.as_ptr().add(i)), mean);
                let (gain, bias) = (_mm512_loadu_ps(gain.as_ptr().add(i)), _mm512_loadu_ps(bias.as_ptr().add(i)));
                let value = _mm512_fmadd_ps(_mm512_mul_ps(centred, factor), gain, bias);
                E::store(output.as_mut_ptr().add(i), value);
            }
        }
    }
}
