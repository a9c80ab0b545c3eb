/* What went wrong, in a sentence for a person: "what: why". Belongs to the caller, usually on its stack.
 * Below core/lib a function that can fail returns -1 (or NULL) and fills one of these. */
#ifndef NP_BASE_ERROR_H
#define NP_BASE_ERROR_H

struct np_error {
  char text[512]; /* always terminated; cut with "..." where longer */
};

/* Writes a formatted sentence and returns -1, so that `return np_fail(err, ...)` reads well. err may be NULL. */
int np_fail(struct np_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
