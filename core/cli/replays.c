/* neap replay --send, and neap replay list, show, stop and resume: a rule over the past. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "cli/ask.h"
#include "cli/keep.h"

static void add_text(struct np_buf *request, const char *name, const char *value) {
  if (!value) return;
  np_buf_addf(request, ",\"%s\":", name);
  np_buf_add_json(request, value, strlen(value));
}

static const char *const replay_verbs[] = {"list", "show", "stop", "resume"};

/* A connection may be called so: then it says which of its requests. */
static const char *replay_verb(const struct np_line *l) {
  bool requests = l->values[FAILED] || l->values[REQUESTS] || l->values[SINCE] || l->values[UNTIL];
  for (size_t i = 0; l->word_count && !requests && i < 4; i++)
    if (strcmp(l->words[0], replay_verbs[i]) == 0) return replay_verbs[i];
  return NULL;
}

bool np_ask_replays_meant(const struct np_line *l) { return l->values[SEND] || replay_verb(l); }

static int add_rate(const struct np_line *l, struct np_buf *request) {
  const char *s = l->values[RATE];
  char *end;
  if (!s) return 0;
  long n = *s >= '0' && *s <= '9' ? strtol(s, &end, 10) : 0;
  bool known = n >= 1 && n <= 1000000 && (!*end || (end[0] == '/' && strchr("smh", end[1]) && end[1] && !end[2]));
  int period = !known ? 0 : end[0] && end[1] == 'm' ? 60000 : end[0] && end[1] == 'h' ? 3600000 : 1000;
  if (!period) return np_line_bad_value(l, RATE, "so many a second, minute or hour, such as \"20/s\" or \"600/m\"");
  np_buf_addf(request, ",\"rate\":%ld,\"period\":%d", n, period);
  return 0;
}

static int add_send(const struct np_line *l, struct np_buf *request) {
  int64_t since = 0, until = 0;
  if (l->word_count) return np_line_wrong(l, "a connection's requests and a rule are two things"), -1;
  if (l->values[DRY_RUN]) return np_line_wrong(l, "--dry-run sends nothing: leave out one of the two"), -1;
  if (!l->values[RULE] == !l->values[ALL]) return np_line_wrong(l, "expected --rule NAME, or --all"), -1;
  if (np_cli_time(l, SINCE, &since) < 0 || np_cli_time(l, UNTIL, &until) < 0 || add_rate(l, request) < 0) return -1;
  if (since) np_buf_addf(request, ",\"since\":%lld", (long long)since);
  if (until) np_buf_addf(request, ",\"until\":%lld", (long long)until);
  for (enum option o = DEVICE; o <= CONNECTION; o++) add_text(request, np_cli_options[o].name + 2, l->values[o]);
  add_text(request, "rule", l->values[RULE]);
  np_buf_addf(request, ",\"all\":%s,\"again\":%s", l->values[ALL] ? "true" : "false", l->values[AGAIN] ? "true" : "false");
  return 0;
}

static int add_number(const struct np_line *l, bool list, struct np_buf *request) {
  const char *word = l->word_count > 1 ? l->words[1] : NULL;
  if (l->word_count > (list ? 1 : 2)) return np_line_wrong(l, "too many arguments"), -1;
  if (list) return 0;
  if (!word) return np_line_wrong(l, "which replay? neap replay list lists them"), -1;
  if (!*word || strspn(word, "0123456789") != strlen(word) || strlen(word) > 12)
    return np_line_wrong(l, "a replay is a number"), -1;
  np_buf_addf(request, ",\"replay\":%s", word + strspn(word, "0") - (strspn(word, "0") == strlen(word)));
  return 0;
}

int np_ask_replays(const struct np_line *l) {
  struct np_buf request = {0};
  const char *verb = l->values[SEND] ? "send" : replay_verb(l);
  bool list = strcmp(verb, "list") == 0, show = strcmp(verb, "show") == 0;
  np_buf_addf(&request, "{\"command\":\"replays\",\"action\":\"%s\"", verb);
  if ((l->values[SEND] ? add_send(l, &request) : add_number(l, list, &request)) < 0) {
    np_buf_free(&request);
    return 2;
  }
  np_buf_addc(&request, '}');
  return np_ask_host(l, l->values[CONFIG], list ? "replay list" : show ? "replay show" : "replay send", &request);
}
