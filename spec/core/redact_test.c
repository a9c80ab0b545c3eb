/* Redaction: what is named is never shown, what is not stays as it came. */
#include "base/redact.h"

#include <string.h>

#include "check.h"

struct seen {
  char texts[8][40];
  int count;
};

static void see(void *arg, const char *text, size_t len) {
  struct seen *s = arg;
  snprintf(s->texts[s->count++ & 7], sizeof *s->texts, "%.*s", (int)len, text);
}

static void check(const char *json, const char *names, const char *expected) {
  const char *list[8];
  char copy[200];
  size_t n = 0;
  struct np_buf out = {0};
  snprintf(copy, sizeof copy, "%s", names);
  for (char *at = strtok(copy, " "); at; at = strtok(NULL, " ")) list[n++] = at;
  np_redact(&out, json, strlen(json), list, n, NULL, NULL);
  CHECK(strcmp(np_buf_text(&out), expected) == 0, "%s of %s: %s", names, json, np_buf_text(&out));
  np_buf_free(&out);
}

int main(void) {
  check("{\"a\":1, \"b\" : [true,null,-1.5e3]}", "c", "{\"a\":1, \"b\" : [true,null,-1.5e3]}");
  check("{\"name\":\"Ann\",\"n\":1}", "name", "{\"name\":\"***\",\"n\":1}");
  check("{\"x\":{\"name\":{\"first\":\"A\",\"all\":[1,2]}},\"name\":5}", "name", "{\"x\":{\"name\":\"***\"},\"name\":\"***\"}");
  check("{\"patient\":{\"name\":\"A\",\"at\":1},\"name\":\"desk\"}", "patient.name",
        "{\"patient\":{\"name\":\"***\",\"at\":1},\"name\":\"desk\"}");
  check("[{\"patient\":[{\"name\":\"A\"}]}]", "patient.name", "[{\"patient\":[{\"name\":\"***\"}]}]");
  check("{\"na\\u006de\":\"A\",\"surname\":\"B\"}", "name", "{\"na\\u006de\":\"***\",\"surname\":\"B\"}");
  check("{\"a\":\"x\\\"y\\\\\",\"b\":{},\"c\":[]}", "d", "{\"a\":\"x\\\"y\\\\\",\"b\":{},\"c\":[]}");
  check("{\"a\":1", "b", "\"***\"");
  check("{\"a\":1} x", "b", "\"***\"");
  check("", "b", "\"***\"");
  check("{\"a\":\"\\x\"}", "b", "\"***\"");
  check("{\"a\" 1}", "b", "\"***\"");
  char deep[400];
  memset(deep, '[', 300);
  deep[300] = 0;
  check(deep, "b", "\"***\"");

  static const char *const names[] = {"who"};
  static const char json[] = "{\"who\":{\"name\":\"J\\u00f8rn \\ud83d\\ude00\",\"list\":[\"a\\nb\",7]},\"other\":\"c\"}";
  struct seen s = {.count = 0};
  struct np_buf out = {0};
  np_redact(&out, json, strlen(json), names, 1, see, &s);
  CHECK(s.count == 2 && !strcmp(s.texts[0], "J\303\270rn \360\237\230\200") && !strcmp(s.texts[1], "a\nb"), "%d %s", s.count,
        s.texts[1]);
  np_buf_free(&out);
  return check_end();
}
