/* Which word was meant by a misspelt one. */
#ifndef NP_BASE_SUGGEST_H
#define NP_BASE_SUGGEST_H

#include <stddef.h>

/* The word nearest to `given`, at most two letters apart or begun by it; NULL where none is. Any thread. */
const char *np_suggest(const char *given, const char *const *words, size_t n);

#endif
