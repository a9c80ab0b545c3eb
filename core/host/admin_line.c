/* What the host tells about itself, as lines of JSON. */
#include "host/admin_line.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/redact.h"
#include "host/account.h"
#include "host/budget.h"
#include "host/outlet.h"
#include "host/tags.h"
#include "store/seal.h"

#ifndef NP_VERSION
#define NP_VERSION "0.1.0"
#endif

void np_line_begin(struct np_buf *b) { np_buf_addc(b, '{'); }

static void add_name(struct np_buf *b, const char *name) {
  if (b->data[b->len - 1] != '{') np_buf_addc(b, ',');
  np_buf_addf(b, "\"%s\":", name);
}

static void add_text(struct np_buf *b, const char *name, struct np_text value) {
  if (!value.ptr) return;
  add_name(b, name);
  char *masked = np_mask_text(value.ptr, value.len);
  np_buf_add_json(b, masked, strlen(masked));
  free(masked);
}

/* JSON that was checked when it came in; it has to stay on one line. */
static void add_json(struct np_buf *b, const char *name, struct np_text value) {
  if (!value.len) return;
  add_name(b, name);
  size_t from = b->len;
  np_redact_strings(b, value.ptr, value.len, np_mask_text);
  for (char *s = b->data + from; *s; s++)
    if (*s == '\n' || *s == '\r') *s = ' ';
}

void np_line_more(struct np_buf *b, const char *fields, size_t n) {
  if (b->data[b->len - 1] != '{') np_buf_addc(b, ',');
  np_buf_add(b, fields, n);
}

void np_line_text(struct np_buf *b, const char *name, const char *value) {
  add_text(b, name, (struct np_text){value, value ? strlen(value) : 0});
}

void np_line_int(struct np_buf *b, const char *name, int64_t value) {
  add_name(b, name);
  np_buf_addf(b, "%" PRId64, value);
}

void np_line_end(struct np_buf *b) { np_buf_adds(b, "}\n"); }

void np_line_error(struct np_buf *b, const char *error) {
  np_line_begin(b);
  np_line_text(b, "error", error);
  np_line_end(b);
}

void np_line_value(struct np_buf *b, const struct np_value *v) {
  if (v->type == NP_STRING) { /* which may hold what is not to be shown */
    add_text(b, "value", v->s);
    return;
  }
  add_name(b, "value");
  np_value_add_json(b, v);
}

void np_line_reading(struct np_buf *b, const struct np_reading *r) {
  np_line_begin(b);
  np_line_int(b, "seq", r->seq);
  add_text(b, "vendor", r->vendor);
  add_text(b, "connection", r->connection);
  add_text(b, "device", r->device);
  add_text(b, "metric", r->metric);
  np_line_value(b, &r->value);
  add_text(b, "unit", r->unit);
  np_line_int(b, "at", r->at);
  np_line_int(b, "received", r->received);
  add_text(b, "key", r->key);
  if (r->serial != INT64_MIN) np_line_int(b, "serial", r->serial);
  if (r->interval) np_line_int(b, "interval", r->interval);
  np_line_text(b, "trend", np_trend_names[r->trend]);
  np_line_text(b, "quality", np_quality_names[r->quality]);
  add_json(b, "extra", r->extra);
  if (r->depth) {
    add_text(b, "derived", r->connection);
    np_line_int(b, "depth", r->depth);
  }
  if (r->quiet) {
    add_name(b, "quiet");
    np_buf_adds(b, "true");
  }
  np_line_end(b);
}

void np_line_device(struct np_buf *b, const struct np_device *d) {
  np_line_begin(b);
  add_text(b, "vendor", d->vendor);
  add_text(b, "connection", d->connection);
  add_text(b, "device", d->device);
  add_text(b, "serial", d->serial);
  add_text(b, "model", d->model);
  add_text(b, "name", d->name);
  if (np_seal_is_reference(d->owner.ptr, d->owner.len)) add_text(b, "owner", d->owner); /* anything else may be a name */
  add_text(b, "place", d->place);
  if (d->tags.len) {
    add_name(b, "tags");
    np_tags_add_json(b, d->tags);
  }
  if (d->own_tags.len) {
    add_name(b, "own_tags");
    np_tags_add_json(b, d->own_tags);
  }
  add_text(b, "status", d->status);
  if (d->online >= 0) {
    add_name(b, "online");
    np_buf_adds(b, d->online ? "true" : "false");
  }
  np_line_int(b, "first_seen", d->first_seen);
  np_line_int(b, "last_seen", d->last_seen);
  np_line_end(b);
}

void np_line_body(struct np_buf *b, struct np_host *host, const char *destination, struct np_text body) {
  const struct np_deploy *d = host->deploy;
  struct np_buf shown = {0};
  for (size_t i = 0; i < np_deploy_count(d) && !shown.len; i++) {
    struct np_status s = np_deploy_status(d, i);
    if (strcmp(s.instance, destination) == 0 && s.code)
      np_redact(&shown, body.ptr ? body.ptr : "", body.len, (const char *const *)s.code->terms.redact, s.code->terms.redact_count,
                NULL, NULL);
  }
  struct np_buf masked = {0}; /* string by string: escaped, a secret would not be known */
  if (shown.len) np_redact_strings(&masked, shown.data, shown.len, np_mask_text);
  np_line_text(b, "body", masked.len ? masked.data : "***");
  np_buf_free(&masked);
  np_buf_free(&shown);
}

void np_line_message(struct np_buf *b, const struct np_sent *s) {
  static const char *const states[][2] = {{"p", "pending"}, {"d", "delivered"}, {"x", "dead"}, {"o", "dropped"}};
  np_line_text(b, "id", s->message.id.ptr);
  for (int i = 0; i < 4; i++)
    if (*states[i][0] == s->state) np_line_text(b, "state", states[i][1]);
  np_line_text(b, "destination", s->message.destination.ptr);
  np_line_text(b, "device", s->message.device.ptr);
  np_line_text(b, "source", s->message.source.ptr);
  if (s->message.reading) np_line_int(b, "reading", s->message.reading);
  if (s->message.replayed) np_line_int(b, "replay", s->message.replayed);
  np_line_int(b, "created", s->message.created);
  if (s->message.about) np_line_int(b, "about", s->message.about);
  if (s->at) np_line_int(b, "at", s->at);
  if (s->state == 'p' && s->message.due) np_line_int(b, "due", s->message.due);
  if (s->message.expires) np_line_int(b, "expires", s->message.expires);
  np_line_int(b, "attempts", s->message.attempts + (s->state == 'd'));
  if (s->status) np_line_int(b, "status", s->status);
  np_line_text(b, "reason", s->reason.ptr);
  np_line_text(b, "error", s->error.ptr);
  if (s->state != 'o') return;
  np_line_int(b, "dropped", s->dropped);
  np_line_text(b, "by", s->by.ptr);
}

void np_line_attempt(struct np_buf *b, const struct np_attempt *a) {
  np_line_int(b, "attempt", a->n);
  np_line_int(b, "at", a->at);
  np_line_int(b, "took", a->took);
  np_line_int(b, "generation", a->generation);
  if (a->status) np_line_int(b, "status", a->status);
  np_line_int(b, "batch", a->batch);
  np_line_text(b, "outcome", a->outcome.ptr);
  np_line_text(b, "error", a->error.ptr);
  np_line_text(b, "answer", a->answer.ptr);
}

void np_line_exchange(struct np_buf *b, const struct np_attempt *a) {
  np_line_text(b, "request", a->request.ptr);
  np_line_text(b, "reply", a->reply.ptr);
}

void np_line_outlet(struct np_buf *b, struct np_host *host, const char *destination) {
  struct np_outlet_view v = np_outlet_look(host->broker, destination);
  np_line_text(b, "circuit", np_circuit_names[v.circuit]);
  if (v.failures) np_line_int(b, "failures", v.failures);
  if (v.since) np_line_int(b, "failing_since", v.since);
  if (v.next_probe) np_line_int(b, "next_probe", v.next_probe);
  if (v.paused) np_line_int(b, "paused_until", v.paused);
  if (v.circuit == NP_CIRCUIT_CLOSED && !v.paused) return;
  char text[120];
  double seconds = (double)((v.paused ? v.paused : v.next_probe) - np_now_ms()) / 1000;
  if (v.circuit == NP_CIRCUIT_HALF_OPEN)
    snprintf(text, sizeof text, "it is being probed after %d failures", v.failures);
  else if (v.paused)
    snprintf(text, sizeof text, "it asked for a pause of another %.0f s", seconds > 0 ? seconds : 0);
  else
    snprintf(text, sizeof text, "it is probed in %.0f s, after %d failures", seconds > 0 ? seconds : 0, v.failures);
  np_line_text(b, "probed", text);
}

/* "waiting" is for people; "gate" has the generation and what it passed. */
void np_line_gate(struct np_buf *b, const struct np_gate *g) {
  if (!g) return;
  np_line_text(b, "waiting", np_gate_says(g));
  add_name(b, "gate");
  np_buf_addf(b, "{\"generation\":%d,\"approval\":%s,", np_gate_number(g), np_gate_waits(g) ? "true" : "false");
  np_gate_json(g, b);
  np_buf_addc(b, '}');
}

static void add_derives(struct np_buf *b, const struct np_code *code) {
  if (!code->derive_count) return;
  add_name(b, "derives");
  for (size_t i = 0; i < code->derive_count; i++) {
    np_buf_addc(b, i ? ',' : '[');
    np_buf_add_json(b, code->derives[i], strlen(code->derives[i]));
  }
  np_buf_addc(b, ']');
}

void np_line_status(struct np_buf *b, const struct np_status *s, struct np_host *host) {
  struct np_reader *reader = host->reader;
  np_line_begin(b);
  np_line_text(b, "instance", s->instance);
  np_line_text(b, "plugin", s->plugin);
  np_line_text(b, "kind", np_kind_names[s->kind]);
  np_line_text(b, "state", s->state);
  np_line_int(b, "generation", s->generation);
  if (s->since) np_line_int(b, "since", s->since);
  np_line_text(b, "file", s->file);
  np_line_text(b, "hash", s->hash);
  np_line_int(b, "memory", (int64_t)s->memory);
  np_line_int(b, "memory_max", s->memory_max);
  if (s->kind != NP_DESTINATION) np_line_int(b, "held", np_reader_held_count(reader, s->instance));
  if (s->kind != NP_RULE && (s->kind == NP_DESTINATION || (s->code && s->code->deliver) || !s->generation)) {
    np_line_int(b, "pending", np_reader_outbox_count(reader, s->instance, 'p'));
    np_line_int(b, "dead", np_reader_outbox_count(reader, s->instance, 'x'));
    np_line_outlet(b, host, s->instance);
  }
  np_line_text(b, "error", s->error);
  if (s->code) np_quarantine_describe(s->code, b);
  if (s->code) np_limits_describe(s->code, s->memory_most, np_reader_size(reader, s->instance), b);
  if (s->code) add_derives(b, s->code);
  np_line_gate(b, s->gate);
  np_accounts_describe(host->broker, s->instance, s->generation, b);
  np_budgets_describe(host->broker, s->code, reader, b);
  np_line_end(b);
}

void np_line_change(struct np_buf *b, struct np_deploy_change change) {
  np_buf_addf(b, "{\"summary\":{\"loaded\":%d,\"kept\":%d,\"failed\":%d,\"removed\":%d,\"gone\":%d,\"waiting\":%d}}\n",
              change.loaded, change.kept, change.failed, change.removed, change.gone, change.waiting);
}

static int64_t resident_bytes(void) {
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  if (f && fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static int open_descriptors(void) {
  int n = 0;
  DIR *d = opendir("/proc/self/fd");
  if (!d) return -1;
  while (readdir(d)) n++;
  closedir(d);
  return n - 3; /* ".", ".." and the folder's own */
}

struct waiting { /* for all destinations, those of the past too */
  struct np_reader *reader;
  int64_t pending, dead;
};

static bool add_waiting(void *arg, struct np_text destination) {
  struct waiting *w = arg;
  w->pending += np_reader_outbox_count(w->reader, destination.ptr, 'p');
  w->dead += np_reader_outbox_count(w->reader, destination.ptr, 'x');
  return true;
}

void np_line_summary(struct np_buf *b, struct np_host *host) {
  long tasks = 0, states = 0, timers = 0, served = 0, refused = 0, failed = 0;
  for (int i = 0; i < host->lane_count; i++) {
    struct np_lane *lane = host->lanes[i];
    tasks += atomic_load_explicit(&lane->live_tasks, memory_order_relaxed);
    states += atomic_load_explicit(&lane->live_states, memory_order_relaxed);
    timers += atomic_load_explicit(&lane->live_timers, memory_order_relaxed);
    served += atomic_load_explicit(&lane->served, memory_order_relaxed);
    refused += atomic_load_explicit(&lane->refused, memory_order_relaxed);
    failed += atomic_load_explicit(&lane->failed, memory_order_relaxed);
  }
  struct waiting waiting = {.reader = host->reader};
  struct np_error err;
  if (np_reader_destinations(host->reader, add_waiting, &waiting, &err) < 0) waiting.pending = waiting.dead = -1;
  np_buf_adds(b, "{\"summary\":{");
  np_line_int(b, "pid", getpid());
  np_line_text(b, "version", NP_VERSION);
  np_line_int(b, "port", host->port);
  np_line_int(b, "lanes", host->lane_count);
  np_line_int(b, "epoch", (int64_t)atomic_load(&host->epoch));
  np_line_int(b, "tasks", tasks);
  np_line_int(b, "states", states);
  np_line_int(b, "timers", timers);
  np_line_int(b, "served", served);
  np_line_int(b, "refused", refused);
  np_line_int(b, "failed", failed);
  np_line_int(b, "descriptors", open_descriptors());
  np_line_int(b, "resident", resident_bytes());
  np_line_int(b, "queue", (int64_t)np_keeper_waiting(host->keeper));
  np_line_int(b, "held", np_reader_held_count(host->reader, NULL));
  np_line_int(b, "pending", waiting.pending);
  np_line_int(b, "dead", waiting.dead);
  np_line_int(b, "readings", np_reader_last_seq(host->reader));
  np_buf_adds(b, "}}\n");
}
