/* What the C files of this folder share: 16 numbers at a time. */

#include <immintrin.h>
#include <stdint.h>

typedef uint16_t bfloat16;

static const float LOG2_E = 1.44269504f;

/* 2^x: Taylor's polynomial between two whole powers, to 2e-6. */
static inline __m512 power_of_two(__m512 x) {
  static const float TERMS[] = {0.00961812911f, 0.0555041087f, 0.240226507f, 0.693147181f, 1.0f};
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(x, whole);
  __m512 sum = _mm512_set1_ps(0.00133335581f);
  for (int term = 0; term < 5; term++) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(TERMS[term]));
  return _mm512_scalef_ps(sum, whole);
}

/* So many of 16 numbers, as float32; 0 in the place of the others. */
static inline __m512 widened(const bfloat16 *numbers, __mmask16 there) {
  const __m256i narrow = _mm256_maskz_loadu_epi16(there, numbers);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

/* x / (1 + exp(-x)). PyTorch's and the compiler's exponential are exact to the last bit of float32, which bfloat16 does
   not hold. */
static inline __m512 swish(__m512 x) {
  const __m512 power = _mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)), most = _mm512_set1_ps(125.0f);
  const __m512 held = _mm512_max_ps(_mm512_min_ps(power, most), _mm512_set1_ps(-126.0f));
  const __m512 below = _mm512_add_ps(_mm512_set1_ps(1.0f), power_of_two(held));
  __m512 share = _mm512_rcp14_ps(below);
  share = _mm512_mul_ps(share, _mm512_fnmadd_ps(below, share, _mm512_set1_ps(2.0f))); /* one step of Newton's */
  /* the reciprocal of a larger power would be no normal number: it is 0 */
  return _mm512_mul_ps(x, _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(power, most, _CMP_LT_OQ), share));
}
