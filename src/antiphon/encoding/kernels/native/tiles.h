/* What files that multiply by the processor's tiles of 16 bits (AMX) share. A tile is 16 rows of 64 bytes: 16 float32 or
   16 pairs of bfloat16. Files call the tiles by number, since a compiler wants that. */

#include <sys/syscall.h>
#include <unistd.h>

#include "numbers.h"

enum {
  SIDE = 16,           /* rows of a tile, and float32 of one of its rows */
  DEPTH = 2 * SIDE,    /* bfloat16 of a row: what one product sums over */
  CELLS = SIDE * SIDE, /* 32-bit cells of a tile */
};

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long most(long a, long b) { return a > b ? a : b; }
static inline long rounded(long number, long multiple) { return (number + multiple - 1) / multiple * multiple; }

/* Whether Linux lets this process use the tiles; it has to be asked once. */
int antiphon_tiles_permitted(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

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
