/* A byte buffer that grows, and allocation that does not fail. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static void die(void) {
  fputs("neap: out of memory\n", stderr);
  abort();
}

void *np_alloc(size_t n) {
  void *p = calloc(1, n ? n : 1);
  if (!p) die();
  return p;
}

void *np_realloc(void *p, size_t n) {
  p = realloc(p, n ? n : 1);
  if (!p) die();
  return p;
}

char *np_strndup(const char *s, size_t n) {
  char *p = np_alloc(n + 1);
  if (n) memcpy(p, s, n);
  return p;
}

char *np_strdup(const char *s) { return np_strndup(s, strlen(s)); }

void np_buf_free(struct np_buf *b) {
  free(b->data);
  *b = (struct np_buf){0};
}

void np_buf_clear(struct np_buf *b) {
  b->len = 0;
  if (b->data) b->data[0] = 0;
}

char *np_buf_reserve(struct np_buf *b, size_t n) {
  if (b->len + n + 1 > b->cap) {
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->len + n + 1) cap *= 2;
    b->data = np_realloc(b->data, cap);
    b->cap = cap;
    b->data[b->len] = 0;
  }
  return b->data + b->len;
}

void np_buf_add(struct np_buf *b, const void *bytes, size_t n) {
  char *to = np_buf_reserve(b, n);
  if (n) memcpy(to, bytes, n);
  b->len += n;
  b->data[b->len] = 0;
}

void np_buf_adds(struct np_buf *b, const char *s) { np_buf_add(b, s, strlen(s)); }

void np_buf_addc(struct np_buf *b, char c) { np_buf_add(b, &c, 1); }

void np_buf_addf(struct np_buf *b, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, format, args);
  if (n > 0) {
    vsnprintf(np_buf_reserve(b, (size_t)n), (size_t)n + 1, format, again);
    b->len += (size_t)n;
  }
  va_end(again);
  va_end(args);
}

void np_buf_add_json(struct np_buf *b, const char *s, size_t n) {
  np_buf_addc(b, '"');
  for (size_t i = 0; i < n;) {
    unsigned char c = (unsigned char)s[i];
    size_t run = i;
    while (run < n && (unsigned char)s[run] >= 0x20 && (unsigned char)s[run] < 0x7f && s[run] != '"' && s[run] != '\\') run++;
    if (run > i) {
      np_buf_add(b, s + i, run - i);
      i = run;
    } else if (c == '"' || c == '\\') {
      np_buf_addc(b, '\\');
      np_buf_addc(b, (char)c);
      i++;
    } else if (c == '\n') {
      np_buf_adds(b, "\\n");
      i++;
    } else if (c == '\t') {
      np_buf_adds(b, "\\t");
      i++;
    } else if (c < 0x20 || c == 0x7f) {
      np_buf_addf(b, "\\u%04x", c);
      i++;
    } else {
      size_t len = np_utf8_len(s + i, n - i);
      if (len)
        np_buf_add(b, s + i, len);
      else
        np_buf_adds(b, "\xef\xbf\xbd");
      i += len ? len : 1;
    }
  }
  np_buf_addc(b, '"');
}

const char *np_buf_text(const struct np_buf *b) { return b->data ? b->data : ""; }
