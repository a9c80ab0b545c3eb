/* Stories: what the store has on record of a reading, what its rules sent and what became of it, and beside it what the rules in force now say. */
#include "host/story.h"

#include <string.h>

#include "host/ack.h"
#include "host/admin_line.h"
#include "host/deploy.h"
#include "host/rule.h"

#define MESSAGES_SHOWN 50
#define DERIVED_SHOWN 20

void np_story_next(struct np_buf *b) {
  char last = b->data[b->len - 1];
  if (last != '[' && last != '{') np_buf_addc(b, ',');
}

void np_story_field(struct np_buf *b, const char *name) {
  np_story_next(b);
  np_buf_addf(b, "\"%s\":", name);
}

static void add_flag(struct np_buf *b, const char *name) {
  np_story_field(b, name);
  np_buf_adds(b, "true");
}

/* Copies, for what a reader gives is borrowed, and asking on needs the same reader. */

static void copy(struct np_writeset *ws, struct np_text *t) { *t = np_writeset_text(ws, t->ptr, t->len); }

struct np_sent np_sent_copy(struct np_writeset *ws, const struct np_sent *from) {
  struct np_sent s = *from;
  struct np_text *texts[] = {
      &s.message.id, &s.message.destination, &s.message.device, &s.message.body, &s.message.source, &s.error, &s.reason, &s.by};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) copy(ws, texts[i]);
  return s;
}

struct found {
  struct np_writeset *ws; /* owned: what the rest borrows from */
  struct np_sent messages[MESSAGES_SHOWN];
  size_t message_count, more;
  struct np_held held[MESSAGES_SHOWN];
  size_t held_count;
  struct np_reading derived[DERIVED_SHOWN + 1];
  int64_t seqs[DERIVED_SHOWN + 1]; /* of them; 0: told */
  size_t derived_count;
  int64_t more_derived;
};

static bool take_message(void *arg, const struct np_sent *m) {
  struct found *f = arg;
  if (f->message_count == MESSAGES_SHOWN)
    f->more++;
  else
    f->messages[f->message_count++] = np_sent_copy(f->ws, m);
  return true;
}

static bool take_held(void *arg, const struct np_held *h) {
  struct found *f = arg;
  struct np_held *held = &f->held[f->held_count++];
  *held = *h;
  copy(f->ws, &held->instance);
  copy(f->ws, &held->error);
  return f->held_count < MESSAGES_SHOWN;
}

static bool note_derived(void *arg, int64_t reading, const struct np_derivation *d) {
  struct found *f = arg;
  (void)d;
  f->seqs[f->derived_count++] = reading;
  return f->derived_count < DERIVED_SHOWN;
}

static bool take_derived(void *arg, const struct np_reading *r) {
  struct found *f = arg;
  f->derived[f->derived_count++] = np_reading_copy(f->ws, r);
  return false;
}

/* What rules derived from it: the first ones, and the next on the way. */
static int find_derived(const struct np_story *s, const struct np_reading *r, struct found *f, struct np_error *err) {
  struct np_reader *reader = s->host->reader;
  bool there = false;
  if (np_reader_derived_from(reader, r->seq, 0, DERIVED_SHOWN, note_derived, f, err) < 0) return -1;
  int64_t next = 0;
  for (size_t i = 0; i + 1 < s->way_count; i++)
    if (s->way[i] == r->seq) next = s->way[i + 1];
  size_t n = f->derived_count;
  for (size_t i = 0; i < n; i++) there |= f->seqs[i] == next;
  if (next && !there) f->seqs[n++] = next;
  f->derived_count = 0;
  for (size_t i = 0; i < n; i++)
    if (np_reader_reading(reader, f->seqs[i], take_derived, f, err) < 0) return -1;
  for (size_t i = 0; i < f->derived_count; i++) f->seqs[i] = f->derived[i].seq;
  return np_reader_derived_count(reader, r->seq, &f->more_derived, err);
}

/* Messages. */

static bool add_attempt(void *arg, const struct np_attempt *a) {
  const struct np_story *s = arg;
  struct np_buf *b = s->out;
  np_story_next(b);
  np_line_begin(b);
  np_line_attempt(b, a);
  if (s->people) np_line_exchange(b, a);
  np_buf_addc(b, '}');
  return true;
}

static const char *state_of(char state) {
  return state == 'p' ? "pending" : state == 'd' ? "delivered" : state == 'x' ? "dead" : "dropped";
}

int np_story_message(struct np_story *s, const struct np_sent *m, struct np_error *err) {
  struct np_buf *b = s->out;
  np_line_begin(b);
  np_line_text(b, "message", m->message.id.ptr);
  np_line_text(b, "rule", m->message.source.ptr);
  if (m->message.generation) np_line_int(b, "generation", m->message.generation);
  if (m->message.replayed) np_line_int(b, "replay", m->message.replayed);
  np_line_text(b, "to", m->message.destination.ptr);
  np_line_text(b, "device", m->message.device.ptr);
  np_line_int(b, "created", m->message.created);
  if (m->message.about) np_line_int(b, "about", m->message.about);
  if (m->message.expires) np_line_int(b, "expires", m->message.expires);
  np_line_text(b, "state", state_of(m->state));
  if (m->state != 'p') np_line_int(b, "at", m->at);
  bool gone = m->state == 'p' && !np_deploy_is_destination(s->host->deploy, m->message.destination.ptr);
  if (gone) np_line_more(b, "\"gone\":true", strlen("\"gone\":true"));
  if (m->state == 'p' && m->message.due && !gone) np_line_int(b, "due", m->message.due);
  if (m->status) np_line_int(b, "status", m->status);
  np_line_text(b, "error", m->error.ptr);
  np_line_text(b, "reason", m->reason.ptr);
  if (m->dropped) np_line_int(b, "dropped", m->dropped);
  np_line_text(b, "by", m->by.ptr);
  if (np_ack_line(b, s->host->reader, m->message.id.ptr, err) < 0) return -1;
  if (s->people) np_line_body(b, s->host, m->message.destination.ptr, m->message.body);
  np_story_field(b, "attempts");
  np_buf_addc(b, '[');
  if (np_reader_attempts(s->host->reader, m->message.seq, add_attempt, s, err) < 0) return -1;
  np_buf_adds(b, "]}");
  return 0;
}

/* Rules. */

static bool is_of(struct np_text t, const char *instance) { return t.ptr && strcmp(t.ptr, instance) == 0; }

/* Those of one rule; NULL: of all that are not configured as rules now. */
static int add_messages(struct np_story *s, struct found *f, const char *rule, struct np_error *err) {
  np_story_field(s->out, "messages");
  np_buf_addc(s->out, '[');
  for (size_t i = 0; i < f->message_count; i++) {
    struct np_sent *m = &f->messages[i];
    if (!m->message.seq || (rule && !is_of(m->message.source, rule))) continue;
    np_story_next(s->out);
    if (np_story_message(s, m, err) < 0) return -1;
    m->message.seq = 0; /* told */
  }
  np_buf_addc(s->out, ']');
  return 0;
}

/* What a rule derived, each with its own story; NULL: rules that are no longer configured. */
static int add_derived(struct np_story *s, struct found *f, const char *rule, struct np_error *err) {
  np_story_field(s->out, "readings");
  np_buf_addc(s->out, '[');
  for (size_t i = 0; i < f->derived_count; i++) {
    const struct np_reading *d = &f->derived[i];
    bool on_way = false;
    if (!f->seqs[i] || (rule && !is_of(d->connection, rule))) continue;
    for (size_t k = 0; k < s->way_count; k++) on_way |= s->way[k] == d->seq;
    if (!on_way && s->left <= 0) continue;
    s->left -= !on_way;
    f->seqs[i] = 0;
    f->more_derived--;
    np_story_next(s->out);
    if (np_story_reading(s, d, d->seq != s->asked, err) < 0) return -1;
  }
  np_buf_addc(s->out, ']');
  return 0;
}

/* The same of what is held. */
static void add_held(struct np_story *s, struct found *f, const char *rule) {
  np_story_field(s->out, "held");
  np_buf_addc(s->out, '[');
  for (size_t i = 0; i < f->held_count; i++) {
    struct np_text *of = &f->held[i].instance;
    if (!of->ptr || (rule && !is_of(*of, rule))) continue;
    np_story_next(s->out);
    np_line_begin(s->out);
    if (!rule) np_line_text(s->out, "rule", of->ptr);
    np_line_int(s->out, "at", f->held[i].at);
    if (f->held[i].generation) np_line_int(s->out, "generation", f->held[i].generation);
    np_line_text(s->out, "error", f->held[i].error.ptr);
    np_buf_addc(s->out, '}');
    of->ptr = NULL; /* told */
  }
  np_buf_addc(s->out, ']');
}

static bool on_record(const struct found *f, const char *rule) {
  for (size_t i = 0; i < f->message_count; i++)
    if (is_of(f->messages[i].message.source, rule)) return true;
  for (size_t i = 0; i < f->held_count; i++)
    if (is_of(f->held[i].instance, rule)) return true;
  for (size_t i = 0; i < f->derived_count; i++)
    if (is_of(f->derived[i].connection, rule)) return true;
  return false;
}

/* Nothing was added where it is brief and there is nothing to tell: false in *told. */
static int add_rule(struct np_story *s, const struct np_status *rule, const struct np_reading *r, struct found *f, bool brief,
                    bool *told, struct np_error *err) {
  struct np_buf *b = s->out;
  size_t from = b->len;
  bool recorded = on_record(f, rule->instance);
  enum np_why matches = NP_WHY_UNKNOWN;
  int then = np_reader_generation_at(s->host->reader, rule->instance, r->received);
  if (then < 0) return np_fail(err, "the store cannot be read");
  np_story_next(b);
  np_line_begin(b);
  np_line_text(b, "rule", rule->instance);
  np_line_text(b, "state", rule->state);
  if (rule->generation) np_line_int(b, "generation", rule->generation);
  if (then) np_line_int(b, "then", then);
  if (rule->code) matches = np_story_matches(s, rule, r);
  *told = !brief || recorded || matches != NP_WHY_NO;
  if (!*told) {
    b->len = from;
    b->data[from] = 0;
    return 0;
  }
  add_held(s, f, rule->instance);
  if (add_messages(s, f, rule->instance, err) < 0 || add_derived(s, f, rule->instance, err) < 0) return -1;
  np_buf_addc(b, '}');
  return 0;
}

static int add_rules(struct np_story *s, const struct np_reading *r, struct found *f, bool brief, struct np_error *err) {
  const struct np_deploy *d = s->host->deploy;
  int64_t others = 0;
  np_story_field(s->out, "rules");
  np_buf_addc(s->out, '[');
  for (size_t i = 0; i < np_deploy_count(d); i++) {
    struct np_status rule = np_deploy_status(d, i);
    bool told = true;
    if (rule.kind != NP_RULE || strcmp(rule.state, "unconfigured") == 0) continue;
    if (add_rule(s, &rule, r, f, brief, &told, err) < 0) return -1;
    others += !told;
  }
  np_buf_addc(s->out, ']');
  if (others) np_line_int(s->out, "others", others);
  add_held(s, f, NULL); /* of rules that are gone */
  if (add_messages(s, f, NULL, err) < 0) return -1;
  return add_derived(s, f, NULL, err);
}

/* Readings. */

static bool add_derivation(void *arg, int64_t reading, const struct np_derivation *d) {
  struct np_buf *b = arg;
  (void)reading;
  np_story_field(b, "derivation");
  np_line_begin(b);
  if (d->cause) np_line_int(b, "cause", d->cause);
  np_line_text(b, "timer", d->timer.ptr);
  np_line_text(b, "key", d->key.ptr);
  if (d->generation) np_line_int(b, "generation", d->generation);
  np_buf_addc(b, '}');
  return false;
}

int np_story_reading(struct np_story *s, const struct np_reading *r, bool brief, struct np_error *err) {
  struct found f = {.ws = np_writeset_new()};
  int64_t cursors[NP_PARTITIONS];
  np_line_reading(s->out, r);
  s->out->len -= 2; /* its end: more comes */
  int result = r->depth ? np_reader_derivation(s->host->reader, r->seq, add_derivation, s->out, err) : 0;
  if (result == 0) result = np_reader_messages_of(s->host->reader, r->seq, take_message, &f, err);
  if (result == 0) result = np_reader_held_of(s->host->reader, r->seq, take_held, &f, err);
  if (result == 0) result = find_derived(s, r, &f, err);
  if (result == 0) result = np_reader_cursors(s->host->reader, cursors, err);
  if (result == 0 && cursors[r->partition] < r->seq) add_flag(s->out, "waiting");
  if (result == 0) result = add_rules(s, r, &f, brief, err);
  if (f.more) np_line_int(s->out, "more_messages", (int64_t)f.more);
  if (f.more_derived > 0) np_line_int(s->out, "more_derived", f.more_derived);
  np_buf_addc(s->out, '}');
  np_writeset_unref(f.ws);
  return result;
}
