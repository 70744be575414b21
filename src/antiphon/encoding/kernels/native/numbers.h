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
