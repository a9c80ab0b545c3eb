/* The admin socket: accepts, reads one line, answers. A client can hurt nobody but itself: lines, buffers, clients and patience are bounded. */
#include "host/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <lauxlib.h>

#include "base/log.h"
#include "base/near.h"
#include "host/account.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"
#include "host/calls.h"
#include "lib/json.h"

#define TALKS_MAX 64
#define LINE_MAX_BYTES ((size_t)64 << 10)
#define DEVICES_PAGE 200
#define GATHER_MS 10 /* commits that a tail looks at together */

static const struct timeval patience = {.tv_sec = 30};

struct np_admin {
  struct np_host *host;            /* borrowed */
  struct evconnlistener *listener; /* owned, with its socket */
  struct event *on_feed;           /* owned */
  struct event *relisten;          /* owned: after accept failed for want of descriptors */
  char *path;                      /* owned: of the socket */
  struct np_talk *talks;           /* owned */
  int talk_count;
};

/* Talks. */

static void talk_free(struct np_talk *t) {
  *t->prev = t->next;
  if (t->next) t->next->prev = t->prev;
  t->admin->talk_count--;
  bufferevent_free(t->bev);
  event_free(t->again);
  np_filter_free(t->filter);
  np_feed_end(t);
  if (t->set) np_writeset_unref(t->set);
  np_buf_free(&t->out);
  np_call_free(t->call);
  np_talk_dead_free(t);
  np_talk_replays_free(t);
  free(t);
}

struct np_talk *np_talk_find(struct np_admin *a, uint64_t id) {
  struct np_talk *t = a->talks;
  while (t && !(t->state == NP_TALK_CALLING && t->id == id)) t = t->next;
  return t;
}

bool np_talk_full(const struct np_talk *t) { return evbuffer_get_length(bufferevent_get_output(t->bev)) >= NP_TALK_HIGH; }

void np_talk_send(struct np_talk *t) {
  bufferevent_write(t->bev, t->out.data, t->out.len);
  np_buf_clear(&t->out);
}

void np_talk_end(struct np_talk *t) {
  t->state = NP_TALK_ENDING;
  np_talk_send(t);
  bufferevent_setwatermark(t->bev, EV_WRITE, 0, 0);
  bufferevent_set_timeouts(t->bev, NULL, &patience);
  evtimer_del(t->again);
}

void np_talk_fail(struct np_talk *t, const char *error) {
  np_buf_clear(&t->out);
  np_line_error(&t->out, error);
  np_talk_end(t);
}

void np_talk_again(struct np_talk *t, int ms) {
  const struct timeval soon = {.tv_usec = ms * 1000};
  if (!evtimer_pending(t->again, NULL)) evtimer_add(t->again, &soon);
}

/* Commands. */

static int trouble_line(struct np_talk *t, const char *name, const char *file, const char *error) {
  if (!error) return 0;
  np_line_begin(&t->out);
  np_line_text(&t->out, "instance", name);
  np_line_text(&t->out, "state", "last good");
  np_line_text(&t->out, "file", file);
  np_line_text(&t->out, "error", error);
  np_line_end(&t->out);
  return 1;
}

/* A neap.lua that is not in force has a line of its own, as a plugin has, and so have a folder of plugins that cannot be read and a certificate that
 * cannot be served. Returns how many. */
static int trouble_lines(struct np_talk *t) {
  const struct np_config *c = t->host->config;
  return trouble_line(t, "neap.lua", c->path, np_deploy_config_error(t->host->deploy)) +
         trouble_line(t, "plugins/", c->plugins, np_deploy_unread(t->host->deploy)) +
         trouble_line(t, "tls", c->certificate, np_deploy_tls_error(t->host->deploy));
}

static void plugins(struct np_talk *t) {
  struct np_deploy *d = t->host->deploy;
  trouble_lines(t);
  for (size_t i = 0; i < np_deploy_count(d); i++) {
    struct np_status s = np_deploy_status(d, i);
    np_line_status(&t->out, &s, t->host);
  }
  np_line_summary(&t->out, t->host);
  np_talk_end(t);
}

static int reload_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  (void)err;
  lua_getfield(L, request, "empty");
  t->empty = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return 0;
}

static void reload(struct np_talk *t) {
  struct np_deploy *d = t->host->deploy;
  struct np_deploy_change change = np_deploy_reload(d, t->empty);
  np_accounts_reload(t->host->broker);
  change.waiting = 0;
  change.failed = trouble_lines(t); /* all whose present text is not in force: the watch may have seen some of them before */
  for (size_t i = 0; i < np_deploy_count(d); i++) {
    struct np_status s = np_deploy_status(d, i);
    const char *waiting = np_gate_says(s.gate);
    change.waiting += waiting != NULL;
    if (!s.error && !waiting) continue;
    change.failed += s.error && strcmp(s.state, "unconfigured") != 0 && strcmp(s.state, "rolled back") != 0;
    np_line_begin(&t->out);
    np_line_text(&t->out, "instance", s.instance);
    np_line_text(&t->out, "plugin", s.plugin);
    np_line_text(&t->out, "state", s.state);
    np_line_text(&t->out, "file", s.file);
    np_line_text(&t->out, "error", s.error);
    np_line_text(&t->out, "waiting", waiting);
    np_line_end(&t->out);
  }
  np_line_change(&t->out, change);
  np_talk_end(t);
}

static bool list_device(void *arg, const struct np_device *d) {
  struct np_talk *t = arg;
  np_line_device(&t->out, d);
  t->at = d->id;
  t->count++;
  return true;
}

static void list_devices(struct np_talk *t) {
  if (np_talk_full(t)) return;
  struct np_error err;
  int64_t before = t->count;
  if (np_reader_devices(t->host->reader, t->at, DEVICES_PAGE, list_device, t, &err) < 0) {
    np_talk_fail(t, err.text);
  } else if (t->count - before < DEVICES_PAGE) {
    np_buf_addf(&t->out, "{\"summary\":{\"devices\":%lld}}\n", (long long)t->count);
    np_talk_end(t);
  } else {
    np_talk_send(t);
    np_talk_again(t, 0);
  }
}

void np_talk_list(struct np_talk *t, void (*slice)(struct np_talk *t)) {
  t->state = NP_TALK_LISTING;
  t->slice = slice;
  bufferevent_set_timeouts(t->bev, NULL, &patience);
  slice(t);
}

static void devices(struct np_talk *t) { np_talk_list(t, list_devices); }

static void stop(struct np_talk *t) {
  np_buf_adds(&t->out, "{\"summary\":{\"stopping\":true}}\n");
  np_talk_end(t);
  np_host_stop(t->host);
}

/* `begin` reads what the request asks for; `answer` answers, where begin has not begun something that goes on. */
static const struct {
  const char *name;
  int (*begin)(struct np_talk *t, lua_State *L, int request, struct np_error *err);
  void (*answer)(struct np_talk *t);
} commands[] = {{"plugins", NULL, plugins},
                {"reload", reload_begin, reload},
                {"devices", NULL, devices},
                {"tag", np_talk_tag_begin, np_talk_tag},
                {"ack", np_talk_ack_begin, np_talk_ack},
                {"stop", NULL, stop},
                {"call", np_talk_call_begin, np_talk_call},
                {"request", np_talk_request_begin, np_talk_request},
                {"explain", np_talk_explain_begin, np_talk_explain},
                {"people", np_talk_people_begin, np_talk_people},
                {"history", np_talk_generation_begin, np_talk_history},
                {"sources", np_talk_generation_begin, np_talk_sources},
                {"rollback", np_talk_generation_begin, np_talk_rollback},
                {"approve", np_talk_generation_begin, np_talk_approve},
                {"messages", np_talk_generation_begin, np_talk_messages},
                {"release", np_talk_generation_begin, np_talk_release},
                {"requests", np_talk_requests_begin, np_talk_requests},
                {"import", np_talk_import_begin, np_talk_import},
                {"replays", np_talk_replays_begin, np_talk_replays},
                {"dead", np_talk_dead_begin, np_talk_dead},
                {"destinations", NULL, np_talk_destinations},
                {"tail", np_tail_begin, NULL}};
#define COMMANDS (sizeof commands / sizeof *commands)

struct request {
  struct np_talk *talk;
  const char *line;
  size_t len;
  struct np_error err;
  int command; /* index, -1 where there is none */
};

/* Protected. Reads the request into q->command; `tail` and others are begun here, for what they are about stands in the request. */
static int read_request(lua_State *L) {
  struct request *q = lua_touserdata(L, 1);
  q->command = -1;
  if (np_json_decode(L, q->line, q->len, &q->err) < 0) return 0;
  int at = lua_gettop(L);
  if (!lua_istable(L, at) || lua_getfield(L, at, "command") != LUA_TSTRING) {
    np_fail(&q->err, "expected an object such as {\"command\":\"plugins\"}");
    return 0;
  }
  size_t n;
  const char *name = lua_tolstring(L, -1, &n);
  int i = 0;
  while (i < (int)COMMANDS && strcmp(commands[i].name, name) != 0) i++;
  if (i == (int)COMMANDS) {
    const char *names[COMMANDS];
    for (size_t k = 0; k < COMMANDS; k++) names[k] = commands[k].name;
    const char *meant = np_near(name, n, names, COMMANDS);
    np_fail(&q->err, "unknown command \"%.60s\"%s%s%s", name, meant ? ", did you mean \"" : "", meant ? meant : "",
            meant ? "\"?" : "");
    return 0;
  }
  lua_settop(L, at);
  if (!commands[i].begin || commands[i].begin(q->talk, L, at, &q->err) == 0) q->command = i;
  return 0;
}

static void answer(struct np_talk *t, const char *line, size_t len) {
  struct request q = {.talk = t, .line = line, .len = len, .command = -1};
  lua_State *L = luaL_newstate();
  if (!L) {
    np_talk_fail(t, "out of memory");
    return;
  }
  lua_pushcfunction(L, read_request);
  lua_pushlightuserdata(L, &q);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    np_fail(&q.err, "%s", lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "the request cannot be read");
    q.command = -1;
  }
  lua_close(L);
  bufferevent_set_timeouts(t->bev, NULL, NULL);
  bufferevent_setwatermark(t->bev, EV_READ, 0, LINE_MAX_BYTES);
  bufferevent_setwatermark(t->bev, EV_WRITE, NP_TALK_LOW, 0);
  if (q.command < 0)
    np_talk_fail(t, q.err.text);
  else if (t->state != NP_TALK_ASKING)
    np_talk_again(t, 0); /* a tail */
  else
    commands[q.command].answer(t);
}

/* Events. */

static void on_read(struct bufferevent *bev, void *arg) {
  struct np_talk *t = arg;
  struct evbuffer *in = bufferevent_get_input(bev);
  if (t->state == NP_TALK_ASKING) {
    size_t n;
    char *line = evbuffer_readln(in, &n, EVBUFFER_EOL_LF);
    if (line && n < LINE_MAX_BYTES)
      answer(t, line, n);
    else if (line || evbuffer_get_length(in) >= LINE_MAX_BYTES)
      np_talk_fail(t, "the request is longer than 64 KiB");
    free(line);
  }
  if (t->state != NP_TALK_ASKING) evbuffer_drain(in, evbuffer_get_length(in)); /* nothing else is expected */
}

static void on_write(struct bufferevent *bev, void *arg) {
  struct np_talk *t = arg;
  if (t->state == NP_TALK_ENDING) {
    if (evbuffer_get_length(bufferevent_get_output(bev)) == 0) talk_free(t);
  } else if (t->state != NP_TALK_ASKING) {
    np_talk_again(t, 0);
  }
}

/* A client that has closed only its sending half still gets what it asked for; a tail ends. */
static void on_event(struct bufferevent *bev, short what, void *arg) {
  struct np_talk *t = arg;
  (void)bev;
  bool half = (what & BEV_EVENT_EOF) && (t->state == NP_TALK_ENDING || t->state == NP_TALK_LISTING || t->state == NP_TALK_CALLING);
  if (!half) talk_free(t);
}

static void on_again(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct np_talk *t = arg;
  if (t->state == NP_TALK_LISTING)
    t->slice(t);
  else if (t->state == NP_TALK_FEEDING)
    np_feed_tell_lost(t);
  else if (t->state == NP_TALK_SEEKING || t->state == NP_TALK_TAILING)
    np_tail_slice(t);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int len, void *arg) {
  (void)listener;
  (void)address;
  (void)len;
  struct np_admin *a = arg;
  struct bufferevent *bev = a->talk_count < TALKS_MAX ? bufferevent_socket_new(a->host->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
  if (!bev) {
    static const char busy[] = "{\"error\":\"too many clients at once\"}\n";
    ssize_t n = send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n; /* it is told as far as it listens */
    close(fd);
    return;
  }
  struct np_talk *t = np_alloc(sizeof *t);
  *t = (struct np_talk){.next = a->talks, .prev = &a->talks, .admin = a, .host = a->host, .bev = bev};
  t->again = evtimer_new(a->host->base, on_again, t);
  if (!t->again) abort(); /* out of memory */
  if (t->next) t->next->prev = &t->next;
  a->talks = t;
  a->talk_count++;
  bufferevent_setcb(bev, on_read, on_write, on_event, t);
  bufferevent_setwatermark(bev, EV_READ, 0, LINE_MAX_BYTES);
  bufferevent_set_timeouts(bev, &patience, NULL);
  bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void on_accept_error(struct evconnlistener *listener, void *arg) {
  struct np_admin *a = arg;
  const struct timeval later = {.tv_sec = 1};
  np_log(NP_WARN, "the admin socket cannot accept", "error", strerror(errno), NULL);
  evconnlistener_disable(listener);
  evtimer_add(a->relisten, &later);
}

static void on_relisten(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct np_admin *a = arg;
  evconnlistener_enable(a->listener);
}

static void on_feed(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct np_admin *a = arg;
  struct np_feed *f = &a->host->feed;
  for (struct np_node *node = np_mailbox_take(&f->box), *next; node; node = next) {
    struct np_feed_item *item = (struct np_feed_item *)node;
    next = node->next;
    for (struct np_talk *t = a->talks; t; t = t->next) np_feed_give(t, item);
    np_feed_item_free(item);
  }
  for (int kind = 0; kind < NP_FEEDS; kind++) {
    long lost = atomic_exchange(&f->lost[kind], 0);
    for (struct np_talk *t = lost ? a->talks : NULL; t; t = t->next)
      if (t->state == NP_TALK_FEEDING && t->feed == (enum np_feed_kind)kind) t->lost += lost;
  }
  for (struct np_talk *t = a->talks; t; t = t->next)
    if (t->state == NP_TALK_FEEDING) np_feed_tell_lost(t);
}

/* The socket. */

int np_admin_address(const char *store, struct sockaddr_un *address, int *folder, struct np_error *err) {
  const char *slash = strrchr(store, '/'), *name = slash ? slash + 1 : store;
  char *path = slash ? np_strndup(store, slash == store ? 1 : (size_t)(slash - store)) : np_strdup(".");
  *folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int status = *folder < 0 ? np_fail(err, "%s: %s", path, strerror(errno)) : 0;
  free(path);
  if (status < 0) return -1;
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  int n = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s.sock", *folder, name);
  if (n < (int)sizeof address->sun_path) return 0;
  close(*folder);
  *folder = -1;
  return np_fail(err, "%s.sock: the file's name is too long for a socket", store);
}

/* Nobody can connect before listen(2): until then the permission is set right. */
static int listen_at(const struct sockaddr_un *address, const char *path, struct np_error *err) {
  struct stat st;
  if (lstat(address->sun_path, &st) == 0 && !S_ISSOCK(st.st_mode))
    return np_fail(err, "%s is in the way: it is not a socket", path);
  unlink(address->sun_path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && bind(fd, (const struct sockaddr *)address, sizeof *address) == 0 && chmod(address->sun_path, 0600) == 0 &&
      listen(fd, TALKS_MAX) == 0)
    return fd;
  np_fail(err, "%s: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
  return -1;
}

struct np_admin *np_admin_new(struct np_host *host, struct np_error *err) {
  struct sockaddr_un address;
  int folder;
  if (np_admin_address(host->config->store, &address, &folder, err) < 0) return NULL;
  struct np_buf path = {0};
  np_buf_addf(&path, "%s.sock", host->config->store);
  int fd = listen_at(&address, path.data, err);
  close(folder);
  if (fd < 0) {
    np_buf_free(&path);
    return NULL;
  }
  struct np_admin *a = np_alloc(sizeof *a);
  *a = (struct np_admin){.host = host, .path = path.data};
  a->relisten = evtimer_new(host->base, on_relisten, a);
  a->on_feed = event_new(host->base, host->feed.box.fd, EV_READ | EV_PERSIST, on_feed, a);
  if (a->on_feed) event_add(a->on_feed, NULL);
  a->listener = evconnlistener_new(host->base, on_accept, a, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
  if (a->listener && a->relisten && a->on_feed) {
    evconnlistener_set_error_cb(a->listener, on_accept_error);
    return a;
  }
  np_fail(err, "%s: the loop does not take it", a->path);
  if (!a->listener) close(fd);
  np_admin_free(a);
  return NULL;
}

void np_admin_committed(struct np_admin *a) {
  for (struct np_talk *t = a ? a->talks : NULL; t; t = t->next)
    if (t->state == NP_TALK_TAILING) np_talk_again(t, GATHER_MS);
}

bool np_admin_idle(const struct np_admin *a) {
  for (const struct np_talk *t = a->talks; t; t = t->next)
    if (t->state == NP_TALK_ENDING || t->state == NP_TALK_CALLING) return false;
  return true;
}

void np_admin_free(struct np_admin *a) {
  if (!a) return;
  for (struct np_talk *t = a->talks, *next; t; t = next) {
    next = t->next;
    talk_free(t);
  }
  if (a->listener) {
    evconnlistener_free(a->listener);
    unlink(a->path);
  }
  if (a->relisten) event_free(a->relisten);
  if (a->on_feed) event_free(a->on_feed);
  free(a->path);
  free(a);
}
