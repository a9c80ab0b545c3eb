/* A lane: its thread, its loop, and the moment at which it takes on a new epoch. */
#include "host/lane.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <openssl/sha.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "host/broker.h"
#include "host/calls.h"
#include "host/courier.h"
#include "host/host.h"
#include "host/jobs.h"
#include "host/replay.h"
#include "host/router.h"
#include "host/task.h"
#include "host/web.h"
#include "io/serve_link.h"

struct np_instance *np_lane_instance(struct np_lane *lane, const struct np_slot *slot) {
  return slot && slot->code ? slot->on_lane[lane->index] : NULL;
}

void np_lane_pin(struct np_lane *lane, struct np_instance *in) {
  (void)lane;
  in->live++;
}

static void close_instance(struct np_lane *lane, struct np_instance *in) {
  np_instance_close(in);
  atomic_fetch_sub_explicit(&lane->live_states, 1, memory_order_relaxed);
}

/* Not as a timeout: libevent counts the next one from the last, so that each would put it off by a further second. */
void np_lane_soon(struct np_lane *lane) { event_active(lane->tick, EV_READ, 0); }

/* A retired one is closed by the tick, never from inside the call that unpinned it. */
void np_lane_unpin(struct np_lane *lane, struct np_instance *in) {
  if (--in->live == 0 && in->retired) np_lane_soon(lane);
}

static void close_retired(struct np_lane *lane) {
  for (struct np_instance **at = &lane->retired, *in; (in = *at);) {
    if (in->live > 0) {
      at = &in->next_retired;
      continue;
    }
    *at = in->next_retired;
    close_instance(lane, in);
  }
}

static void retire(struct np_lane *lane, struct np_instance *in) {
  in->retired = true;
  in->next_retired = lane->retired;
  lane->retired = in;
}

static bool still_used(const struct np_lane *lane, const struct np_epoch *e, const struct np_slot *old) {
  const struct np_slot *now = np_epoch_slot(e, old->instance);
  return now && now->code && now->on_lane[lane->index] == old->on_lane[lane->index];
}

static void take_in(struct np_lane *lane, const struct np_slot *slot) {
  struct np_instance *in = slot->code ? slot->on_lane[lane->index] : NULL;
  if (!in || in->lane) return;
  in->lane = lane;
  in->fresh = true;
  in->env.base = lane->appender.script ? NULL : lane->base;
  in->env.fetch = lane->fetch;
  in->env.appender = &lane->appender;
  in->env.mailer = lane->mailer;
  in->env.mqtt = &lane->mqtt;
  np_limit_adopt(in);
  atomic_fetch_add_explicit(&lane->live_states, 1, memory_order_relaxed);
}

static void adopt(struct np_lane *lane, struct np_epoch *e) {
  struct np_epoch *old = lane->epoch;
  for (size_t i = 0; i < e->slot_count; i++) take_in(lane, &e->slots[i]);
  lane->epoch = e;
  for (size_t i = 0; old && i < old->slot_count; i++)
    if (old->slots[i].code && !still_used(lane, e, &old->slots[i])) retire(lane, old->slots[i].on_lane[lane->index]);
  np_router_adopt(lane->router);
  np_courier_adopt(lane->courier);
  np_jobs_adopt(lane->jobs);
  for (size_t i = 0; i < e->slot_count; i++)
    if (e->slots[i].code) e->slots[i].on_lane[lane->index]->fresh = false;
  atomic_store_explicit(&lane->adopted, e->number, memory_order_release);
  np_epoch_unref(old);
  np_lane_soon(lane);
}

void np_lane_identify(struct np_env *env, char to[64]) {
  const struct np_instance *in = (const struct np_instance *)env;
  char host[256] = "";
  unsigned char hash[SHA256_DIGEST_LENGTH];
  struct np_buf whole = {0};
  gethostname(host, sizeof host - 1);
  np_buf_addf(&whole, "%s\n%s\n%s", host, in->lane->host->config->store, env->name);
  SHA256((const unsigned char *)whole.data, whole.len, hash);
  np_buf_free(&whole);
  snprintf(to, 64, "neap%02x%02x%02x%02x%02xL%dG%d", hash[0], hash[1], hash[2], hash[3], hash[4], in->lane->index,
           in->code->number);
}

bool np_lane_succeeded(struct np_env *env) {
  const struct np_instance *in = (const struct np_instance *)env;
  const struct np_slot *now = in->lane && in->retired ? np_epoch_slot(in->lane->epoch, env->name) : NULL;
  return now && now->code;
}

void np_lane_sync(struct np_lane *lane) {
  uint64_t now = atomic_load_explicit(&lane->host->epoch, memory_order_acquire);
  if (lane->epoch && now == lane->epoch->number) return;
  struct np_epoch *staged = atomic_exchange(&lane->staged, NULL);
  if (staged) adopt(lane, staged);
}

int np_lane_submit(struct np_lane *lane, struct np_writeset *ws, struct np_waiter *waiter, bool force) {
  ws->reply_to = &lane->answers;
  ws->owner = waiter;
  return force ? np_keeper_force(lane->host->keeper, ws) : np_keeper_submit(lane->host->keeper, ws);
}

void np_lane_send(struct np_lane *lane, struct np_letter *letter) { np_mailbox_force(&lane->letters, &letter->node); }

static void on_answers(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_lane *lane = arg;
  np_lane_sync(lane);
  for (struct np_node *node = np_mailbox_take(&lane->answers), *next; node; node = next) {
    next = node->next;
    struct np_writeset *ws = (struct np_writeset *)node;
    struct np_waiter *w = ws->owner;
    w->answered(w, ws);
  }
}

/* Readings and messages of this lane's partitions, in the order of their commit. */
static void follow_commit(struct np_lane *lane, const struct np_letter *letter) {
  int lanes = lane->host->lane_count;
  int64_t newest = 0;
  for (size_t i = 0; i < letter->n; i++) {
    struct np_writeset *ws = letter->sets[i];
    for (const struct np_op *op = ws->first; op; op = op->next) {
      if (op->kind == NP_OP_READING && op->as.reading.seq && np_lane_has(lane, op->as.reading.partition, lanes))
        np_router_reading(lane->router, ws, &op->as.reading);
      else if (op->kind == NP_OP_SEND && np_lane_has(lane, np_partition(op->as.send.device.ptr, op->as.send.device.len), lanes))
        np_courier_message(lane->courier, &op->as.send);
      else if (op->kind == NP_OP_DEVICE)
        np_facts_news(&lane->facts, op->as.device.vendor, op->as.device.device);
      else if (op->kind == NP_OP_DEAD && op->as.dead.done && op->as.dead.action == 'r' &&
               np_lane_has(lane, np_partition(op->as.dead.device.ptr, op->as.dead.device.len), lanes))
        np_courier_retry(lane->courier, op->as.dead.destination.ptr, op->as.dead.device.ptr, op->as.dead.device.len);
      else if (op->kind == NP_OP_TAG)
        np_facts_news(&lane->facts, op->as.tag.vendor, op->as.tag.device);
      if (op->kind == NP_OP_READING && op->as.reading.seq > newest) newest = op->as.reading.seq;
    }
    np_writeset_unref(ws);
  }
  if (newest) np_router_seen(lane->router, newest);
}

/* While it drains: is anything under way? */
static void look_whether_quiet(struct np_lane *lane) {
  bool quiet = lane->requests == 0 && atomic_load(&lane->live_tasks) == 0 && np_router_idle(lane->router);
  atomic_store(&lane->quiet, quiet);
}

static void drain(struct np_lane *lane) {
  struct timeval often = {0, 10000};
  lane->draining = true;
  event_add(lane->tick, &often);
  np_server_drain(lane->server);
  np_jobs_drain(lane->jobs);
  np_courier_drain(lane->courier);
  np_router_drain(lane->router);
  np_broker_drain(lane);
}

/* By the tick as well: the keeper may say so just after the letters, which were too many, have been taken. */
static void look_behind(struct np_lane *lane) {
  if (!atomic_exchange(&lane->behind, false)) return;
  np_facts_forget(&lane->facts);
  np_router_rescan(lane->router);
  np_courier_rescan(lane->courier);
}

static void on_letters(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_lane *lane = arg;
  bool stop = false;
  np_lane_sync(lane);
  for (struct np_node *node = np_mailbox_take(&lane->letters), *next; node; node = next) {
    next = node->next;
    struct np_letter *letter = (struct np_letter *)node;
    if (letter->kind == NP_LETTER_COMMIT)
      follow_commit(lane, letter);
    else if (letter->kind == NP_LETTER_CALL)
      np_calls_take(lane->calls, letter->call);
    else if (letter->kind == NP_LETTER_BROKER)
      np_broker_run(lane);
    else if (letter->kind == NP_LETTER_QUARANTINE)
      np_quarantine_taken_up(lane);
    else if (letter->kind == NP_LETTER_TLS)
      np_server_renew(lane->server, letter->tls);
    else if (letter->kind == NP_LETTER_DRAIN)
      drain(lane);
    else if (letter->kind == NP_LETTER_STOP)
      stop = true;
    free(letter);
  }
  look_behind(lane);
  np_router_run(lane->router);
  if (stop) event_base_loopbreak(lane->base);
}

static void on_woken(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  np_lane_sync(arg);
  np_task_run_woken(arg);
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_lane *lane = arg;
  np_lane_sync(lane);
  close_retired(lane);
  look_behind(lane);
  np_router_run(lane->router);
  if (lane->draining) look_whether_quiet(lane);
}

static struct event *listen_to(struct np_lane *lane, int fd, event_callback_fn fn) {
  struct event *e = event_new(lane->base, fd, EV_READ | EV_PERSIST, fn, lane);
  event_add(e, NULL);
  return e;
}

void np_lane_enter(struct np_lane *lane) {
  np_lane_sync(lane);
  np_router_rescan(lane->router);
  np_courier_rescan(lane->courier);
  np_router_run(lane->router);
}

static void *run(void *arg) {
  struct np_lane *lane = arg;
  char name[16];
  snprintf(name, sizeof name, "neap-lane-%d", lane->index);
  pthread_setname_np(pthread_self(), name);
  np_lane_enter(lane);
  event_base_loop(lane->base, EVLOOP_NO_EXIT_ON_EMPTY);
  return NULL;
}

static int open_server(struct np_lane *lane, struct np_error *err) {
  const struct np_config *c = lane->host->config;
  char address[300];
  /* the first lane picks the port, the others share it */
  const char *listen = c->listen ? c->listen : "", *colon = strrchr(listen, ':');
  int host_len = colon ? (int)(colon - listen) : (int)strlen(listen);
  if (lane->host->port)
    snprintf(address, sizeof address, "%.*s:%d", host_len, listen, lane->host->port);
  else
    snprintf(address, sizeof address, "%s", listen);
  struct np_server_options options = {.address = lane->host->test ? NULL : address,
                                      .alone = !lane->host->port,
                                      .certificate = c->certificate,
                                      .key = c->key,
                                      .body_max = c->body_max,
                                      .head_timeout = c->head_timeout,
                                      .body_timeout = c->body_timeout,
                                      .write_timeout = c->write_timeout,
                                      .idle_timeout = c->idle_timeout};
  lane->server = np_server_new(lane->base, &options, &np_web, lane, err);
  if (!lane->server) return -1;
  lane->host->port = np_server_port(lane->server);
  return 0;
}

struct np_lane *np_lane_start(struct np_host *host, int index, struct np_epoch *first, struct np_error *err) {
  struct np_lane *lane = np_alloc(sizeof *lane);
  lane->index = index;
  lane->host = host;
  lane->woken_tail = &lane->woken;
  struct event_config *config = event_config_new();
  /* what makes itself active again would otherwise be called again before any socket is looked at */
  static const struct timeval stretch = {0, 10000};
  event_config_set_max_dispatch_interval(config, &stretch, 64, 0);
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_NO_CACHE_TIME);
  lane->base = event_base_new_with_config(config);
  event_config_free(config);
  struct np_fetch_options fetch = {.ca_file = host->config->ca_file};
  if (host->test) {
    lane->alarms = host->test->alarms;
    fetch.script = host->test->script;
    fetch.script_arg = host->test->arg;
  }
  if (!lane->base || np_mailbox_init(&lane->answers, 0) < 0 || np_mailbox_init(&lane->letters, 0) < 0) {
    np_fail(err, "lane %d: no descriptor left for its loop", index);
    return NULL;
  }
  lane->appender = (struct np_appender){.base = lane->base, .script = fetch.script, .script_arg = fetch.script_arg};
  lane->mqtt =
      (struct np_mqtt_net){.base = lane->base, .ca_file = fetch.ca_file, .script = fetch.script, .script_arg = fetch.script_arg};
  lane->fetch = np_fetch_new(lane->base, &fetch, err);
  lane->mailer = lane->fetch ? np_mailer_new(lane->base, &fetch, err) : NULL;
  if (!lane->mailer) return NULL;
  lane->reader = np_reader_open(host->config->store, err);
  if (!lane->reader) return NULL;
  lane->on_answers = listen_to(lane, lane->answers.fd, on_answers);
  lane->on_letters = listen_to(lane, lane->letters.fd, on_letters);
  lane->on_woken = event_new(lane->base, -1, EV_PERSIST, on_woken, lane);
  lane->tick = event_new(lane->base, -1, EV_PERSIST, on_tick, lane);
  struct timeval second = {1, 0};
  if (!host->test) event_add(lane->tick, &second);
  lane->router = np_router_new(lane, err);
  if (!lane->router || open_server(lane, err) < 0) return NULL;
  lane->courier = np_courier_new(lane);
  lane->jobs = np_jobs_new(lane);
  lane->calls = np_calls_new(lane);
  lane->replays = np_replays_new(lane);
  np_epoch_ref(first);
  atomic_store(&lane->staged, first);
  return lane;
}

int np_lane_begin(struct np_lane *lane, struct np_error *err) {
  if (pthread_create(&lane->thread, NULL, run, lane) != 0) return np_fail(err, "lane %d: no thread to be had", lane->index);
  return 0;
}

static void close_all(struct np_lane *lane) {
  for (size_t i = 0; i < lane->epoch->slot_count; i++) {
    struct np_instance *in = np_lane_instance(lane, &lane->epoch->slots[i]);
    if (in) close_instance(lane, in);
  }
  for (struct np_instance *in = lane->retired, *next; in; in = next) {
    next = in->next_retired;
    close_instance(lane, in);
  }
}

void np_lane_join(struct np_lane *lane) { pthread_join(lane->thread, NULL); }

void np_lane_free(struct np_lane *lane) {
  np_server_free(lane->server);
  for (struct np_node *n = np_mailbox_take(&lane->answers), *next; n; n = next) {
    next = n->next;
    np_writeset_unref((struct np_writeset *)n);
  }
  for (struct np_node *n = np_mailbox_take(&lane->letters), *next; n; n = next) {
    struct np_letter *letter = (struct np_letter *)n;
    next = n->next;
    for (size_t i = 0; i < letter->n; i++) np_writeset_unref(letter->sets[i]);
    np_call_free(letter->call);
    np_tls_free(letter->tls);
    free(letter);
  }
  np_replays_free(lane->replays);
  np_calls_free(lane->calls);
  np_broker_leave(lane);
  np_jobs_free(lane->jobs);
  np_courier_free(lane->courier);
  np_router_free(lane->router);
  np_facts_forget(&lane->facts);
  close_all(lane);
  np_epoch_unref(lane->epoch);
  np_epoch_unref(atomic_exchange(&lane->staged, NULL));
  np_mailer_free(lane->mailer);
  np_fetch_free(lane->fetch);
  np_reader_close(lane->reader);
  event_free(lane->on_answers), event_free(lane->on_letters), event_free(lane->on_woken), event_free(lane->tick);
  event_base_free(lane->base);
  np_mailbox_destroy(&lane->answers);
  np_mailbox_destroy(&lane->letters);
  free(lane);
}
