/* The word that was probably meant: for messages about misspelt names. */
#ifndef NP_BASE_NEAR_H
#define NP_BASE_NEAR_H

#include <stddef.h>

/* Of the count words, the one at most two edits from given (insert, delete, replace, swap), the first of those as near; NULL where
 * none is, or where given is so short that anything would do. */
const char *np_near(const char *given, size_t len, const char *const *words, size_t count);

#endif
