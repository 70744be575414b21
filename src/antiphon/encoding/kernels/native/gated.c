/* What stands between the products of a gated feed-forward layer: swish of the gate times up, in bfloat16, at the pace of
   the memory. */

#include "numbers.h"

enum { LANES = 16, PIECE = 1 << 14 /* numbers that a thread takes at a time */ };

/* out = swish(gate) * up, each of so many numbers. */
void antiphon_gated(const bfloat16 *gate, const bfloat16 *up, bfloat16 *out, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t piece = 0; piece < count; piece += PIECE)
    for (int64_t at = piece; at < count && at < piece + PIECE; at += LANES) {
      const __mmask16 there = count - at < LANES ? (__mmask16)(0xffffu >> (LANES - (count - at))) : 0xffff;
      const __m512 product = _mm512_mul_ps(swish(widened(gate + at, there)), widened(up + at, there));
      _mm256_mask_storeu_epi16(out + at, there, (__m256i)_mm512_cvtneps_pbh(product));
    }
}
