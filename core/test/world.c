/* The world of one test. */
#include "test/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/clock.h"
#include "host/broker.h"
#include "host/build.h"
#include "host/circle.h"
#include "host/state.h"
#include "io/serve.h"

#define SETTLE_US 20000000 /* real time that one settling may take: each call has its own budget, a loop of calls has this */
#define RINGS_MOST 100000  /* at one moment */

void np_world_blame(struct np_world *w, const char *why) {
  if (!w->trouble) w->trouble = np_strdup(why);
}

/* What happens is noted. */

static void committed(void *arg, struct np_writeset *const *sets, size_t n) {
  struct np_world *w = arg;
  for (size_t i = 0; i < n; i++) {
    w->commits = np_realloc(w->commits, (w->commit_count + 1) * sizeof *w->commits);
    w->commits[w->commit_count++] = (struct np_world_commit){sets[i], w->feeding};
    np_writeset_ref(sets[i]);
  }
  if (!w->lane) return;
  struct np_letter *letter = np_alloc(sizeof *letter + n * sizeof *letter->sets);
  letter->kind = NP_LETTER_COMMIT;
  for (letter->n = 0; letter->n < n; letter->n++) {
    letter->sets[letter->n] = sets[letter->n];
    np_writeset_ref(sets[letter->n]);
  }
  np_lane_send(w->lane, letter);
}

static void take_line(void *arg, enum np_log_level level, const char *event, const char *const *pairs, size_t n) {
  struct np_world *w = arg;
  w->lines = np_realloc(w->lines, (w->line_count + 1) * sizeof *w->lines);
  struct np_world_line *line = &w->lines[w->line_count++];
  *line = (struct np_world_line){.level = level, .text = np_strdup(event), .pairs = np_alloc(2 * (n + 1) * sizeof(char *))};
  for (size_t i = 0; i < n; i++) {
    if (!pairs[2 * i + 1]) continue;
    line->pairs[2 * line->n] = np_strdup(pairs[2 * i]);
    line->pairs[2 * line->n++ + 1] = np_strdup(pairs[2 * i + 1]);
  }
}

/* Beginning and end. */

static int open_store(struct np_world *w, struct np_error *err) {
  static const unsigned char key[NP_SEAL_KEY] = "nothing of a test is a secret..";
  snprintf(w->store, sizeof w->store, NP_STORE_MEMORY "test");
  struct np_store *store = np_store_open(w->store, err);
  if (!store) return -1;
  struct np_keeper_options options = {.committed = committed, .arg = w, .here = true};
  w->host.keeper = np_keeper_start(store, &options, err);
  if (!w->host.keeper) {
    np_store_close(store);
    return -1;
  }
  w->host.reader = np_reader_open(w->store, err);
  w->host.seal = np_seal_new(key, err);
  return w->host.reader && w->host.seal ? 0 : -1;
}

struct np_world *np_world_new(const struct np_sources *sources, const char *plugins,
                              void (*script)(void *arg, const struct np_fetch_request *, struct np_fetch_scripted *), void *arg,
                              struct np_error *err) {
  struct np_world *w = np_alloc(sizeof *w);
  w->sources = sources;
  w->test = (struct np_host_test){.alarms = &w->alarms, .script = script, .arg = arg};
  w->config = (struct np_config){.store = w->store, .plugins = (char *)plugins, .lanes = 1, .queue = 4096};
  w->config.body_max = (size_t)4 << 20;
  w->host = (struct np_host){.config = &w->config, .lanes = w->lanes, .lane_count = 1, .test = &w->test};
  np_log_divert(take_line, w);
  if (np_mailbox_init(&w->host.called, 0) < 0) {
    np_fail(err, "no descriptor left");
    free(w);
    return NULL;
  }
  if (open_store(w, err) < 0) {
    np_world_free(w);
    return NULL;
  }
  w->host.broker = np_broker_new(&w->host);
  return w;
}

static void free_entries(struct np_config *c, size_t from) {
  struct np_config *gone = np_alloc(sizeof *gone);
  gone->entry_count = c->entry_count - from;
  gone->entries = np_alloc((gone->entry_count + 1) * sizeof *gone->entries);
  if (gone->entry_count) memcpy(gone->entries, c->entries + from, gone->entry_count * sizeof *gone->entries);
  np_config_free(gone);
  c->entry_count = from;
}

void np_world_forget_refused(struct np_world *w) { free_entries(&w->config, w->entries_good); }

void np_world_free(struct np_world *w) {
  if (!w) return;
  if (w->host.broker) np_broker_settle(w->host.broker);
  np_keeper_stop(w->host.keeper);
  if (w->lane) np_lane_free(w->lane);
  for (struct np_node *node = np_mailbox_take(&w->host.called), *next; node; node = next) {
    next = node->next;
    free(node);
  }
  np_mailbox_destroy(&w->host.called);
  if (w->host.broker) np_broker_free(w->host.broker);
  if (w->host.reader) np_reader_close(w->host.reader);
  np_seal_free(w->host.seal);
  for (size_t i = 0; i < w->loaded_count; i++) {
    free(w->loaded[i].instance);
    np_code_unref(w->loaded[i].code);
  }
  free(w->loaded);
  for (size_t i = 0; i < w->commit_count; i++) np_writeset_unref(w->commits[i].ws);
  free(w->commits);
  np_log_divert(NULL, NULL);
  for (size_t i = 0; i < w->line_count; i++) {
    for (size_t k = 0; k < 2 * w->lines[i].n; k++) free(w->lines[i].pairs[k]);
    free(w->lines[i].pairs);
    free(w->lines[i].text);
  }
  free(w->lines);
  free_entries(&w->config, 0);
  free(w->config.entries);
  free(w->trouble);
  free(w);
}

/* Plugins. */

const struct np_unit_loaded *np_world_find(const struct np_world *w, const char *instance) {
  for (size_t i = 0; i < w->loaded_count; i++)
    if (strcmp(w->loaded[i].instance, instance) == 0) return &w->loaded[i];
  return NULL;
}

static struct np_unit_loaded *add_unit(struct np_world *w, const char *instance, enum np_kind kind) {
  size_t at = 0;
  while (at < w->loaded_count && strcmp(w->loaded[at].instance, instance) < 0) at++;
  if (at < w->loaded_count && strcmp(w->loaded[at].instance, instance) == 0) return &w->loaded[at];
  w->loaded = np_realloc(w->loaded, (w->loaded_count + 1) * sizeof *w->loaded);
  memmove(&w->loaded[at + 1], &w->loaded[at], (w->loaded_count++ - at) * sizeof *w->loaded);
  w->loaded[at] = (struct np_unit_loaded){.instance = np_strdup(instance), .kind = kind};
  return &w->loaded[at];
}

/* Is there such a destination? Each name that a setting gives is one: what is not loaded records. */
static bool delivers(void *arg, const char *name) {
  struct np_world *w = arg;
  const struct np_unit_loaded *known = np_world_find(w, name);
  if (known && known->code) return known->code->deliver != 0;
  if (known && known->kind != NP_DESTINATION) return false;
  add_unit(w, name, NP_DESTINATION);
  return true;
}

bool np_world_kind(const struct np_world *w, const char *plugin, enum np_kind *kind) {
  static const char *const folders[] = {"vendors", "rules", "destinations"};
  const struct np_file *f = np_sources_find(w->sources, false, plugin);
  for (int i = 0; f && i < 3; i++) {
    size_t n = strlen(folders[i]);
    if (strncmp(f->folder, folders[i], n) != 0 || (f->folder[n] && f->folder[n] != '/')) continue;
    *kind = (enum np_kind)i;
    return true;
  }
  return false;
}

static int add_routes(struct np_routes *routes, struct np_code *code, struct np_error *err) {
  for (size_t i = 0; i < code->route_count; i++) {
    void *other = NULL;
    const struct np_route *r = &code->routes[i];
    if (np_routes_add(routes, r->method, r->pattern, &code->routes[i], &other, err) == 0) continue;
    if (!other) return -1;
    return np_fail(err, "%s: %s %s is served by %s already: give one of them a mount", code->file, r->method, r->pattern,
                   ((struct np_route *)other)->code->instance);
  }
  return 0;
}

/* It is the newcomer who is refused. */
static int add_all_routes(const struct np_world *w, const struct np_unit_loaded *newest, struct np_routes *routes,
                          struct np_error *err) {
  for (size_t i = 0; i < w->loaded_count; i++)
    if (&w->loaded[i] != newest && w->loaded[i].code && add_routes(routes, w->loaded[i].code, err) < 0) return -1;
  return add_routes(routes, newest->code, err);
}

static struct np_epoch *make_epoch(struct np_world *w, const struct np_unit_loaded *newest, struct np_error *err) {
  struct np_epoch *e = np_alloc(sizeof *e);
  e->refs = 1;
  e->number = ++w->epoch;
  e->routes = np_routes_new();
  e->slots = np_alloc((w->loaded_count + 1) * sizeof *e->slots);
  for (size_t i = 0; i < w->loaded_count; i++) {
    const struct np_unit_loaded *u = &w->loaded[i];
    struct np_slot *s = &e->slots[e->slot_count++];
    *s = (struct np_slot){.instance = np_strdup(u->instance), .kind = u->kind, .code = u->code};
    if (!u->code) {
      s->why_not = np_strdup("it only records");
      continue;
    }
    np_code_ref(u->code);
    s->on_lane = np_alloc(sizeof *s->on_lane);
    s->on_lane[0] = u->in;
  }
  e->rules = np_rules_new(e);
  if (add_all_routes(w, newest, e->routes, err) == 0) return e;
  np_epoch_unref(e);
  return NULL;
}

/* What it derives must not come back to it. */
static int check_circle(const struct np_world *w, const struct np_unit_loaded *newest, struct np_error *err) {
  const struct np_code **rules = np_alloc((w->loaded_count + 1) * sizeof *rules);
  struct np_buf why = {0};
  size_t n = 0, at = 0;
  for (size_t i = 0; i < w->loaded_count; i++) {
    const struct np_unit_loaded *u = &w->loaded[i];
    if (u == newest) at = n;
    if (u->code) rules[n++] = u->code;
  }
  bool found = np_circle_find(rules, n, at, &why);
  if (found) np_fail(err, "%s: %s", newest->code->file, why.data);
  np_buf_free(&why);
  free(rules);
  return found ? -1 : 0;
}

/* The lane begins with its first epoch. */
static int put_in_force(struct np_world *w, const struct np_unit_loaded *newest, struct np_error *err) {
  struct np_epoch *e = check_circle(w, newest, err) == 0 ? make_epoch(w, newest, err) : NULL;
  if (!e) return -1;
  atomic_store(&w->host.epoch, e->number);
  if (w->lane) {
    np_epoch_ref(e);
    np_epoch_unref(atomic_exchange(&w->lane->staged, e));
    np_lane_sync(w->lane);
  } else {
    w->lane = w->lanes[0] = np_lane_start(&w->host, 0, e, err);
    if (w->lane) np_lane_enter(w->lane);
  }
  np_epoch_unref(e);
  return w->lane ? 0 : -1;
}

/* What it keeps is brought to its code's version, as by a deploy. */
static int migrate(struct np_world *w, struct np_built *built, struct np_error *err) {
  struct np_code *code = built->code;
  struct np_state s;
  if (np_state_read(w->host.reader, code->instance, &s, err) < 0) return -1;
  code->state_row = s.row;
  if (!s.version) return 0; /* it has kept nothing */
  if (np_state_fits(code, s.version, err) < 0) return -1;
  if (s.version == np_code_version(code)) return 0;
  struct np_writeset *ws = np_writeset_new();
  if (np_state_migrate(&w->host, w->host.reader, built->spare, s.version, ws, err) < 0) {
    np_writeset_unref(ws);
    return -1;
  }
  if (np_keeper_apply(w->host.keeper, ws, err) != NP_COMMITTED || np_state_read(w->host.reader, code->instance, &s, err) < 0)
    return -1;
  code->state_row = s.row;
  return 0;
}

int np_world_load(struct np_world *w, size_t i, struct np_error *err) {
  const struct np_config_entry *c = &w->config.entries[i];
  struct np_want want = {.instance = c->instance,
                         .plugin = c->plugin,
                         .mount = c->mount,
                         .settings = c->settings,
                         .canonical = c->canonical,
                         .at = c->at,
                         .delivery = c->delivery,
                         .limits = &c->limits,
                         .shows = (const char *const *)c->shows,
                         .show_count = c->show_count,
                         .configured = true,
                         .people = c->people,
                         .kind = c->kind,
                         .file = np_sources_find(w->sources, false, c->plugin)};
  struct np_build_context context = {.sources = w->sources, .config = &w->config, .lanes = 1, .delivers = delivers, .arg = w};
  struct np_built built;
  if (np_build(&context, &want, &built, err) < 0) return -1;
  if (migrate(w, &built, err) < 0) {
    np_built_discard(&built, 1);
    return -1;
  }
  if (built.spare) np_instance_close(built.spare);
  built.spare = NULL;
  struct np_unit_loaded *u = add_unit(w, c->instance, c->kind);
  u->kind = c->kind;
  u->code = built.code;
  u->in = built.instances[0];
  u->code->number = 1;
  np_code_ref(u->code); /* the build's own reference is the instance's */
  free(built.bundle);
  if (put_in_force(w, u, err) < 0) {
    np_code_unref(u->code);
    u->code = NULL; /* a name that holds what it is sent, as a broken plugin's */
    built.bundle = NULL;
    np_built_discard(&built, 1);
    return -1;
  }
  free(built.instances);
  w->entries_good = w->config.entry_count;
  return np_world_settle(w) < 0 ? np_fail(err, "%s", w->trouble) : 0;
}

/* Running. */

static bool is_busy(const struct np_world *w) {
  return event_base_get_num_events(w->lane->base, EVENT_BASE_COUNT_ACTIVE) || np_mailbox_count(&w->lane->answers) ||
         np_mailbox_count(&w->lane->letters);
}

/* All that is no matter of time. */
static int turn(struct np_world *w, int64_t end) {
  do {
    event_base_loop(w->lane->base, EVLOOP_NONBLOCK);
    if (np_work_us() < end) continue;
    np_world_blame(w, "the plugins do not come to rest: they went on for 20 s without any move of the clock");
    return -1;
  } while (is_busy(w));
  return 0;
}

static int settle(struct np_world *w) {
  int64_t end = np_work_us() + SETTLE_US;
  for (int n = 0; n < RINGS_MOST; n++) {
    if (turn(w, end) < 0) return -1;
    if (np_alarms_next(&w->alarms) > np_now_ms()) return 0;
    np_alarms_ring(&w->alarms);
  }
  np_world_blame(w, "the plugins do not come to rest: something is due again and again at the same moment");
  return -1;
}

int np_world_settle(struct np_world *w) {
  if (!w->lane) return 0;
  if (w->settling) {
    np_world_blame(w, "an answer of t.http gave input or moved the clock, while the plugin waited for it: do that after the call");
    return -1;
  }
  w->settling = true;
  int status = settle(w);
  w->settling = false;
  return status;
}

int np_world_advance(struct np_world *w, int64_t ms) {
  int64_t until = np_now_ms() + ms;
  if (np_world_settle(w) < 0) return -1;
  for (int64_t next; w->lane && (next = np_alarms_next(&w->alarms)) <= until;) {
    np_clock_move(next - np_now_ms());
    if (np_world_settle(w) < 0) return -1;
  }
  np_clock_move(until - np_now_ms());
  return np_world_settle(w);
}

bool np_world_until(struct np_world *w, bool (*done)(void *arg), void *arg, int64_t most) {
  int64_t until = np_now_ms() + most;
  for (;;) {
    if (np_world_settle(w) < 0) return false;
    if (done(arg)) return true;
    int64_t next = np_alarms_next(&w->alarms);
    if (next > until) return false;
    np_clock_move(next - np_now_ms());
  }
}

/* Requests: over a socket that is connected to the lane's server. */

struct exchange {
  int fd;
  struct np_buf left; /* borrowed: what is still to be sent */
  struct np_world *w;
  struct np_world_answer *answer;
};

/* Sends and receives what goes. */
static bool exchange(struct exchange *x) {
  for (bool moved = true; moved && !x->answer->whole;) {
    moved = false;
    ssize_t n = x->left.len ? send(x->fd, x->left.data, x->left.len, MSG_NOSIGNAL) : 0;
    if (n > 0) x->left.data += n, x->left.len -= (size_t)n, moved = true;
    n = recv(x->fd, np_buf_reserve(&x->answer->bytes, 65536), 65536, 0);
    if (n > 0) x->answer->bytes.len += (size_t)n, moved = true;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) x->answer->whole = true;
    if (moved && np_world_settle(x->w) < 0) return false;
  }
  return x->answer->whole;
}

static bool is_answered(void *arg) { return exchange(arg); }

struct np_world_answer np_world_request(struct np_world *w, const struct np_buf *bytes) {
  struct np_world_answer answer = {0};
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
    np_world_blame(w, "no descriptor left for a request");
    return answer;
  }
  struct exchange x = {.fd = pair[0], .left = *bytes, .w = w, .answer = &answer};
  np_server_take(w->lane->server, pair[1], "127.0.0.1");
  np_world_until(w, is_answered, &x, 600000);
  close(pair[0]);
  np_world_settle(w);
  return answer;
}
