/* Memory that is given out piece by piece and freed all at once. Not shared between threads; may be handed over. */
#ifndef NP_BASE_ARENA_H
#define NP_BASE_ARENA_H

#include <stddef.h>

struct np_arena_block;

struct np_arena {
  struct np_arena_block *blocks; /* owned; newest first */
  char *at;                      /* borrowed from blocks: next free byte */
  size_t left;                   /* bytes free at `at` */
  size_t total;                  /* bytes given out, for bounds */
};

void *np_arena_alloc(struct np_arena *a, size_t n);               /* aligned to 8, not zeroed */
char *np_arena_copy(struct np_arena *a, const char *s, size_t n); /* adds a terminating 0 */
void np_arena_free(struct np_arena *a);

#endif
