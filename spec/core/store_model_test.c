/* 10,000 sets drawn at random, right and wrong about what they saw, against a model in memory. */
#include "store_sets.h"

static unsigned random_state = 20240229;
static int draw(int n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (int)((random_state >> 8) % (unsigned)n);
}

enum { KEYS = 12 };
struct model {
  int64_t version[KEYS], value[KEYS], cursor[3];
};

static void model_key(char *key, int i) { snprintf(key, 8, "m%d", i); }

/* A set of a few operations, right or wrong about what they saw; the model says what has to come of it. */
static struct np_writeset *draw_set(struct model *m, int64_t stale[KEYS], bool *conflict, int64_t *number) {
  struct np_writeset *ws = np_writeset_new();
  struct model next = *m;
  int puts[KEYS] = {0};
  *conflict = false;
  for (int n = 1 + draw(4), i = 0; i < n; i++) {
    int k = draw(KEYS), what = draw(8), p = draw(3);
    char key[8], value[24];
    model_key(key, k);
    snprintf(value, sizeof value, "%lld", (long long)++*number);
    if (what < 3) {
      int64_t version = draw(6) ? m->version[k] : stale[k];
      add_seen(ws, key, version);
      if (version != m->version[k]) *conflict = true;
    } else if (what < 6) {
      add_put(ws, key, value, 0);
      next.value[k] = *number, puts[k] = 1;
    } else if (what == 6) {
      add_put(ws, key, NULL, 0);
      next.value[k] = 0, puts[k] = -1;
    } else {
      int64_t from = draw(8) ? next.cursor[p] : next.cursor[p] + 1;
      add_cursor(ws, p, from, from + 1);
      if (from != next.cursor[p]) *conflict = true;
      next.cursor[p] = from + 1;
    }
  }
  if (*conflict) return ws;
  for (int k = 0; k < KEYS; k++) {
    if (puts[k]) stale[k] = m->version[k];
    next.version[k] = puts[k] == 0 ? m->version[k] : puts[k] < 0 ? 0 : -1; /* -1: a new one, asked for when it is known */
  }
  *m = next;
  return ws;
}

static void learn_versions(struct model *m, struct np_reader *r, int64_t *newest) {
  int64_t most = *newest;
  for (int k = 0; k < KEYS; k++) {
    char key[8], value[24];
    model_key(key, k);
    snprintf(value, sizeof value, "%lld", (long long)m->value[k]);
    if (m->version[k] >= 0 && draw(16)) continue; /* what should not have changed is looked at now and then */
    int64_t version = version_of(r, key, m->version[k] ? value : NULL, NOW);
    if (m->version[k] < 0)
      CHECK(version > *newest, "versions only rise");
    else
      CHECK(version == m->version[k]);
    m->version[k] = version;
    if (version > most) most = version;
  }
  *newest = most;
}

static void against_a_model(void) {
  struct np_store *s = open_store();
  struct np_reader *r = open_reader();
  struct model m = {0};
  int64_t stale[KEYS] = {0}, number = 0, newest = 0, cursors_now[NP_PARTITIONS];
  int conflicts = 0;
  for (int i = 0; i < 10000; i++) {
    bool conflict;
    struct np_writeset *ws = draw_set(&m, stale, &conflict, &number);
    enum np_outcome outcome = apply(s, ws);
    if (outcome != (conflict ? NP_CONFLICT : NP_COMMITTED)) CHECK(0, "step %d: outcome %d", i, outcome);
    conflicts += conflict;
    if (!conflict) learn_versions(&m, r, &newest);
  }
  CHECK(conflicts > 500 && conflicts < 5000, "%d conflicts", conflicts);
  CHECK(np_reader_cursors(r, cursors_now, NULL) == 0);
  for (int p = 0; p < 3; p++) CHECK(cursors_now[p] == m.cursor[p]);
  np_reader_close(r);
  np_store_close(s);
}

int main(void) {
  test_begin();
  against_a_model();
  return test_end();
}
