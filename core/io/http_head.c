/* Reading a request's head. */
#include "io/http_head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* RFC 9110 5.6.2: tchar */
static bool is_tchar(unsigned char c) {
  static const bool yes[256] = {
      ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1,         ['+'] = 1,         ['-'] = 1,
      ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,  ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
  };
  return yes[c];
}

bool np_http_is_token(const char *s) {
  if (!*s) return false;
  while (is_tchar((unsigned char)*s)) s++;
  return !*s;
}

int np_http_head_find(const char *s, size_t n, size_t max, size_t *scanned, size_t *len) {
  if (!n) return 0;
  if (!is_tchar((unsigned char)s[0]) && s[0] != '\r') return 400; /* e.g. TLS, at once rather than at the deadline */
  size_t bound = n < max ? n : max;
  const char *lf;
  for (size_t i = *scanned; i < bound && (lf = memchr(s + i, '\n', bound - i)); i = (size_t)(lf - s) + 1) {
    size_t at = (size_t)(lf - s);
    if (at == 0 || s[at - 1] != '\r') return 400; /* a bare LF */
    if (at >= 3 && s[at - 2] == '\n') {
      *len = at + 1;
      return 1;
    }
  }
  *scanned = bound;
  if (n < max) return 0;
  size_t blank = n >= 2 && s[0] == '\r' && s[1] == '\n' ? 2 : 0;
  return blank < max && memchr(s + blank, '\n', max - blank) ? 431 : 414;
}

static int refuse(int status, const char *sentence, const char **why) {
  *why = sentence;
  return status;
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Decodes from[0..n) into to, which has room for n + 1. False where a % is not followed by two digits or hides a 0. */
static bool decode(char *to, const char *from, size_t n, size_t *len) {
  char *at = to;
  for (size_t i = 0; i < n; i++) {
    char c = from[i];
    if (c == '%') {
      int high = i + 2 < n ? hex(from[i + 1]) : -1, low = i + 2 < n ? hex(from[i + 2]) : -1;
      if (high < 0 || low < 0 || !(high | low)) return false;
      c = (char)(high << 4 | low);
      i += 2;
    }
    *at++ = c;
  }
  *at = 0;
  *len = (size_t)(at - to);
  return true;
}

/* The part of a target that is a path: all of "/a", what follows the authority of "http://host/a". NULL where there is none. */
static const char *path_of(const char *target, const char *method) {
  if (target[0] == '/') return target;
  if (strcmp(target, "*") == 0) return strcmp(method, "OPTIONS") == 0 ? target : NULL;
  size_t scheme = strncasecmp(target, "http://", 7) == 0 ? 7 : strncasecmp(target, "https://", 8) == 0 ? 8 : 0;
  if (!scheme) return NULL;
  const char *authority = target + scheme, *path = authority + strcspn(authority, "/?");
  return path == authority ? NULL : path;
}

/* Fills path and query; room has space for the target's length and 2 more. */
static int read_target(struct np_http_head *h, char *room, const char **why) {
  for (const unsigned char *p = (const unsigned char *)h->target; *p; p++)
    if (*p <= 0x20 || *p == 0x7f || *p == '#') return refuse(400, "the target holds a character that has to be encoded", why);
  const char *path = path_of(h->target, h->method);
  if (!path) return refuse(400, "the target is not a path", why);
  size_t n = strcspn(path, "?");
  h->query = path[n] ? path + n + 1 : path + n;
  if (n == 0) { /* http://host and http://host?query */
    path = "/";
    n = 1;
  }
  if (!decode(room, path, n, &h->path_len)) return refuse(400, "the path does not decode", why);
  h->path = room;
  return 0;
}

static bool is_version(const char *s) {
  return strncmp(s, "HTTP/", 5) == 0 && s[5] >= '0' && s[5] <= '9' && s[6] == '.' && s[7] >= '0' && s[7] <= '9' && !s[8];
}

/* line is terminated, its CRLF gone. */
static int read_request_line(struct np_http_head *h, char *line, size_t len, char *room, const char **why) {
  if (memchr(line, 0, len)) return refuse(400, "the request line holds a 0 byte", why);
  char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;
  if (!version) return refuse(400, "the request line is not a method, a target and a version", why);
  *target++ = 0;
  *version++ = 0;
  if (!np_http_is_token(line)) return refuse(400, "the method is not a token", why);
  if (!is_version(version)) return refuse(400, "the version is malformed", why);
  if (strncmp(version, "HTTP/1.", 7) != 0 || version[7] > '1')
    return refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here", why);
  h->minor = version[7] - '0';
  h->method = line;
  h->target = target;
  return read_target(h, room, why);
}

static int read_length(struct np_http_head *h, const char *value, const char **why) {
  if (h->length >= 0) return refuse(400, "Content-Length is given twice", why);
  size_t digits = strspn(value, "0123456789");
  if (!digits || value[digits] || digits > 18) return refuse(400, "Content-Length is not a number", why);
  h->length = strtoll(value, NULL, 10);
  return 0;
}

static int read_transfer(struct np_http_head *h, const char *value, const char **why) {
  if (h->chunked) return refuse(400, "Transfer-Encoding is given twice", why);
  if (strcasecmp(value, "chunked") != 0) return refuse(501, "the only Transfer-Encoding known here is chunked", why);
  h->chunked = true;
  return 0;
}

static int read_expect(struct np_http_head *h, const char *value, const char **why) {
  if (strcasecmp(value, "100-continue") != 0) return refuse(417, "the only Expect known here is 100-continue", why);
  h->expects = h->minor == 1;
  return 0;
}

static int read_host(struct np_http_head *h, const char *value, const char **why) {
  if (h->hosts++) return refuse(400, "Host is given twice", why);
  if (value[strcspn(value, " \t,/?#@\\\"<>")]) return refuse(400, "Host is malformed", why);
  return 0;
}

/* A list of options, that may be spread over several fields. */
static void read_connection(struct np_http_head *h, const char *value) {
  while (*value) {
    value += strspn(value, " \t,");
    size_t n = strcspn(value, " \t,");
    if (n == 5 && strncasecmp(value, "close", 5) == 0) h->asks_close = true;
    if (n == 10 && strncasecmp(value, "keep-alive", 10) == 0) h->asks_keep = true;
    value += n;
  }
}

static void read_coding(struct np_http_head *h, const char *value) {
  if (strcasecmp(value, "identity") == 0 || !*value) return;
  bool gzip = strcasecmp(value, "gzip") == 0 || strcasecmp(value, "x-gzip") == 0;
  h->coding = gzip && h->coding == NP_CODING_IDENTITY ? NP_CODING_GZIP : NP_CODING_OTHER;
}

/* The fields that decide about the message itself. */
static int understand(struct np_http_head *h, const struct np_header *f, size_t name_len, const char **why) {
  switch (name_len) {
  case 4: return strcasecmp(f->name, "Host") == 0 ? read_host(h, f->value, why) : 0;
  case 6: return strcasecmp(f->name, "Expect") == 0 ? read_expect(h, f->value, why) : 0;
  case 10:
    if (strcasecmp(f->name, "Connection") == 0) read_connection(h, f->value);
    return 0;
  case 14: return strcasecmp(f->name, "Content-Length") == 0 ? read_length(h, f->value, why) : 0;
  case 16:
    if (strcasecmp(f->name, "Content-Encoding") == 0) read_coding(h, f->value);
    return 0;
  case 17: return strcasecmp(f->name, "Transfer-Encoding") == 0 ? read_transfer(h, f->value, why) : 0;
  default: return 0;
  }
}

static void add_header(struct np_http_head *h, const char *name, const char *value) {
  if (h->header_count == h->header_cap) {
    h->header_cap = h->header_cap ? h->header_cap * 2 : 16;
    h->headers = np_realloc(h->headers, h->header_cap * sizeof *h->headers);
  }
  h->headers[h->header_count++] = (struct np_header){name, value};
}

/* line is line[0..len), its CRLF gone; terminated at len. */
static int read_field(struct np_http_head *h, char *line, size_t len, const char **why) {
  size_t n = 0;
  while (n < len && is_tchar((unsigned char)line[n])) n++;
  if (line[0] == ' ' || line[0] == '\t') return refuse(400, "a header is folded over lines", why);
  if (!n || line[n] != ':') return refuse(400, "a header has no name, or something between its name and the colon", why);
  line[n] = 0;
  char *value = line + n + 1, *end = line + len;
  while (value < end && (*value == ' ' || *value == '\t')) value++;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
  *end = 0;
  unsigned bad = 0;
  for (const unsigned char *p = (const unsigned char *)value; p < (const unsigned char *)end; p++)
    bad |= (*p < 0x20 && *p != '\t') | (*p == 0x7f);
  if (bad) return refuse(400, "a header holds a control character", why);
  add_header(h, line, value);
  return understand(h, &h->headers[h->header_count - 1], n, why);
}

static int conclude(struct np_http_head *h, const char **why) {
  h->keep_alive = !h->asks_close && (h->minor == 1 || h->asks_keep);
  if (h->minor == 1 && !h->hosts) return refuse(400, "Host is missing", why);
  if (h->chunked && h->length >= 0) return refuse(400, "both Content-Length and Transfer-Encoding are given", why);
  if (h->chunked && h->minor == 0) return refuse(400, "HTTP/1.0 knows no Transfer-Encoding", why);
  return 0;
}

int np_http_head_read(struct np_http_head *h, const char *s, size_t len, size_t header_max, const char **why) {
  *h = (struct np_http_head){.text = h->text, .headers = h->headers, .header_cap = h->header_cap, .length = -1};
  if (len >= 2 && s[0] == '\r' && s[1] == '\n') s += 2, len -= 2;
  np_buf_clear(&h->text);
  np_buf_reserve(&h->text, 2 * len + 2); /* once, for pointers into it are kept: the head, then the decoded path */
  np_buf_add(&h->text, s, len);
  char *line = h->text.data, *end = line + len, *room = end + 1;
  for (bool first = true; line < end; first = false) {
    char *lf = memchr(line, '\n', (size_t)(end - line));
    if (!lf || lf == line || lf[-1] != '\r') return refuse(400, "a line does not end in CR LF", why);
    size_t n = (size_t)(lf - 1 - line);
    line[n] = 0;
    int status = 0;
    if (first)
      status = read_request_line(h, line, n, room, why);
    else if (n == 0)
      break;
    else if (h->header_count == header_max)
      return refuse(431, "there are too many headers", why);
    else
      status = read_field(h, line, n, why);
    if (status) return status;
    line = lf + 1;
  }
  return conclude(h, why);
}

void np_http_head_free(struct np_http_head *h) {
  np_buf_free(&h->text);
  free(h->headers);
  *h = (struct np_http_head){0};
}
