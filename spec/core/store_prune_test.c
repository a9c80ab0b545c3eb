/* What goes when it is past its bounds, and what has to stay. Times are ms; a reading is received 7 ms after its `at`. */
#include "store/sqlite.h"
#include "store_sets.h"

static int prune(struct np_store *s, enum np_kept kind, struct np_keep bound, int64_t now, int *failed) {
  struct np_pruned pruned;
  struct np_keep keep[NP_KEPT_KINDS] = {0};
  struct np_error err = {""};
  int n, gone = 0;
  keep[kind] = bound;
  memset(s->sweeps, 0, sizeof s->sweeps); /* as if a while had passed */
  while ((n = np_store_prune(s, keep, now, 0, &pruned, &err)) > 0) {
    CHECK(n <= 500, "a step is small: %d", n);
    gone += n;
    if (failed) *failed = pruned.failed;
  }
  CHECK(n == 0, "%s", err.text);
  return gone;
}

static struct np_op *add_request(struct np_writeset *ws, int64_t received, const char *outcome) {
  struct np_op *op = np_writeset_add(ws, NP_OP_REQUEST);
  op->as.request.instance = op->as.request.method = text(ws, "-");
  op->as.request.target = text(ws, "/t");
  op->as.request.body = text(ws, "12345678");
  op->as.request.outcome = text(ws, outcome);
  op->as.request.received = received;
  return op;
}

static void requests(struct np_store *s) {
  for (int i = 0; i < 3; i++) {
    struct np_writeset *ws = np_writeset_new();
    for (int j = 0; j < 500; j++) add_request(ws, 5000 + i, j == 7 ? "failed" : "done");
    CHECK(apply(s, ws) == NP_COMMITTED);
  }
  CHECK(ask("SELECT request_bytes FROM counters") == 1500 * (10 + 150));
  CHECK(prune(s, NP_KEPT_REQUESTS, (struct np_keep){0}, 1 << 30, NULL) == 0, "no bound");
  CHECK(prune(s, NP_KEPT_REQUESTS, (struct np_keep){.age = 1000}, 6000, NULL) == 0, "as old as that is not older");
  CHECK(prune(s, NP_KEPT_REQUESTS, (struct np_keep){.age = 1000}, 6001, NULL) == 499);
  struct np_keep keep[NP_KEPT_KINDS] = {[NP_KEPT_REQUESTS] = {.age = 1000}};
  struct np_pruned pruned;
  CHECK(np_store_prune(s, keep, 6002, 0, &pruned, NULL) == 0, "what had to stay is not looked at again at once");
}

static void failed_requests(struct np_store *s) {
  int failed = 0;
  CHECK(prune(s, NP_KEPT_FAILED, (struct np_keep){.age = 1000}, 6001, &failed) == 1 && ask("SELECT count(*) FROM inbox") == 1000);
}

static void request_size(struct np_store *s) {
  struct np_pruned pruned;
  CHECK(prune(s, NP_KEPT_REQUESTS, (struct np_keep){.size = 1000 * 160}, 0, NULL) == 0, "at the bound");
  CHECK(prune(s, NP_KEPT_REQUESTS, (struct np_keep){.size = 1000 * 160 - 1}, 0, NULL) == 1, "one above it: the oldest goes");
  struct np_keep keep[NP_KEPT_KINDS] = {[NP_KEPT_REQUESTS] = {.size = 990 * 160}};
  CHECK(np_store_prune(s, keep, 0, 0, &pruned, NULL) == 9 && pruned.failed == 1, "failed ones count as well: %d", pruned.failed);
  int64_t newest = ask("SELECT max(id) FROM inbox");
  prune(s, NP_KEPT_REQUESTS, (struct np_keep){.size = 1}, 0, NULL);
  CHECK(ask("SELECT count(*) FROM inbox") == 0 && ask("SELECT request_bytes FROM counters") == 0);
  struct np_writeset *ws = np_writeset_new();
  add_request(ws, 1, "done");
  CHECK(apply(s, ws) == NP_COMMITTED && ask("SELECT max(id) FROM inbox") == newest + 1, "a number is not given twice");
}

/* Rules have dealt with all of that device's readings. */
static void route(struct np_store *s, const char *device, int64_t seq) {
  struct np_writeset *ws = np_writeset_new();
  char sql[100];
  int partition = np_partition(device, strlen(device));
  snprintf(sql, sizeof sql, "SELECT seq FROM cursors WHERE partition = %d", partition);
  add_cursor(ws, partition, ask(sql), seq);
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static int drop_readings(struct np_store *s, int64_t now) {
  return prune(s, NP_KEPT_READINGS, (struct np_keep){.age = 1000}, now, NULL);
}

static void readings(struct np_store *s) {
  int64_t first = store_reading(s, "a", 100, NULL), last = 0;
  store_reading(s, "a", 200, "k200");
  last = store_reading(s, "a", 300, NULL);
  store_reading(s, "b", 100, NULL);
  CHECK(drop_readings(s, 5000) == 0, "rules have not dealt with them");
  route(s, "a", first);
  CHECK(drop_readings(s, 1107) == 0, "as old as that is not older");
  CHECK(drop_readings(s, 1108) == 1 && ask("SELECT min(at) FROM readings WHERE device = 'a'") == 200);
  route(s, "a", last);
  CHECK(drop_readings(s, 5000) == 1 && ask("SELECT count(*) FROM readings WHERE device = 'a'") == 1, "the newest stays");
  CHECK(ask("SELECT reading_bytes FROM counters") == 2 * 60);
}

static void not_taken_again(struct np_store *s) {
  CHECK(store_reading(s, "a", 100, NULL) == 0 && store_reading(s, "a", 200, "k200") == 0, "what is gone does not come back");
  CHECK(store_reading(s, "a", 200, "other") == 0 && store_reading(s, "a", 150, NULL) == 0, "nor what cannot be told from it");
  CHECK(ask("SELECT count(*) FROM events WHERE device = 'a' AND type = 'too_old' AND at = 200") == 1, "which is said, once");
  CHECK(store_reading(s, "a", 201, "k200") > 0, "what is newer is taken");
  CHECK(store_reading(s, "b", 50, NULL) > 0, "another series has lost nothing");
}

static void held_and_counted(struct np_store *s) {
  struct np_writeset *ws = np_writeset_new();
  add_reading(ws, "c", 10, NULL, 1)->serial = 4;
  add_reading(ws, "c", 20, NULL, 1);
  add_reading(ws, "c", 30, NULL, 1);
  CHECK(apply(s, ws) == NP_COMMITTED);
  int64_t seq = ask("SELECT seq FROM readings WHERE device = 'c' AND at = 20");
  ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_HOLD);
  op->as.hold.instance = text(ws, "rule"), op->as.hold.reading = seq, op->as.hold.error = text(ws, "why");
  CHECK(apply(s, ws) == NP_COMMITTED);
  route(s, "c", seq + 1);
  CHECK(drop_readings(s, 5000) == 0, "the newest with a serial, one that is held, and the newest stay");
  ws = np_writeset_new();
  np_writeset_add(ws, NP_OP_RELEASE)->as.release.id = ask("SELECT id FROM held");
  CHECK(apply(s, ws) == NP_COMMITTED && drop_readings(s, 5000) == 1);
}

/* A clock that was ahead for a while has what comes after it refused no more than any other. */
static void clock_ahead(struct np_store *s) {
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 2; i++) add_reading(ws, "ahead", 900000 + i, NULL, 1)->received = 100;
  CHECK(apply(s, ws) == NP_COMMITTED);
  route(s, "ahead", ask("SELECT max(seq) FROM readings"));
  CHECK(drop_readings(s, 5000) == 1);
  CHECK(store_reading(s, "ahead", 101, NULL) > 0, "it is newer than what was received when the clock was ahead");
  CHECK(store_reading(s, "ahead", 99, NULL) == 0);
}

/* What led to a derived reading goes with it, and its key can be a vendor's. */
static void derived(struct np_store *s) {
  struct np_writeset *ws = np_writeset_new();
  const struct np_derivation by = {.cause = 1, .generation = 3, .timer = text(ws, "late")};
  int64_t bytes = ask("SELECT reading_bytes FROM counters");
  for (int i = 0; i < 2; i++) {
    struct np_reading *r = add_reading(ws, "made", 10 + i, i ? "rule:b" : "rule:a", 1);
    r->depth = 1;
    r->derivation = &by;
  }
  CHECK(apply(s, ws) == NP_COMMITTED && ask("SELECT count(*) FROM derivations") == 2);
  CHECK(ask("SELECT reading_bytes FROM counters") == bytes + 2 * (60 + 6 + 40 + 4));
  CHECK(store_reading(s, "made", 12, "rule:a") > 0 && store_reading(s, "made", 12, "rule:a") == 0);
  route(s, "made", ask("SELECT max(seq) FROM readings"));
  CHECK(drop_readings(s, 5000) == 2 && ask("SELECT count(*) FROM derivations") == 0);
  CHECK(ask("SELECT count(*) FROM readings WHERE device = 'made'") == 1 && store_reading(s, "made", 13, "rule:a") == 0,
        "the vendor's is known, though the derived one of that key is gone");
  CHECK(ask("SELECT reading_bytes FROM counters") == bytes + 60 + 6);
}

static void reading_size(struct np_store *s) {
  for (int i = 0; i < 1200; i++) store_reading(s, "many", 1000 + i, NULL);
  route(s, "many", ask("SELECT max(seq) FROM readings"));
  int64_t bytes = ask("SELECT reading_bytes FROM counters");
  prune(s, NP_KEPT_READINGS, (struct np_keep){.size = bytes - 600 * 60}, 0, NULL);
  CHECK(ask("SELECT reading_bytes FROM counters") <= bytes - 600 * 60);
  CHECK(ask("SELECT min(at) FROM readings WHERE device = 'many'") > 1500, "the oldest go");
}

static void events_and_messages(struct np_store *s) {
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 3; i++) {
    struct np_op *op = np_writeset_add(ws, NP_OP_EVENT);
    op->as.event.vendor = text(ws, "tideco"), op->as.event.device = text(ws, "e"), op->as.event.type = text(ws, "alarm");
    op->as.event.key = text(ws, ""), op->as.event.at = i, op->as.event.received = 10000 + i;
  }
  CHECK(apply(s, ws) == NP_COMMITTED);
  prune(s, NP_KEPT_EVENTS, (struct np_keep){.age = 10}, 10012, NULL);
  CHECK(ask("SELECT count(*) FROM events WHERE type = 'alarm'") == 1 &&
        ask("SELECT min(at) FROM events WHERE type = 'alarm'") == 2);
  for (int i = 0; i < 4; i++) sent(s, send_to(s, i % 2 ? "desk" : "ward", "d"), 'd'); /* made at 10, delivered at 1000 */
  CHECK(ask("SELECT delivered_bytes FROM counters") == 4 * 152);
  CHECK(prune(s, NP_KEPT_DELIVERED, (struct np_keep){.age = 100}, 1100, NULL) == 0);
  CHECK(prune(s, NP_KEPT_DELIVERED, (struct np_keep){.age = 100}, 1101, NULL) == 4);
  CHECK(ask("SELECT delivered_bytes FROM counters") == 0);
  struct np_reader *r = open_reader();
  CHECK(np_reader_messages_gone(r) == 10, "it is on record until when those were made that have gone");
  np_reader_close(r);
  struct np_keep none[NP_KEPT_KINDS] = {0};
  struct np_pruned pruned;
  CHECK(put(s, "gone", "x", NOW - 5, -1) == NP_COMMITTED && np_store_prune(s, none, 0, NOW - 6, &pruned, NULL) == 0);
  CHECK(np_store_prune(s, none, 0, NOW - 5, &pruned, NULL) == 1 && ask("SELECT count(*) FROM kv WHERE space = 'space'") == 0);
}

/* What a request was before it was run again goes and counts with it. */
static void former_runs(struct np_store *s) {
  struct np_writeset *ws = np_writeset_new();
  add_request(ws, 5000, "failed")->as.request.error = text(ws, "why it failed");
  CHECK(apply(s, ws) == NP_COMMITTED && ask("SELECT request_bytes FROM counters") == 160 + 160 + 13, "one was there");
  int64_t id = ask("SELECT max(id) FROM inbox");
  for (int runs = 0; runs < 3; runs++) {
    ws = np_writeset_new();
    struct np_op *op = np_writeset_add(ws, NP_OP_REPLAYED);
    op->as.replayed.id = id, op->as.replayed.runs = runs, op->as.replayed.at = 6000 + runs;
    op->as.replayed.outcome = text(ws, runs < 2 ? "failed" : "done"), op->as.replayed.error = text(ws, runs < 2 ? "again" : NULL);
    CHECK(apply(s, ws) == NP_COMMITTED);
  }
  CHECK(ask("SELECT request_bytes FROM counters") == 160 + 160 + 13 + 5 + 5 + 3 * 60);
  prune(s, NP_KEPT_REQUESTS, (struct np_keep){.size = 1}, 0, NULL);
  CHECK(ask("SELECT request_bytes FROM counters") == 0 && ask("SELECT count(*) FROM request_runs") == 0);
}

static void try_at(struct np_store *s, int64_t seq, int n, char state) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_SENT);
  op->as.sent.seq = seq, op->as.sent.state = state, op->as.sent.attempts = n, op->as.sent.at = 1000, op->as.sent.due = 2000;
  op->as.sent.error = text(ws, state == 'd' ? NULL : "busy"), op->as.sent.reason = text(ws, "refused");
  op->as.sent.attempt =
      (struct np_attempt){.n = n, .outcome = text(ws, "again"), .error = text(ws, "why"), .answer = text(ws, "503")};
  op->as.sent.attempt.request = text(ws, "POST /alerts"), op->as.sent.attempt.reply = text(ws, "HTTP/1.1 503");
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static int64_t send_as(struct np_store *s, const char *id) {
  struct np_writeset *ws = np_writeset_new();
  struct np_message *m = &np_writeset_add(ws, NP_OP_SEND)->as.send;
  m->id = text(ws, id), m->destination = text(ws, "desk"), m->device = text(ws, "d"), m->body = text(ws, "{}");
  m->created = 10, m->asks = true;
  CHECK(apply(s, ws) == NP_COMMITTED);
  return ask("SELECT max(seq) FROM outbox");
}

static void ack(struct np_store *s, const char *id) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_ACK);
  op->as.ack.id = text(ws, id), op->as.ack.record = text(ws, "{\"by\":1}");
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static void decide(struct np_store *s, int64_t seq, char action) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_DEAD);
  op->as.dead.seq = seq, op->as.dead.action = action, op->as.dead.at = 1000, op->as.dead.by = text(ws, "her");
  CHECK(apply(s, ws) == NP_COMMITTED);
}

enum { ATTEMPT = 80 + 3 + 3 + 12 + 12, ASKED = 40 + 1, ACK = 40 + 1 + 8, MESSAGE = 150 + 2 };

static void expect_messages(int64_t delivered, int64_t dead, const char *when) {
  int64_t d = ask("SELECT delivered_bytes FROM counters"), x = ask("SELECT dead_bytes FROM counters");
  CHECK(d == delivered && x == dead, "%s: %lld, not %lld; %lld, not %lld", when, (long long)d, (long long)delivered, (long long)x,
        (long long)dead);
}

/* What is kept of attempts, and an acknowledgement, go and count with their message, from when it waits no more. */
static void what_hangs_on_messages(struct np_store *s) {
  int64_t a = send_as(s, "a"), b = send_as(s, "b"), c = send_as(s, "c");
  for (int n = 1; n <= 30; n++) try_at(s, a, n, 'r');
  expect_messages(0, 0, "what waits is not bounded");
  try_at(s, a, 31, 'd');
  expect_messages(MESSAGE + 21 * ATTEMPT + ASKED, 0, "the first attempt and the newest 20");
  try_at(s, a, 32, 'd');
  ack(s, "a"), ack(s, "a"), ack(s, "none");
  expect_messages(MESSAGE + 21 * ATTEMPT + ACK, 0, "once each");
  try_at(s, b, 1, 'x'), try_at(s, c, 1, 'x');
  expect_messages(MESSAGE + 21 * ATTEMPT + ACK, 2 * (MESSAGE + ATTEMPT + ASKED + 4), "dead");
  decide(s, b, 'r');
  ack(s, "b");
  expect_messages(MESSAGE + 21 * ATTEMPT + ACK, MESSAGE + ATTEMPT + ASKED + 4, "one waits again");
  try_at(s, b, 2, 'd');
  decide(s, b, 'x');
  decide(s, c, 'x'), decide(s, c, 'x'), decide(s, c, 'r');
  expect_messages(3 * MESSAGE + 24 * ATTEMPT + 2 * ACK + 4, 0, "dropped, and nobody waits for that");
  CHECK(prune(s, NP_KEPT_DELIVERED, (struct np_keep){.size = 3 * MESSAGE + 24 * ATTEMPT + 2 * ACK + 4}, 0, NULL) == 0,
        "at the bound");
  CHECK(prune(s, NP_KEPT_DELIVERED, (struct np_keep){.size = 3 * MESSAGE + 24 * ATTEMPT + 2 * ACK + 3}, 0, NULL) == 1,
        "the oldest");
  expect_messages(2 * MESSAGE + 3 * ATTEMPT + ACK + 4, 0, "it and all of it");
  CHECK(prune(s, NP_KEPT_DELIVERED, (struct np_keep){.size = 1}, 0, NULL) == 2, "what was dropped, too");
  expect_messages(0, 0, "none is left");
  CHECK(ask("SELECT count(*) FROM attempts") == 0 && ask("SELECT count(*) FROM kv WHERE space LIKE 'neap.a%'") == 0);
}

/* Dead letters that are past their bounds are dropped, which is on record for as long as what was delivered. */
static void dead_letters(struct np_store *s) {
  struct np_keep keep[NP_KEPT_KINDS] = {[NP_KEPT_DEAD] = {.age = 100}, [NP_KEPT_DELIVERED] = {.age = 50}};
  struct np_pruned pruned;
  for (int i = 0; i < 3; i++) try_at(s, send_as(s, (char[]){(char)('p' + i), 0}), 1, 'x'); /* dead since 1000 */
  CHECK(prune(s, NP_KEPT_DEAD, (struct np_keep){0}, INT64_MAX, NULL) == 0, "no bound");
  CHECK(np_store_prune(s, keep, 1100, 0, &pruned, NULL) == 0 && pruned.dead == 0, "as old as that is not older");
  memset(s->sweeps, 0, sizeof s->sweeps);
  keep[NP_KEPT_DEAD] = (struct np_keep){.size = ask("SELECT dead_bytes FROM counters") - 1};
  CHECK(np_store_prune(s, keep, 1100, 0, &pruned, NULL) == 1 && pruned.dead == 1 && ask("SELECT count(*) FROM dead") == 2);
  CHECK(ask("SELECT count(*) FROM dropped WHERE by = 'keep.dead' AND dropped = 1100 AND id = 'p'") == 1);
  expect_messages(MESSAGE + ATTEMPT + 4, 2 * (MESSAGE + ATTEMPT + ASKED + 4), "it counts there now");
  memset(s->sweeps, 0, sizeof s->sweeps);
  keep[NP_KEPT_DEAD] = (struct np_keep){.age = 100};
  CHECK(np_store_prune(s, keep, 1101, 0, &pruned, NULL) == 2 && pruned.dead == 2 && ask("SELECT count(*) FROM dropped") == 3);
  CHECK(prune(s, NP_KEPT_DELIVERED, (struct np_keep){.age = 50}, 1151, NULL) == 1 && ask("SELECT count(*) FROM dropped") == 2);
  CHECK(prune(s, NP_KEPT_DELIVERED, (struct np_keep){.age = 50}, 1152, NULL) == 2);
  expect_messages(0, 0, "none is left");
}

/* A step is small in bytes, too. */
static void large_rows(struct np_store *s) {
  static char body[1 << 20];
  struct np_keep keep[NP_KEPT_KINDS] = {[NP_KEPT_REQUESTS] = {.age = 1}};
  struct np_pruned pruned;
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 10; i++) add_request(ws, 5000, "done")->as.request.body = np_writeset_text(ws, body, sizeof body);
  CHECK(apply(s, ws) == NP_COMMITTED);
  memset(s->sweeps, 0, sizeof s->sweeps);
  CHECK(np_store_prune(s, keep, 6000, 0, &pruned, NULL) == 4 && pruned.more);
  CHECK(np_store_prune(s, keep, 6000, 0, &pruned, NULL) == 4 && pruned.more);
  CHECK(np_store_prune(s, keep, 6000, 0, &pruned, NULL) == 2 && !pruned.more && ask("SELECT request_bytes FROM counters") == 0);
}

/* What is remembered of the file may be forgotten at any time: the file says the same. */
static void restarts(struct np_store **s) {
  int64_t bytes = ask("SELECT reading_bytes FROM counters");
  np_store_close(*s);
  *s = open_store();
  CHECK(store_reading(*s, "a", 100, NULL) == 0 && store_reading(*s, "new", 100, NULL) > 0);
  CHECK(ask("SELECT reading_bytes FROM counters") == bytes + 60);
}

int main(void) {
  test_begin();
  struct np_store *s = open_store();
  requests(s);
  failed_requests(s);
  request_size(s);
  readings(s);
  not_taken_again(s);
  held_and_counted(s);
  clock_ahead(s);
  derived(s);
  reading_size(s);
  former_runs(s);
  large_rows(s);
  events_and_messages(s);
  what_hangs_on_messages(s);
  dead_letters(s);
  restarts(&s);
  np_store_close(s);
  return test_end();
}
