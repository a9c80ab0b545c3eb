/* A host of two lanes for tests: plugins from Lua source, epochs on demand, commits followed as the real one does. */
#ifndef NP_SPEC_LITTLE_HOST_H
#define NP_SPEC_LITTLE_HOST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "check.h"
#include "host/broker.h"
#include "host/courier.h"
#include "host/host.h"
#include "host/lane.h"

#define LANES 2

struct little_plugin {
  const char *instance, *settings, *source; /* source NULL: configured, but not in force */
  enum np_kind kind;
  int generation;
};

struct little_host {
  struct np_host host;
  struct np_config config;
  struct np_lane *lanes[LANES];
  char store[64];
  uint64_t epoch;
};

/* What np_keeper_options.committed does in the host: each lane is sent the sets that concern it. */
static void little_committed(void *arg, struct np_writeset *const *sets, size_t n) {
  struct little_host *h = arg;
  for (int i = 0; i < LANES && h->lanes[0]; i++) {
    struct np_letter *letter = np_alloc(sizeof *letter + n * sizeof *sets);
    letter->kind = NP_LETTER_COMMIT;
    letter->n = n;
    for (size_t k = 0; k < n; k++) np_writeset_ref(letter->sets[k] = sets[k]);
    np_lane_send(h->lanes[i], letter);
  }
}

static void little_letter(struct little_host *h, enum np_letter_kind kind) {
  for (int i = 0; i < LANES; i++) {
    struct np_letter *letter = np_alloc(sizeof *letter);
    letter->kind = kind;
    np_lane_send(h->lanes[i], letter);
  }
}

static struct np_epoch *little_epoch(struct little_host *h, const struct little_plugin *plugins, size_t n) {
  struct np_error err;
  struct np_epoch *e = np_alloc(sizeof *e);
  *e = (struct np_epoch){.refs = 1, .number = ++h->epoch, .slot_count = n, .routes = np_routes_new()};
  e->slots = np_alloc(n * sizeof *e->slots);
  for (size_t i = 0; i < n; i++) { /* in order of their names */
    const struct little_plugin *p = &plugins[i];
    struct np_slot *slot = &e->slots[i];
    slot->instance = np_strdup(p->instance);
    slot->kind = p->kind;
    if (!p->source) continue;
    struct np_order order = {.instance = p->instance,
                             .plugin = p->instance,
                             .mount = "",
                             .settings = p->settings ? p->settings : "{}",
                             .settings_at = "test",
                             .configured = true};
    order.source =
        (struct np_source){.name = (char *)"", .path = (char *)p->instance, .text = (char *)p->source, .len = strlen(p->source)};
    slot->on_lane = np_alloc(LANES * sizeof *slot->on_lane);
    for (int lane = 0; lane < LANES; lane++) {
      bool unconfigured = false;
      slot->on_lane[lane] = np_instance_build(&order, &slot->code, &unconfigured, &err);
      CHECK(slot->on_lane[lane], "%s: %s", p->instance, err.text);
      if (!slot->on_lane[lane]) exit(check_end());
    }
    slot->code->number = p->generation;
    np_code_ref(slot->code);
  }
  return e;
}

static void little_set_log(void) { np_log_setup(getenv("NEAP_TEST_LOG") ? NP_DEBUG : NP_ERROR + 1, true); }

/* Opens the store and its keeper; no lane runs yet. */
static void little_open(struct little_host *h) {
  struct np_error err;
  *h = (struct little_host){0};
  snprintf(h->store, sizeof h->store, "/tmp/neap-test-%d.db", (int)getpid());
  h->config = (struct np_config){.listen = (char *)"127.0.0.1:0", .store = h->store, .lanes = LANES};
  h->host.config = &h->config;
  h->host.lanes = h->lanes;
  h->host.lane_count = LANES;
  struct np_store *store = np_store_open(h->store, &err);
  CHECK(store, "%s", err.text);
  if (!store) exit(check_end());
  struct np_keeper_options options = {.committed = little_committed, .arg = h};
  h->host.keeper = np_keeper_start(store, &options, &err);
  h->host.reader = np_reader_open(h->store, &err);
  h->host.seal = np_seal_new((const unsigned char *)"a key of 32 bytes, for tests only", &err);
  h->host.broker = np_broker_new(&h->host);
  CHECK(h->host.keeper && h->host.reader, "%s", err.text);
}

static void little_lanes(struct little_host *h, const struct little_plugin *plugins, size_t n) {
  struct np_error err;
  struct np_epoch *e = little_epoch(h, plugins, n);
  atomic_store(&h->host.epoch, e->number);
  for (int i = 0; i < LANES; i++) {
    h->lanes[i] = np_lane_start(&h->host, i, e, &err);
    CHECK(h->lanes[i], "%s", err.text);
    if (!h->lanes[i]) exit(check_end());
  }
  np_epoch_unref(e);
  for (int i = 0; i < LANES; i++) CHECK(np_lane_begin(h->lanes[i], &err) == 0, "%s", err.text);
}

static void little_switch(struct little_host *h, const struct little_plugin *plugins, size_t n) {
  struct np_epoch *e = little_epoch(h, plugins, n);
  for (int i = 0; i < LANES; i++) {
    np_epoch_ref(e);
    np_epoch_unref(atomic_exchange(&h->lanes[i]->staged, e));
  }
  atomic_store(&h->host.epoch, e->number);
  np_epoch_unref(e);
  little_letter(h, NP_LETTER_EPOCH);
}

/* True once it is so; false where it is not within so long that it will never be. */
static bool little_until(struct little_host *h, bool (*so)(struct little_host *h, const void *arg), const void *arg) {
  for (int64_t end = np_now_ms() + 30000; np_now_ms() < end; usleep(2000))
    if (so(h, arg)) return true;
  return false;
}

static bool little_idle(struct little_host *h, const void *arg) {
  (void)arg;
  for (int i = 0; i < LANES; i++)
    if (atomic_load(&h->lanes[i]->live_tasks) || atomic_load(&h->lanes[i]->live_timers)) return false;
  return true;
}

static void little_stop(struct little_host *h, bool wait) {
  little_letter(h, NP_LETTER_DRAIN);
  if (wait)
    CHECK(little_until(h, little_idle, NULL), "no task and no timer is left after draining: %d %d, %d %d", h->lanes[0]->live_tasks,
          h->lanes[1]->live_tasks, h->lanes[0]->live_timers, h->lanes[1]->live_timers);
  little_letter(h, NP_LETTER_STOP);
  for (int i = 0; i < LANES; i++) np_lane_join(h->lanes[i]);
  np_broker_settle(h->host.broker);
  np_keeper_stop(h->host.keeper);
  for (int i = 0; i < LANES; i++) np_lane_free(h->lanes[i]);
  np_reader_close(h->host.reader);
  np_broker_free(h->host.broker);
  np_seal_free(h->host.seal);
  char path[80];
  static const char *const ends[] = {"", "-wal", "-shm", ".lock", "-lock"};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    snprintf(path, sizeof path, "%s%s", h->store, ends[i]);
    unlink(path);
  }
}

#endif
