/* Attention over texts laid end to end, by a processor's 16-bit products, softmax and all in one pass: in its tiles (AMX)
   where this is built for them, in its vectors (AVX-512) otherwise.

   Of each text and each key head the keys and values are laid out once as the tiles read them; then some queries at a
   time, with all heads that share those keys, are multiplied by a block of keys, weighed, and multiplied by the values.
   Weights are relative to the largest score so far, as in FlashAttention (Dao et al., 2022), so memory does not grow
   with the square of a text. */

#include <stdlib.h>
#include <string.h>

#include "tiles.h"

enum {
  KEYS = 512,          /* keys of a block */
  ROWS = 128,          /* queries times heads that are multiplied at a time, about: they stay in the cache */
  MOST_PARTS = 8,
  FEW = 4,             /* rows whose sums are held in vectors at least, */
  HELD = 3 * FEW,      /* and at most: in 24 of the 32 */
};

static const float NO_SCORE = -1e30f; /* finite, so that a difference of two is a number */

typedef struct {
  const bfloat16 *start;
  long token, head; /* steps from one to the next, in numbers */
} States;

typedef struct {
  States query, key, value;
  bfloat16 *out;
  const int32_t *query_starts, *key_starts;
  long prefix;          /* tokens in front of all keys that every text sees as its first */
  long heads, shared;   /* of queries, of keys */
  long width, wide;     /* of a head, and rounded up to whole tiles */
  long before, after;   /* how many keys a query sees on either side, -1 is all */
  long columns;         /* of a row of scores */
  float scale;
} Job;

typedef struct {
  void *memory; /* that all of these lie in, NULL where there was none */
  uint32_t *keys, *values;
  bfloat16 *queries, *weights;
  float *scores, *sums, *tops, *totals;
} Room;

/* Which of the 16 numbers from `at` on lie from `from` to before `to`. */
static __mmask16 within(long at, long from, long to) {
  const long first = most(0, from - at), end = least(SIDE, to - at);
  return first >= end ? 0 : (__mmask16)((0xffffu >> (SIDE - end)) & (0xffffu << first));
}

/* sums (rows, columns) = or += left (rows, depth) times right, whose tiles lie one behind the other down each column of
   them; rows are filled up to 32, columns and depth are whole. */
#ifdef __AMX_BF16__
/* Four tiles of sums are held at a time. */
static void multiply(const bfloat16 *left, long left_step, const uint32_t *right, long right_step, float *sums,
                     long sums_step, long rows, long columns, long depth, int add) {
  for (long n = 0; n < columns; n += 2 * SIDE)
    for (long m = 0; m < rows; m += 2 * SIDE) {
      float *upper = sums + m * sums_step + n, *lower = upper + SIDE * sums_step;
      const bfloat16 *a = left + m * left_step;
      const uint32_t *b = right + n / SIDE * right_step, *c = b + right_step;
      const int both = rows - m > SIDE;
      if (add) {
        _tile_loadd(0, upper, sums_step * 4);
        _tile_loadd(1, upper + SIDE, sums_step * 4);
        _tile_loadd(2, lower, sums_step * 4);
        _tile_loadd(3, lower + SIDE, sums_step * 4);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      for (long k = 0; k < depth; k += DEPTH, b += CELLS, c += CELLS) {
        _tile_loadd(4, a + k, left_step * 2);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, c, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
          _tile_loadd(5, a + SIDE * left_step + k, left_step * 2);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, upper, sums_step * 4);
      _tile_stored(1, upper + SIDE, sums_step * 4);
      if (both) {
        _tile_stored(2, lower, sums_step * 4);
        _tile_stored(3, lower + SIDE, sums_step * 4);
      }
    }
}
#else
/* So many rows of two columns of tiles, whose sums are held in vectors. */
static inline __attribute__((always_inline)) void multiply_rows(const bfloat16 *left, long left_step,
                                                                const uint32_t *right, long right_step, float *sums,
                                                                long sums_step, long depth, int add, const int rows) {
  __m512 first[HELD], second[HELD];
  for (int row = 0; row < rows; row++) {
    first[row] = add ? _mm512_loadu_ps(sums + row * sums_step) : _mm512_setzero_ps();
    second[row] = add ? _mm512_loadu_ps(sums + row * sums_step + SIDE) : _mm512_setzero_ps();
  }
  for (long k = 0; k < depth; k += 2, right += SIDE) {
    const __m512bh b = (__m512bh)_mm512_loadu_si512(right), c = (__m512bh)_mm512_loadu_si512(right + right_step);
    for (int row = 0; row < rows; row++) {
      int32_t pair;
      memcpy(&pair, left + row * left_step + k, sizeof pair);
      const __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
      first[row] = _mm512_dpbf16_ps(first[row], a, b);
      second[row] = _mm512_dpbf16_ps(second[row], a, c);
    }
  }
  for (int row = 0; row < rows; row++) {
    _mm512_storeu_ps(sums + row * sums_step, first[row]);
    _mm512_storeu_ps(sums + row * sums_step + SIDE, second[row]);
  }
}

static void multiply(const bfloat16 *left, long left_step, const uint32_t *right, long right_step, float *sums,
                     long sums_step, long rows, long columns, long depth, int add) {
  for (long n = 0; n < columns; n += 2 * SIDE) {
    const uint32_t *b = right + n / SIDE * right_step;
    for (long m = 0, done; m < rows; m += done) {
      const bfloat16 *a = left + m * left_step;
      float *to = sums + m * sums_step + n;
      done = least(HELD, rounded(rows - m, FEW));
      /* a call for each number, so that it knows which vectors it holds */
      if (done == HELD) multiply_rows(a, left_step, b, right_step, to, sums_step, depth, add, HELD);
      else if (done == 2 * FEW) multiply_rows(a, left_step, b, right_step, to, sums_step, depth, add, 2 * FEW);
      else multiply_rows(a, left_step, b, right_step, to, sums_step, depth, add, FEW);
    }
  }
}
#endif

/* Makes weights of a query's scores, 0 outside of `from` to before `to`; returns by what its earlier sums fade. */
static float weigh(const float *scores, bfloat16 *weights, long from, long to, long columns, float scale, float *top,
                   float *total) {
  if (from >= to) {
    memset(weights, 0, columns * sizeof *weights);
    return 1.0f;
  }
  const float before = *top;
  __m512 high = _mm512_set1_ps(NO_SCORE);
  for (long at = from / SIDE * SIDE; at < to; at += SIDE)
    high = _mm512_mask_max_ps(high, within(at, from, to), high, _mm512_loadu_ps(scores + at));
  const float highest = _mm512_reduce_max_ps(high) * scale;
  *top = before > highest ? before : highest;
  const __m512 by = _mm512_set1_ps(scale), off = _mm512_set1_ps(*top);
  __m512 sum = _mm512_setzero_ps();
  for (long at = 0; at < columns; at += SIDE) {
    const __mmask16 seen = within(at, from, to);
    __m512 weight = _mm512_setzero_ps();
    if (seen) weight = _mm512_maskz_mov_ps(seen, power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(scores + at), by, off)));
    sum = _mm512_add_ps(sum, weight);
    _mm256_storeu_si256((__m256i *)(weights + at), (__m256i)_mm512_cvtneps_pbh(weight));
  }
  const float fades = _mm512_cvtss_f32(power_of_two(_mm512_set1_ps(before - *top)));
  *total = *total * fades + _mm512_reduce_add_ps(sum);
  return fades;
}

/* The row of a text's key among all: the prefix stands in front of them once, the text's own keys behind it. */
static long row_of(const Job *job, long own, long key) { return key < job->prefix ? key : own + key; }

/* Keys as the right side of queries times keys: pairs of numbers of 16 keys beside each other. */
static void lay_keys(const Job *job, long head, long own, long keys, uint32_t *to) {
  const bfloat16 *start = job->key.start + head * job->key.head;
  for (long n = 0; n < rounded(keys, DEPTH); n += SIDE) {
    int32_t steps[SIDE];
    for (long lane = 0; lane < SIDE; lane++)
      steps[lane] = (int32_t)(row_of(job, own, least(n + lane, keys - 1)) * (job->key.token / 2));
    const __m512i places = _mm512_loadu_si512(steps);
    for (long k = 0; k < job->wide; k += 2, to += SIDE) {
      const __mmask16 there = k < job->width ? within(n, 0, keys) : 0;
      _mm512_storeu_si512(to, _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, places, start + k, 4));
    }
  }
}

/* Values as the right side of weights times values: pairs of keys, block by block. */
static void lay_values(const Job *job, long head, long own, long keys, uint32_t *to) {
  const bfloat16 *start = job->value.start + head * job->value.head;
  for (long block = 0; block < keys; block += KEYS)
    for (long n = 0; n < job->wide; n += SIDE)
      for (long key = block; key < least(block + KEYS, rounded(keys, DEPTH)); key += 2, to += SIDE) {
        const __mmask16 there = within(n, 0, job->width), first = key < keys ? there : 0;
        const __mmask16 second = key + 1 < keys ? there : 0;
        const bfloat16 *upper = start + row_of(job, own, key) * job->value.token + n;
        const bfloat16 *lower = start + row_of(job, own, key + 1) * job->value.token + n;
        const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, upper));
        const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, lower));
        _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
      }
}

/* Queries of some tokens, the heads of a token one below the other. */
static void lay_queries(const Job *job, const bfloat16 *query, long tokens, long group, bfloat16 *to) {
  for (long token = 0; token < tokens; token++)
    for (long head = 0; head < group; head++, to += job->wide) {
      memcpy(to, query + token * job->query.token + head * job->query.head, job->width * sizeof *to);
      memset(to + job->width, 0, (job->wide - job->width) * sizeof *to);
    }
}

static void scale_row(float *row, long wide, float by) {
  for (long n = 0; n < wide; n += SIDE)
    _mm512_storeu_ps(row + n, _mm512_mul_ps(_mm512_loadu_ps(row + n), _mm512_set1_ps(by)));
}

static void write_row(const float *row, long width, float by, bfloat16 *out) {
  for (long n = 0; n < width; n += SIDE)
    _mm256_mask_storeu_epi16(out + n, within(n, 0, width),
                             (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(row + n), _mm512_set1_ps(by))));
}

/* Attention of some queries of a text, the first of which stands at the text's token `at`, over its laid out keys. */
static void attend_some(const Job *job, const Room *room, long at, long tokens, long keys, long group) {
  const long wide = job->wide, rows = tokens * group, weights = job->columns + DEPTH;
  const long lowest = job->before < 0 ? 0 : most(0, at - job->before);
  const long highest = job->after < 0 ? keys : least(keys, at + tokens + job->after);
  for (long row = 0; row < rows; row++) room->tops[row] = NO_SCORE, room->totals[row] = 0;
  int begun = 0;
  for (long block = lowest / KEYS * KEYS; block < highest; block += KEYS, begun = 1) {
    const long held = rounded(least(KEYS, keys - block), DEPTH), columns = rounded(least(KEYS, highest - block), DEPTH);
    const long tiles = wide / DEPTH * CELLS;
    multiply(room->queries, wide, room->keys + block / SIDE * tiles, tiles, room->scores, job->columns + SIDE, rows,
             columns, wide, 0);
    for (long row = 0; row < rows; row++) {
      const long token = at + row / group - block; /* counted from the block's first key */
      const long from = job->before < 0 ? 0 : most(0, token - job->before);
      const long end = least(KEYS, keys - block), to = job->after < 0 ? end : least(end, token + job->after + 1);
      const float fades = weigh(room->scores + row * (job->columns + SIDE), room->weights + row * weights, from, to,
                                columns, job->scale, room->tops + row, room->totals + row);
      if (begun && fades != 1.0f) scale_row(room->sums + row * wide, wide, fades);
    }
    multiply(room->weights, weights, room->values + block / DEPTH * (wide / SIDE) * CELLS, held / DEPTH * CELLS,
             room->sums, wide, rows, wide, columns, begun);
  }
}

/* Attention of a text's queries of one key head: every `parts`-th lot of them from `part` on. */
static void attend_text(const Job *job, const Room *room, long text, long head, long part, long parts) {
  const long group = job->heads / job->shared, lot = most(1, ROWS / group);
  const long first = job->query_starts[text], queries = job->query_starts[text + 1] - first;
  const long keys = job->key_starts[text + 1] - job->key_starts[text];
  const long own = job->key_starts[text] - text * job->prefix; /* a text's key n is row own + n behind the prefix */
  if (part * lot >= queries) return;
  lay_keys(job, head, own, keys, room->keys);
  lay_values(job, head, own, keys, room->values);
  for (long start = part * lot; start < queries; start += parts * lot) {
    const long tokens = least(lot, queries - start);
    const bfloat16 *query = job->query.start + (first + start) * job->query.token + head * group * job->query.head;
    lay_queries(job, query, tokens, group, room->queries);
    attend_some(job, room, keys - queries + start, tokens, keys, group);
    for (long row = 0; row < tokens * group; row++) {
      const long place = (first + start + row / group) * job->heads + head * group + row % group;
      write_row(room->sums + row * job->wide, job->width, 1.0f / room->totals[row], job->out + place * job->width);
    }
  }
}

static Room make_room(const Job *job, long keys) {
  const long rows = rounded(most(ROWS, job->heads / job->shared), 2 * SIDE);
  const long laid = keys * job->wide / 2 * sizeof(uint32_t), queries = rows * job->wide * sizeof(bfloat16);
  const long weights = rows * (job->columns + DEPTH) * sizeof(bfloat16), figures = rows * sizeof(float);
  const long scores = figures * (job->columns + SIDE), sums = figures * job->wide;
  /* each is a multiple of 64 bytes, since rows, columns and widths are of 32 numbers */
  char *at = aligned_alloc(64, 2 * laid + queries + weights + scores + sums + 2 * figures);
  Room room = {.memory = at};
  if (!at) return room;
  room.keys = (uint32_t *)at;
  room.values = (uint32_t *)(at += laid);
  room.queries = (bfloat16 *)(at += laid);
  room.weights = (bfloat16 *)(at += queries);
  room.scores = (float *)(at += weights);
  room.sums = (float *)(at += scores);
  room.tops = (float *)(at += sums);
  room.totals = (float *)(at += figures);
  return room;
}

/* Fills out (tokens, heads, width); returns 0, or 1 where there was no memory. `steps` are those of query, key and value
   from token to token and from head to head. */
int antiphon_attend(const bfloat16 *query, const bfloat16 *key, const bfloat16 *value, bfloat16 *out, const int64_t steps[6],
                    const int32_t *query_starts, const int32_t *key_starts, int64_t texts, int64_t prefix, int64_t heads,
                    int64_t shared, int64_t width, int64_t before, int64_t after, float scale, int threads) {
  long longest = 1;
  for (long text = 0; text < texts; text++) longest = most(longest, key_starts[text + 1] - key_starts[text]);
  const long keys = rounded(longest, DEPTH);
  const long parts = threads > 1 ? most(1, least(MOST_PARTS, 4 * threads / (texts * shared))) : 1;
  const Job job = {{query, steps[0], steps[1]},
                   {key, steps[2], steps[3]},
                   {value, steps[4], steps[5]},
                   out,
                   query_starts,
                   key_starts,
                   prefix,
                   heads,
                   shared,
                   width,
                   rounded(width, DEPTH),
                   before,
                   after,
                   least(KEYS, keys),
                   scale * LOG2_E};
  int failed = 0;
#pragma omp parallel num_threads(threads)
  {
    const Room room = make_room(&job, keys);
    if (room.memory) {
      open_tiles(SIDE, SIDE);
    } else {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(dynamic) collapse(3)
    for (long text = 0; text < texts; text++)
      for (long head = 0; head < shared; head++)
        for (long part = 0; part < parts; part++)
          if (room.memory) attend_text(&job, &room, text, head, part, parts);
    if (room.memory) close_tiles();
    free(room.memory);
  }
  return failed;
}
