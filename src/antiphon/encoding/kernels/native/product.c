/* Products of bfloat16 by weights that are laid out once, in the processor's tiles (AMX), and of a gated feed-forward
   layer its two products with the swish between them, which then never reach the memory.

   Some tokens at a time, so that their states stay in the cache, are multiplied by two columns of tiles of weights, 32
   tokens at once: four tiles of sums. While they are summed, the 32 tokens before them are finished (bias or swish,
   rounding) and the next weights are fetched. */

#include "tiles.h"

enum {
  ROWS = 2 * SIDE, /* tokens at once */
  CHUNK = 256,     /* tokens whose states stay in the cache; at most 16 blocks of them */
  LINE = 64,       /* bytes */
};

typedef struct {
  const bfloat16 *states, *bias;
  const uint32_t *weight, *other; /* `other` is multiplied by the swish of `weight` times the states; NULL is none */
  bfloat16 *out;
  long rows, depth, outs;
} Job;

/* A block that is summed and is to be finished: its rows from `next` to before `end`. */
typedef struct {
  const float *sums;
  bfloat16 *out;
  const bfloat16 *bias;
  long next, end;
} Block;

typedef struct {
  const uint32_t *weight[2]; /* two columns of tiles */
  const char *next[2];       /* what is to be fetched of the two behind them */
  long lines;                /* of each for a step of a block, so that a chunk fetches them whole */
} Columns;

/* Rounds the next rows of a block and writes them; `step` is from one row of the output to the next, in numbers. */
static inline void finish(Block *block, long rows, long step, int gated) {
  for (const long end = least(block->end, block->next + rows); block->next < end; block->next++) {
    const float *sums = block->sums + block->next * DEPTH;
    bfloat16 *out = block->out + block->next * step;
    __m512 first = _mm512_load_ps(sums), second = _mm512_load_ps(sums + SIDE);
    if (gated) {
      const __m512 product = _mm512_mul_ps(swish(first), second);
      _mm256_storeu_si256((__m256i *)out, (__m256i)_mm512_cvtneps_pbh(product));
      continue;
    }
    if (block->bias) {
      first = _mm512_add_ps(first, widened(block->bias, 0xffff));
      second = _mm512_add_ps(second, widened(block->bias + SIDE, 0xffff));
    }
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(second, first));
  }
}

/* sums (32 x 32) = states times two columns of tiles; beside it `before` is finished. */
static inline void multiply(const Job *job, const bfloat16 *states, Columns *columns, float *sums, Block *before,
                            int gated) {
  const long step = job->depth * sizeof *states, rows = rounded(ROWS * DEPTH, job->depth) / job->depth;
  const uint32_t *left = columns->weight[0], *right = columns->weight[1];
  const int both = job->rows > SIDE;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (long k = 0; k < job->depth; k += DEPTH, left += CELLS, right += CELLS) {
    _tile_loadd(6, left, 64);
    _tile_stream_loadd(4, states + k, step); /* streams, so that the weights are what the nearest cache keeps */
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right, 64);
    _tile_dpbf16ps(1, 4, 7);
    if (both) {
      _tile_stream_loadd(5, states + SIDE * job->depth + k, step);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    for (long line = 0; line < columns->lines; line++)
      for (int side = 0; side < 2; side++)
        _mm_prefetch(columns->next[side], _MM_HINT_T1), columns->next[side] += LINE;
    finish(before, rows, job->outs, gated);
  }
  finish(before, ROWS, job->outs, gated);
  _tile_stored(0, sums, DEPTH * 4);
  _tile_stored(1, sums + SIDE, DEPTH * 4);
  if (both) {
    _tile_stored(2, sums + SIDE * DEPTH, DEPTH * 4);
    _tile_stored(3, sums + SIDE * DEPTH + SIDE, DEPTH * 4);
  }
}

/* Outputs `from` to before `to` of the tokens of a chunk. */
static inline void multiply_chunk(const Job *job, long chunk, long from, long to, int gated) {
  float sums[2][ROWS * DEPTH] __attribute__((aligned(64)));
  const long column = job->depth / DEPTH * CELLS, end = least(job->rows, chunk + CHUNK), wide = gated ? SIDE : DEPTH;
  Block before = {0};
  int turn = 0;
  for (long n = from; n < to; n += wide) {
    const uint32_t *left = job->weight + n / SIDE * column;
    const uint32_t *right = gated ? job->other + n / SIDE * column : left + column;
    const long far = wide / SIDE * column, blocks = rounded(end - chunk, ROWS) / ROWS;
    Columns columns = {{left, right}, {(const char *)(left + far), (const char *)(right + far)}, SIDE / blocks};
    for (long m = chunk; m < end; m += ROWS, turn ^= 1) {
      /* the last block reads tokens of the one before it once more, where it is not whole */
      const long start = job->rows < ROWS ? 0 : least(m, job->rows - ROWS);
      multiply(job, job->states + start * job->depth, &columns, sums[turn], &before, gated);
      before = (Block){sums[turn], job->out + start * job->outs + n, job->bias ? job->bias + n : 0, m - start,
                       least(ROWS, job->rows - start)};
    }
  }
  finish(&before, ROWS, job->outs, gated);
}

/* Lays weights (outs, depth) out as the tiles read them: pairs of numbers of 16 outputs beside each other. */
void antiphon_lay_out(const bfloat16 *weight, uint32_t *to, int64_t outs, int64_t depth) {
  for (long n = 0; n < outs; n += SIDE)
    for (long k = 0; k < depth; k += 2)
      for (long lane = 0; lane < SIDE; lane++) *to++ = *(const uint32_t *)(weight + (n + lane) * depth + k);
}

/* out (rows, outs) = states (rows, depth) times weights; depth and outs are whole blocks of 32. */
void antiphon_multiply(const bfloat16 *states, const uint32_t *weight, const uint32_t *other, const bfloat16 *bias,
                       bfloat16 *out, int64_t rows, int64_t depth, int64_t outs, int threads) {
  const Job job = {states, bias, weight, other, out, rows, depth, outs};
  if (!rows) return; /* tiles of no rows are a fault */
  const long chunks = rounded(rows, CHUNK) / CHUNK;
  const long parts = threads > 1 ? 4 * threads : chunks; /* of all the work, of whole chunks or of a chunk's outputs */
  const long share = rounded(most(1, outs * chunks / parts), DEPTH);
#pragma omp parallel num_threads(threads)
  {
    open_tiles(rows < SIDE ? rows : SIDE, rows > SIDE && rows < ROWS ? rows - SIDE : SIDE);
#pragma omp for schedule(dynamic) collapse(2)
    for (long chunk = 0; chunk < rows; chunk += CHUNK)
      for (long from = 0; from < outs; from += share) {
        const long to = least(outs, from + share);
        /* two calls, so that neither asks at every row which it is */
        if (other) multiply_chunk(&job, chunk, from, to, 1);
        else multiply_chunk(&job, chunk, from, to, 0);
      }
    close_tiles();
  }
}
