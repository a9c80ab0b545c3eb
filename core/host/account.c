/* What is known of each account, who waits for it, and when it may be refreshed.
 *
 * A token is used by nobody before it is stored: where the store cannot take it, it is kept as `fresh`, and each call that has no other token tries to
 * store it again instead of asking the vendor anew. For a vendor may have used up the refresh token that led to it: another refresh with the old one would
 * be refused, and a person would have to sign in again. A further refresh, once fresh has expired itself, is given fresh as what was kept last. */
#include "host/account.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "host/host.h"
#include "host/sources.h"

#define EARLY_MOST 120000   /* ms before a token expires, where the plugin does not say */
#define BACKOFF_MOST 300000 /* ms */
#define BACKOFF_QUOTA 60000 /* ms at least where the vendor's quota is used up */
#define BACKOFF_DENIED 3600000
#define STORE_RETRY 1000 /* ms, while there is a good token */

/* Tokens. */

static struct np_token *token_ref(struct np_token *t) {
  t->refs++;
  return t;
}

void np_token_unref(struct np_token *t) {
  if (!t || --t->refs > 0) return;
  free(t->json);
  free(t);
}

static bool is_good(const struct np_token *t, int64_t now) { return t && now < t->expires; }

struct np_token *np_account_newest(const struct np_account *a) {
  return a->fresh ? a->fresh : a->current;
}

/* A moment in the last part of its life, at random: several hosts that share an account, or accounts of one age, do not come all at once. The last
 * quarter of the part is left for the refresh itself. */
static int64_t early_of(struct np_broker *b, const struct np_token *t, int64_t early) {
  if (t->expires == INT64_MAX) return INT64_MAX;
  int64_t life = t->expires - t->obtained, most = life - life / 10;
  if (early < 0) early = life / 10 < EARLY_MOST ? life / 10 : EARLY_MOST;
  if (early > most) early = most;
  return t->expires - early + (int64_t)(np_broker_random(b) * 0.75 * (double)early);
}

/* The store. */

static struct np_seal_context place(const struct np_account *a) {
  return (struct np_seal_context){"kv", NP_ACCOUNTS, a->id, strlen(a->id)};
}

/* Sealed: "VERSION SERIAL OBTAINED EXPIRES\n", and what the refresh returned. */
void np_account_put(struct np_broker *b, struct np_writeset *ws, const struct np_account *a, const struct np_token *t) {
  struct np_buf text = {0};
  np_buf_addf(&text, "1 %" PRId64 " %" PRId64 " %" PRId64 "\n", t->serial, t->obtained, t->expires);
  np_buf_add(&text, t->json, t->len);
  struct np_seal_context c = place(a);
  char *sealed = np_arena_alloc(&ws->arena, text.len + NP_SEAL_MORE + 1);
  np_seal_put(b->host->seal, &c, text.data, text.len, sealed);
  sealed[text.len + NP_SEAL_MORE] = 0;
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, NP_ACCOUNTS, strlen(NP_ACCOUNTS));
  op->as.put.key = np_writeset_text(ws, a->id, strlen(a->id));
  op->as.put.value = (struct np_text){sealed, text.len + NP_SEAL_MORE};
  np_buf_free(&text);
}

static struct np_token *parse(const char *text, size_t len) {
  struct np_token t = {.refs = 1};
  const char *line = memchr(text, '\n', len);
  if (!line || sscanf(text, "1 %" SCNd64 " %" SCNd64 " %" SCNd64, &t.serial, &t.obtained, &t.expires) != 3) return NULL;
  t.len = len - (size_t)(line + 1 - text);
  t.json = np_strndup(line + 1, t.len);
  struct np_token *copy = np_alloc(sizeof *copy);
  *copy = t;
  return copy;
}

/* NULL and err where it does not open. */
static struct np_token *open_stored(struct np_seal *seal, const struct np_account *a, const struct np_buf *value,
                                    struct np_error *err) {
  struct np_seal_context c = place(a);
  struct np_buf text = {0};
  struct np_error why;
  struct np_token *t = NULL;
  long n = np_seal_get(seal, &c, value->data, value->len, np_buf_reserve(&text, value->len + 1), &why);
  if (n >= 0) {
    text.data[n] = 0;
    t = parse(text.data, (size_t)n);
    if (!t) np_fail(&why, "it is of another neap's making");
  }
  if (!t) np_fail(err, "account %s: what is stored of it cannot be read: %s", a->shown, why.text);
  np_buf_free(&text);
  return t;
}

/* 0 and the token or NULL where none is stored; -1 and err. */
static int read_stored(struct np_lane *lane, const struct np_account *a, struct np_token **t, struct np_error *err) {
  struct np_buf value = {0};
  int64_t version;
  *t = NULL;
  int found = np_reader_get(lane->reader, NP_ACCOUNTS, a->id, strlen(a->id), np_now_ms(), &value, &version, err);
  if (found > 0) *t = open_stored(lane->host->seal, a, &value, err);
  np_buf_free(&value);
  return found < 0 || (found > 0 && !*t) ? -1 : 0;
}

static char *shown_name(const char *name, const char *key, size_t key_len) {
  char hash[65];
  struct np_buf b = {0};
  np_sha256_hex(key_len ? key : "", key_len, hash);
  np_buf_addf(&b, key_len ? "%s/%.8s" : "%s", name, hash);
  return b.data;
}

static struct np_account *find(struct np_broker *b, const char *connection, const char *name, const char *key, size_t key_len) {
  struct np_buf id = {0};
  np_buf_addf(&id, "%s/%s", connection, name);
  if (key_len) np_buf_addc(&id, '/');
  np_buf_add(&id, key, key_len);
  struct np_account *a = np_map_get(&b->accounts, id.data, id.len);
  if (!a) {
    a = np_alloc(sizeof *a);
    a->id = np_strdup(id.data);
    a->name = a->id + strlen(connection) + 1;
    a->connection = np_strdup(connection);
    a->shown = shown_name(name, key, key_len);
    np_map_put(&b->accounts, id.data, id.len, a);
  }
  np_buf_free(&id);
  return a;
}

struct np_account *np_account_find(struct np_lane *lane, const char *connection, const char *name, const char *key, size_t key_len,
                                   int64_t early, struct np_error *err) {
  struct np_broker *b = lane->host->broker;
  np_broker_lock(b);
  struct np_account *a = find(b, connection, name, key, key_len);
  bool known = a->known;
  np_broker_unlock(b);
  if (known) return a;
  struct np_token *t;
  if (read_stored(lane, a, &t, err) < 0) return NULL;
  np_broker_lock(b);
  if (a->known) { /* another lane was quicker */
    np_token_unref(t);
  } else {
    a->known = true;
    a->current = t;
    a->early = t ? early_of(b, t, early) : 0;
  }
  np_broker_unlock(b);
  return a;
}

/* Asking. */

static void give(struct np_token_call *c, struct np_token *t) { c->token = token_ref(t); }

static void tell(struct np_token_call *c, const char *why, const char *code) {
  c->why = np_strdup(why);
  c->code = code;
}

/* Not before its time; but a new generation, or after a denial an operator's reload, is not held up by what was before. */
static bool held_back(const struct np_broker *b, const struct np_account *a, int generation) {
  if (!a->why || np_mono_us() >= a->not_before) return false;
  if (strcmp(a->code, "quota") == 0) return true;
  if (a->generation != generation) return false;
  return strcmp(a->code, "denied") != 0 || a->reloads == b->reloads;
}

static void begin(struct np_broker *b, struct np_account *a, struct np_instance *in, const struct np_account_decl *decl) {
  a->working = true;
  a->reloads = b->reloads; /* one that comes while it is under way is not answered by what it began with */
  np_broker_start(in->lane, np_refresh_new(a, in, decl));
}

bool np_account_ask(struct np_token_call *c, struct np_instance *in, const struct np_account_decl *decl) {
  struct np_broker *b = c->wait.broker;
  struct np_account *a = c->account;
  int64_t now = np_now_ms();
  np_broker_lock(b);
  bool good = !a->bad && is_good(a->current, now), storing = is_good(a->fresh, now);
  bool held = !storing && held_back(b, a, in->code->number);
  if (good) {
    give(c, a->current);
    if (now >= a->early && !a->working && !held && !in->lane->draining) begin(b, a, in, decl);
  } else if (!a->working && held) {
    tell(c, a->why, a->code);
  } else {
    if (!a->working) begin(b, a, in, decl);
    np_wait_enter(&a->waiting, &c->wait);
  }
  bool waits = c->wait.in != NULL;
  np_broker_unlock(b);
  return waits;
}

bool np_account_expired(struct np_broker *b, const char *connection, const char *name, const char *id, int64_t serial) {
  size_t len = strlen(name);
  np_broker_lock(b);
  struct np_account *a = np_map_get(&b->accounts, id, strlen(id));
  bool own =
      a && strcmp(a->connection, connection) == 0 && strncmp(a->name, name, len) == 0 && (!a->name[len] || a->name[len] == '/');
  if (own && a->current && a->current->serial == serial) a->bad = true;
  np_broker_unlock(b);
  return own;
}

/* What became of a refresh. */

void np_account_got(struct np_account *a, struct np_token *t) {
  np_token_unref(a->fresh);
  a->fresh = t;
}

static void forget_failure(struct np_account *a) {
  free(a->why);
  a->why = NULL;
  a->code = NULL;
  a->failures = 0;
  a->not_before = 0;
}

void np_account_stored(struct np_broker *b, struct np_account *a, int64_t early) {
  np_token_unref(a->current);
  a->current = a->fresh;
  a->fresh = NULL;
  a->early = early_of(b, a->current, early);
  a->bad = a->working = false;
  forget_failure(a);
  for (struct np_wait *w; (w = a->waiting.first);) {
    give((struct np_token_call *)w, a->current);
    np_wait_wake(w);
  }
}

static void refuse_all(struct np_account *a, const char *why, const char *code) {
  a->working = false;
  for (struct np_wait *w; (w = a->waiting.first);) {
    tell((struct np_token_call *)w, why, code);
    np_wait_wake(w);
  }
}

static int64_t wait_after(struct np_broker *b, const struct np_account *a, const char *code) {
  if (strcmp(code, "denied") == 0) return BACKOFF_DENIED;
  int64_t ms = np_backoff(a->failures, BACKOFF_MOST);
  if (strcmp(code, "quota") == 0 && ms < BACKOFF_QUOTA) ms = BACKOFF_QUOTA;
  ms += (int64_t)((double)ms / 2 * np_broker_random(b));
  return ms > BACKOFF_MOST ? BACKOFF_MOST : ms;
}

int64_t np_account_failed(struct np_broker *b, struct np_account *a, int generation, const char *why, const char *code) {
  char *text = np_strdup(why); /* it may be a->why */
  free(a->why);
  a->why = text;
  a->code = code;
  a->generation = generation;
  a->failures++;
  int64_t ms = wait_after(b, a, code);
  a->not_before = np_mono_us() + ms * 1000;
  refuse_all(a, why, code);
  return ms;
}

void np_account_not_stored(struct np_account *a, const char *why) {
  int64_t soon = np_now_ms() + STORE_RETRY;
  if (a->early < soon) a->early = soon;
  refuse_all(a, why, "again");
}

/* For the operator. */

void np_accounts_reload(struct np_broker *b) {
  np_broker_lock(b);
  b->reloads++;
  np_broker_unlock(b);
}

static bool is_denied(const struct np_broker *b, const struct np_account *a, int generation) {
  return a->why && strcmp(a->code, "denied") == 0 && held_back(b, a, generation);
}

static void add_text(struct np_buf *out, const char *name, const char *text) {
  char *masked = np_mask_text(text, strlen(text));
  np_buf_addf(out, "%s\"%s\":", out->data[out->len - 1] == '{' ? "" : ",", name);
  np_buf_add_json(out, masked, strlen(masked));
  free(masked);
}

static void describe(const struct np_broker *b, const struct np_account *a, int generation, struct np_buf *out) {
  bool good = !a->bad && is_good(a->current, np_now_ms());
  np_buf_addc(out, '{');
  add_text(out, "account", a->shown);
  add_text(out, "state",
           is_denied(b, a, generation) ? "denied"
           : a->working                ? "refreshing"
           : good                      ? "good"
           : a->why                    ? "failing"
                                       : "none");
  if (a->current && a->current->expires != INT64_MAX) np_buf_addf(out, ",\"expires\":%" PRId64, a->current->expires);
  if (a->why) add_text(out, "error", a->why);
  np_buf_addc(out, '}');
}

void np_accounts_describe(struct np_broker *b, const char *connection, int generation, struct np_buf *out) {
  struct np_map_entry *e;
  const struct np_account *denied = NULL;
  size_t n = 0;
  np_broker_lock(b);
  for (size_t i = 0; (e = np_map_next(&b->accounts, &i));) {
    const struct np_account *a = e->value;
    if (strcmp(a->connection, connection) != 0) continue;
    if (!denied && is_denied(b, a, generation)) denied = a;
    if (++n > 100) continue; /* a line is for reading */
    np_buf_adds(out, n == 1 ? ",\"accounts\":[" : ",");
    describe(b, a, generation, out);
  }
  if (n) np_buf_addc(out, ']');
  if (denied) {
    struct np_buf text = {0};
    np_buf_addf(&text, "account %s was denied: %s", denied->shown, denied->why);
    add_text(out, "denied", text.data);
    np_buf_free(&text);
  }
  np_broker_unlock(b);
}

void np_accounts_settle(struct np_broker *b, struct np_writeset *ws) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&b->accounts, &i));) {
    const struct np_account *a = e->value;
    if (a->fresh) np_account_put(b, ws, a, a->fresh);
  }
}

static void free_account(void *value) {
  struct np_account *a = value;
  np_token_unref(a->current);
  np_token_unref(a->fresh);
  free(a->id);
  free(a->shown);
  free(a->connection);
  free(a->why);
  free(a);
}

void np_accounts_free(struct np_broker *b) { np_map_free(&b->accounts, free_account); }
