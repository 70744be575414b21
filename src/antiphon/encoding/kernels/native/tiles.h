/* What files that multiply by the processor's tiles of 16 bits (AMX) share. A tile is 16 rows of 64 bytes: 16 float32 or
   16 pairs of bfloat16. Files call the tiles by number, since a compiler wants that. A file that can do without is built
   without: its tiles are then places in the memory alone. */

#include "numbers.h"

enum {
  SIDE = 16,           /* rows of a tile, and float32 of one of its rows */
  DEPTH = 2 * SIDE,    /* bfloat16 of a row: what one product sums over */
  CELLS = SIDE * SIDE, /* 32-bit cells of a tile */
};

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long most(long a, long b) { return a > b ? a : b; }
static inline long rounded(long number, long multiple) { return (number + multiple - 1) / multiple * multiple; }

#ifdef __AMX_BF16__
/* Makes this thread's tiles ready: 16 rows each, but so many in those of the left side and of the sums above (0, 1, 4)
   and below (2, 3, 5). */
static inline void open_tiles(long above, long below) {
  struct {
    uint8_t palette, first_row, reserved[14];
    uint16_t bytes[SIDE];
    uint8_t rows[SIDE];
  } shapes = {.palette = 1};
  for (int tile = 0; tile < 8; tile++) shapes.bytes[tile] = 64, shapes.rows[tile] = SIDE;
  shapes.rows[0] = shapes.rows[1] = shapes.rows[4] = (uint8_t)above;
  shapes.rows[2] = shapes.rows[3] = shapes.rows[5] = (uint8_t)below;
  _tile_loadconfig(&shapes);
}

static inline void close_tiles(void) { _tile_release(); }
#else
static inline void open_tiles(long above, long below) { (void)above, (void)below; }
static inline void close_tiles(void) {}
#endif
