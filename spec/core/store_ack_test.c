/* Acknowledgements in the store: the first counts, only what is known has one, it lives as long as its message, and who looked is told of one that came. */
#include "store_sets.h"

static void send_one(struct np_store *s, const char *id, bool asks) {
  struct np_writeset *ws = np_writeset_new();
  np_writeset_add(ws, NP_OP_SEND)->as.send = (struct np_message){.id = text(ws, id),
                                                                 .destination = text(ws, "desk"),
                                                                 .device = text(ws, "d"),
                                                                 .body = text(ws, "{}"),
                                                                 .source = text(ws, "rule"),
                                                                 .created = 10,
                                                                 .asks = asks};
  CHECK(apply(s, ws) == NP_COMMITTED);
}

/* Whether it was the first. */
static bool ack(struct np_store *s, const char *id, const char *record) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_ACK);
  op->as.ack.id = text(ws, id);
  op->as.ack.record = text(ws, record);
  np_writeset_ref(ws);
  CHECK(apply(s, ws) == NP_COMMITTED);
  bool done = op->as.ack.done;
  np_writeset_unref(ws);
  return done;
}

/* Its record is that; NULL: it has none. Gives the version. */
static int64_t kept(struct np_reader *r, const char *id, const char *record) {
  struct np_buf b = {0};
  int64_t version = -1;
  struct np_error err;
  CHECK(np_reader_ack(r, id, &b, &version, &err) == (record != NULL), "%s", id);
  if (record) CHECK(!strcmp(np_buf_text(&b), record), "%s: %s", id, np_buf_text(&b));
  np_buf_free(&b);
  return version;
}

static bool see_id(void *arg, struct np_text id) {
  struct np_buf *b = arg;
  np_buf_addf(b, "%s ", id.ptr);
  return true;
}

static void waiting(struct np_reader *r, const char *after, const char *expected) {
  struct np_buf b = {0};
  struct np_error err;
  CHECK(np_reader_waiting_all(r, after, 10, see_id, &b, &err) == 0);
  CHECK(!strcmp(np_buf_text(&b), expected), "waiting: %s", np_buf_text(&b));
  np_buf_free(&b);
}

static void becomes(struct np_store *s, const char *id, char state) {
  char query[80];
  snprintf(query, sizeof query, "SELECT seq FROM outbox WHERE id = '%s'", id);
  sent(s, ask(query), state);
}

static void decide(struct np_store *s, const char *id, char action) {
  char query[80];
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_DEAD);
  snprintf(query, sizeof query, "SELECT seq FROM dead WHERE id = '%s'", id);
  op->as.dead.seq = ask(query), op->as.dead.action = action, op->as.dead.at = 1000;
  op->as.dead.destination = text(ws, "desk"), op->as.dead.device = text(ws, "d");
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static void the_first_counts(struct np_store *s, struct np_reader *r) {
  for (const char *id = "abcd"; *id; id++) send_one(s, (char[]){*id, 0}, true);
  send_one(s, "e", false);
  waiting(r, NULL, "a b c d ");
  waiting(r, "b", "c d ");
  kept(r, "a", NULL);
  becomes(s, "b", 'd'), becomes(s, "c", 'x'), becomes(s, "d", 'x');
  waiting(r, NULL, "a b c d ");
  CHECK(ack(s, "a", "{\"by\":1}") && !ack(s, "a", "{\"by\":2}"), "pending");
  CHECK(ack(s, "b", "{\"by\":3}") && !ack(s, "b", "{\"by\":3}"), "delivered");
  CHECK(ack(s, "c", "{\"by\":4}"), "dead");
  CHECK(ack(s, "e", "{\"by\":5}"), "one that does not ask for it");
  CHECK(!ack(s, "f", "{\"by\":6}") && kept(r, "f", NULL) == 0, "a message that there is not");
  kept(r, "a", "{\"by\":1}"), kept(r, "b", "{\"by\":3}"), kept(r, "c", "{\"by\":4}"), kept(r, "e", "{\"by\":5}");
  waiting(r, NULL, "d ");
  decide(s, "d", 'r');
  waiting(r, NULL, "d ");
  becomes(s, "d", 'x');
  decide(s, "d", 'x');
  waiting(r, NULL, "");
  CHECK(ack(s, "d", "{\"by\":7}"), "dropped");
  decide(s, "c", 'x');
  kept(r, "c", "{\"by\":4}");
}

/* The rule that has looked and found none does not commit what it made of that. */
static void who_looked_is_told(struct np_store *s, struct np_reader *r) {
  send_one(s, "g", true);
  int64_t version = kept(r, "g", NULL);
  for (int i = 0; i < 2; i++) {
    struct np_writeset *ws = np_writeset_new();
    struct np_op *op = np_writeset_add(ws, NP_OP_SEEN);
    op->as.seen.space = text(ws, NP_SPACE_ACKS), op->as.seen.key = text(ws, "g"), op->as.seen.version = version;
    CHECK(apply(s, ws) == (i ? NP_CONFLICT : NP_COMMITTED));
    if (!i) CHECK(ack(s, "g", "{}"));
  }
}

/* They go with their messages, and with nothing else. Closes the store. */
static void as_long_as_the_message(struct np_store *s, struct np_reader *r) {
  struct np_keep keep[NP_KEPT_KINDS] = {[NP_KEPT_DELIVERED] = {.age = 500}};
  struct np_error err;
  struct np_pruned pruned;
  send_one(s, "h", true);
  becomes(s, "h", 'd');
  while (np_store_prune(s, keep, 1400, 1, &pruned, &err) > 0) {}
  kept(r, "b", "{\"by\":3}"), kept(r, "d", "{\"by\":7}");
  waiting(r, NULL, "h ");
  np_store_close(s); /* another that is opened looks at once at what had to stay */
  s = open_store();
  while (np_store_prune(s, keep, 1600, 1, &pruned, &err) > 0) {}
  kept(r, "b", NULL), kept(r, "c", NULL), kept(r, "d", NULL);
  kept(r, "a", "{\"by\":1}"), kept(r, "e", "{\"by\":5}"), kept(r, "g", "{}");
  waiting(r, NULL, "");
  CHECK(ask("SELECT count(*) FROM kv WHERE space LIKE 'neap.a%'") == 3);
  CHECK(!ack(s, "b", "{}"), "its message is no longer kept");
  np_store_close(s);
}

int main(void) {
  test_begin();
  struct np_store *s = open_store();
  struct np_reader *r = open_reader();
  the_first_counts(s, r);
  who_looked_is_told(s, r);
  as_long_as_the_message(s, r);
  np_reader_close(r);
  return test_end();
}
