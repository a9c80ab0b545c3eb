/* A command's call on the command line. */
#include "host/client_call.h"

#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>

#include "lib/json.h"

struct building {
  struct np_buf *request;
  const char *const *words;
  size_t n;
  const char *args;
  struct np_error *err;
  int status;
};

static int fail(struct building *b, const char *format, const char *what) {
  b->status = np_fail(b->err, format, what);
  return 0;
}

static void add_object(lua_State *L, struct building *b, const char *field) {
  if (np_json_encode(L, -1, b->err) < 0) {
    b->status = -1;
    return;
  }
  np_buf_addf(b->request, ",\"%s\":", field);
  np_buf_adds(b->request, lua_tostring(L, -1));
  lua_pop(L, 1);
}

/* Protected. */
static int build(lua_State *L) {
  struct building *b = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (b->args) {
    struct np_error why;
    if (np_json_decode(L, b->args, strlen(b->args), &why) < 0) return fail(b, "--args: %s", why.text);
    if (lua_type(L, 1) != LUA_TTABLE || np_json_is_array(L, 1)) return fail(b, "--args: expected a JSON object, got %s", b->args);
    add_object(L, b, "args");
  } else {
    lua_newtable(L);
  }
  lua_newtable(L);
  for (size_t i = 0; i < b->n; i++) {
    const char *word = b->words[i], *equals = strchr(word, '=');
    if (!equals || equals == word) return fail(b, "\"%s\": expected name=value", word);
    lua_pushlstring(L, word, (size_t)(equals - word));
    const char *name = lua_tostring(L, 3);
    if (lua_getfield(L, 1, name) != LUA_TNIL || lua_getfield(L, 2, name) != LUA_TNIL) return fail(b, "%s: given twice", name);
    lua_settop(L, 3);
    lua_pushstring(L, equals + 1);
    lua_rawset(L, 2);
  }
  if (b->n) add_object(L, b, "words");
  return 0;
}

int np_call_request(struct np_buf *request, const char *connection, const char *name, const char *const *words, size_t n,
                    const char *args, struct np_error *err) {
  struct building b = {.request = request, .words = words, .n = n, .args = args, .err = err};
  np_buf_adds(request, "{\"command\":\"call\",\"connection\":");
  np_buf_add_json(request, connection, strlen(connection));
  if (name) {
    np_buf_adds(request, ",\"name\":");
    np_buf_add_json(request, name, strlen(name));
  }
  lua_State *L = luaL_newstate();
  if (!L) return np_fail(err, "out of memory");
  lua_pushcfunction(L, build);
  lua_pushlightuserdata(L, &b);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) b.status = np_fail(err, "%s", lua_tostring(L, -1));
  lua_close(L);
  np_buf_addc(request, '}');
  return b.status;
}

/* Bytes of the string at s, its quotes included, copied; DEL and C1 controls (U+0080 to U+009F) are escaped. */
static size_t add_string(struct np_buf *out, const char *s, size_t len) {
  size_t i = 1;
  np_buf_addc(out, '"');
  for (; i < len && s[i] != '"'; i++) {
    unsigned char c = (unsigned char)s[i], next = i + 1 < len ? (unsigned char)s[i + 1] : 0;
    if (c == 0x7f) {
      np_buf_adds(out, "\\u007f");
    } else if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
      np_buf_addf(out, "\\u%04x", next);
      i++;
    } else {
      np_buf_addc(out, s[i]);
      if (c == '\\' && i + 1 < len) np_buf_addc(out, s[++i]);
    }
  }
  np_buf_addc(out, '"');
  return i + 1;
}

static void new_line(struct np_buf *out, int depth) { np_buf_addf(out, "\n%*s", depth * 2, ""); }

void np_call_pretty(struct np_buf *out, const char *json, size_t len) {
  int depth = 0;
  for (size_t i = 0; i < len;) {
    char c = json[i], next = i + 1 < len ? json[i + 1] : 0;
    i += c == '"' ? add_string(out, json + i, len - i) : 1;
    if (c != '"') np_buf_addc(out, c);
    if ((c == '{' && next == '}') || (c == '[' && next == ']')) {
      np_buf_addc(out, next);
      i++;
    } else if (c == '{' || c == '[') {
      new_line(out, ++depth);
    } else if (c == ',') {
      new_line(out, depth);
    } else if (c == ':') {
      np_buf_addc(out, ' ');
    }
    if (i < len && (json[i] == '}' || json[i] == ']')) new_line(out, --depth);
  }
}
