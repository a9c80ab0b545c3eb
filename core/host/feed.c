/* Items of a tail, and their way to the main thread. */
#include "host/feed.h"

#include <stdlib.h>
#include <string.h>

#include "host/admin_line.h"

#define BOX 4096 /* items on their way */

const char *const np_feed_kinds[NP_FEEDS] = {"matches", "messages", "attempts", "acknowledgements"};
const char *const np_feed_names[NP_FEED_NAMES] = {"rule", "destination", "device", "metric", "vendor", "connection"};

bool np_feed_has(enum np_feed_kind kind, enum np_feed_name name) {
  return kind == NP_FEED_MATCHES ? name != NP_FEED_DESTINATION : name <= NP_FEED_DEVICE;
}

int np_feed_init(struct np_feed *f) { return np_mailbox_init(&f->box, BOX); }

void np_feed_close(struct np_feed *f) {
  for (struct np_node *node = np_mailbox_take(&f->box), *next; node; node = next) {
    next = node->next;
    np_feed_item_free((struct np_feed_item *)node);
  }
  np_mailbox_destroy(&f->box);
}

void np_feed_item_free(struct np_feed_item *item) {
  for (int i = 0; i < NP_FEED_NAMES; i++) free(item->names[i]);
  np_buf_free(&item->line);
  free(item);
}

void np_feed_send(struct np_feed *f, struct np_feed_item *item) {
  enum np_feed_kind kind = item->kind;
  if (np_mailbox_send(&f->box, &item->node) == 0) return;
  np_feed_item_free(item);
  atomic_fetch_add_explicit(&f->lost[kind], 1, memory_order_relaxed);
}

static struct np_feed_item *new_item(enum np_feed_kind kind) {
  struct np_feed_item *item = np_alloc(sizeof *item);
  item->kind = kind;
  return item;
}

static void name(struct np_feed_item *item, enum np_feed_name which, struct np_text text) {
  if (text.ptr) item->names[which] = np_strndup(text.ptr, text.len);
}

/* What a rule did: how many messages, and whether it armed, disarmed, stored or emitted something. What its filters remember is none of its doing. */
static void add_did(struct np_buf *b, const struct np_op *op, const char *error) {
  int64_t sent = 0, armed = 0, disarmed = 0, stored = 0, emitted = 0;
  for (; op; op = op->next) {
    sent += op->kind == NP_OP_SEND;
    armed += op->kind == NP_OP_ARM && op->as.arm.due;
    disarmed += op->kind == NP_OP_ARM && !op->as.arm.due;
    stored += op->kind == NP_OP_PUT && strncmp(op->as.put.space.ptr, "filter:", 7) != 0;
    emitted += op->kind == NP_OP_READING || op->kind == NP_OP_EVENT || op->kind == NP_OP_DEVICE;
  }
  const struct {
    const char *name;
    int64_t n;
  } all[] = {{"sent", sent}, {"armed", armed}, {"disarmed", disarmed}, {"stored", stored}, {"emitted", emitted}};
  for (size_t i = 0; i < sizeof all / sizeof *all && !error; i++)
    if (all[i].n) np_line_int(b, all[i].name, all[i].n);
  np_line_text(b, "held", error);
}

struct np_feed_item *np_feed_match(const struct np_reading *r, const char *rule, int generation, const struct np_op *did,
                                   const char *error) {
  struct np_feed_item *item = new_item(NP_FEED_MATCHES);
  struct np_buf *b = &item->line;
  np_line_reading(b, r);
  b->len -= 2; /* its end: more comes */
  np_line_text(b, "rule", rule);
  np_line_int(b, "generation", generation);
  add_did(b, did, error);
  np_line_end(b);
  item->names[NP_FEED_RULE] = np_strdup(rule);
  name(item, NP_FEED_DEVICE, r->device);
  name(item, NP_FEED_METRIC, r->metric);
  name(item, NP_FEED_VENDOR, r->vendor);
  name(item, NP_FEED_CONNECTION, r->connection);
  return item;
}

/* What says which message it is about. */
static void begin(struct np_feed_item *item, struct np_text id, struct np_text rule, struct np_text destination,
                  struct np_text device) {
  struct np_buf *b = &item->line;
  np_line_begin(b);
  np_line_text(b, "id", id.ptr);
  np_line_text(b, "rule", rule.ptr);
  np_line_text(b, "destination", destination.ptr);
  np_line_text(b, "device", device.ptr);
  name(item, NP_FEED_RULE, rule);
  name(item, NP_FEED_DESTINATION, destination);
  name(item, NP_FEED_DEVICE, device);
}

static void begin_message(struct np_feed_item *item, const struct np_message *m) {
  begin(item, m->id, m->source, m->destination, m->device);
  if (m->reading) np_line_int(&item->line, "reading", m->reading);
  if (m->replayed) np_line_int(&item->line, "replay", m->replayed);
}

struct np_feed_item *np_feed_message(const struct np_message *m) {
  struct np_feed_item *item = new_item(NP_FEED_MESSAGES);
  begin_message(item, m);
  if (m->generation) np_line_int(&item->line, "generation", m->generation);
  np_line_int(&item->line, "created", m->created);
  if (m->expires) np_line_int(&item->line, "expires", m->expires);
  np_line_end(&item->line);
  return item;
}

struct np_feed_item *np_feed_attempt(const struct np_message *m, const struct np_op *sent) {
  struct np_feed_item *item = new_item(NP_FEED_ATTEMPTS);
  char state = sent->as.sent.state;
  begin_message(item, m);
  np_line_attempt(&item->line, &sent->as.sent.attempt);
  np_line_text(&item->line, "state", state == 'd' ? "delivered" : state == 'r' ? "pending" : "dead");
  if (sent->as.sent.due) np_line_int(&item->line, "due", sent->as.sent.due);
  np_line_text(&item->line, "reason", sent->as.sent.reason.ptr);
  np_line_end(&item->line);
  return item;
}

struct np_feed_item *np_feed_ack(const struct np_op *op) {
  struct np_feed_item *item = new_item(NP_FEED_ACKS);
  begin(item, op->as.ack.id, op->as.ack.rule, op->as.ack.destination, op->as.ack.device);
  np_line_int(&item->line, "at", op->as.ack.at);
  np_line_text(&item->line, "by", op->as.ack.by.ptr);
  np_line_text(&item->line, "note", op->as.ack.note.ptr);
  np_line_end(&item->line);
  return item;
}
