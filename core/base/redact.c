/* One pass over the text. Where it is no JSON the pass stops, and what was written is taken back. */
#include "base/redact.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define DEPTH_MAX 128
#define NAME_MAX_BYTES 256 /* a longer member's name is no name that is looked for */

struct pass {
  struct np_buf *out;
  const char *at, *end;
  const char *const *names;
  size_t count;
  void (*value)(void *arg, const char *text, size_t len);
  void *arg;
  char *(*mask)(const char *text, size_t len); /* NULL: strings stay as they are */
  struct np_buf path, text;                    /* owned; path: names of the members around, each after a "." */
  int depth, hidden;                           /* hidden: inside so many values that are left out */
};

static void skip_space(struct pass *p) {
  const char *from = p->at;
  while (p->at < p->end && strchr(" \t\r\n", *p->at) && *p->at) p->at++;
  if (!p->hidden) np_buf_add(p->out, from, (size_t)(p->at - from));
}

static int hex4(const char *s, unsigned *c) {
  *c = 0;
  for (int i = 0; i < 4; i++) {
    const char *digits = "0123456789abcdef", *d = s[i] ? strchr(digits, s[i] | (s[i] >= 'A' ? 0x20 : 0)) : NULL;
    if (!d) return -1;
    *c = *c << 4 | (unsigned)(d - digits);
  }
  return 0;
}

static void add_utf8(struct np_buf *b, unsigned c) {
  if (c < 0x80) {
    np_buf_addc(b, (char)c);
  } else if (c < 0x800) {
    np_buf_addc(b, (char)(0xc0 | c >> 6));
    np_buf_addc(b, (char)(0x80 | (c & 63)));
  } else {
    if (c >= 0x10000) np_buf_addc(b, (char)(0xf0 | c >> 18));
    np_buf_addc(b, (char)(c >= 0x10000 ? 0x80 | (c >> 12 & 63) : 0xe0 | c >> 12));
    np_buf_addc(b, (char)(0x80 | (c >> 6 & 63)));
    np_buf_addc(b, (char)(0x80 | (c & 63)));
  }
}

/* What stands behind a backslash at p->at. */
static int escape(struct pass *p) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  if (p->at == p->end) return -1;
  const char *known = *p->at ? strchr(from, *p->at) : NULL;
  if (known) {
    np_buf_addc(&p->text, to[known - from]);
    p->at++;
    return 0;
  }
  unsigned c, low;
  if (*p->at != 'u' || p->end - p->at < 5 || hex4(p->at + 1, &c) < 0) return -1;
  p->at += 5;
  if (c >= 0xd800 && c < 0xdc00 && p->end - p->at >= 6 && p->at[0] == '\\' && p->at[1] == 'u' && hex4(p->at + 2, &low) == 0 &&
      low >= 0xdc00 && low < 0xe000) {
    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    p->at += 6;
  }
  add_utf8(&p->text, c);
  return 0;
}

/* What was unescaped of the string that begins there. */
static void show(struct pass *p, const char *from) {
  char *masked = p->mask ? p->mask(np_buf_text(&p->text), p->text.len) : NULL;
  if (!masked || (strlen(masked) == p->text.len && memcmp(masked, np_buf_text(&p->text), p->text.len) == 0))
    np_buf_add(p->out, from, (size_t)(p->at - from));
  else
    np_buf_add_json(p->out, masked, strlen(masked));
  free(masked);
}

/* A string, unescaped into p->text. */
static int string(struct pass *p) {
  const char *from = p->at;
  np_buf_clear(&p->text);
  if (p->at == p->end || *p->at != '"') return -1;
  for (p->at++; p->at < p->end && *p->at != '"';) {
    const char *c = p->at++;
    if (*c != '\\')
      np_buf_addc(&p->text, *c);
    else if (escape(p) < 0)
      return -1;
  }
  if (p->at == p->end) return -1;
  p->at++;
  if (!p->hidden) show(p, from);
  return 0;
}

static bool is_named(const struct pass *p) {
  for (size_t i = 0; i < p->count; i++) {
    size_t n = strlen(p->names[i]);
    if (n < p->path.len && p->path.data[p->path.len - n - 1] == '.' && memcmp(p->path.data + p->path.len - n, p->names[i], n) == 0)
      return true;
  }
  return false;
}

static int any(struct pass *p);

static int punctuation(struct pass *p, char c) {
  if (p->at == p->end || *p->at != c) return -1;
  p->at++;
  if (!p->hidden) np_buf_addc(p->out, c);
  return 0;
}

static int member(struct pass *p) {
  size_t before = p->path.len;
  if (string(p) < 0) return -1;
  np_buf_addc(&p->path, '.');
  if (p->text.len <= NAME_MAX_BYTES) np_buf_add(&p->path, np_buf_text(&p->text), p->text.len);
  skip_space(p);
  if (punctuation(p, ':') < 0) return -1;
  skip_space(p);
  bool hide = is_named(p);
  if (hide && !p->hidden) np_buf_adds(p->out, "\"***\"");
  p->hidden += hide;
  int failed = any(p);
  p->hidden -= hide;
  p->path.len = before;
  return failed;
}

/* An object's members or a list's elements. */
static int several(struct pass *p, char close, int (*one)(struct pass *p)) {
  if (++p->depth > DEPTH_MAX) return -1;
  punctuation(p, *p->at);
  skip_space(p);
  if (p->at < p->end && *p->at != close) {
    for (;;) {
      skip_space(p);
      if (one(p) < 0) return -1;
      skip_space(p);
      if (p->at == p->end || *p->at != ',') break;
      punctuation(p, ',');
    }
  }
  p->depth--;
  return punctuation(p, close);
}

/* As many libraries write it: JSON in ASCII. */
static void add_ascii_json(struct np_buf *b, const char *s, size_t len) {
  for (size_t i = 0, n; i < len; i += n) {
    n = np_utf8_len(s + i, len - i);
    unsigned c = n > 1 ? (unsigned char)s[i] & (0x7fU >> n) : (unsigned char)s[i];
    for (size_t k = 1; k < n; k++) c = c << 6 | ((unsigned char)s[i + k] & 63);
    if (!n) n = 1;
    if (c == '"' || c == '\\')
      np_buf_addf(b, "\\%c", (char)c);
    else if (c >= 0x10000)
      np_buf_addf(b, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
    else if (c < 0x20 || c > 0x7e)
      np_buf_addf(b, "\\u%04x", c);
    else
      np_buf_addc(b, (char)c);
  }
}

static void add_percent(struct np_buf *b, const char *s, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (isalnum((unsigned char)s[i]) || (s[i] && strchr("-._~", s[i])))
      np_buf_addc(b, s[i]);
    else
      np_buf_addf(b, "%%%02X", (unsigned char)s[i]);
  }
}

/* The string in p->text, and its other spellings: whoever answers with it may have either. */
static void tell(struct pass *p) {
  static void (*const spellings[])(struct np_buf *, const char *, size_t) = {add_ascii_json, add_percent};
  const char *text = np_buf_text(&p->text);
  struct np_buf other = {0};
  p->value(p->arg, text, p->text.len);
  for (int i = 0; i < 2; i++) {
    np_buf_clear(&other);
    spellings[i](&other, text, p->text.len);
    if (other.len != p->text.len) p->value(p->arg, np_buf_text(&other), other.len);
  }
  np_buf_free(&other);
}

static int any(struct pass *p) {
  if (p->at == p->end) return -1;
  if (*p->at == '{') return several(p, '}', member);
  if (*p->at == '[') return several(p, ']', any);
  if (*p->at == '"') {
    int failed = string(p);
    if (!failed && p->hidden && p->value) tell(p);
    return failed;
  }
  const char *from = p->at;
  while (p->at < p->end && *p->at && strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzE", *p->at)) p->at++;
  if (p->at == from) return -1;
  if (!p->hidden) np_buf_add(p->out, from, (size_t)(p->at - from));
  if (p->hidden && p->value && (*from == '-' || (*from >= '0' && *from <= '9'))) p->value(p->arg, from, (size_t)(p->at - from));
  return 0;
}

static void run(struct pass *p) {
  size_t before = p->out->len;
  skip_space(p);
  bool whole = any(p) == 0;
  if (whole) skip_space(p);
  if (!whole || p->at != p->end) {
    p->out->len = before;
    np_buf_adds(p->out, "\"***\"");
  }
  np_buf_free(&p->path);
  np_buf_free(&p->text);
}

void np_redact(struct np_buf *out, const char *json, size_t len, const char *const *names, size_t count,
               void (*value)(void *arg, const char *text, size_t len), void *arg) {
  struct pass p = {.out = out, .at = json, .end = json + len, .names = names, .count = count, .value = value, .arg = arg};
  run(&p);
}

void np_redact_strings(struct np_buf *out, const char *json, size_t len, char *(*mask)(const char *text, size_t len)) {
  struct pass p = {.out = out, .at = json, .end = json + len, .mask = mask};
  run(&p);
}
