/* `explain`: finds what an id is of, and tells its story from the request on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"
#include "host/rule.h"
#include "host/story.h"

#define READINGS_SHOWN 20
#define DERIVED_SHOWN 100 /* in all, beside those that lead to what was asked for */
#define WHOLE 3           /* up to so many readings of a request, rules that do not match are told one by one */

struct subject {
  struct np_writeset *ws; /* owned: what the rest borrows from */
  int64_t reading, request;
  const char *of;
  bool has_reading, has_request, has_message;
  struct np_sent message;
  struct np_reading readings[READINGS_SHOWN];
  int64_t count;
  int64_t way[NP_DEPTH_MAX + 1]; /* from what a vendor sent to the derived reading that was asked for */
  size_t way_count;
};

int np_talk_explain_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  size_t n;
  if (lua_getfield(L, request, "id") != LUA_TSTRING) return np_fail(err, "of what?");
  const char *id = lua_tolstring(L, -1, &n);
  if (!n || n >= sizeof t->device || strlen(id) != n) return np_fail(err, "nothing has such an id");
  memcpy(t->device, id, n + 1);
  lua_getfield(L, request, "people");
  t->people = lua_toboolean(L, -1);
  lua_pop(L, 2);
  return 0;
}

/* Finding */

static bool take_reading(void *arg, const struct np_reading *r) {
  struct subject *s = arg;
  if (s->count < READINGS_SHOWN) s->readings[s->count] = np_reading_copy(s->ws, r);
  s->count++;
  return true;
}

static bool take_message(void *arg, const struct np_sent *m) {
  struct subject *s = arg;
  s->message = np_sent_copy(s->ws, m);
  return false;
}

static void note_request(void *arg, int64_t id, const struct np_op *op) {
  (void)op;
  ((struct subject *)arg)->request = id;
}

static int find_reading(struct np_reader *r, struct subject *s, int64_t seq, struct np_error *err) {
  if (np_reader_reading(r, seq, take_reading, s, err) < 0) return -1;
  s->has_reading = s->count > 0;
  return 0;
}

static bool note_cause(void *arg, int64_t reading, const struct np_derivation *d) {
  (void)reading;
  *(int64_t *)arg = d->cause;
  return false;
}

/* Of what a rule derived, the story begins with what it was derived from, as far back as that is kept. */
static int climb(struct np_reader *r, struct subject *s, struct np_error *err) {
  int64_t up[NP_DEPTH_MAX + 1];
  size_t n = 0;
  for (up[n++] = s->readings[0].seq; s->readings[0].depth && n <= NP_DEPTH_MAX;) {
    struct subject cause = {.ws = s->ws};
    int64_t seq = 0;
    if (np_reader_derivation(r, s->readings[0].seq, note_cause, &seq, err) < 0) return -1;
    if (seq && np_reader_reading(r, seq, take_reading, &cause, err) < 0) return -1;
    if (!cause.count) break;
    s->readings[0] = cause.readings[0];
    up[n++] = seq;
  }
  while (n > 1 || (n && s->way_count)) s->way[s->way_count++] = up[--n];
  s->reading = s->readings[0].seq;
  return 0;
}

static int find_request(struct np_reader *r, struct subject *s, int64_t id, struct np_error *err) {
  int found = np_reader_request(r, id, note_request, s, err);
  s->has_request = found == 1;
  return found < 0 ? -1 : 0;
}

/* "r12" and "q12"; a plain number where only one of both is there. */
static int find_numbered(struct np_talk *t, struct subject *s, char letter, const char *digits, struct np_error *err) {
  struct np_reader *r = t->host->reader;
  int64_t number = strtoll(digits, NULL, 10);
  s->reading = letter != 'q' ? number : 0;
  if (letter != 'q' && find_reading(r, s, number, err) < 0) return -1;
  if (letter != 'r' && find_request(r, s, number, err) < 0) return -1;
  if (s->has_reading && s->has_request)
    return np_fail(err, "%s is a reading, r%s, and a request, q%s: say which", digits, digits, digits);
  s->of = s->has_reading ? "reading" : "request";
  if (s->has_reading || s->has_request) return 0;
  return np_fail(err,
                 letter == 'r'   ? "there is no reading %s: it never was, or is no longer kept"
                 : letter == 'q' ? "there is no request %s: it never was, or is older than what is kept (keep.requests in neap.lua)"
                                 : "there is neither a reading nor a request %s: they never were, or are no longer kept",
                 digits);
}

static int find_message(struct np_talk *t, struct subject *s, struct np_error *err) {
  int found = np_reader_message(t->host->reader, t->device, take_message, s, err);
  s->has_message = found == 1;
  s->of = "message";
  if (found == 1 && s->message.message.reading) {
    s->reading = s->message.message.reading;
    return find_reading(t->host->reader, s, s->reading, err);
  }
  if (found == 0)
    np_fail(err,
            "there is no message %.100s, nor a reading such as r12 or a request such as q12 of that name: it never was, or was "
            "delivered longer ago than what is kept (keep.delivered in neap.lua)",
            t->device);
  return found == 1 ? 0 : -1;
}

static int find(struct np_talk *t, struct subject *s, struct np_error *err) {
  const char *id = t->device, *digits = *id == 'r' || *id == 'q' ? id + 1 : id;
  bool numbered = *digits && digits[strspn(digits, "0123456789")] == 0 && strlen(digits) < 19;
  if ((numbered ? find_numbered(t, s, digits == id ? 0 : *id, digits, err) : find_message(t, s, err)) < 0) return -1;
  if (s->has_request) return np_reader_request_readings(t->host->reader, s->request, take_reading, s, err);
  if (!s->has_reading) return 0;
  if (climb(t->host->reader, s, err) < 0) return -1;
  int64_t request = np_reader_reading_request(t->host->reader, s->reading);
  if (request < 0) return np_fail(err, "the store cannot be read");
  if (request == 0) return 0;
  if (find_request(t->host->reader, s, request, err) < 0) return -1;
  s->request = request; /* also where it is gone */
  return 0;
}

/* Telling */

static int add_story(struct np_talk *t, const struct subject *s, struct np_error *err) {
  struct np_story story = {.host = t->host,
                           .out = &t->out,
                           .people = t->people,
                           .way = s->way,
                           .way_count = s->way_count,
                           .asked = s->way_count ? s->way[s->way_count - 1] : 0,
                           .left = DERIVED_SHOWN};
  struct np_buf *b = &t->out;
  int64_t shown = s->count < READINGS_SHOWN ? s->count : READINGS_SHOWN;
  int result = 0;
  if (s->has_request) {
    np_story_field(b, "request");
    int found = np_talk_request_object(t, s->request, err);
    if (found < 0) return -1;
    if (!found) return np_fail(err, "request %lld was removed just now", (long long)s->request);
  } else if (s->request) {
    np_line_int(b, "request_gone", s->request);
  }
  np_story_field(b, "readings");
  np_buf_addc(b, '[');
  for (int64_t i = 0; i < shown && result == 0; i++) {
    np_story_next(b);
    result = np_story_reading(&story, &s->readings[i], s->count > WHOLE, err);
  }
  np_buf_addc(b, ']');
  if (s->count > shown) np_line_int(b, "more_readings", s->count - shown);
  if (result == 0 && s->has_message && !s->has_reading) {
    if (s->reading) np_line_int(b, "reading_gone", s->reading);
    np_story_field(b, "message");
    result = np_story_message(&story, &s->message, err);
  }
  np_facts_forget(&story.facts);
  return result;
}

void np_talk_explain(struct np_talk *t) {
  struct np_error err;
  struct subject *s = np_alloc(sizeof *s);
  s->ws = np_writeset_new();
  int result = find(t, s, &err);
  if (result == 0) {
    np_line_begin(&t->out);
    np_line_text(&t->out, "asked", t->device);
    np_line_text(&t->out, "of", s->of);
    np_line_int(&t->out, "now", np_now_ms());
    const struct np_keep *keep = &t->host->config->keep[NP_KEPT_DELIVERED];
    if (keep->age) np_line_int(&t->out, "keep_age", keep->age);
    if (keep->size) np_line_int(&t->out, "keep_size", keep->size);
    result = add_story(t, s, &err);
    np_line_end(&t->out);
  }
  np_writeset_unref(s->ws);
  free(s);
  if (result < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  if (t->people) np_talk_log_shown(t, "details shown", "story", t->device);
  np_buf_adds(&t->out, "{\"summary\":{\"stories\":1}}\n");
  np_talk_end(t);
}
