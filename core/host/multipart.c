/* A body is cut at its delimiters: CRLF, two hyphens and the boundary. The first one may open the body. */
#include "host/multipart.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define BOUNDARY_MAX 70 /* RFC 2046 5.1.1 */
#define HEAD_MAX 4096   /* bytes of a part's headers */

struct delimiter {
  char text[BOUNDARY_MAX + 8]; /* CRLF -- boundary */
  size_t len;
};

static bool read_delimiter(struct delimiter *d, const char *type) {
  const char *at = strcasestr(type, "boundary=");
  if (!at) return false;
  at += strlen("boundary=");
  bool quoted = *at == '"';
  at += quoted;
  size_t n = strcspn(at, quoted ? "\"" : "; \t");
  if (n == 0 || n > BOUNDARY_MAX) return false;
  d->len = (size_t)snprintf(d->text, sizeof d->text, "\r\n--%.*s", (int)n, at);
  return true;
}

/* The value of name="…" in a part's headers; `name` of filename="…" is none. */
static const char *find_name(const char *head, size_t len, size_t *name_len) {
  static const char wanted[] = "name=\"";
  const char *end = head + len, *at = head;
  while ((at = memmem(at, (size_t)(end - at), wanted, sizeof wanted - 1))) {
    bool own = at > head && (at[-1] == ' ' || at[-1] == ';' || at[-1] == '\t');
    at += sizeof wanted - 1;
    const char *quote = memchr(at, '"', (size_t)(end - at));
    if (!quote) return NULL;
    *name_len = (size_t)(quote - at);
    if (own) return at;
  }
  return NULL;
}

/* One part, from behind its delimiter's line: its field is set, and the next delimiter's place returned; NULL and why. */
static const char *take_part(lua_State *L, const struct delimiter *d, const char *at, const char *end, struct np_error *err) {
  const char *blank = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
  if (!blank || blank - at > HEAD_MAX) return np_fail(err, "a part has no end of its headers"), NULL;
  size_t name_len;
  const char *name = find_name(at, (size_t)(blank - at), &name_len);
  if (!name) return np_fail(err, "a part has no name"), NULL;
  const char *value = blank + 4, *next = memmem(blank + 2, (size_t)(end - blank - 2), d->text, d->len);
  if (!next) return np_fail(err, "a part has no end"), NULL;
  lua_pushlstring(L, name, name_len);
  if (lua_rawget(L, -2) == LUA_TNIL) {
    lua_pushlstring(L, name, name_len);
    lua_pushlstring(L, value, next < value ? 0 : (size_t)(next - value));
    lua_rawset(L, -4);
  }
  lua_pop(L, 1);
  return next;
}

int np_multipart_push(lua_State *L, const char *type, const char *body, size_t len, struct np_error *err) {
  struct delimiter d;
  if (!read_delimiter(&d, type)) return np_fail(err, "not a multipart form: its content type names no boundary");
  const char *end = body + len;
  bool opens = len >= d.len - 2 && memcmp(body, d.text + 2, d.len - 2) == 0;
  const char *at = opens ? body + d.len - 2 : memmem(body, len, d.text, d.len);
  if (!at) return np_fail(err, "not a multipart form: its boundary is not in it");
  if (!opens) at += d.len;
  lua_newtable(L);
  while (end - at < 2 || memcmp(at, "--", 2) != 0) {
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    struct np_error why = {0};
    const char *next = NULL;
    if (end - at < 2 || memcmp(at, "\r\n", 2) != 0)
      np_fail(&why, "more stands on a boundary's line");
    else
      next = take_part(L, &d, at, end, &why); /* the line's end may be the headers' beginning: RFC 2046 lets a part have none */
    if (!next) {
      lua_pop(L, 1);
      return np_fail(err, "not a multipart form: %s", why.text);
    }
    at = next + d.len;
  }
  return 0;
}
