/* Tags of devices. */
#include "host/tags.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#define LONGEST 64

int np_tag_check(const char *tag, size_t len, struct np_error *err) {
  bool good = len >= 1 && len <= LONGEST && tag[0] != '+' && tag[0] != '-';
  for (size_t i = 0; good && i < len; i++) {
    unsigned char c = (unsigned char)tag[i];
    good = c > ' ' && c != 0x7f && c != ',' && c != '*';
  }
  if (good) return 0;
  return np_fail(
      err, "a tag is 1 to %d bytes without spaces, commas, control characters or *, and does not begin with + or -; got \"%.*s\"",
      LONGEST, len < 80 ? (int)len : 80, tag);
}

bool np_tags_next(struct np_text tags, size_t *at, struct np_text *tag) {
  if (*at >= tags.len) return false;
  const char *from = tags.ptr + *at, *end = memchr(from, '\n', tags.len - *at);
  *tag = (struct np_text){from, end ? (size_t)(end - from) : tags.len - *at};
  *at += tag->len + 1;
  return true;
}

size_t np_tags_count(struct np_text tags) {
  struct np_text tag;
  size_t n = 0;
  for (size_t at = 0; np_tags_next(tags, &at, &tag);) n++;
  return n;
}

bool np_tags_have(struct np_text tags, const char *tag, size_t len) {
  struct np_text t;
  for (size_t at = 0; np_tags_next(tags, &at, &t);)
    if (t.len == len && memcmp(t.ptr, tag, len) == 0) return true;
  return false;
}

void np_tags_add_json(struct np_buf *b, struct np_text tags) {
  struct np_text tag;
  np_buf_addc(b, '[');
  for (size_t at = 0, n = 0; np_tags_next(tags, &at, &tag); n++) {
    if (n) np_buf_addc(b, ',');
    np_buf_add_json(b, tag.ptr, tag.len);
  }
  np_buf_addc(b, ']');
}

static int compare(const void *a, const void *b) {
  const struct np_text *x = a, *y = b;
  int order = memcmp(x->ptr, y->ptr, x->len < y->len ? x->len : y->len);
  return order ? order : (x->len > y->len) - (x->len < y->len);
}

struct np_text np_tags_field(lua_State *L, struct np_writeset *ws) {
  struct np_text list[NP_TAGS_MOST];
  struct np_error err;
  size_t keys = 0, total = 0, count = 0;
  if (!lua_istable(L, -1)) luaL_error(L, "plugin:device: tags has to be a list of strings, got a %s", luaL_typename(L, -1));
  size_t n = lua_rawlen(L, -1);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) keys++;
  if (n != keys) luaL_error(L, "plugin:device: tags has to be a list of strings, got a table with names in it");
  if (n > NP_TAGS_MOST) luaL_error(L, "plugin:device: tags lists %d, at most %d", (int)n, NP_TAGS_MOST);
  for (size_t i = 0; i < n; i++) {
    if (lua_rawgeti(L, -1, (lua_Integer)i + 1) != LUA_TSTRING)
      luaL_error(L, "plugin:device: tags has to be a list of strings, got a %s in it", luaL_typename(L, -1));
    list[i].ptr = lua_tolstring(L, -1, &list[i].len); /* the table has it still */
    if (np_tag_check(list[i].ptr, list[i].len, &err) < 0) luaL_error(L, "plugin:device: tags: %s", err.text);
    total += list[i].len + 1;
    lua_pop(L, 1);
  }
  qsort(list, n, sizeof *list, compare);
  char *text = np_arena_alloc(&ws->arena, total + 1), *at = text;
  for (size_t i = 0; i < n; i++) {
    if (i && compare(&list[i], &list[i - 1]) == 0) continue;
    if (count++) *at++ = '\n';
    memcpy(at, list[i].ptr, list[i].len);
    at += list[i].len;
  }
  *at = 0;
  return (struct np_text){text, (size_t)(at - text)};
}
