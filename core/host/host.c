/* The host: starts what a running neap is made of, in order, and stops it in the reverse one. */
#include "host/host.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/clock.h"
#include "host/admin.h"
#include "host/broker.h"
#include "host/calls.h"
#include "host/deploy.h"
#include "host/import.h"
#include "host/replay_jobs.h"
#include "io/aside.h"
#include "io/fetch.h"
#include "io/mqtt.h"
#include "store/keyfile.h"

#define LETTERS_MAX 20000 /* commit notices that may wait on a lane: past it the lane looks into the store */
#define LOOK_MS 100       /* how often the main thread looks for new readings for tail, and for quiet lanes when it stops */

struct running { /* what np_host_stop and the signals need to know */
  struct np_host host;
  struct event *on_term, *on_int, *on_called, *look;
  int64_t told;    /* last_seq that tail has been told of */
  int64_t stop_by; /* ms; 0 while it runs */
};

/* Of which lanes' concern are this set's readings, messages and news of devices? A bit for each lane. */
static uint64_t concerned(const struct np_writeset *ws, int lanes, int64_t *last_seq) {
  uint64_t mask = 0;
  for (const struct np_op *op = ws->first; op; op = op->next) {
    if (op->kind == NP_OP_READING && op->as.reading.seq) {
      mask |= 1ull << (op->as.reading.partition % lanes);
      *last_seq = op->as.reading.seq;
    } else if (op->kind == NP_OP_SEND) {
      mask |= 1ull << (np_partition(op->as.send.device.ptr, op->as.send.device.len) % lanes);
    } else if (op->kind == NP_OP_DEVICE) {
      mask |= 1ull << (np_partition(op->as.device.device.ptr, op->as.device.device.len) % lanes);
    } else if (op->kind == NP_OP_DEAD) {
      mask |= 1ull << (np_partition(op->as.dead.device.ptr, op->as.dead.device.len) % lanes);
    } else if (op->kind == NP_OP_TAG) {
      mask |= 1ull << (np_partition(op->as.tag.device.ptr, op->as.tag.device.len) % lanes);
    }
  }
  return mask;
}

static void notify_lane(struct np_lane *lane, struct np_writeset *const *sets, const uint64_t *masks, size_t n) {
  size_t count = 0;
  for (size_t i = 0; i < n; i++) count += masks[i] >> lane->index & 1;
  if (!count) return;
  if (np_mailbox_count(&lane->letters) > LETTERS_MAX) {
    atomic_store(&lane->behind, true);
    return;
  }
  struct np_letter *letter = np_alloc(sizeof *letter + count * sizeof *letter->sets);
  letter->kind = NP_LETTER_COMMIT;
  for (size_t i = 0; i < n; i++) {
    if (!(masks[i] >> lane->index & 1)) continue;
    np_writeset_ref(sets[i]);
    letter->sets[letter->n++] = sets[i];
  }
  np_lane_send(lane, letter);
}

/* For those who tail: each way in of an acknowledgement ends here. */
static void feed_acks(struct np_feed *feed, const struct np_writeset *ws) {
  for (const struct np_op *op = ws->first; op; op = op->next)
    if (op->kind == NP_OP_ACK && op->as.ack.done) np_feed_send(feed, np_feed_ack(op));
}

/* On the keeper's thread, after each commit. */
static void committed(void *arg, struct np_writeset *const *sets, size_t n) {
  struct np_host *host = arg;
  uint64_t masks[1024];
  int64_t last_seq = 0;
  for (size_t i = 0; i < n && np_feed_wanted(&host->feed, NP_FEED_ACKS); i++) feed_acks(&host->feed, sets[i]);
  while (n) {
    size_t some = n < 1024 ? n : 1024;
    for (size_t i = 0; i < some; i++) masks[i] = concerned(sets[i], host->lane_count, &last_seq);
    uint64_t any = 0;
    for (size_t i = 0; i < some; i++) any |= masks[i];
    for (int i = 0; any && i < host->lane_count; i++) notify_lane(host->lanes[i], sets, masks, some);
    sets += some, n -= some;
  }
  if (last_seq) atomic_store_explicit(&host->last_seq, last_seq, memory_order_release);
}

static void send_all(struct np_host *host, enum np_letter_kind kind) {
  for (int i = 0; i < host->lane_count; i++) {
    struct np_letter *letter = np_alloc(sizeof *letter);
    letter->kind = kind;
    np_lane_send(host->lanes[i], letter);
  }
}

static bool all_quiet(const struct np_host *host) {
  for (int i = 0; i < host->lane_count; i++)
    if (!atomic_load(&host->lanes[i]->quiet)) return false;
  return true;
}

static void look(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct running *r = arg;
  int64_t seq = atomic_load_explicit(&r->host.last_seq, memory_order_acquire);
  if (seq != r->told && r->host.admin) np_admin_committed(r->host.admin);
  r->told = seq;
  np_replay_jobs_look(r->host.replay_jobs);
  if (!r->stop_by) return;
  bool quiet = all_quiet(&r->host) && !r->host.calling && (!r->host.admin || np_admin_idle(r->host.admin));
  if (!quiet && np_mono_us() / 1000 < r->stop_by) return;
  if (!quiet) np_log(NP_WARN, "stopping before all requests have ended: the time to drain is up", NULL);
  event_base_loopbreak(r->host.base);
}

void np_host_stop(struct np_host *host) {
  struct running *r = (struct running *)host;
  if (r->stop_by) { /* asked twice: at once */
    event_base_loopbreak(host->base);
    return;
  }
  np_log(NP_INFO, "stopping: what is under way is finished", NULL);
  r->stop_by = np_mono_us() / 1000 + (int64_t)(host->config->drain * 1000);
  struct timeval often = {0, 10000};
  event_add(r->look, &often);
  if (host->importer) np_importer_end(host->importer);
  np_replay_jobs_drain(host->replay_jobs);
  send_all(host, NP_LETTER_DRAIN);
}

void np_host_call(struct np_host *host, struct np_call *call) {
  struct np_letter *letter = np_alloc(sizeof *letter);
  letter->kind = NP_LETTER_CALL;
  letter->call = call;
  call->back = &host->called;
  host->calling++;
  uint64_t hash = np_hash_stable(call->connection, strlen(call->connection));
  np_lane_send(host->lanes[hash % (uint64_t)host->lane_count], letter);
}

static void on_called(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_host *host = arg;
  for (struct np_node *node = np_mailbox_take(&host->called), *next; node; node = next) {
    struct np_call *call = (struct np_call *)node;
    next = node->next;
    host->calling--;
    call->done(call);
  }
}

static void on_signal(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  np_host_stop(arg);
}

/* The keys come before anything is written: a store whose key is lost is not touched. */
static int open_seal(struct np_host *host, struct np_store *store, struct np_error *err) {
  const struct np_config *c = host->config;
  bool made;
  host->reader = np_reader_open(c->store, err);
  if (!host->reader) return -1;
  host->seal = np_keyfile_open(store, host->reader, c->key_file, &made, err);
  if (!host->seal) return -1;
  if (made)
    np_log(NP_INFO, "a key file was made: keep a copy of it apart from the store, for nothing sealed opens without it", "key",
           c->key_file, NULL);
  return 0;
}

static int open_store(struct np_host *host, struct np_error *err) {
  const struct np_config *c = host->config;
  struct np_store *store = np_store_open(c->store, err);
  if (!store) return -1;
  if (open_seal(host, store, err) < 0) {
    np_store_close(store);
    return -1;
  }
  struct np_keeper_options options = {.bound = c->queue, .committed = committed, .arg = host};
  memcpy(options.keep, c->keep, sizeof options.keep);
  host->keeper = np_keeper_start(store, &options, err);
  if (!host->keeper) {
    np_store_close(store);
    return -1;
  }
  atomic_store(&host->last_seq, np_reader_last_seq(host->reader));
  return 0;
}

static int start_lanes(struct np_host *host, struct np_error *err) {
  struct np_epoch *first = np_deploy_first(host->deploy);
  atomic_store(&host->epoch, first->number);
  int n = host->config->lanes;
  host->lanes = np_alloc((size_t)n * sizeof *host->lanes);
  int result = 0;
  for (int i = 0; i < n && result == 0; i++) {
    host->lanes[i] = np_lane_start(host, i, first, err);
    if (!host->lanes[i]) result = -1;
  }
  np_epoch_unref(first);
  for (int i = 0; i < n && result == 0; i++) result = np_lane_begin(host->lanes[i], err);
  return result;
}

static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static void mask_signals(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(how, &set, NULL);
}

/* Signals are the main thread's: those that are started while they are blocked have them blocked for ever. */
static void watch_signals(struct running *r) {
  signal(SIGPIPE, SIG_IGN);
  mask_signals(SIG_BLOCK);
  r->on_term = evsignal_new(r->host.base, SIGTERM, on_signal, r);
  r->on_int = evsignal_new(r->host.base, SIGINT, on_signal, r);
  evsignal_add(r->on_term, NULL);
  evsignal_add(r->on_int, NULL);
}

/* An address that takes requests on all of this machine's is reached by its own. */
static void add_url(struct np_buf *url, const struct np_host *host, bool reachable) {
  const char *listen = host->config->listen, *colon = strrchr(listen, ':');
  int len = colon ? (int)(colon - listen) : (int)strlen(listen);
  if (reachable && (len == 0 || strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0)) {
    listen = "127.0.0.1";
    len = (int)strlen(listen);
  }
  np_buf_addf(url, "%s://%.*s:%d", host->config->certificate ? "https" : "http", len, listen, host->port);
}

static void tell_where(struct np_host *host, const struct np_host_hooks *hooks) {
  char lanes[8];
  snprintf(lanes, sizeof lanes, "%d", host->lane_count);
  struct np_buf url = {0};
  add_url(&url, host, hooks != NULL);
  np_log(NP_INFO, "listening", "url", url.data, "lanes", lanes, "store", host->config->store, "plugins", host->config->plugins,
         NULL);
  if (hooks) {
    hooks->listening(host, url.data, hooks->arg);
  } else {
    printf("neap listening on %s\n", url.data);
    fflush(stdout);
  }
  np_buf_free(&url);
}

static int start(struct running *r, struct np_error *err) {
  struct np_host *host = &r->host;
  raise_descriptor_limit();
  if (np_fetch_global_init(err) < 0 || np_mqtt_global_init(err) < 0) return -1;
  host->base = event_base_new();
  watch_signals(r);
  np_log_start();
  if (np_mailbox_init(&host->called, 0) < 0 || np_feed_init(&host->feed) < 0)
    return np_fail(err, "no descriptor left for the calls of commands");
  r->on_called = event_new(host->base, host->called.fd, EV_READ | EV_PERSIST, on_called, host);
  event_add(r->on_called, NULL);
  host->lane_count = host->config->lanes; /* the keeper's notices count on it; none comes before the lanes run */
  if (open_store(host, err) < 0) return -1;
  host->broker = np_broker_new(host);
  host->deploy = np_deploy_new(host, err);
  if (!host->deploy || start_lanes(host, err) < 0) return -1;
  host->admin = np_admin_new(host, err);
  if (!host->admin || np_deploy_watch(host->deploy, err) < 0) return -1;
  host->replay_jobs = np_replay_jobs_new(host, err);
  if (!host->replay_jobs) return -1;
  r->look = event_new(host->base, -1, EV_PERSIST, look, r);
  struct timeval every = {0, LOOK_MS * 1000};
  event_add(r->look, &every);
  mask_signals(SIG_UNBLOCK);
  return 0;
}

static void stop(struct running *r) {
  struct np_host *host = &r->host;
  if (host->admin) np_admin_free(host->admin);
  np_importer_free(host->importer);
  np_replay_jobs_free(host->replay_jobs);
  send_all(host, NP_LETTER_STOP);
  for (int i = 0; i < host->lane_count; i++) np_lane_join(host->lanes[i]);
  np_broker_settle(host->broker);
  if (host->keeper) np_keeper_stop(host->keeper);
  for (int i = 0; i < host->lane_count; i++) np_lane_free(host->lanes[i]);
  free(host->lanes);
  for (struct np_node *node = np_mailbox_take(&host->called), *next; node; node = next) {
    next = node->next;
    np_call_free((struct np_call *)node); /* whoever asked is gone */
  }
  event_free(r->on_called);
  np_mailbox_destroy(&host->called);
  np_feed_close(&host->feed);
  np_broker_free(host->broker);
  np_deploy_free(host->deploy);
  np_aside_settle();
  if (host->reader) np_reader_close(host->reader);
  np_seal_free(host->seal);
  if (r->look) event_free(r->look);
  event_free(r->on_term);
  event_free(r->on_int);
  event_base_free(host->base);
  np_config_free(host->config);
}

int np_host_run(struct np_config *config, const struct np_host_hooks *hooks) {
  struct running r = {.host = {.config = config}};
  struct np_error err;
  if (start(&r, &err) < 0) {
    np_log_stop();
    /* what was started has done nothing yet: the process ends with it */
    fprintf(stderr, "neap: %s\n", err.text);
    return 1;
  }
  tell_where(&r.host, hooks);
  event_base_loop(r.host.base, EVLOOP_NO_EXIT_ON_EMPTY);
  stop(&r);
  np_log(NP_INFO, "stopped", NULL);
  np_log_stop();
  return 0;
}
