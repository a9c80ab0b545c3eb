/* HTTP out: curl's multi interface driven by libevent.
 *
 * A call is in exactly one list: waiting at its host, running inside curl, or finished and about to be told, by `deliver`. Three of
 * curl's own options were declined: CURLMOPT_MAX_HOST_CONNECTIONS, whose queue wakes the wrong host's transfer and knows no deadline;
 * CURLOPT_TIMEOUT, which starts anew at each redirect; CURLOPT_FOLLOWLOCATION, which asks nobody. */
#include "io/fetch.h"

#include <curl/curl.h>
#include <event2/event.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "io/curl_loop.h"
#include "io/fetch_call.h"
#include "io/fetch_trust.h"

#define IDLE_SECONDS 60
#define POOL_MAX 64

struct np_fetch_list {
  struct np_fetch_call *head, *tail;
  size_t count;
};

struct host {                   /* one scheme, name and port; in np_fetch.hosts while it has calls */
  int active;                   /* calls inside curl */
  struct np_fetch_list waiting; /* in the order they came */
};

struct np_fetch {
  struct np_curl curl;
  struct event *wake;            /* owned; finished calls are to be told */
  struct event *idle;            /* owned; fires when nothing has run for a while */
  struct np_map hosts;           /* struct host by origin */
  struct np_fetch_list running;  /* inside curl */
  struct np_fetch_list finished; /* to be told, or to be redirected */
  CURL *pool[POOL_MAX];          /* owned; easy handles that rest */
  size_t pooled;
  struct np_fetch_trust *trust; /* owned */
  char *user_agent;             /* owned */
  bool names_lead_anywhere;
  void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer); /* see fetch.h */
  void *script_arg;
  size_t waiting; /* over all hosts */
  int per_host;
  bool delivering, dead; /* freed while delivering: `deliver` does the rest */
};

static void deliver(struct np_fetch *f);
static void launch(struct np_fetch_call *call);

static void append(struct np_fetch_list *l, struct np_fetch_call *call) {
  call->in = l;
  call->next = NULL;
  call->prev = l->tail;
  if (l->tail)
    l->tail->next = call;
  else
    l->head = call;
  l->tail = call;
  l->count++;
}

static void unlink_call(struct np_fetch_call *call) {
  struct np_fetch_list *l = call->in;
  if (call->prev)
    call->prev->next = call->next;
  else
    l->head = call->next;
  if (call->next)
    call->next->prev = call->prev;
  else
    l->tail = call->prev;
  l->count--;
  call->in = NULL;
}

/* The loop */

/* Takes the call out of curl and gives its place at the host to the next one. */
static void land(struct np_fetch_call *call) {
  struct np_fetch *f = call->f;
  unlink_call(call);
  curl_multi_remove_handle(f->curl.multi, call->easy);
  curl_easy_reset(call->easy); /* keeps the TLS sessions, drops pointers to the call */
  if (f->pooled < POOL_MAX)
    f->pool[f->pooled++] = call->easy;
  else
    curl_easy_cleanup(call->easy);
  call->easy = NULL;
  struct host *h = np_map_get(&f->hosts, call->origin, strlen(call->origin));
  h->active--;
  if (h->waiting.head && !f->dead) {
    struct np_fetch_call *next = h->waiting.head;
    unlink_call(next);
    f->waiting--;
    h->active++;
    launch(next);
  } else if (!h->active) {
    free(np_map_remove(&f->hosts, call->origin, strlen(call->origin)));
  }
  if (!f->running.count && !f->dead) event_add(f->idle, &(struct timeval){.tv_sec = IDLE_SECONDS});
}

static void leave_queue(struct np_fetch_call *call) { /* the host stays: it waits only where others are active */
  unlink_call(call);
  call->f->waiting--;
}

/* The loop's: see curl_loop.h */

static void ended(void *arg, CURL *easy, CURLcode result) {
  struct np_fetch *f = arg;
  struct np_fetch_call *call = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &call);
  np_fetch_call_end(call, result);
  land(call);
  append(&f->finished, call);
}

static void settled(void *arg) { deliver(arg); }

static void on_wake(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  deliver(arg);
}

/* Running a call */

/* Its place at the host is taken already. */
static void launch(struct np_fetch_call *call) {
  struct np_fetch *f = call->f;
  call->easy = f->pooled ? f->pool[--f->pooled] : curl_easy_init();
  if (!call->easy) abort(); /* as np_alloc */
  call->names_lead_anywhere = f->names_lead_anywhere;
  np_fetch_call_prepare(call, f->user_agent, IDLE_SECONDS);
  np_fetch_trust_apply(f->trust, call->ca, call->easy);
  append(&f->running, call);
  event_del(f->idle);
  CURLMcode bad = curl_multi_add_handle(f->curl.multi, call->easy);
  if (bad == CURLM_OK) return;
  np_fetch_call_fail(call, "other", curl_multi_strerror(bad));
  land(call);
  append(&f->finished, call);
  event_active(f->wake, EV_TIMEOUT, 0);
}

static void finish(struct np_fetch_call *call) {
  append(&call->f->finished, call);
  event_active(call->f->wake, EV_TIMEOUT, 0);
}

static void queue(struct np_fetch_call *call) {
  struct np_fetch *f = call->f;
  if (f->script) { /* it is asked when the call is about to be told */
    finish(call);
    return;
  }
  struct host *h = np_map_get(&f->hosts, call->origin, strlen(call->origin));
  if (!h) {
    h = np_alloc(sizeof *h);
    np_map_put(&f->hosts, call->origin, strlen(call->origin), h);
  }
  if (h->active < f->per_host) {
    h->active++;
    launch(call);
  } else {
    append(&h->waiting, call);
    f->waiting++;
  }
}

static void drop(struct np_fetch_call *call) {
  event_free(call->deadline);
  np_fetch_call_free(call);
}

/* Takes the call out of whatever list it is in. */
static void stop(struct np_fetch_call *call) {
  if (call->in == &call->f->running)
    land(call);
  else if (call->in == &call->f->finished)
    unlink_call(call);
  else
    leave_queue(call);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_fetch_call *call = arg;
  struct np_fetch *f = call->f;
  if (call->in == &f->finished) return; /* `deliver` sees that the time is over */
  bool waited = call->in != &f->running;
  stop(call);
  char why[80];
  snprintf(why, sizeof why, waited ? "no free connection within %g s" : "no answer within %g s", call->timeout);
  np_fetch_call_fail(call, "timeout", why);
  append(&f->finished, call);
  deliver(f);
}

/* Telling */

/* The deadline came while it was about to be redirected. */
static bool has_time(struct np_fetch_call *call) {
  if (event_pending(call->deadline, EV_TIMEOUT, NULL)) return true;
  np_fetch_call_fail(call, "timeout", "no answer in time");
  return false;
}

/* Only those that were there at first, so that a program which answers failures by trying again does not hold the loop. */
static void deliver(struct np_fetch *f) {
  f->delivering = true;
  for (size_t n = f->finished.count; n && f->finished.head; n--) {
    struct np_fetch_call *call = f->finished.head;
    unlink_call(call);
    if (f->script && !call->code) np_fetch_call_script(call, f->script, f->script_arg);
    if (!call->code && np_fetch_call_redirect(call) && has_time(call)) {
      queue(call);
      continue;
    }
    event_del(call->deadline);
    np_fetch_call_tell(call);
    drop(call);
  }
  f->delivering = false;
  if (f->dead)
    free(f);
  else if (f->finished.head)
    event_active(f->wake, EV_TIMEOUT, 0);
}

/* Making and freeing */

/* curl closes old connections only when it makes new ones; where nothing is asked any more they go with their handle. */
static void on_idle(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_fetch *f = arg;
  if (!f->running.count) np_curl_renew(&f->curl);
}

int np_fetch_global_init(struct np_error *err) {
  CURLcode bad = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (bad != CURLE_OK) return np_fail(err, "libcurl does not start: %s", curl_easy_strerror(bad));
  signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write(2) */
  return 0;
}

struct np_fetch *np_fetch_new(struct event_base *base, const struct np_fetch_options *options, struct np_error *err) {
  struct np_fetch_options o = options ? *options : (struct np_fetch_options){0};
  struct np_fetch *f = np_alloc(sizeof *f);
  f->curl = (struct np_curl){.base = base, .ended = ended, .settled = settled, .arg = f};
  f->per_host = o.per_host > 0 ? o.per_host : 8;
  f->names_lead_anywhere = o.names_lead_anywhere;
  f->script = o.script;
  f->script_arg = o.script_arg;
  f->user_agent = np_strdup(o.user_agent ? o.user_agent : "neap");
  f->wake = evtimer_new(base, on_wake, f);
  f->idle = evtimer_new(base, on_idle, f);
  bool open = np_curl_open(&f->curl) == 0;
  f->trust = np_fetch_trust_new(o.ca_file, err);
  if (!f->trust) goto fail;
  if (!open || !f->wake || !f->idle) {
    np_fail(err, "HTTP out does not start: out of memory or descriptors");
    goto fail;
  }
  return f;
fail:
  np_fetch_free(f);
  return NULL;
}

struct np_fetch_call *np_fetch_start(struct np_fetch *f, const struct np_fetch_request *r, np_fetch_done *done, void *arg,
                                     struct np_error *err) {
  struct np_fetch_call *call = np_fetch_call_new(r, err);
  if (!call) return NULL;
  call->f = f;
  call->done = done;
  call->arg = arg;
  call->deadline = evtimer_new(f->curl.base, on_deadline, call);
  if (!call->deadline) abort(); /* as np_alloc */
  event_add(call->deadline, &(struct timeval){.tv_sec = (time_t)r->timeout,
                                              .tv_usec = (suseconds_t)((r->timeout - (double)(time_t)r->timeout) * 1e6)});
  if (!call->code)
    queue(call);
  else
    finish(call);
  return call;
}

void np_fetch_cancel(struct np_fetch_call *call) {
  if (!call->in) return; /* from within its own callback: too late, and freed soon */
  stop(call);
  drop(call);
}

size_t np_fetch_running(const struct np_fetch *f) { return f->waiting + f->running.count + f->finished.count; }

void np_fetch_free(struct np_fetch *f) {
  if (!f || f->dead) return;
  f->dead = true; /* no waiting call is launched in place of a cancelled one */
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&f->hosts, &i));)
    for (struct host *h = e->value; h->waiting.head;) np_fetch_cancel(h->waiting.head);
  while (f->running.head) np_fetch_cancel(f->running.head);
  while (f->finished.head) np_fetch_cancel(f->finished.head);
  np_map_free(&f->hosts, free);
  np_curl_close(&f->curl);
  while (f->pooled) curl_easy_cleanup(f->pool[--f->pooled]);
  if (f->wake) event_free(f->wake);
  if (f->idle) event_free(f->idle);
  np_fetch_trust_free(f->trust);
  free(f->user_agent);
  if (!f->delivering) free(f);
}
