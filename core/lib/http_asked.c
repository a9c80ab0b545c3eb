/* The options of neap.http. Tables are read by raw access, sorted by name: the same call is the same bytes in every run. */
#include "lib/http_asked.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>
#include <lauxlib.h>
#include <openssl/evp.h>

#include "lib/json.h"
#include "lib/options.h"

#define ANSWER_MOST ((size_t)256 << 20)
#define TIMEOUT_DEFAULT 30.0
#define URL_MOST ((size_t)64 << 10)
#define HEADERS_MOST ((size_t)256 << 10) /* bytes, of all */
#define FORM_MOST ((size_t)16 << 20)

/* @class neap.HttpOptions: a request that a plugin makes.
 * @field url string
 * @field method? string of http.request
 * @field query? table<string, any>
 * @field headers? table<string, any>
 * @field body? string
 * @field json? any sent as JSON
 * @field form? table<string, any> sent as a form
 * @field timeout? string|number a duration; 30 s where absent
 * @field expect? integer|integer[] statuses: any other is a failure
 * @field redirects? integer how many to follow, none where absent
 * @field answer_max? integer|string bytes, or "16MiB"
 * @field basic? string[] user and password
 * @field bearer? string
 * @field gzip? boolean whether the body goes out gzipped
 * @field cert? string the client's certificate, PEM
 * @field key? string its key, PEM
 * @field ca? string PEM: who is trusted, and nobody else is
 */
static const char *const option_names[] = {"url",     "query",  "headers",   "body",       "json",  "form",
                                           "timeout", "expect", "redirects", "answer_max", "basic", "bearer",
                                           "gzip",    "cert",   "key",       "ca",         "method"};
enum { OPTIONS = sizeof option_names / sizeof *option_names };

static int wrong(lua_State *L, const char *name, const char *what) { return np_option_wrong(L, "http", name, what); }

/* Names in tables: query, form, headers */

struct name {
  const char *text; /* borrowed from the table */
  size_t len;
};

static int by_name(const void *a, const void *b) {
  const struct name *x = a, *y = b;
  int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
  return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* Pushes the sorted names of the table at the top of the stack. */
static struct name *push_names(lua_State *L, const char *option_name, size_t *count) {
  int table = lua_gettop(L);
  size_t n = 0;
  if (!lua_istable(L, table)) wrong(L, option_name, "a table");
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "http: %s has to be a table of names and values, got a list", option_name);
    n++;
  }
  struct name *names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
  *count = n;
  n = 0;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1), n++) names[n].text = lua_tolstring(L, -2, &names[n].len);
  qsort(names, n, sizeof *names, by_name);
  return names;
}

/* A number as it is written by hand: 3.0 is "3", for neither URLs nor headers tell integers from floats. */
static void number_text(lua_State *L, const char *where, const char *name, char text[static 40]) {
  if (lua_isinteger(L, -1)) {
    snprintf(text, 40, "%lld", (long long)lua_tointeger(L, -1));
    return;
  }
  double d = lua_tonumber(L, -1);
  if (!isfinite(d)) luaL_error(L, "http: %s.%s is not a finite number", where, name);
  if (d == floor(d) && fabs(d) < 0x1p63) {
    snprintf(text, 40, "%.0f", d);
    return;
  }
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, 40, "%.*g", digits, d);
    if (strtod(text, NULL) == d) return;
  }
}

/* The text of the value at the top of the stack. */
static const char *value_text(lua_State *L, const char *where, const char *name, char number[static 40], size_t *len) {
  switch (lua_type(L, -1)) {
  case LUA_TSTRING: return lua_tolstring(L, -1, len);
  case LUA_TNUMBER: number_text(L, where, name, number); break;
  case LUA_TBOOLEAN: strcpy(number, lua_toboolean(L, -1) ? "true" : "false"); break;
  default:
    luaL_error(L, "http: %s.%s has to be a string, a number, true, false or a list of them, got a %s", where, name,
               luaL_typename(L, -1));
  }
  *len = strlen(number);
  return number;
}

/* What is made of a table stands outside of the plugin's memory, and a list can name one long string a thousand times. */
static void check_size(lua_State *L, const char *what, size_t size, size_t most) {
  if (size > most) luaL_error(L, "http: %s is larger than %d KiB", what, (int)(most >> 10));
}

typedef void add_pair(lua_State *L, struct np_http_asked *a, const char *name, size_t name_len, const char *value, size_t len);

/* Gives every value of the table at the top of the stack to add, sorted by name, lists one by one. */
static void each_pair(lua_State *L, const char *where, struct np_http_asked *a, add_pair *add) {
  size_t n, len;
  char number[40];
  int table = lua_gettop(L);
  const struct name *names = push_names(L, where, &n);
  for (size_t i = 0; i < n; i++) {
    lua_pushlstring(L, names[i].text, names[i].len);
    lua_rawget(L, table);
    size_t items = lua_istable(L, -1) ? lua_rawlen(L, -1) : 0;
    if (lua_istable(L, -1)) {
      for (size_t k = 1; k <= items; k++) {
        lua_rawgeti(L, -1, (lua_Integer)k);
        const char *value = value_text(L, where, names[i].text, number, &len);
        add(L, a, names[i].text, names[i].len, value, len);
        lua_pop(L, 1);
      }
      lua_pushnil(L);
      if (!items && lua_next(L, -2)) luaL_error(L, "http: %s.%s has to be a value or a list of values", where, names[i].text);
    } else {
      const char *value = value_text(L, where, names[i].text, number, &len);
      add(L, a, names[i].text, names[i].len, value, len);
    }
    lua_settop(L, table + 1);
  }
  lua_settop(L, table - 1);
}

/* RFC 3986: all but the unreserved characters. space: how a blank is written. */
static void add_encoded(struct np_buf *b, const char *s, size_t n, const char *space) {
  static const char hex[] = "0123456789ABCDEF";
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)s[i];
    if (isalnum(c) || (c && strchr("-._~", c))) {
      np_buf_addc(b, (char)c);
    } else if (c == ' ') {
      np_buf_adds(b, space);
    } else {
      np_buf_addc(b, '%');
      np_buf_addc(b, hex[c >> 4]);
      np_buf_addc(b, hex[c & 15]);
    }
  }
}

static void add_query(lua_State *L, struct np_http_asked *a, const char *name, size_t name_len, const char *value, size_t len) {
  struct np_buf *b = &a->url;
  check_size(L, "the URL with its query", name_len + len, URL_MOST);
  char last = b->len ? b->data[b->len - 1] : 0;
  if (!strchr(np_buf_text(b), '?'))
    np_buf_addc(b, '?');
  else if (last != '?' && last != '&')
    np_buf_addc(b, '&');
  add_encoded(b, name, name_len, "%20");
  np_buf_addc(b, '=');
  add_encoded(b, value, len, "%20");
  check_size(L, "the URL with its query", b->len, URL_MOST);
}

static void add_field(lua_State *L, struct np_http_asked *a, const char *name, size_t name_len, const char *value, size_t len) {
  check_size(L, "the form", name_len + len, FORM_MOST);
  if (a->form.len) np_buf_addc(&a->form, '&');
  add_encoded(&a->form, name, name_len, "+");
  np_buf_addc(&a->form, '=');
  add_encoded(&a->form, value, len, "+");
  check_size(L, "the form", a->form.len, FORM_MOST);
}

static bool is_token(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isalnum((unsigned char)s[i]) && !(s[i] && strchr("!#$%&'*+-.^_`|~", s[i]))) return false;
  return n > 0;
}

static void add_header(lua_State *L, struct np_http_asked *a, const char *name, size_t name_len, const char *value, size_t len) {
  if (!is_token(name, name_len)) luaL_error(L, "http: \"%s\" is no name of a header", name);
  check_size(L, "all headers", a->headers.len + name_len + len + 3, HEADERS_MOST);
  for (size_t i = 0; i < len; i++)
    if (!value[i] || value[i] == '\r' || value[i] == '\n')
      luaL_error(L, "http: the header \"%s\" has a line break or a zero byte in it", name);
  np_buf_add(&a->headers, name, name_len);
  np_buf_adds(&a->headers, ": ");
  np_buf_add(&a->headers, value, len);
  np_buf_addc(&a->headers, 0);
  a->header_count++;
}

static bool has_header(const struct np_http_asked *a, const char *name) {
  const char *line = np_buf_text(&a->headers);
  size_t n = strlen(name);
  for (size_t i = 0; i < a->header_count; i++, line += strlen(line) + 1)
    if (strncasecmp(line, name, n) == 0 && line[n] == ':') return true;
  return false;
}

/* The options one by one */

static void read_url(lua_State *L, struct np_http_asked *a) {
  size_t len;
  if (!np_option(L, "url")) luaL_error(L, "http: url is missing");
  if (lua_type(L, -1) != LUA_TSTRING) wrong(L, "url", "a string");
  const char *url = lua_tolstring(L, -1, &len);
  if (strlen(url) != len) luaL_error(L, "http: url has a zero byte in it");
  check_size(L, "the URL", len, URL_MOST);
  np_buf_add(&a->url, url, strcspn(url, "#")); /* a fragment is the reader's own */
  lua_pop(L, 1);
  if (np_option(L, "query")) each_pair(L, "query", a, add_query);
}

static void credentials(lua_State *L, struct np_http_asked *a, const char *scheme, const char *text, size_t len) {
  if (has_header(a, "authorization"))
    luaL_error(L, "http: more than one of basic, bearer and the header \"authorization\" is given");
  lua_pushfstring(L, "%s ", scheme);
  lua_pushlstring(L, text, len);
  lua_concat(L, 2);
  text = lua_tolstring(L, -1, &len);
  add_header(L, a, "authorization", 13, text, len);
  lua_pop(L, 1);
}

static void read_basic(lua_State *L, struct np_http_asked *a) {
  if (!lua_istable(L, -1)) wrong(L, "basic", "a list of user and password");
  if (lua_rawgeti(L, -1, 1) != LUA_TSTRING || lua_rawgeti(L, -2, 2) != LUA_TSTRING)
    wrong(L, "basic", "a list of user and password, both strings");
  if (strchr(lua_tostring(L, -2), ':')) luaL_error(L, "http: the user in basic has a colon in it");
  lua_pushvalue(L, -2);
  lua_pushliteral(L, ":");
  lua_pushvalue(L, -3);
  lua_concat(L, 3);
  size_t len;
  const char *text = lua_tolstring(L, -1, &len);
  if (len > 4096) luaL_error(L, "http: basic is longer than 4096 bytes");
  char *encoded = lua_newuserdatauv(L, (len + 2) / 3 * 4 + 1, 0);
  int n = EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)text, (int)len);
  credentials(L, a, "Basic", encoded, (size_t)n);
  lua_pop(L, 5);
}

static void read_headers(lua_State *L, struct np_http_asked *a) {
  if (np_option(L, "headers")) each_pair(L, "headers", a, add_header);
  if (np_option(L, "basic")) read_basic(L, a);
  if (np_option(L, "bearer")) {
    size_t len;
    if (lua_type(L, -1) != LUA_TSTRING) wrong(L, "bearer", "a string");
    const char *token = lua_tolstring(L, -1, &len);
    credentials(L, a, "Bearer", token, len);
    lua_pop(L, 1);
  }
}

static void content_type(lua_State *L, struct np_http_asked *a, const char *type) {
  if (!has_header(a, "content-type")) add_header(L, a, "content-type", 12, type, strlen(type));
}

/* Leaves the string that is the body on the stack. */
static void read_body(lua_State *L, struct np_http_asked *a) {
  int given = 0;
  if (np_option(L, "body")) {
    if (lua_type(L, -1) != LUA_TSTRING) wrong(L, "body", "a string (json and form take tables)");
    a->body = lua_tolstring(L, -1, &a->body_len);
    given++;
  }
  if (np_option(L, "json")) {
    struct np_error err;
    if (np_json_encode(L, -1, &err)) luaL_error(L, "http: json: %s", err.text);
    a->body = lua_tolstring(L, -1, &a->body_len);
    content_type(L, a, "application/json");
    given++;
  }
  if (np_option(L, "form")) {
    each_pair(L, "form", a, add_field);
    a->body = np_buf_text(&a->form);
    a->body_len = a->form.len;
    content_type(L, a, "application/x-www-form-urlencoded");
    given++;
  }
  if (given > 1) luaL_error(L, "http: only one of body, json and form can be given");
}

static void read_gzip(lua_State *L, struct np_http_asked *a) {
  if (!np_option(L, "gzip")) return;
  if (lua_type(L, -1) != LUA_TBOOLEAN) wrong(L, "gzip", "true or false");
  a->gzip = lua_toboolean(L, -1) && a->body;
  lua_pop(L, 1);
  if (a->gzip && has_header(a, "content-encoding")) luaL_error(L, "http: gzip and the header \"content-encoding\" are both given");
}

static void read_identity(lua_State *L, struct np_http_asked *a) {
  a->cert = np_option_pem(L, "http", "cert");
  a->key = np_option_pem(L, "http", "key");
  a->ca = np_option_pem(L, "http", "ca");
  if (a->key && !a->cert) luaL_error(L, "http: key is given without cert");
}

static void read_answer_max(lua_State *L, struct np_http_asked *a) {
  static const struct {
    const char *name;
    double bytes;
  } units[] = {{"", 1}, {"B", 1}, {"KiB", 1024}, {"MiB", 1048576}};
  if (!np_option(L, "answer_max")) return;
  double bytes = 0;
  if (lua_type(L, -1) == LUA_TNUMBER) {
    bytes = lua_tonumber(L, -1);
  } else if (lua_type(L, -1) == LUA_TSTRING && isdigit((unsigned char)*lua_tostring(L, -1))) {
    char *unit;
    double value = strtod(lua_tostring(L, -1), &unit);
    while (*unit == ' ') unit++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
      if (strcmp(units[i].name, unit) == 0) bytes = value * units[i].bytes;
  }
  if (!(bytes >= 1 && bytes <= (double)ANSWER_MOST))
    luaL_error(L, "http: answer_max has to be a number of bytes up to 256 MiB, such as 65536 or \"4MiB\"");
  a->answer_max = (size_t)bytes;
  lua_pop(L, 1);
}

static void add_expected(lua_State *L, struct np_http_asked *a) {
  int is_int;
  lua_Integer status = lua_tointegerx(L, -1, &is_int);
  if (!is_int || lua_type(L, -1) != LUA_TNUMBER || status < 100 || status > 599)
    luaL_error(L, "http: expect has to be an HTTP status or a list of them");
  if (a->expect_count == sizeof a->expect / sizeof *a->expect) luaL_error(L, "http: expect lists more than 16 statuses");
  a->expect[a->expect_count++] = (int)status;
}

static void read_expect(lua_State *L, struct np_http_asked *a) {
  if (!np_option(L, "expect")) return;
  if (lua_istable(L, -1)) {
    size_t n = lua_rawlen(L, -1);
    if (!n) luaL_error(L, "http: expect is an empty list");
    for (size_t i = 1; i <= n; i++) {
      lua_rawgeti(L, -1, (lua_Integer)i);
      add_expected(L, a);
      lua_pop(L, 1);
    }
  } else {
    add_expected(L, a);
  }
  lua_pop(L, 1);
}

static void read_redirects(lua_State *L, struct np_http_asked *a) {
  if (!np_option(L, "redirects")) return;
  int is_int;
  lua_Integer n = lua_tointegerx(L, -1, &is_int);
  if (!is_int || lua_type(L, -1) != LUA_TNUMBER || n < 0 || n > 20)
    luaL_error(L, "http: redirects has to be an integer from 0 to 20");
  a->redirects = (int)n;
  lua_pop(L, 1);
}

static void read_method(lua_State *L, const char *method, struct np_http_asked *a) {
  if (!method) {
    if (!np_option(L, "method")) luaL_error(L, "http: method is missing");
    if (lua_type(L, -1) != LUA_TSTRING) wrong(L, "method", "a string");
    method = lua_tostring(L, -1);
    if (!*method || strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != lua_rawlen(L, -1) || strlen(method) >= sizeof a->method)
      luaL_error(L, "http: method has to be a name in capital letters such as \"PUT\"");
  }
  strcpy(a->method, method); /* stays in the table */
}

void np_http_ask(lua_State *L, const char *method, struct np_http_asked *a) {
  luaL_checkstack(L, 20, "http");
  if (lua_type(L, 1) == LUA_TSTRING && method) {
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "url");
    lua_replace(L, 1);
  }
  if (!lua_istable(L, 1)) luaL_error(L, "http: expected a table of options, got a %s", luaL_typename(L, 1));
  np_options_known(L, "http", option_names, method ? OPTIONS - 1 : OPTIONS);
  read_method(L, method, a);
  read_url(L, a);
  read_headers(L, a);
  a->timeout = np_option_timeout(L, "http", TIMEOUT_DEFAULT);
  read_answer_max(L, a);
  read_expect(L, a);
  read_redirects(L, a);
  read_identity(L, a);
  read_body(L, a);
  read_gzip(L, a);
}

void np_http_asked_free(struct np_http_asked *a) {
  np_buf_free(&a->url);
  np_buf_free(&a->headers);
  np_buf_free(&a->form);
}

/* Places */

/* Copies a part of the URL, "" where it is absent. */
static int part(CURLU *u, CURLUPart what, unsigned flags, char *to, size_t size) {
  char *s = NULL;
  *to = 0;
  if (curl_url_get(u, what, &s, flags) != CURLUE_OK) return -1;
  snprintf(to, size, "%s", s);
  curl_free(s);
  return 0;
}

int np_http_place(const char *url, struct np_http_place *place, struct np_error *err) {
  char scheme[12], host[262], port[8], asked_port[8], path[300];
  CURLU *u = curl_url();
  CURLUcode bad = u ? curl_url_set(u, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;
  int status = -1;
  if (bad != CURLUE_OK)
    np_fail(err, "not a URL: %s", curl_url_strerror(bad));
  else if (part(u, CURLUPART_SCHEME, 0, scheme, sizeof scheme) || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
    np_fail(err, "only http and https URLs are asked");
  else if (part(u, CURLUPART_HOST, 0, host, sizeof host) || part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, port, sizeof port))
    np_fail(err, "not a URL: no host");
  else
    status = 0;
  if (status == 0) {
    part(u, CURLUPART_PORT, 0, asked_port, sizeof asked_port);
    part(u, CURLUPART_PATH, 0, path, sizeof path);
    snprintf(place->host, sizeof place->host, "%s:%s", host, port);
    snprintf(place->shown, sizeof place->shown, "%s://%.120s%s%s%.250s", scheme, host, *asked_port ? ":" : "", asked_port, path);
  }
  curl_url_cleanup(u);
  return status;
}
