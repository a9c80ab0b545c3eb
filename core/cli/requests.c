/* neap replay CONNECTION: which of its requests are run again, and how fast. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "cli/ask.h"
#include "cli/keep.h"

/* A number of a request at s, and where it ends. */
static bool read_id(const char *s, const char **end, long long *id) {
  size_t n = strspn(s, "0123456789");
  *end = s + n;
  *id = n && n < 19 ? strtoll(s, NULL, 10) : 0;
  return *id > 0;
}

/* "7..9", "7..", "..9" or "7". */
static int add_range(const struct np_line *l, struct np_buf *request, long long *after) {
  static const char expected[] = "numbers of requests such as 4711..4800, 4711.. or 4711";
  const char *s = l->values[REQUESTS], *end = s;
  long long from = 1, to;
  bool first = read_id(s, &end, &from);
  if (!first) from = 1, end = s;
  bool range = strncmp(end, "..", 2) == 0;
  if (range) end += 2;
  if (!first && !(range && *end)) return np_line_bad_value(l, REQUESTS, expected);
  if (*end || !range) {
    to = from;
    if (range && !read_id(end, &end, &to)) return np_line_bad_value(l, REQUESTS, expected);
    if (*end || to < from) return np_line_bad_value(l, REQUESTS, expected);
    np_buf_addf(request, ",\"upto\":%lld", to);
  }
  *after = from - 1;
  return 0;
}

static int add_after(const struct np_line *l, struct np_buf *request) {
  long long after = 0, later;
  const char *end;
  if (l->values[REQUESTS] && add_range(l, request, &after) < 0) return -1;
  if (l->values[AFTER]) {
    if (!read_id(l->values[AFTER], &end, &later) || *end) return np_line_bad_value(l, AFTER, "the number of a request");
    if (later > after) after = later;
  }
  np_buf_addf(request, ",\"after\":%lld", after);
  return 0;
}

static int add_span(const struct np_line *l, struct np_buf *request) {
  int64_t from = 0, to = INT64_MAX;
  if (np_cli_time(l, SINCE, &from) < 0 || np_cli_time(l, UNTIL, &to) < 0) return -1;
  np_buf_addf(request, ",\"from\":%lld,\"to\":%lld", (long long)(from > 0 ? from : 0), (long long)(to > 0 ? to : 0));
  return 0;
}

/* "50/s", "10/m" or "50". */
static int add_rate(const struct np_line *l, struct np_buf *request) {
  char *end;
  if (!l->values[RATE]) return 0;
  double n = strtod(l->values[RATE], &end), unit = strcmp(end, "/m") == 0 ? 60e6 : 1e6;
  bool known = !*end || strcmp(end, "/s") == 0 || strcmp(end, "/m") == 0;
  if (!known || end == l->values[RATE] || !(n >= 0.001 && n <= 1e6))
    return np_line_bad_value(l, RATE, "so many a second or minute, such as 50/s or 10/m");
  np_buf_addf(request, ",\"pause\":%lld", (long long)(unit / n));
  return 0;
}

int np_ask_requests(const struct np_line *l) {
  static const enum option others[] = {DEVICE, METRIC, VENDOR, CONNECTION, RULE, ALL};
  if (l->word_count != 1) return np_line_wrong(l, l->word_count ? "too many arguments" : "of which connection, or --rule NAME?");
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (l->values[others[i]]) return np_line_wrong(l, "a connection's requests and a rule's readings are two things");
  if (!l->values[FAILED] && !l->values[REQUESTS] && !l->values[SINCE] && !l->values[UNTIL])
    return np_line_wrong(l, "expected --failed, --requests FROM..TO, --since or --until");
  struct np_buf request = {0};
  np_buf_adds(&request, "{\"command\":\"requests\",\"connection\":");
  np_buf_add_json(&request, l->words[0], strlen(l->words[0]));
  np_buf_addf(&request, ",\"failed\":%s,\"dry\":%s,\"rules\":%s", l->values[FAILED] ? "true" : "false",
              l->values[DRY_RUN] ? "true" : "false", l->values[RULES] ? "true" : "false");
  if (add_after(l, &request) < 0 || add_span(l, &request) < 0 || add_rate(l, &request) < 0) {
    np_buf_free(&request);
    return 2;
  }
  np_buf_addc(&request, '}');
  return np_ask_host(l, l->values[CONFIG], "requests", &request);
}
