/* Routes: what is found, what wins, what is refused. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "io/routes.h"

static char values[64][128];

static void *value(const char *name) {
  for (int i = 0;; i++) {
    if (!values[i][0]) strcpy(values[i], name);
    if (strcmp(values[i], name) == 0) return values[i];
  }
}

static int add(struct np_routes *r, const char *method, const char *pattern) {
  char name[128];
  snprintf(name, sizeof name, "%s %s", method, pattern);
  return np_routes_add(r, method, pattern, value(name), NULL, NULL);
}

/* wanted: what was added, "" for nothing; params: "name=value;..." */
static void expect(const struct np_routes *r, const char *method, const char *path, const char *wanted, const char *params,
                   const char *allow) {
  struct np_route_match m;
  char *copy = malloc(strlen(path) + 1); /* exactly as long, so that reading past it shows under ASan */
  memcpy(copy, path, strlen(path));
  np_routes_match(r, method, copy, strlen(path), &m);
  const char *found = m.value ? m.value : "";
  CHECK(strcmp(found, wanted) == 0, "%s %s found %s", method, path, found);
  char text[512] = "";
  for (size_t i = 0; i < m.count; i++)
    snprintf(text + strlen(text), sizeof text - strlen(text), "%s=%.*s;", m.names[i], (int)m.lens[i], m.values[i]);
  CHECK(strcmp(text, params) == 0, "%s %s has %s", method, path, text);
  CHECK(strcmp(m.allow, allow) == 0, "%s %s allows %s", method, path, m.allow);
  free(copy);
}

static void test_matching(void) {
  struct np_routes *r = np_routes_new();
  const char *patterns[] = {"GET /",        "GET /a",       "POST /a",    "GET /a/",          "PUT /a/{id}",
                            "GET /a/b",     "GET /a/{x}/c", "GET /a/b/d", "POST /{p}/{q}/c",  "GET /device/v1/mn/{devEui}",
                            "OPTIONS /opt", "HEAD /both",   "GET /both",  "DELETE /a/{other}"};
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
    char method[16];
    const char *space = strchr(patterns[i], ' ');
    snprintf(method, sizeof method, "%.*s", (int)(space - patterns[i]), patterns[i]);
    CHECK(add(r, method, space + 1) == 0, "%s", patterns[i]);
  }
  expect(r, "GET", "/", "GET /", "", "");
  expect(r, "GET", "/a", "GET /a", "", "");
  expect(r, "HEAD", "/a", "GET /a", "", "");
  expect(r, "POST", "/a", "POST /a", "", "");
  expect(r, "GET", "/a/", "GET /a/", "", "");
  expect(r, "POST", "/a/", "", "", "GET, HEAD, OPTIONS");
  expect(r, "PUT", "/a/7", "PUT /a/{id}", "id=7;", "");
  expect(r, "DELETE", "/a/7", "DELETE /a/{other}", "other=7;", "");
  expect(r, "GET", "/a/b", "GET /a/b", "", "");
  expect(r, "PUT", "/a/b", "PUT /a/{id}", "id=b;", "");
  expect(r, "PATCH", "/a/b", "", "", "GET, HEAD, PUT, DELETE, OPTIONS");
  expect(r, "OPTIONS", "/a", "", "", "GET, HEAD, POST, OPTIONS");
  expect(r, "GET", "/a/b/c", "GET /a/{x}/c", "x=b;", "");
  expect(r, "POST", "/a/b/c", "POST /{p}/{q}/c", "p=a;q=b;", "");
  expect(r, "GET", "/a/b/d", "GET /a/b/d", "", "");
  expect(r, "GET", "/device/v1/mn/A1B2", "GET /device/v1/mn/{devEui}", "devEui=A1B2;", "");
  expect(r, "GET", "/device/v1/mn/", "", "", "");
  expect(r, "GET", "/device/v1/mn", "", "", "");
  expect(r, "GET", "/Device/v1/mn/x", "", "", "");
  expect(r, "OPTIONS", "/opt", "OPTIONS /opt", "", "");
  expect(r, "GET", "/opt", "", "", "OPTIONS");
  expect(r, "HEAD", "/both", "HEAD /both", "", "");
  expect(r, "POST", "/both", "", "", "HEAD, GET, OPTIONS");
  expect(r, "GET", "/A", "", "", "");
  expect(r, "get", "/a", "", "", "GET, HEAD, POST, OPTIONS");
  expect(r, "GET", "", "", "", "");
  expect(r, "GET", "a", "", "", "");
  expect(r, "GET", "*", "", "", "");
  expect(r, "GET", "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t", "", "", "");
  np_routes_free(r);
}

static void test_rest_and_any(void) {
  struct np_routes *r = np_routes_new();
  const char *patterns[] = {"GET /v1/devices", "PUT /v1/devices/{id}",         "* /v1/devices/{id}",
                            "* /v1/{path...}", "GET /files/{where}/{name...}", "GET /{all...}"};
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
    char method[16];
    const char *space = strchr(patterns[i], ' ');
    snprintf(method, sizeof method, "%.*s", (int)(space - patterns[i]), patterns[i]);
    CHECK(add(r, method, space + 1) == 0, "%s", patterns[i]);
  }
  expect(r, "GET", "/v1/devices", "GET /v1/devices", "", "");
  expect(r, "HEAD", "/v1/devices", "GET /v1/devices", "", "");
  expect(r, "PUT", "/v1/devices", "* /v1/{path...}", "path=devices;", "");
  expect(r, "PUT", "/v1/devices/7", "PUT /v1/devices/{id}", "id=7;", "");
  expect(r, "DELETE", "/v1/devices/7", "* /v1/devices/{id}", "id=7;", "");
  expect(r, "GET", "/v1/devices/7/logs/x", "* /v1/{path...}", "path=devices/7/logs/x;", "");
  expect(r, "GET", "/v1/", "* /v1/{path...}", "path=;", "");
  expect(r, "GET", "/v1", "* /v1/{path...}", "path=;", "");
  expect(r, "GET", "/v10", "GET /{all...}", "all=v10;", "");
  expect(r, "GET", "/files/a", "GET /files/{where}/{name...}", "where=a;name=;", "");
  expect(r, "GET", "/files/a/b/c", "GET /files/{where}/{name...}", "where=a;name=b/c;", "");
  expect(r, "GET", "/files", "GET /{all...}", "all=files;", "");
  expect(r, "POST", "/elsewhere", "", "", "GET, HEAD, OPTIONS");
  expect(r, "OPTIONS", "/v1/devices", "", "", "GET, HEAD, OPTIONS");
  np_routes_free(r);
  r = np_routes_new();
  CHECK(add(r, "*", "/only/{path...}") == 0);
  expect(r, "OPTIONS", "/only/x", "* /only/{path...}", "path=x;", "");
  expect(r, "OPTIONS", "/other", "", "", "");
  void *clash = NULL;
  struct np_error err;
  CHECK(np_routes_add(r, "*", "/only/{other...}", value("second"), &clash, &err) == -1 && clash == value("* /only/{path...}"));
  np_routes_free(r);
}

static void test_refused(void) {
  static const char *const bad[] = {
      "",         "a",        "{a}",       "/{",     "/}",
      "/{}",      "/{1a}",    "/{a-b}",    "/x{a}",  "/{a}x",
      "/{a}{b}",  "/{a}/{a}", "/{a...}/b", "/{...}", "/{a..}",
      "/{a...b}", "/a?b",     "/a#b",      "/{a b}", "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}/{q}"};
  struct np_routes *r = np_routes_new();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct np_error err = {0};
    CHECK(np_routes_add(r, "GET", bad[i], value("bad"), NULL, &err) == -1 && err.text[0], "%s", bad[i]);
  }
  CHECK(add(r, "", "/a") == -1);
  CHECK(add(r, "get", "/a") == -1);
  CHECK(add(r, "GET", "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}") == 0, "sixteen fit");
  expect(r, "GET", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16",
         "GET /{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}",
         "a=1;b=2;c=3;d=4;e=5;f=6;g=7;h=8;i=9;j=10;k=11;l=12;m=13;n=14;o=15;p=16;", "");
  np_routes_free(r);
  np_routes_free(NULL);
}

static void test_clash(void) {
  struct np_routes *r = np_routes_new();
  struct np_error err = {0};
  void *clash = NULL;
  CHECK(np_routes_add(r, "GET", "/x/{a}", value("first"), &clash, &err) == 0 && !clash);
  CHECK(np_routes_add(r, "GET", "/x/{b}", value("second"), &clash, &err) == -1);
  CHECK(clash == value("first") && strstr(err.text, "/x/{b}"), "%s", err.text);
  CHECK(np_routes_add(r, "POST", "/x/{b}", value("third"), &clash, &err) == 0 && !clash, "another method may name it otherwise");
  expect(r, "GET", "/x/1", "first", "a=1;", "");
  expect(r, "POST", "/x/1", "third", "b=1;", "");
  np_routes_free(r);
}

static void test_allow_is_bounded(void) {
  struct np_routes *r = np_routes_new();
  for (char c = 'A'; c <= 'Z'; c++) {
    char method[] = {c, 'B', 'C', 'D', 'E', 'F', 'G', 'H', 0};
    CHECK(add(r, method, "/x") == 0);
  }
  struct np_route_match m;
  np_routes_match(r, "GET", "/x", 2, &m);
  size_t len = strlen(m.allow);
  CHECK(!m.value && len < sizeof m.allow && strcmp(m.allow + len - 9, ", OPTIONS") == 0, "%s", m.allow);
  np_routes_free(r);
}

int main(void) {
  test_matching();
  test_rest_and_any();
  test_refused();
  test_clash();
  test_allow_is_bounded();
  return check_end();
}
