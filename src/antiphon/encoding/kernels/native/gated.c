/* What stands between the products of a gated feed-forward layer: swish of the gate times up, in bfloat16, at the pace of
   the memory. PyTorch's and the compiler's exponential are exact to the last bit of float32, which bfloat16 does not hold. */

#include "numbers.h"

enum { LANES = 16, PIECE = 1 << 14 /* numbers that a thread takes at a time */ };

static __m512 widened(const bfloat16 *numbers, __mmask16 there) {
  const __m256i narrow = _mm256_maskz_loadu_epi16(there, numbers);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

/* out = gate / (1 + exp(-gate)) * up, each of so many numbers. */
void antiphon_gated(const bfloat16 *gate, const bfloat16 *up, bfloat16 *out, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t piece = 0; piece < count; piece += PIECE)
    for (int64_t at = piece; at < count && at < piece + PIECE; at += LANES) {
      const __mmask16 there = count - at < LANES ? (__mmask16)(0xffffu >> (LANES - (count - at))) : 0xffff;
      const __m512 x = widened(gate + at, there);
      const __m512 power = _mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)), most = _mm512_set1_ps(125.0f);
      const __m512 held = _mm512_max_ps(_mm512_min_ps(power, most), _mm512_set1_ps(-126.0f));
      const __m512 below = _mm512_add_ps(_mm512_set1_ps(1.0f), power_of_two(held));
      __m512 share = _mm512_rcp14_ps(below);
      share = _mm512_mul_ps(share, _mm512_fnmadd_ps(below, share, _mm512_set1_ps(2.0f))); /* one step of Newton's */
      /* the reciprocal of a larger power would be no normal number: it is 0 */
      share = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(power, most, _CMP_LT_OQ), share);
      const __m512 product = _mm512_mul_ps(_mm512_mul_ps(x, share), widened(up + at, there));
      _mm256_mask_storeu_epi16(out + at, there, (__m256i)_mm512_cvtneps_pbh(product));
    }
}
