/* Dry replays. */
#include "host/replay_dry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "host/client_show.h"
#include "host/gate_parts.h"
#include "host/replay_job.h"
#include "host/rule.h"

struct dry {
  const struct np_replay_dry *options; /* borrowed */
  struct np_deploy d;
  struct np_reader *reader, *other; /* owned: two, for one is asked while the other gives */
  struct np_filter *filter;         /* owned */
  struct np_shadow_span span;
  struct np_epoch *to; /* a reference */
  const char *rule;    /* borrowed: the one that is run */
};

static int fail(const struct dry *r, const char *what, const struct np_error *err) {
  struct np_buf b = {0};
  np_buf_addf(&b, "%s%s%s", what ? what : "", what ? ": " : "", err->text);
  if (r->options->json) {
    printf("{\"error\":");
    struct np_buf json = {0};
    np_buf_add_json(&json, b.data, b.len);
    printf("%s}\n", json.data);
    np_buf_free(&json);
  } else {
    fprintf(stderr, "neap replay: %s\n", b.data);
  }
  np_buf_free(&b);
  return 1;
}

/* What was sent */

struct sent {
  struct dry *r;
  struct np_shadow_record *record;
  const struct np_sent *message;
  struct np_error err;
  bool failed;
};

static bool take_cause(void *arg, const struct np_reading *reading) {
  struct sent *s = arg;
  const struct np_shadow_span *span = &s->r->span;
  bool inside = reading->received >= span->from && reading->received <= span->to && np_filter_match(span->filter, reading);
  if (inside) np_shadow_sent(s->record, reading, &s->message->message);
  return false;
}

/* A timer's message is told from others by its device alone. */
static bool is_of_device(const struct dry *r, const struct np_message *m) {
  const char *device = r->options->device;
  return !device || np_glob_match(device, strlen(device), m->device.ptr, m->device.len);
}

static bool take_sent(void *arg, const struct np_sent *m) {
  struct sent *s = arg;
  s->message = m;
  if (!m->message.reading) {
    if (is_of_device(s->r, &m->message)) np_shadow_sent(s->record, NULL, &m->message);
  } else if (np_reader_reading(s->r->other, m->message.reading, take_cause, s, &s->err) < 0) {
    s->failed = true;
  }
  return !s->failed;
}

/* What was derived */

struct made {
  struct dry *r;
  struct np_shadow_record *record;
  const struct np_derivation *how;
  struct np_writeset *ws; /* owned: what the cause and the reading borrow from */
  struct np_reading cause, reading;
  bool has_cause, has_reading;
  struct np_error err;
  bool failed;
};

static bool take_made_cause(void *arg, const struct np_reading *reading) {
  struct made *m = arg;
  m->cause = np_reading_copy(m->ws, reading);
  m->has_cause = true;
  return false;
}

static bool take_made(void *arg, const struct np_reading *reading) {
  struct made *m = arg;
  m->reading = np_reading_copy(m->ws, reading);
  m->has_reading = true;
  return false;
}

static bool is_inside(const struct made *m) {
  const struct np_shadow_span *span = &m->r->span;
  const char *device = m->r->options->device;
  if (!m->how->cause) return !device || np_glob_match(device, strlen(device), m->reading.device.ptr, m->reading.device.len);
  return m->has_cause && m->cause.received >= span->from && m->cause.received <= span->to &&
         np_filter_match(span->filter, &m->cause);
}

static bool take_derivation(void *arg, int64_t reading, const struct np_derivation *d) {
  struct made *m = arg;
  m->how = d;
  m->ws = np_writeset_new();
  m->has_cause = m->has_reading = false;
  m->failed = np_reader_reading(m->r->other, reading, take_made, m, &m->err) < 0 ||
              (d->cause && np_reader_reading(m->r->other, d->cause, take_made_cause, m, &m->err) < 0);
  if (!m->failed && m->has_reading && is_inside(m)) np_shadow_derived(m->record, m->has_cause ? &m->cause : NULL, d, &m->reading);
  np_writeset_unref(m->ws);
  return !m->failed;
}

static int add_derived(struct dry *r, struct np_shadow_record *record, struct np_error *err) {
  struct made m = {.r = r, .record = record};
  const struct np_shadow_span *span = &r->span;
  if (np_reader_derived_by(r->reader, r->rule, span->after, span->upto, span->from, span->to, take_derivation, &m, err) < 0)
    return -1;
  return m.failed ? np_fail(err, "%s", m.err.text) : 0;
}

static int add_sent(void *arg, struct np_shadow_record *record, struct np_error *err) {
  struct sent s = {.r = arg, .record = record};
  const struct np_shadow_span *span = &s.r->span;
  if (np_reader_messages_by(s.r->reader, s.r->rule, span->after, span->upto, span->from, span->to, take_sent, &s, err) < 0)
    return -1;
  return s.failed ? np_fail(err, "%s", s.err.text) : add_derived(s.r, record, err);
}

/* Telling */

static void tell_json(const struct dry *r, const struct np_shadow_report *report) {
  struct np_buf b = {0};
  np_buf_adds(&b, "{\"rule\":");
  np_buf_add_json(&b, r->rule, strlen(r->rule));
  np_buf_addf(&b, ",\"readings\":%lld", (long long)report->covered.readings);
  for (int i = 0; i < NP_DIFFERENCES; i++) np_buf_addf(&b, ",\"%s\":%d", np_difference_names[i], report->counts[i]);
  if (!report->covered.whole) np_buf_adds(&b, ",\"cut\":true");
  np_buf_adds(&b, ",\"messages\":[");
  for (size_t i = 0; i < report->count; i++) {
    np_buf_adds(&b, i ? ",{" : "{");
    np_shadow_change_json(&report->list[i], &b);
    np_buf_addc(&b, '}');
  }
  printf("%s]}\n", b.data);
  np_buf_free(&b);
}

static void tell_rows(const struct np_shadow_report *report) {
  struct np_show *show = np_show_new("messages", false, false);
  struct np_error err;
  for (size_t i = 0; i < report->count; i++) {
    struct np_buf b = {0};
    np_buf_addc(&b, '{');
    np_shadow_change_json(&report->list[i], &b);
    np_buf_addc(&b, '}');
    if (np_show_line(show, b.data, b.len, &err) < 0) fprintf(stderr, "%s\n", err.text);
    np_buf_free(&b);
  }
  np_show_flush(show);
  np_show_free(show);
}

static void tell(const struct dry *r, const struct np_shadow_report *report) {
  bool any = false;
  if (r->options->json) {
    tell_json(r, report);
    return;
  }
  printf("%s: ", r->rule);
  for (int i = 0; i < NP_DIFFERENCES; i++) {
    if (!report->counts[i]) continue;
    printf("%s%d %s", any ? ", " : "", report->counts[i], np_difference_names[i]);
    any = true;
  }
  printf("%s, over %lld reading%s%s\n",
         any               ? ""
         : report->derives ? "what was sent and derived"
                           : "what was sent",
         (long long)report->covered.readings, report->covered.readings == 1 ? "" : "s",
         report->covered.whole ? "" : ": there was more than can be compared at once");
  fflush(stdout);
  tell_rows(report);
}

static int run(struct dry *r, struct np_unit *u) {
  struct np_shadow_report report;
  struct np_error err;
  r->rule = u->instance;
  if (np_shadow_against(np_gate_take(&u->built), r->to, r->reader, &r->span, add_sent, r, &report, &err) < 0)
    return fail(r, u->instance, &err);
  tell(r, &report);
  np_shadow_report_free(&report);
  return 0;
}

static int run_all(struct dry *r) {
  struct np_error err;
  int code = 0;
  bool found = false;
  for (size_t i = 0; i < r->d.unit_count; i++) {
    struct np_unit *u = r->d.units[i];
    bool named = r->options->rule && strcmp(r->options->rule, u->instance) == 0;
    if (r->options->rule && !named) continue;
    if (u->built.code && u->built.code->kind == NP_RULE) {
      found = true;
      code |= run(r, u);
    } else if (named || (u->error && !u->unconfigured && u->kind == NP_RULE)) {
      found = true;
      np_fail(&err, "%s", u->error ? u->error : "it is no rule");
      code |= fail(r, u->error ? NULL : u->instance, &err);
    }
  }
  if (found) return code;
  np_fail(&err, r->options->rule ? "there is no rule \"%s\"" : "there are no rules", r->options->rule);
  return fail(r, NULL, &err);
}

static int open_all(struct dry *r, struct np_error *err) {
  const struct np_replay_dry *o = r->options;
  r->filter = np_replay_filter((const char *const[]){o->device, o->metric, o->vendor, o->connection}, err);
  if (!r->filter || !(r->reader = np_reader_open(r->options->store, err)) || !(r->other = np_reader_open(r->options->store, err)))
    return -1;
  int64_t last = np_reader_last_seq(r->reader), now = np_now_ms();
  if (last < 0) return np_fail(err, "the store cannot be read");
  r->span = (struct np_shadow_span){.upto = last ? last : 1, /* nothing yet: 0 would be all */
                                    .from = r->options->from,
                                    .to = r->options->to ? r->options->to : now,
                                    .filter = r->filter,
                                    .until = r->options->to ? r->options->to : now};
  return np_deploy_read(&r->d, err);
}

int np_replay_dry(const struct np_replay_dry *options) {
  struct dry r = {.options = options, .d = {.config = options->config, .plugins = options->config->plugins, .lanes = 1}};
  struct np_deploy *d = &r.d;
  struct np_deploy_change change = {0};
  struct np_error err;
  int code;
  setpriority(PRIO_PROCESS, 0, 10); /* a host on this machine comes first */
  if (open_all(&r, &err) < 0) {
    code = fail(&r, NULL, &err);
  } else {
    np_deploy_build(d, &change);
    r.to = np_gate_epoch(d);
    code = run_all(&r);
    np_epoch_unref(r.to);
    for (size_t i = 0; i < d->unit_count; i++) np_unit_free(d, d->units[i]);
    free(d->units);
    free(d->wants.list);
  }
  np_sources_free(&d->sources);
  if (r.filter) np_filter_free(r.filter);
  if (r.reader) np_reader_close(r.reader);
  if (r.other) np_reader_close(r.other);
  return code;
}
