/* Bump allocation: blocks of 2 KB and up. */
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct np_arena_block {
  struct np_arena_block *next;
};

void *np_arena_alloc(struct np_arena *a, size_t n) {
  n = (n + 7) & ~(size_t)7;
  if (n > a->left) {
    size_t room = n > 2032 ? n : 2032;
    struct np_arena_block *block = np_realloc(NULL, sizeof *block + room);
    block->next = a->blocks;
    a->blocks = block;
    a->at = (char *)(block + 1);
    a->left = room;
  }
  void *p = a->at;
  a->at += n;
  a->left -= n;
  a->total += n;
  return p;
}

char *np_arena_copy(struct np_arena *a, const char *s, size_t n) {
  char *p = np_arena_alloc(a, n + 1);
  if (n) memcpy(p, s, n);
  p[n] = 0;
  return p;
}

void np_arena_free(struct np_arena *a) {
  for (struct np_arena_block *b = a->blocks, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  *a = (struct np_arena){0};
}
