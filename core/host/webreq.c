/* A request on its way in. */
#include "host/webreq.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <lauxlib.h>

#include "base/utf8.h"
#include "host/multipart.h"
#include "lib/json.h"

void np_webreq_place(struct np_webreq_place *p, const struct np_op *op, const char *part) {
  int n = snprintf(p->which, sizeof p->which, "%lld %.20s %s", (long long)op->as.request.received, op->as.request.method.ptr, part);
  p->context = (struct np_seal_context){"request", op->as.request.instance.ptr, p->which, (size_t)n};
}

static struct np_text keep_text(struct np_writeset *ws, const struct np_op *op, struct np_seal *seal, const char *part,
                                const char *s, size_t n) {
  if (!seal) return np_writeset_text(ws, s, n);
  struct np_webreq_place place;
  char *sealed = np_arena_alloc(&ws->arena, n + NP_SEAL_MORE + 1);
  np_webreq_place(&place, op, part);
  np_seal_put(seal, &place.context, s, n, sealed);
  sealed[n + NP_SEAL_MORE] = 0;
  return (struct np_text){sealed, n + NP_SEAL_MORE};
}

/* A part as it came, opened where it was sealed. */
static char *open_part(struct np_seal *seal, const struct np_op *op, const char *part, struct np_text text, size_t *len,
                       struct np_error *err) {
  struct np_webreq_place place;
  if (!np_seal_is(op->as.request.headers.ptr, op->as.request.headers.len)) {
    *len = text.len;
    return np_strndup(text.ptr ? text.ptr : "", text.len);
  }
  np_webreq_place(&place, op, part);
  char *plain = np_alloc(text.len + 1);
  long n = np_seal_get(seal, &place.context, text.ptr, text.len, plain, err);
  if (n >= 0) {
    plain[n] = 0;
    *len = (size_t)n;
    return plain;
  }
  free(plain);
  return NULL;
}

int np_webreq_open(struct np_webreq_kept *kept, struct np_seal *seal, const struct np_op *op, struct np_error *err) {
  bool sealed = np_seal_is(op->as.request.headers.ptr, op->as.request.headers.len);
  size_t n;
  *kept = (struct np_webreq_kept){0};
  kept->headers = open_part(seal, op, "headers", op->as.request.headers, &n, err);
  if (!kept->headers) return -1;
  size_t target = sealed ? strcspn(kept->headers, "\n") : 0; /* its first line is the target */
  kept->target = sealed ? np_strndup(kept->headers, target) : np_strdup(op->as.request.target.ptr);
  if (sealed) memmove(kept->headers, kept->headers + target + 1, n - target);
  kept->body = open_part(seal, op, "body", op->as.request.body, &kept->body_len, err);
  return kept->body ? 0 : -1;
}

void np_webreq_kept_free(struct np_webreq_kept *kept) {
  free(kept->target), free(kept->headers), free(kept->body);
  *kept = (struct np_webreq_kept){0};
}

/* Appends "Name: value\n" for each. */
static char *add_headers(char *at, const struct np_request *req) {
  for (size_t i = 0; i < req->header_count; i++) {
    at = stpcpy(stpcpy(stpcpy(at, req->headers[i].name), ": "), req->headers[i].value);
    *at++ = '\n';
  }
  *at = 0;
  return at;
}

struct np_op *np_webreq_keep(struct np_writeset *ws, const struct np_request *req, const struct np_route *route,
                             struct np_seal *seal) {
  const struct np_code *code = route->code;
  const char *target = req->target;
  struct np_op *op = np_writeset_add(ws, NP_OP_REQUEST);
  size_t len = strlen(target) + 2;
  for (size_t i = 0; i < req->header_count; i++) len += strlen(req->headers[i].name) + strlen(req->headers[i].value) + 3;
  char *headers = np_arena_alloc(&ws->arena, len), *at = headers;
  if (!route->sealed) seal = NULL;
  if (seal) {
    at = stpcpy(at, target);
    *at++ = '\n';
    target = route->pattern;
  }
  at = add_headers(at, req);
  op->as.request.received = req->received;
  op->as.request.generation = code->number;
  op->as.request.instance = np_writeset_text(ws, code->instance, strlen(code->instance));
  op->as.request.method = np_writeset_text(ws, req->method, strlen(req->method));
  op->as.request.target = np_writeset_text(ws, target, strlen(target));
  op->as.request.remote = np_writeset_text(ws, req->remote, strlen(req->remote));
  op->as.request.headers = seal ? keep_text(ws, op, seal, "headers", headers, (size_t)(at - headers))
                                : (struct np_text){headers, (size_t)(at - headers)};
  op->as.request.body = keep_text(ws, op, seal, "body", req->body ? req->body : "", req->body_len);
  return op;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Pushes s[0..n) with %XX and + decoded. */
static void push_decoded(lua_State *L, const char *s, size_t n) {
  luaL_Buffer b;
  char *to = luaL_buffinitsize(L, &b, n ? n : 1), *start = to;
  for (size_t i = 0; i < n; i++) {
    if (s[i] == '%' && i + 2 < n && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0) {
      *to++ = (char)(hex_digit(s[i + 1]) * 16 + hex_digit(s[i + 2]));
      i += 2;
    } else {
      *to++ = s[i] == '+' ? ' ' : s[i];
    }
  }
  luaL_pushresultsize(&b, (size_t)(to - start));
}

/* application/x-www-form-urlencoded, as in WHATWG's URL standard: of a name that comes again, the first value stands. */
static void push_form(lua_State *L, const char *s, size_t n) {
  const char *end = s + n;
  lua_newtable(L);
  int table = lua_gettop(L);
  while (s < end) {
    const char *amp = memchr(s, '&', (size_t)(end - s)), *stop = amp ? amp : end;
    const char *eq = memchr(s, '=', (size_t)(stop - s));
    if (stop > s) {
      push_decoded(L, s, (size_t)((eq ? eq : stop) - s));
      lua_pushvalue(L, -1);
      bool again = lua_rawget(L, table) != LUA_TNIL;
      lua_pop(L, 1);
      if (again) {
        lua_pop(L, 1);
      } else {
        push_decoded(L, eq ? eq + 1 : stop, eq ? (size_t)(stop - eq - 1) : 0);
        lua_rawset(L, table);
      }
    }
    s = stop + 1;
  }
}

static bool is_media_type(const struct np_request *req, const char *what) {
  const char *type = np_request_header(req, "content-type");
  return type && strcasestr(type, what);
}

/* curl -d sends JSON under a form's type: no form's first name starts with a brace or a bracket. */
static bool is_form(const struct np_request *req) {
  size_t i = 0;
  while (i < req->body_len && strchr(" \t\r\n", req->body[i])) i++;
  return is_media_type(req, "x-www-form-urlencoded") && !(i < req->body_len && (req->body[i] == '{' || req->body[i] == '['));
}

static bool is_multipart(const struct np_request *req) { return is_media_type(req, "multipart/form-data"); }

/* Pushes the body as a value, or nil where it has none that can be read. -1 and why where it is declared and cannot be read. */
static int push_body(lua_State *L, const struct np_route *route, const struct np_request *req, struct np_refusal *refusal) {
  struct np_error err;
  if (is_form(req)) {
    push_form(L, req->body ? req->body : "", req->body_len);
    return 0;
  }
  if (route->body && req->body_len && is_multipart(req)) {
    if (np_multipart_push(L, np_request_header(req, "content-type"), req->body, req->body_len, &err) == 0) return 0;
    np_refusal_set(refusal, 400, "encoding", "body");
    snprintf(refusal->reason, sizeof refusal->reason, "%.290s", err.text);
    return -1;
  }
  bool json = is_media_type(req, "json");
  if (!req->body_len && (!route->body || np_schema_all_optional(route->body))) {
    if (route->body)
      lua_newtable(L);
    else
      lua_pushnil(L);
    return 0;
  }
  if (!route->body && !json) {
    lua_pushnil(L);
    return 0;
  }
  if (!req->body_len) {
    np_fail(&err, "the body is empty");
  } else if (np_json_decode(L, req->body, req->body_len, &err) == 0) {
    return 0;
  } else if (!route->body) {
    lua_pushnil(L); /* the handler sees req.raw */
    return 0;
  }
  np_refusal_set(refusal, 400, "json", "body");
  snprintf(refusal->reason, sizeof refusal->reason, "%.290s", err.text);
  return -1;
}

/* Checks the table on top against the schema. */
static int check(lua_State *L, struct np_task *t, const struct np_schema *schema, const char *where, bool from_text,
                 struct np_refusal *refusal) {
  if (!schema) return 0;
  struct np_problem problem;
  struct np_schema_check how = {.from_text = from_text, .arena = &t->arena, .people = &t->people};
  int result = np_schema_check(L, schema, -1, &how, &problem);
  np_mask_people(t->people);
  if (result == 0) return 0;
  np_refusal_set(refusal, 400, problem.kind, where);
  snprintf(refusal->field, sizeof refusal->field, "%s", problem.field);
  snprintf(refusal->reason, sizeof refusal->reason, "%s", problem.reason);
  return -1;
}

/* The whole body is one field named "body": wrapped for the check, unwrapped after it. */
static int check_whole(lua_State *L, struct np_task *t, const struct np_schema *schema, struct np_refusal *refusal) {
  lua_createtable(L, 0, 1);
  lua_insert(L, -2);
  lua_setfield(L, -2, "body");
  int result = check(L, t, schema, "body", false, refusal);
  if (result < 0 && strncmp(refusal->field, "body", 4) == 0)
    memmove(refusal->field, refusal->field + 4, strlen(refusal->field) - 3);
  lua_getfield(L, -1, "body");
  lua_remove(L, -2);
  return result;
}

static void push_headers(lua_State *L, const struct np_request *req) {
  lua_createtable(L, 0, (int)req->header_count);
  for (size_t i = 0; i < req->header_count; i++) {
    char name[128];
    size_t n = strlen(req->headers[i].name);
    if (n >= sizeof name) continue;
    for (size_t k = 0; k <= n; k++)
      name[k] = req->headers[i].name[k] >= 'A' && req->headers[i].name[k] <= 'Z' ? (char)(req->headers[i].name[k] | 0x20)
                                                                                 : req->headers[i].name[k];
    if (lua_getfield(L, -1, name) == LUA_TSTRING) { /* RFC 9110 5.3 */
      lua_pushfstring(L, "%s, %s", lua_tostring(L, -1), req->headers[i].value);
      lua_setfield(L, -3, name);
    } else {
      lua_pushstring(L, req->headers[i].value);
      lua_setfield(L, -3, name);
    }
    lua_pop(L, 1);
  }
}

/* req.headers and req.raw: made when asked for, while the call lasts that they were given to. */
static int lazy_index(lua_State *L) {
  const char *name = lua_tostring(L, 2);
  struct np_instance *in = (struct np_instance *)np_env(L);
  if (!name || !in->running) return 0;
  lua_getmetatable(L, 1);
  lua_getfield(L, -1, "request");
  const struct np_request *req = lua_touserdata(L, -1);
  lua_getfield(L, -2, "task");
  if ((uint64_t)lua_tointeger(L, -1) != in->running->serial) return 0; /* kept beyond its own call */
  if (strcmp(name, "headers") == 0)
    push_headers(L, req);
  else if (strcmp(name, "raw") == 0)
    lua_pushlstring(L, req->body ? req->body : "", req->body_len);
  else
    return 0;
  lua_pushvalue(L, -1);
  lua_setfield(L, 1, name);
  return 1;
}

static void set_lazy(lua_State *L, struct np_task *t, const struct np_request *req) {
  lua_createtable(L, 0, 4);
  lua_pushcfunction(L, lazy_index);
  lua_setfield(L, -2, "__index");
  lua_pushlightuserdata(L, (void *)req);
  lua_setfield(L, -2, "request");
  lua_pushinteger(L, (lua_Integer)t->serial);
  lua_setfield(L, -2, "task");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
}

static void set_string(lua_State *L, const char *name, const char *value, size_t len) {
  lua_pushlstring(L, value, len);
  lua_setfield(L, -2, name);
}

/* @class neap.Request: a request, as a route's handler is given it.
 * @field method string
 * @field path string
 * @field target string the path and what follows it, as it came
 * @field route string the pattern of the route
 * @field params table<string, any> what stands for {name} in the pattern
 * @field query table<string, any>
 * @field headers table<string, string> names in lower case
 * @field body any as `body` declares it
 * @field raw string the body as it came
 * @field remote string the client's address
 * @field received integer ms
 * @field caller any what the route's auth has returned
 */
void np_webreq_push(lua_State *L, struct np_task *t, const struct np_route *route, const struct np_route_match *match,
                    const struct np_request *req) {
  luaL_checkstack(L, 16, NULL);
  lua_createtable(L, 0, 12);
  set_string(L, "method", req->method, strlen(req->method));
  set_string(L, "path", req->path, req->path_len);
  set_string(L, "target", req->target, strlen(req->target));
  set_string(L, "route", route->pattern, strlen(route->pattern));
  set_string(L, "remote", req->remote, strlen(req->remote));
  lua_pushinteger(L, req->received);
  lua_setfield(L, -2, "received");
  lua_createtable(L, 0, (int)match->count);
  for (size_t i = 0; i < match->count; i++) {
    lua_pushlstring(L, match->values[i], match->lens[i]);
    lua_setfield(L, -2, match->names[i]);
  }
  lua_setfield(L, -2, "params");
  push_form(L, req->query, strlen(req->query));
  lua_setfield(L, -2, "query");
  set_lazy(L, t, req);
}

static int check_texts(lua_State *L, struct np_task *t, const struct np_schema *schema, const char *field, const char *where,
                       struct np_refusal *refusal) {
  if (!schema) return 0;
  lua_getfield(L, -1, field);
  int result = check(L, t, schema, where, true, refusal);
  lua_pop(L, 1);
  return result;
}

int np_webreq_check(lua_State *L, struct np_task *t, const struct np_route *route, const struct np_request *req,
                    struct np_refusal *refusal) {
  luaL_checkstack(L, 16, NULL);
  if (check_texts(L, t, route->path, "params", "path", refusal) < 0) return -1;
  if (check_texts(L, t, route->query, "query", "query", refusal) < 0) return -1;
  if (push_body(L, route, req, refusal) < 0) return -1;
  bool form = is_form(req) || is_multipart(req);
  if (route->body_whole ? check_whole(L, t, route->body, refusal) < 0 : check(L, t, route->body, "body", form, refusal) < 0)
    return -1;
  lua_setfield(L, -2, "body");
  return 0;
}
