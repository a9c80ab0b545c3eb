/* Messages in the SQLite engine: pending ones in outbox, then in delivered, or dead, or dropped; and the attempts at them. */
#include <string.h>

#include "store/sqlite.h"

#define ATTEMPTS_KEPT 20

static const struct np_text acks = {NP_SPACE_ACKS, sizeof NP_SPACE_ACKS - 1}, asked = {NP_SPACE_ASKED, sizeof NP_SPACE_ASKED - 1};

/* Writing. */

int np_outbox_send(struct np_store *s, struct np_message *m) {
  static const struct np_text nothing = {"", 0};
  m->seq = ++s->count.message;
  int rc = np_sql_run(&s->sql, W_SEND, "ittkbtiiwiiwiii", m->seq, &m->id, &m->destination, &m->device, &m->body, &m->source,
                      m->reading, m->created, m->generation, m->replayed, m->about, m->attempts, m->due,
                      m->since ? m->since : m->created, m->expires);
  if (rc != SQLITE_OK || !m->asks) return rc;
  return np_sql_run(&s->sql, W_PUT, "tkbii", &asked, &m->id, &nothing, ++s->count.version, (int64_t)0);
}

static int write_attempt(struct np_sql *q, int64_t seq, const struct np_attempt *a) {
  if (!a->n) return SQLITE_OK;
  int rc = np_sql_run(q, W_ATTEMPT, "iwiiwwwttbbb", seq, a->n, a->at, a->took, a->generation, a->status, a->batch, &a->outcome,
                      &a->error, &a->answer, &a->request, &a->reply);
  bool more = rc == SQLITE_OK && sqlite3_changes(q->db) && a->n > ATTEMPTS_KEPT + 1;
  return more ? np_sql_run(q, W_OLD_ATTEMPT, "iw", seq, a->n) : rc;
}

int np_outbox_count(struct np_store *s, int64_t seq, int sign) {
  sqlite3_stmt *row = np_sql_start(&s->sql, W_MESSAGE_BYTES, "i", seq);
  if (!row) return np_sql_code(&s->sql);
  if (sqlite3_step(row) == SQLITE_ROW)
    s->count.bytes[sqlite3_column_int(row, 0) ? NP_KEPT_DEAD : NP_KEPT_DELIVERED] +=
        sign * (sqlite3_column_int64(row, 1) + NP_MESSAGE_BYTES);
  return sqlite3_reset(row);
}

/* What is not pending any more stays as it is. */
int np_outbox_sent(struct np_store *s, const struct np_op *op) {
  struct np_sql *q = &s->sql;
  int64_t seq = op->as.sent.seq, at = op->as.sent.at;
  int attempts = op->as.sent.attempts, status = op->as.sent.status, rc = write_attempt(q, seq, &op->as.sent.attempt);
  if (rc != SQLITE_OK) return rc;
  if (op->as.sent.state == 'r') return np_sql_run(q, W_AGAIN, "iwwit", seq, attempts, status, op->as.sent.due, &op->as.sent.error);
  if (op->as.sent.state == 'd')
    rc = np_sql_run(q, W_DELIVERED, "iwwi", seq, attempts, status, at);
  else
    rc = np_sql_run(q, W_DIED, "iwwitt", seq, attempts, status, at, &op->as.sent.error, &op->as.sent.reason);
  if (rc == SQLITE_OK && sqlite3_changes(q->db)) rc = np_outbox_count(s, seq, 1);
  return rc == SQLITE_OK ? np_sql_run(q, W_SENT, "i", seq) : rc;
}

int np_outbox_dead(struct np_store *s, struct np_op *op) {
  struct np_sql *q = &s->sql;
  int64_t seq = op->as.dead.seq, at = op->as.dead.at;
  int rc = np_outbox_count(s, seq, -1);
  if (rc != SQLITE_OK) return rc;
  rc = op->as.dead.action == 'r' ? np_sql_run(q, W_RETRY, "ii", seq, at) : np_sql_run(q, W_DROP, "iit", seq, at, &op->as.dead.by);
  if (rc != SQLITE_OK) return rc;
  op->as.dead.done = sqlite3_changes(q->db) > 0;
  rc = np_sql_run(q, W_BURY, "i", seq);
  return rc == SQLITE_OK ? np_outbox_count(s, seq, 1) : rc;
}

int np_outbox_ack(struct np_store *s, struct np_op *op) {
  struct np_sql *q = &s->sql;
  int64_t seq = 0; /* stays 0 while it is pending */
  int rc = np_sql_one(q, W_MESSAGE_OF, &seq, "t", &op->as.ack.id);
  if (rc == SQLITE_ROW || rc == SQLITE_DONE) rc = np_outbox_count(s, seq, -1);
  if (rc == SQLITE_OK) rc = np_sql_run(q, W_ACK, "tkbi", &acks, &op->as.ack.id, &op->as.ack.record, ++s->count.version);
  if (rc != SQLITE_OK) return rc;
  op->as.ack.done = sqlite3_changes(q->db) > 0;
  if (op->as.ack.done) rc = np_sql_run(q, W_DELETE, "tk", &asked, &op->as.ack.id);
  return rc == SQLITE_OK ? np_outbox_count(s, seq, 1) : rc;
}

/* Reading. */

static int walk_names(struct np_reader *r, sqlite3_stmt *st, bool (*fn)(void *arg, struct np_text name), void *arg,
                      struct np_error *err) {
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW)
    if (!fn(arg, np_sql_text(st, 0))) break;
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_outbox_devices(struct np_reader *r, const char *destination, bool replayed,
                             bool (*fn)(void *arg, struct np_text device), void *arg, struct np_error *err) {
  return walk_names(r, np_sql_start(&r->sql, R_DEVICES_OF, "sw", destination, replayed), fn, arg, err);
}

int np_reader_destinations(struct np_reader *r, bool (*fn)(void *arg, struct np_text destination), void *arg,
                           struct np_error *err) {
  return walk_names(r, np_sql_start(&r->sql, R_DESTINATIONS, ""), fn, arg, err);
}

static struct np_message message_of(sqlite3_stmt *st) {
  int64_t about = sqlite3_column_int64(st, 10); /* negative: see the schema */
  return (struct np_message){
      .seq = sqlite3_column_int64(st, 0),
      .id = np_sql_text(st, 1),
      .destination = np_sql_text(st, 2),
      .device = np_sql_text(st, 3),
      .body = np_sql_text(st, 4),
      .source = np_sql_text(st, 5),
      .reading = sqlite3_column_int64(st, 6),
      .created = sqlite3_column_int64(st, 7),
      .generation = sqlite3_column_int(st, 8),
      .replayed = sqlite3_column_int64(st, 9),
      .about = about > 0 ? about : 0,
      .attempts = sqlite3_column_int(st, 11),
      .due = sqlite3_column_int64(st, 12),
      .since = sqlite3_column_int64(st, 13),
      .expires = sqlite3_column_int64(st, 14),
  };
}

static int walk(struct np_reader *r, sqlite3_stmt *st, bool (*fn)(void *arg, const struct np_message *m), void *arg,
                struct np_error *err) {
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_message m = message_of(st);
    if (!fn(arg, &m)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_outbox_head(struct np_reader *r, const char *destination, const char *device, bool replayed, int limit,
                          bool (*fn)(void *arg, const struct np_message *m), void *arg, struct np_error *err) {
  return walk(r, np_sql_start(&r->sql, R_HEAD, "ssww", destination, device, replayed, limit), fn, arg, err);
}

int np_reader_expired(struct np_reader *r, int64_t now, int64_t after_expires, int64_t after_seq, int limit,
                      bool (*fn)(void *arg, const struct np_message *m), void *arg, struct np_error *err) {
  return walk(r, np_sql_start(&r->sql, R_EXPIRED, "iiiw", now, after_expires, after_seq, limit), fn, arg, err);
}

int np_reader_expired_of(struct np_reader *r, const char *destination, const char *device, bool replayed, int64_t now, int limit,
                         bool (*fn)(void *arg, const struct np_message *m), void *arg, struct np_error *err) {
  return walk(r, np_sql_start(&r->sql, R_EXPIRED_OF, "sswiw", destination, device, replayed, now, limit), fn, arg, err);
}

int64_t np_reader_next_expiry(struct np_reader *r, int64_t after) {
  int64_t at;
  int rc = np_sql_one(&r->sql, R_NEXT_EXPIRY, &at, "i", after);
  return rc == SQLITE_ROW ? at : rc == SQLITE_DONE ? INT64_MAX : -1;
}

int64_t np_reader_outbox_count(struct np_reader *r, const char *destination, char state) {
  int64_t n;
  int which = state == 'p' ? R_PENDING : state == 'd' ? R_DELIVERED : R_DEAD;
  return np_sql_one(&r->sql, which, &n, "s", destination) == SQLITE_ROW ? n : -1;
}

int64_t np_reader_outbox_oldest(struct np_reader *r, const char *destination) {
  int64_t at;
  return np_sql_one(&r->sql, R_OLDEST, &at, "s", destination) == SQLITE_ROW ? at : -1;
}

static struct np_sent sent_of(sqlite3_stmt *st, char state) {
  struct np_sent s = {
      .message = message_of(st), .state = state, .status = sqlite3_column_int(st, 15), .at = sqlite3_column_int64(st, 16)};
  if (state != 'd') s.error = np_sql_text(st, 17);
  if (state == 'x' || state == 'o') s.reason = np_sql_text(st, 18);
  if (state != 'o') return s;
  s.dropped = sqlite3_column_int64(st, 19);
  s.by = np_sql_text(st, 20);
  return s;
}

int np_reader_message(struct np_reader *r, const char *id, np_sent_fn *fn, void *arg, struct np_error *err) {
  static const struct {
    int statement;
    char state;
  } places[] = {{R_MESSAGE_DELIVERED, 'd'}, {R_MESSAGE_DEAD, 'x'}, {R_MESSAGE_DROPPED, 'o'}, {R_MESSAGE_PENDING, 'p'}};
  int found = 0, begun = np_sql_run(&r->sql, R_BEGIN, ""); /* it may be about to move from one to another */
  if (begun != SQLITE_OK) return np_sql_fail(&r->sql, begun, err);
  for (size_t i = 0; i < 4 && found == 0; i++) {
    sqlite3_stmt *st = np_sql_start(&r->sql, places[i].statement, "s", id);
    int rc = st ? sqlite3_step(st) : SQLITE_OK;
    found = st && rc == SQLITE_ROW;
    if (found) {
      struct np_sent s = sent_of(st, places[i].state);
      fn(arg, &s);
    }
    if (np_sql_end(&r->sql, st, rc, err) < 0) found = -1;
  }
  np_sql_run(&r->sql, R_COMMIT, "");
  return found;
}

static int walk_sent(struct np_reader *r, sqlite3_stmt *st, np_sent_fn *fn, void *arg, struct np_error *err) {
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_sent s = sent_of(st, *np_sql_text(st, 21).ptr);
    if (!fn(arg, &s)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_messages_of(struct np_reader *r, int64_t reading, np_sent_fn *fn, void *arg, struct np_error *err) {
  return walk_sent(r, np_sql_start(&r->sql, R_MESSAGES_OF, "i", reading), fn, arg, err);
}

int np_reader_messages_about(struct np_reader *r, int64_t about, np_sent_fn *fn, void *arg, struct np_error *err) {
  return walk_sent(r, np_sql_start(&r->sql, R_MESSAGES_ABOUT, "i", about), fn, arg, err);
}

int64_t np_reader_delivered_from(struct np_reader *r) {
  int64_t at;
  int rc = np_sql_one(&r->sql, R_DELIVERED_FROM, &at, "");
  return rc == SQLITE_ROW ? at : rc == SQLITE_DONE ? 0 : -1;
}

int64_t np_reader_messages_gone(struct np_reader *r) {
  int64_t made;
  int rc = np_sql_one(&r->sql, R_MESSAGES_GONE, &made, "");
  return rc == SQLITE_ROW ? made : rc == SQLITE_DONE ? 0 : -1;
}

int64_t np_reader_replay_pending(struct np_reader *r, int64_t replay) {
  int64_t n;
  return np_sql_one(&r->sql, R_REPLAY_PENDING, &n, "i", replay) == SQLITE_ROW ? n : -1;
}

int np_reader_messages_by(struct np_reader *r, const char *rule, int64_t after, int64_t upto, int64_t from, int64_t to,
                          np_sent_fn *fn, void *arg, struct np_error *err) {
  return walk_sent(r, np_sql_start(&r->sql, R_MESSAGES_BY, "siiii", rule, after, upto, from, to), fn, arg, err);
}

int np_reader_attempts(struct np_reader *r, int64_t message, bool (*fn)(void *arg, const struct np_attempt *a), void *arg,
                       struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_ATTEMPTS, "i", message);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_attempt a = {
        .n = sqlite3_column_int(st, 0),
        .at = sqlite3_column_int64(st, 1),
        .took = sqlite3_column_int64(st, 2),
        .generation = sqlite3_column_int(st, 3),
        .status = sqlite3_column_int(st, 4),
        .batch = sqlite3_column_int(st, 5),
        .outcome = np_sql_text(st, 6),
        .error = np_sql_text(st, 7),
        .answer = np_sql_text(st, 8),
        .request = np_sql_text(st, 9),
        .reply = np_sql_text(st, 10),
    };
    if (!fn(arg, &a)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_ack(struct np_reader *r, const char *id, struct np_buf *record, int64_t *version, struct np_error *err) {
  return np_reader_get(r, acks.ptr, id, strlen(id), 0, record, version, err);
}

int np_reader_waiting(struct np_reader *r, const char *id, struct np_error *err) {
  struct np_buf nothing = {0};
  int64_t version;
  int found = np_reader_get(r, asked.ptr, id, strlen(id), 0, &nothing, &version, err);
  np_buf_free(&nothing);
  return found;
}

struct waiting {
  bool (*fn)(void *arg, struct np_text id);
  void *arg;
};

static bool take_waiting(void *arg, struct np_text key, struct np_text value, int64_t version) {
  const struct waiting *w = arg;
  (void)value, (void)version;
  return w->fn(w->arg, key);
}

/* Ids rise with time. */
int np_reader_waiting_all(struct np_reader *r, const char *after, int limit, bool (*fn)(void *arg, struct np_text id), void *arg,
                          struct np_error *err) {
  struct waiting w = {fn, arg};
  return np_reader_keys(r, asked.ptr, "", after, 0, limit, take_waiting, &w, err);
}

int np_reader_dead(struct np_reader *r, const struct np_dead_filter *f, int limit, np_sent_fn *fn, void *arg,
                   struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_DEAD_LIST, "isiisw", f->after, f->destination, f->from, f->to, f->id, limit);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_sent s = sent_of(st, 'x');
    if (!fn(arg, &s)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}
