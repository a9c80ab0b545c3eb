/* A byte buffer that grows. Zero-initialised is empty and valid. Always terminated by a 0 that does not count.
 * Out of memory ends the process: neap holds nothing in memory that is not on disk or unacknowledged. */
#ifndef NP_BASE_BUF_H
#define NP_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct np_buf {
  char *data; /* owned; NULL while empty */
  size_t len; /* bytes used */
  size_t cap; /* bytes allocated */
};

void np_buf_free(struct np_buf *b);
void np_buf_clear(struct np_buf *b); /* keeps the memory */
/* Makes room for n more bytes and returns where they go; the caller adds to len what it wrote. */
char *np_buf_reserve(struct np_buf *b, size_t n);
void np_buf_add(struct np_buf *b, const void *bytes, size_t n);
void np_buf_adds(struct np_buf *b, const char *s);
void np_buf_addc(struct np_buf *b, char c);
void np_buf_addf(struct np_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends s as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void np_buf_add_json(struct np_buf *b, const char *s, size_t n);
/* The terminated text, "" while empty. Borrowed from b until it changes. */
const char *np_buf_text(const struct np_buf *b);

/* malloc, realloc and strdup that do not fail. */
void *np_alloc(size_t n); /* zeroed */
void *np_realloc(void *p, size_t n);
char *np_strdup(const char *s);
char *np_strndup(const char *s, size_t n);

#endif
