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

static void check_text(const char *text, bool value, const char *expected) {
  struct np_buf b = {0};
  np_buf_adds(&b, text);
  np_redact_userinfo(&b, value);
  CHECK(strcmp(np_buf_text(&b), expected) == 0, "%s: %s", text, np_buf_text(&b));
  np_buf_free(&b);
}

static char *without_x(const char *text, size_t len) { return strstr(text, "x\n") ? np_strdup("***") : np_strndup(text, len); }

static void of_strings(void) {
  struct np_buf out = {0};
  const char *json = "{\"a\\u0041\":[1.50,\"x\\n\",true],\"x\\n\":\"y\\/\"}";
  np_redact_strings(&out, json, strlen(json), without_x);
  CHECK(strcmp(np_buf_text(&out), "{\"a\\u0041\":[1.50,\"***\",true],\"***\":\"y\\/\"}") == 0, "%s", np_buf_text(&out));
  np_buf_clear(&out);
  np_redact_strings(&out, "{\"a\"", 4, without_x);
  CHECK(strcmp(np_buf_text(&out), "\"***\"") == 0, "%s", np_buf_text(&out));
  np_buf_free(&out);
}

static void of_texts(void) {
  check_text("asked https://ann:p@w'@h.example/a@b, and \"smtp://u:p@m\" too", false,
             "asked https://***@h.example/a@b, and \"smtp://***@m\" too");
  check_text("https://token@h.example", false, "https://***@h.example");
  check_text("ftp://u:p/w#x?@h.example:21/a b@c", false, "ftp://***@h.example:21/a b@c"); /* not escaped, as it should have been */
  check_text("{\"url\":\"http://a:b@c\",\"to\":\"desk@ward.example\"}", false,
             "{\"url\":\"http://***@c\",\"to\":\"desk@ward.example\"}");
  check_text("http://h:80/a@b http://[::1]:80/a@b http://h/a@b http://[::1]/@ http://@h", false,
             "http://h:80/a@b http://[::1]:80/a@b http://h/a@b http://[::1]/@ http://@h");
  check_text("a://b:c@d://e:f@g", false, "a://***@d://***@g");
  check_text("u:p@h 12:30@x", false, "u:p@h 12:30@x");
  check_text("u:p@h", true, "***@h");
  check_text("Desk: <desk@ward.example>", true, "Desk: <desk@ward.example>");
  check_text("https://u:p@h", true, "https://***@h");
  check_text("://@ @:// ://", true, "://@ @:// ://");
  check_text("", true, "");
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
  static const char *const spellings[] = {
      "J\303\270rn \360\237\230\200", "J\\u00f8rn \\ud83d\\ude00", "J%C3%B8rn%20%F0%9F%98%80", "a\nb", "a\\u000ab", "a%0Ab", "7"};
  for (int i = 0; i < 7; i++) CHECK(strcmp(s.texts[i], spellings[i]) == 0, "%d: %s", i, s.texts[i]);
  CHECK(s.count == 7, "%d", s.count);
  np_buf_free(&out);
  of_heads();
  of_texts();
  of_strings();
  return check_end();
}
