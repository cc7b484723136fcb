//! Self-attention of one sequence, all heads, nothing but cache-sized scratch.

use super::{Element, Kernels, exp};
use std::arch::x86_64::*;

/// Rows of queries that are computed together, so that each key is loaded once for four.
const QUERIES: usize = 4;

/// Working memory, kept between calls.
#[derive(Default)]
pub struct Scratch {
    keys: Vec<f32>, // [D, columns]: one head's keys, transposed; columns is the length up to a multiple of 16
    values: Vec<f32>, // [length, D]
    scores: Vec<f32>, // [QUERIES, columns]
    query: Vec<f32>, // [QUERIES, D]
}

impl Kernels {
    /// Whether [`Kernels::attention`] takes heads of this size.
    pub fn can_attend(self, head_size: usize) -> bool {
        head_size == 32 || head_size == 64
    }

    /// `context = softmax(Q Kᵀ / √D) V` for each head (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
    ///
    /// `qkv` [L, 3 · H] holds a token's queries, keys and values side by side, `context` [L, H] takes the
    /// result; the H = heads · D numbers of each are head after head.
    pub fn attention<E: Element>(
        self,
        qkv: &[E],
        heads: usize,
        head_size: usize,
        context: &mut [E],
        scratch: &mut Scratch,
    ) {
        let hidden = heads * head_size;
        assert!(hidden > 0 && self.can_attend(head_size));
        assert!(context.len().is_multiple_of(hidden) && qkv.len() == 3 * context.len());
        for head in 0..heads {
            // SAFETY: `self` proves AVX-512F; the shapes were checked above.
            unsafe {
                match head_size {
                    32 => attend::<E, 32>(qkv, hidden, head, context, scratch),
                    _ => attend::<E, 64>(qkv, hidden, head, context, scratch),
                }
            }
        }
    }
}

/// One head.
///
/// # Safety
/// `context` is [L, hidden] and `qkv` [L, 3 · hidden], `D` is a multiple of 32 and `(head + 1) · D ≤ hidden`.
#[target_feature(enable = "avx512f")]
unsafe fn attend<E: Element, const D: usize>(
    qkv: &[E],
    hidden: usize,
    head: usize,
    context: &mut [E],
    scratch: &mut Scratch,
) {
    let stride = 3 * hidden;
    let length = context.len() / hidden;
    let columns = length.next_multiple_of(16);
    // The lanes of the last sixteen columns that are real keys.
    let real: __mmask16 = 0xffff >> (columns - length);
    let scale = _mm512_set1_ps(1.0 / (D as f32).sqrt());
    scratch.keys.resize(scratch.keys.len().max(D * columns), 0.0);
    scratch.values.resize(scratch.values.len().max(length * D), 0.0);
    scratch.scores.resize(scratch.scores.len().max(QUERIES * columns), 0.0);
    scratch.query.resize(scratch.query.len().max(QUERIES * D), 0.0);
    let (keys, values) = (scratch.keys.as_mut_ptr(), scratch.values.as_mut_ptr());
    let (scores, query) = (scratch.scores.as_mut_ptr(), scratch.query.as_mut_ptr());
    let head_begin = qkv.as_ptr().wrapping_add(head * D);

    // SAFETY: every access below stays within [D, columns] of `keys`, [length, D] of `values`,
    // [QUERIES, columns] of `scores` and [QUERIES, D] of `query`, which were sized above, and, by the
    // function's own contract, within `qkv` and `context`: rows are below `length`, and this head's D numbers
    // lie at `head · D` of a row's queries, keys and values.
    unsafe {
        for begin in (0..length).step_by(16) {
            let rows = (length - begin).min(16);
            for d in (0..D).step_by(16) {
                let from = head_begin.add(begin * stride + hidden + d);
                let block: [__m512; 16] =
                    std::array::from_fn(
                        |row| if row < rows { E::load(from.add(row * stride)) } else { _mm512_setzero_ps() },
                    );
                for (lane, column) in transpose(block).into_iter().enumerate() {
                    _mm512_storeu_ps(keys.add((d + lane) * columns + begin), column);
                }
            }
        }
        for row in 0..length {
            for d in (0..D).step_by(16) {
                _mm512_storeu_ps(values.add(row * D + d), E::load(head_begin.add(row * stride + 2 * hidden + d)));
            }
        }

        for begin in (0..length).step_by(QUERIES) {
            let queries = (length - begin).min(QUERIES);
            for row in 0..QUERIES {
                let from = head_begin.add((begin + row.min(queries - 1)) * stride); // the last again: discarded
                for d in (0..D).step_by(16) {
                    _mm512_storeu_ps(query.add(row * D + d), _mm512_mul_ps(E::load(from.add(d)), scale));
                }
            }

            // Scores, thirty-two keys at a time, and each row's largest.
            let mut largest = [_mm512_set1_ps(f32::NEG_INFINITY); QUERIES];
            for column in (0..columns).step_by(32) {
                let pair = column + 16 < columns;
                let mut low = [_mm512_setzero_ps(); QUERIES];
                let mut high = [_mm512_setzero_ps(); QUERIES];
                for d in 0..D {
                    let key = keys.add(d * columns + column);
                    let key_low = _mm512_loadu_ps(key);
                    let key_high = if pair { _mm512_loadu_ps(key.add(16)) } else { key_low };
                    for row in 0..QUERIES {
                        let q = _mm512_set1_ps(*query.add(row * D + d));
                        low[row] = _mm512_fmadd_ps(q, key_low, low[row]);
                        if pair {
                            high[row] = _mm512_fmadd_ps(q, key_high, high[row]);
                        }
                    }
                }
                for row in 0..QUERIES {
                    let to = scores.add(row * columns + column);
                    let last = if pair { &mut high[row] } else { &mut low[row] };
                    if column + 32 >= columns {
                        *last = _mm512_mask_blend_ps(real, _mm512_set1_ps(f32::NEG_INFINITY), *last);
                    }
                    _mm512_storeu_ps(to, low[row]);
                    largest[row] = _mm512_max_ps(largest[row], low[row]);
                    if pair {
                        _mm512_storeu_ps(to.add(16), high[row]);
                        largest[row] = _mm512_max_ps(largest[row], high[row]);
                    }
                }
            }

            // Softmax without its denominator, which divides the sum of values below.
            let mut normaliser = [_mm512_setzero_ps(); QUERIES];
            for row in 0..QUERIES {
                let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest[row]));
                let mut sum = _mm512_setzero_ps();
                for column in (0..columns).step_by(16) {
                    let at = scores.add(row * columns + column);
                    let weight = exp(_mm512_sub_ps(_mm512_loadu_ps(at), largest));
                    let weight = if column + 16 == columns { _mm512_maskz_mov_ps(real, weight) } else { weight };
                    sum = _mm512_add_ps(sum, weight);
                    _mm512_storeu_ps(at, weight);
                }
                normaliser[row] = _mm512_set1_ps(1.0 / _mm512_reduce_add_ps(sum));
            }

            for d in (0..D).step_by(32) {
                let mut low = [_mm512_setzero_ps(); QUERIES];
                let mut high = [_mm512_setzero_ps(); QUERIES];
                for key in 0..length {
                    let value = values.add(key * D + d);
                    let (value_low, value_high) = (_mm512_loadu_ps(value), _mm512_loadu_ps(value.add(16)));
                    for row in 0..QUERIES {
                        let weight = _mm512_set1_ps(*scores.add(row * columns + key));
                        low[row] = _mm512_fmadd_ps(weight, value_low, low[row]);
                        high[row] = _mm512_fmadd_ps(weight, value_high, high[row]);
                    }
                }
                for row in 0..queries {
                    let to = context.as_mut_ptr().add((begin + row) * hidden + head * D + d);
                    E::store(to, _mm512_mul_ps(low[row], normaliser[row]));
                    E::store(to.add(16), _mm512_mul_ps(high[row], normaliser[row]));
                }
            }
        }
    }
}

/// Rows become columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
    let pairs: [__m512; 16] = std::array::from_fn(|i| {
        let (a, b) = (rows[i & !1], rows[i | 1]);
        if i & 1 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) }
    });
    // In 128-bit lane l, quads[4 g + c] holds column 4 l + c of rows 4 g … 4 g + 3.
    let quads: [__m512; 16] = std::array::from_fn(|i| {
        let (group, column) = (i & !3, i & 3);
        let from = group + (column >> 1);
        let (a, b) = (_mm512_castps_pd(pairs[from]), _mm512_castps_pd(pairs[from + 2]));
        _mm512_castpd_ps(if column & 1 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
    });
    std::array::from_fn(|i| {
        let (lane, column) = (i >> 2, i & 3);
        let (low, high) = match lane {
            0 => (
                _mm512_shuffle_f32x4::<0b00_00_00_00>(quads[column], quads[4 + column]),
                _mm512_shuffle_f32x4::<0b00_00_00_00>(quads[8 + column], quads[12 + column]),
            ),
            1 => (
                _mm512_shuffle_f32x4::<0b01_01_01_01>(quads[column], quads[4 + column]),
                _mm512_shuffle_f32x4::<0b01_01_01_01>(quads[8 + column], quads[12 + column]),
            ),
            2 => (
                _mm512_shuffle_f32x4::<0b10_10_10_10>(quads[column], quads[4 + column]),
                _mm512_shuffle_f32x4::<0b10_10_10_10>(quads[8 + column], quads[12 + column]),
            ),
            _ => (
                _mm512_shuffle_f32x4::<0b11_11_11_11>(quads[column], quads[4 + column]),
                _mm512_shuffle_f32x4::<0b11_11_11_11>(quads[8 + column], quads[12 + column]),
            ),
        };
        _mm512_shuffle_f32x4::<0b10_00_10_00>(low, high)
    })
}
