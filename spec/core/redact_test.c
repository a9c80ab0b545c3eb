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

static void check_head(const char *lines, const char *names, const char *expected) {
  const char *list[8];
  char copy[200];
  size_t n = 0;
  struct np_buf out = {0};
  bool url = !strchr(lines, '\n');
  snprintf(copy, sizeof copy, "%s", names);
  for (char *at = strtok(copy, " "); at; at = strtok(NULL, " ")) list[n++] = at;
  (url ? np_redact_url : np_redact_headers)(&out, lines, strlen(lines), list, n);
  CHECK(strcmp(np_buf_text(&out), expected) == 0, "%s of %s: %s", names, lines, np_buf_text(&out));
  np_buf_free(&out);
}

static void of_heads(void) {
  check_head("Authorization: Bearer x\nx-api-key:k\nAPI-Secret: s\nContent-Type: text/plain\n", "",
             "Authorization: ***\nx-api-key: ***\nAPI-Secret: ***\nContent-Type: text/plain\n");
  check_head("Set-Cookie: a=b\nX-Tideco-MAC: 1\nx-machine: 2\nx-pin: 3\nx-pinned: 4\n", "",
             "Set-Cookie: ***\nX-Tideco-MAC: ***\nx-machine: 2\nx-pin: ***\nx-pinned: 4\n");
  check_head("X-Patient: A\nx-patient-id: B\n\nno colon\nx-patient: C", "x-PATIENT",
             "X-Patient: ***\nx-patient-id: B\n\nno colon\nx-patient: ***");
  check_head("https://h.example/a?x=1&token=t&sig=s&y=&code#token=f", "y",
             "https://h.example/a?x=1&token=***&sig=***&y=***&code#token=f");
  check_head("https://ann:pw@h.example/a@b", "", "https://***@h.example/a@b");
  check_head("https://ann@x:pw@h.example?q=a@b", "", "https://***@h.example?q=a@b");
  check_head("/push?access_token=1&&=2&n=3?key=4", "", "/push?access_token=***&&=2&n=3?key=4");
  check_head("/plain", "", "/plain");
  check_head("", "", "");
  check_head("?", "", "?");
  check_head("/a?next=https://u:p@h/", "", "/a?next=https://u:p@h/");
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
  of_heads();
  return check_end();
}
