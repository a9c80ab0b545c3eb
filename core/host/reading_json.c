/* A reading from a line of NDJSON. */
#include <stdlib.h>
#include <string.h>

#include "host/reading_parts.h"
#include "lib/json_sieve.h"

/* The sieve has found it well-formed: what follows only cuts it up. */

static void skip_space(const char **at, const char *end) {
  while (*at < end && (**at == ' ' || **at == '\t' || **at == '\n' || **at == '\r')) ++*at;
}

static void skip_string(const char **at) {
  for (++*at; **at != '"'; ++*at)
    if (**at == '\\') ++*at;
  ++*at;
}

static void skip_table(const char **at) {
  int depth = 0;
  do {
    if (**at == '"') {
      skip_string(at);
      continue;
    }
    if (**at == '{' || **at == '[') depth++;
    if (**at == '}' || **at == ']') depth--;
    ++*at;
  } while (depth);
}

struct np_cell np_json_cell(const char *text, const char **at, const char *end) {
  skip_space(at, end);
  struct np_cell c = {.ptr = *at, .at = (size_t)(*at - text)};
  switch (**at) {
  case '"':
    skip_string(at);
    c.kind = NP_CELL_STRING, c.ptr++, c.len = (size_t)(*at - c.ptr) - 1;
    return c;
  case '{':
  case '[': c.kind = NP_CELL_TABLE, skip_table(at); break;
  case 't': c.kind = NP_CELL_TRUE, *at += 4; break;
  case 'f': c.kind = NP_CELL_FALSE, *at += 5; break;
  case 'n': c.kind = NP_CELL_NULL, *at += 4; break;
  default:
    c.kind = NP_CELL_NUMBER;
    while (*at < end && strchr("+-.0123456789eE", **at) && **at) ++*at;
  }
  c.len = (size_t)(*at - c.ptr);
  return c;
}

static unsigned unit_at(const char *s) {
  unsigned u = 0;
  for (int i = 0; i < 4; i++) {
    unsigned c = (unsigned char)s[i];
    u = u << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return u;
}

static void add_utf8(struct np_buf *out, unsigned c) {
  if (c < 0x80) {
    np_buf_addc(out, (char)c);
  } else if (c < 0x800) {
    np_buf_addc(out, (char)(0xc0 | c >> 6));
  } else if (c < 0x10000) {
    np_buf_addc(out, (char)(0xe0 | c >> 12));
    np_buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
  } else {
    np_buf_addc(out, (char)(0xf0 | c >> 18));
    np_buf_addc(out, (char)(0x80 | (c >> 12 & 0x3f)));
    np_buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
  }
  if (c >= 0x80) np_buf_addc(out, (char)(0x80 | (c & 0x3f)));
}

void np_json_unescape(struct np_buf *out, const char *s, size_t len) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  for (const char *end = s + len; s < end; s++) {
    if (*s != '\\') {
      np_buf_addc(out, *s);
      continue;
    }
    s++;
    if (*s != 'u') {
      np_buf_addc(out, to[strchr(from, *s) - from]);
      continue;
    }
    unsigned c = unit_at(s + 1);
    s += 4;
    if (c >= 0xd800 && c < 0xdc00) { /* the other half follows */
      c = 0x10000 + ((c & 0x3ff) << 10) + (unit_at(s + 3) & 0x3ff);
      s += 6;
    }
    add_utf8(out, c);
  }
}

static int take_member(struct np_draft *d, const char *text, const char **at, const char *end, struct np_error *err) {
  struct np_cell name = np_json_cell(text, at, end);
  struct np_buf plain = {0};
  np_json_unescape(&plain, name.ptr, name.len);
  *d->fault = (struct np_reading_fault){.at = name.at};
  enum np_reading_field field = np_reading_field(np_buf_text(&plain), plain.len, false, err);
  np_buf_free(&plain);
  if (field == NP_FIELDS) return -1;
  skip_space(at, end);
  ++*at; /* the colon */
  struct np_cell value = np_json_cell(text, at, end);
  return np_draft_take(d, field, &value, err);
}

/* "not JSON: why at byte 12 (line 1)": the line is the sieve's own. */
static int not_json(struct np_draft *d, struct np_error *err) {
  static const char words[] = " at byte ";
  char *place = strstr(err->text, words);
  if (!place) return -1;
  d->fault->at = strtoul(place + sizeof words - 1, NULL, 10) - 1;
  *place = 0;
  return -1;
}

static int take_members(struct np_draft *d, const char *line, size_t len, struct np_error *err) {
  const char *at = line, *end = line + len;
  struct np_buf out = {0};
  struct np_json_sieve sieve = {.out = &out};
  int result = np_json_sieve(&sieve, line, len, err);
  np_buf_free(&out);
  if (result < 0) return not_json(d, err);
  skip_space(&at, end);
  if (*at != '{') return np_fail(err, "expected a JSON object");
  for (skip_space((at++, &at), end); *at != '}'; skip_space(&at, end)) {
    if (*at == ',') at++;
    if (take_member(d, line, &at, end, err) < 0) return -1;
  }
  return np_draft_end(d, err);
}

int np_reading_read_json(const char *line, size_t len, const struct np_reading_source *from, struct np_writeset *ws,
                         struct np_reading *r, struct np_reading_fault *fault, struct np_error *err) {
  struct np_draft d = {.from = from, .ws = ws, .r = r, .fault = fault};
  np_draft_begin(&d);
  int result = take_members(&d, line, len, err);
  np_draft_free(&d);
  return result;
}
