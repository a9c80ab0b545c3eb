/* neap.http: HTTP out. http.get, post, put, patch, delete, head { url =, … }, or request { method =, … }; http.get "https://…" for short.
 * A call looks as if it blocked, while the lane does other work. It returns res = { status, headers (names in lower case), body, url, json (decoded
 * when asked for) }, or nil, "what: why", and a code: timeout, resolve, connect, tls, cut, too_large, redirect, near, bad_url, status, limit, other.
 * Only hosts that the plugin's settings name can be reached. Options: url; query, headers, form (tables); body (a string) or json (a value);
 * timeout (seconds or "10s", 30 s where absent); expect (a status or a list: any other is a failure); redirects (how many to follow, none
 * where absent); answer_max (bytes or "16MiB"); basic = { user, password }; bearer; gzip = true (the body goes out gzipped).
 * Mutual TLS: cert and key (the client's, as PEM texts; the key unencrypted, by itself or in cert), ca (PEM: who is trusted, and nobody else is).
 * Such texts come from settings of the type secret, for which neap.lua says file "PATH".
 */
/* The coroutine yields, the lane goes on, fetch's answer wakes it.
 *
 * A call is a full userdata: it is made closed, then acquires buffers and a request of fetch's; closing it, by __close when its
 * coroutine ends in whatever way or by __gc when the whole state does, gives both back. Fetch's callback only stores and wakes. */
#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "lib/env.h"
#include "lib/http_asked.h"
#include "lib/json.h"
#include "lib/outgoing.h"

int luaopen_neap_http(lua_State *L);

#define CALL "neap.http.call"
#define ANSWER "neap.http.answer"
#define HEADERS_MOST 500 /* lines of an answer's head that are shown */

struct call {
  struct np_outgoing out;
  struct np_http_asked asked;
  struct np_http_place place;
  struct np_fetch_call *fetch; /* under way; NULL before and after */
  bool answered;
  int status;
  char code[16];     /* "" where there was an answer */
  struct np_buf why; /* owned: what fetch answered */
  struct np_buf url, headers, body;
};

static int close_call(lua_State *L) {
  struct call *c = luaL_checkudata(L, 1, CALL);
  if (c->fetch) np_fetch_cancel(c->fetch);
  c->fetch = NULL;
  np_outgoing_end(&c->out);
  np_http_asked_free(&c->asked);
  np_buf_free(&c->why);
  np_buf_free(&c->url);
  np_buf_free(&c->headers);
  np_buf_free(&c->body);
  return 0;
}

static void on_answer(void *arg, const struct np_fetch_answer *a) {
  struct call *c = arg;
  c->fetch = NULL;
  c->answered = true;
  c->status = a->status;
  if (a->code) {
    np_buf_adds(&c->why, a->why);
    strncpy(c->code, a->code, sizeof c->code - 1);
  }
  np_buf_adds(&c->url, a->url);
  np_buf_adds(&c->headers, a->headers);
  np_buf_add(&c->body, a->body, a->body_len);
  c->out.env->wake(c->out.ticket);
}

static bool may_redirect(void *arg, const char *url) {
  struct call *c = arg;
  return c->out.env->may_reach(c->out.env, url);
}

/* The answer */

/* Repeated headers are joined as RFC 9110 5.3 allows; set-cookie, which it does not, is a list. */
static void add_header(lua_State *L, const char *name, size_t name_len, const char *value, size_t len) {
  bool cookie = name_len == 10 && memcmp(name, "set-cookie", 10) == 0;
  lua_pushlstring(L, name, name_len);
  lua_pushvalue(L, -1);
  bool known = lua_rawget(L, -3) != LUA_TNIL; /* headers, name, what stands there */
  if (cookie) {
    if (!known) {
      lua_pop(L, 1);
      lua_newtable(L);
    }
    lua_pushlstring(L, value, len);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  } else if (known) {
    lua_pushliteral(L, ", ");
    lua_pushlstring(L, value, len);
    lua_concat(L, 3);
  } else {
    lua_pop(L, 1);
    lua_pushlstring(L, value, len);
  }
  lua_rawset(L, -3);
}

static void push_headers(lua_State *L, const char *line) {
  lua_newtable(L);
  for (int n = 0; *line && n < HEADERS_MOST; n++) {
    size_t len = strcspn(line, "\n"), name = strcspn(line, ":");
    if (name < len) {
      size_t value = name + 1 + (line[name + 1] == ' ');
      add_header(L, line, name, line + value, len > value ? len - value : 0);
    }
    line += len + (line[len] == '\n');
  }
}

/* @class neap.Response: the answer to a request.
 * @field status integer
 * @field url string of the last request, where redirects were followed
 * @field headers table<string, string> names in lower case
 * @field body string
 * @field json? any the body, decoded; nil where it is not JSON
 */
static void push_answer(lua_State *L, struct call *c) {
  lua_createtable(L, 0, 5);
  luaL_setmetatable(L, ANSWER);
  lua_pushinteger(L, c->status);
  lua_setfield(L, -2, "status");
  lua_pushlstring(L, np_buf_text(&c->url), c->url.len);
  lua_setfield(L, -2, "url");
  push_headers(L, np_buf_text(&c->headers));
  lua_setfield(L, -2, "headers");
  lua_pushlstring(L, np_buf_text(&c->body), c->body.len);
  np_buf_free(&c->body); /* it may be large, and the handler may go on for long */
  lua_setfield(L, -2, "body");
}

/* res.json: decoded when it is first asked for; nil where the body is not JSON. */
static int answer_index(lua_State *L) {
  size_t len;
  struct np_error err;
  lua_settop(L, 2);
  if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "json") != 0) return 0;
  lua_pushliteral(L, "body");
  if (!lua_istable(L, 1) || lua_rawget(L, 1) != LUA_TSTRING) return 0;
  const char *body = lua_tolstring(L, 3, &len);
  if (np_json_decode(L, body, len, &err)) return 0;
  lua_pushvalue(L, -1);
  lua_setfield(L, 1, "json");
  return 1;
}

static int failed(lua_State *L, struct call *c, const char *why, const char *code) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s %s: %s", c->asked.method, c->place.shown, why);
  lua_pushstring(L, code);
  return 3;
}

/* The start of a body, in one line. */
static void push_excerpt(lua_State *L, const char *body, size_t len) {
  luaL_Buffer b;
  size_t most = len > 200 ? 200 : len, n;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < most; i += n) {
    n = np_utf8_len(body + i, len - i);
    if (i + n > most) break;
    if (n == 0 || (unsigned char)body[i] < 0x20 || body[i] == 0x7f) {
      luaL_addchar(&b, n ? ' ' : '?');
      n = 1;
    } else {
      luaL_addlstring(&b, body + i, n);
    }
  }
  luaL_pushresult(&b);
}

static bool is_expected(const struct np_http_asked *a, int status) {
  if (!a->expect_count) return true;
  for (size_t i = 0; i < a->expect_count; i++)
    if (a->expect[i] == status) return true;
  return false;
}

static int answered(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct call *c = (struct call *)context;
  if (!c->answered) return luaL_error(L, "http: woken before the answer came");
  if (c->out.env->got) c->out.env->got(c->out.env, c->status, np_buf_text(&c->headers));
  if (*c->code) return failed(L, c, np_buf_text(&c->why), c->code);
  if (is_expected(&c->asked, c->status)) {
    push_answer(L, c);
    return 1;
  }
  lua_pushfstring(L, "answered %d", c->status);
  if (c->body.len) {
    lua_pushliteral(L, ": ");
    push_excerpt(L, c->body.data, c->body.len);
    lua_concat(L, 3);
  }
  failed(L, c, lua_tostring(L, -1), "status");
  push_answer(L, c);
  return 4;
}

/* The call */

static void start(lua_State *L, struct call *c, double timeout) {
  const struct np_http_asked *a = &c->asked;
  const char **lines = lua_newuserdatauv(L, (a->header_count + 1) * sizeof *lines, 0), *line = np_buf_text(&a->headers);
  for (size_t i = 0; i < a->header_count; i++, line += strlen(line) + 1) lines[i] = line;
  struct np_fetch_request r = {.method = a->method,
                               .url = np_buf_text(&a->url),
                               .headers = lines,
                               .header_count = a->header_count,
                               .body = a->body,
                               .body_len = a->body_len,
                               .gzip = a->gzip,
                               .cert = a->cert,
                               .key = a->key,
                               .ca = a->ca,
                               .timeout = timeout,
                               .answer_max = a->answer_max,
                               .redirects = a->redirects,
                               .may_redirect = may_redirect};
  struct np_error err;
  c->fetch = np_fetch_start(c->out.env->fetch, &r, on_answer, c, &err);
  if (!c->fetch) luaL_error(L, "http: %s", err.text);
  if (c->out.env->asks) c->out.env->asks(c->out.env, &r);
}

/* Its turn has come, or nobody's has ended in time. */
static int set_out(lua_State *L, struct call *c) {
  double seconds;
  const char *code = np_outgoing_seconds(L, &c->out, &seconds);
  if (code) return failed(L, c, lua_tostring(L, -1), code);
  start(L, c, seconds);
  np_http_asked_free(&c->asked);
  lua_settop(L, 2);
  lua_pushnil(L);
  lua_replace(L, 1); /* the options may be garbage now */
  return np_outgoing_wait(L, &c->out, (lua_KContext)c, answered);
}

static int after_turn(lua_State *L, int status, lua_KContext context) {
  (void)status;
  return set_out(L, (struct call *)context);
}

/* Upvalue: the method, nil where it is an option. Stack: options, call, and then only what is needed until the start. */
/* http.get(options), http.post, http.put, http.patch, http.delete, http.head, http.request: asks, and waits for the answer.
 * @param options neap.HttpOptions|string or the URL alone
 * @return neap.Response? res, string? why, string? code, neap.Response? answer
 */
static int request(lua_State *L) {
  struct np_env *env = np_env(L);
  if (lua_gettop(L) > 1) luaL_error(L, "http: expected one table of options; the URL is its field url");
  lua_settop(L, 1);
  np_env_may_wait(L, env, "http", env->fetch != NULL);
  struct call *c = lua_newuserdatauv(L, sizeof *c, 0);
  *c = (struct call){.out = {.env = env, .who = "http"}};
  luaL_setmetatable(L, CALL);
  lua_toclose(L, 2);
  np_http_ask(L, lua_tostring(L, lua_upvalueindex(1)), &c->asked);

  struct np_error err;
  if (np_http_place(np_buf_text(&c->asked.url), &c->place, &err)) {
    strcpy(c->place.shown, "(a malformed URL)");
    return failed(L, c, err.text, "bad_url");
  }
  if (!env->may_reach(env, np_buf_text(&c->asked.url)))
    return luaL_error(
        L, "http: %s may not reach \"%s\": only hosts named in its settings can be reached; let a setting hold the address",
        env->name, c->place.host);
  if (np_outgoing_begin(&c->out, c->asked.timeout)) return set_out(L, c);
  return np_outgoing_wait(L, &c->out, (lua_KContext)c, after_turn);
}

int luaopen_neap_http(lua_State *L) {
  static const luaL_Reg call_methods[] = {{"__gc", close_call}, {"__close", close_call}, {NULL, NULL}};
  static const luaL_Reg answer_methods[] = {{"__index", answer_index}, {NULL, NULL}};
  static const char *const verbs[][2] = {{"get", "GET"},       {"post", "POST"}, {"put", "PUT"},   {"patch", "PATCH"},
                                         {"delete", "DELETE"}, {"head", "HEAD"}, {"request", NULL}};
  luaL_newmetatable(L, CALL);
  luaL_setfuncs(L, call_methods, 0);
  luaL_newmetatable(L, ANSWER);
  luaL_setfuncs(L, answer_methods, 0);
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 2);
  lua_createtable(L, 0, 7);
  for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
    lua_pushstring(L, verbs[i][1]);
    lua_pushcclosure(L, request, 1);
    lua_setfield(L, -2, verbs[i][0]);
  }
  return 1;
}
