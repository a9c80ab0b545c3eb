/* HTTP out: curl's multi interface driven by libevent.
 *
 * A call is in exactly one list: waiting at its host, running inside curl, or finished and about to be told. Nothing of the
 * program's runs while curl is on the stack: curl's callbacks only store, and `deliver` tells afterwards. Three of curl's own
 * options were declined: CURLMOPT_MAX_HOST_CONNECTIONS, whose queue wakes the wrong host's transfer and knows no deadline;
 * CURLOPT_TIMEOUT, which starts anew at each redirect; CURLOPT_FOLLOWLOCATION, which asks nobody. */
#include "io/fetch.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/map.h"

#define ANSWER_MAX ((size_t)16 << 20)
#define HEADERS_MAX ((size_t)256 << 10)
#define IDLE_SECONDS 60
#define POOL_MAX 64
#define CONNECTIONS_KEPT 256L

struct list {
  struct np_fetch_call *head, *tail;
  size_t count;
};

struct host {          /* one scheme, name and port; in np_fetch.hosts while it has calls */
  int active;          /* calls inside curl */
  struct list waiting; /* in the order they came */
};

struct np_fetch {
  struct event_base *base; /* borrowed */
  CURLM *multi;            /* owned */
  struct event *timer;     /* owned; curl's own timeouts */
  struct event *wake;      /* owned; finished calls are to be told */
  struct event *idle;      /* owned; fires when nothing has run for a while */
  struct np_map hosts;     /* struct host by origin */
  struct list running;     /* inside curl */
  struct list finished;    /* to be told, or to be redirected */
  CURL *pool[POOL_MAX];    /* owned; easy handles that rest */
  size_t pooled;
  STACK_OF(X509) * extra; /* owned; NULL where only the system's certificates count */
  const char *ca_bundle;  /* borrowed from curl; the system's, NULL where there is none */
  char *user_agent;       /* owned */
  size_t waiting;         /* over all hosts */
  int per_host;
  bool delivering, dead; /* freed while delivering: `deliver` does the rest */
};

struct np_fetch_call {
  struct np_fetch *f; /* borrowed */
  struct np_fetch_call *prev, *next;
  struct list *in;            /* borrowed; NULL while it is being told */
  struct event *deadline;     /* owned */
  CURL *easy;                 /* owned while running */
  char *method, *url;         /* owned */
  char *origin;               /* owned; "https://host:443", NULL where the URL is bad */
  char *name;                 /* owned; "host:443", for sentences */
  struct curl_slist *headers; /* owned */
  char *body;                 /* owned; NULL where there is none */
  size_t body_len, answer_max;
  int redirects;
  bool (*may_redirect)(void *arg, const char *url);
  np_fetch_done *done;
  void *arg;
  double timeout;
  struct np_buf got_headers, got;
  bool in_head, had_head; /* between a status line and its empty line; past one */
  bool too_large;
  int status;
  const char *code; /* static; set where it failed */
  char why[720];
  char error[CURL_ERROR_SIZE]; /* curl's words */
};

static void deliver(struct np_fetch *f);
static void launch(struct np_fetch_call *call);

static void append(struct list *l, struct np_fetch_call *call) {
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
  struct list *l = call->in;
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

static void fail_call(struct np_fetch_call *call, const char *code, const char *why) {
  call->code = code;
  if (call->name)
    snprintf(call->why, sizeof call->why, "%.200s: %.500s", call->name, why);
  else
    snprintf(call->why, sizeof call->why, "%.500s", why);
}

/* URLs */

static int part(CURLU *u, CURLUPart what, unsigned flags, char **to) {
  char *s = NULL;
  if (curl_url_get(u, what, &s, flags) != CURLUE_OK) return -1;
  *to = np_strdup(s);
  curl_free(s);
  return 0;
}

/* Sets url, origin and name of the call to `url`, which may be relative to the one it has. On -1 nothing has changed. */
static int set_url(struct np_fetch_call *call, const char *url, struct np_error *err) {
  CURLU *u = curl_url();
  char *whole = NULL, *scheme = NULL, *host = NULL, *port = NULL;
  CURLUcode bad = CURLUE_OUT_OF_MEMORY;
  if (u && call->origin) bad = curl_url_set(u, CURLUPART_URL, call->url, 0);
  if (u && (!call->origin || bad == CURLUE_OK))
    bad = curl_url_set(u, CURLUPART_URL, url, call->origin ? CURLU_URLENCODE | CURLU_ALLOW_SPACE : 0);
  if (bad != CURLUE_OK) {
    np_fail(err, "not a URL: %s", curl_url_strerror(bad));
    goto fail;
  }
  if (part(u, CURLUPART_SCHEME, 0, &scheme) || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)) {
    np_fail(err, "only http and https URLs are asked");
    goto fail;
  }
  if (part(u, CURLUPART_URL, 0, &whole) || part(u, CURLUPART_HOST, 0, &host) ||
      part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, &port)) {
    np_fail(err, "not a URL: no host");
    goto fail;
  }
  struct np_buf origin = {0};
  for (char *c = host; *c; c++) *c = (char)tolower((unsigned char)*c);
  np_buf_addf(&origin, "%s://%s:%s", scheme, host, port);
  free(call->url);
  free(call->origin);
  free(call->name);
  call->url = whole;
  call->origin = origin.data;
  call->name = np_strdup(origin.data + strlen(scheme) + 3);
  free(scheme);
  free(host);
  free(port);
  curl_url_cleanup(u);
  return 0;
fail:
  free(whole);
  free(scheme);
  free(host);
  free(port);
  curl_url_cleanup(u);
  return -1;
}

/* Headers */

static bool is_token(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isalnum((unsigned char)s[i]) && !(s[i] && strchr("!#$%&'*+-.^_`|~", s[i]))) return false;
  return n > 0;
}

static bool is_named(const char *line, const char *const *names) {
  size_t n = strcspn(line, ":;");
  for (; *names; names++)
    if (strlen(*names) == n && strncasecmp(line, *names, n) == 0) return true;
  return false;
}

static const char *const ours[] = {"content-length", "transfer-encoding", "expect", "connection", NULL};
static const char *const of_body[] = {"content-type", "content-encoding", "content-language", "content-md5", "digest", NULL};
static const char *const credentials[] = {"authorization", "cookie", "proxy-authorization", NULL};
static const char *const type[] = {"content-type", NULL};

static void add_header(struct np_fetch_call *call, const char *line) {
  struct curl_slist *more = curl_slist_append(call->headers, line);
  if (!more) abort(); /* as np_alloc */
  call->headers = more;
}

/* "Name:" means to curl that it is not to be sent; "Name;" sends it empty. */
static int add_checked_header(struct np_fetch_call *call, const char *line, struct np_error *err) {
  size_t name = strcspn(line, ":");
  if (!is_token(line, name) || line[name] != ':') return np_fail(err, "a header is not \"Name: value\"");
  if (strpbrk(line, "\r\n")) return np_fail(err, "the header %.*s has a line break in it", (int)(name < 100 ? name : 100), line);
  if (is_named(line, ours)) return 0;
  if (line[name + 1 + strspn(line + name + 1, " \t")]) {
    add_header(call, line);
  } else {
    char *empty = np_strndup(line, name + 1);
    empty[name] = ';';
    add_header(call, empty);
    free(empty);
  }
  return 0;
}

static void leave_out(struct np_fetch_call *call, const char *const *names) {
  struct curl_slist *old = call->headers;
  call->headers = NULL;
  for (struct curl_slist *h = old; h; h = h->next)
    if (!is_named(h->data, names)) add_header(call, h->data);
  curl_slist_free_all(old);
}

/* curl's callbacks: none of them may lead to the program */

static size_t on_header(char *bytes, size_t size, size_t count, void *arg) {
  struct np_fetch_call *call = arg;
  struct np_buf *to = &call->got_headers;
  size_t whole = size * count, n = whole;
  while (n && (bytes[n - 1] == '\r' || bytes[n - 1] == '\n')) n--;
  if (!call->in_head) {
    if (n < 5 || memcmp(bytes, "HTTP/", 5) != 0) return whole; /* a trailer: not a header, RFC 9110 6.5.1 */
    call->in_head = true;
    np_buf_clear(to); /* what came before was a 1xx */
    return whole;
  }
  if (!n) {
    call->in_head = false;
    call->had_head = true;
    return whole;
  }
  if (to->len + n + 2 > HEADERS_MAX) {
    call->too_large = true;
    return 0;
  }
  size_t from = to->len;
  if ((bytes[0] == ' ' || bytes[0] == '\t') && to->len) { /* a folded line goes on with the one before */
    to->len--;
    np_buf_addc(to, ' ');
    while (n && (*bytes == ' ' || *bytes == '\t')) bytes++, n--;
    np_buf_add(to, bytes, n);
  } else {
    char *colon = memchr(bytes, ':', n);
    if (!colon || !is_token(bytes, (size_t)(colon - bytes))) return whole;
    for (char *c = bytes; c < colon; c++) np_buf_addc(to, (char)tolower((unsigned char)*c));
    np_buf_adds(to, ": ");
    char *end = bytes + n;
    for (colon++; colon < end && (*colon == ' ' || *colon == '\t'); colon++) {}
    np_buf_add(to, colon, (size_t)(end - colon));
  }
  while (to->len > from && (to->data[to->len - 1] == ' ' || to->data[to->len - 1] == '\t') && to->data[to->len - 2] != ':')
    to->len--;
  for (size_t i = from; i < to->len; i++)
    if (to->data[i] == '\r' || to->data[i] == '\n' || !to->data[i]) to->data[i] = ' ';
  np_buf_addc(to, '\n');
  return whole;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
  struct np_fetch_call *call = arg;
  size_t n = size * count;
  if (n > call->answer_max - call->got.len) {
    call->too_large = true;
    return n ? 0 : 1; /* anything but n ends the transfer */
  }
  np_buf_add(&call->got, bytes, n);
  return n;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *a) {
  (void)arg, (void)purpose;
  return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* The system's store is cached by curl over all connections of this multi handle; certificates it has already are left as they are. */
static CURLcode on_tls(CURL *easy, void *context, void *arg) {
  (void)easy;
  struct np_fetch *f = arg;
  X509_STORE *store = SSL_CTX_get_cert_store(context);
  for (int i = 0; i < sk_X509_num(f->extra); i++)
    if (!X509_STORE_add_cert(store, sk_X509_value(f->extra, i))) return CURLE_SSL_CACERT_BADFILE;
  return CURLE_OK;
}

/* The loop */

static const char *code_of(CURLcode result) {
  switch (result) {
  case CURLE_OPERATION_TIMEDOUT: return "timeout";
  case CURLE_COULDNT_RESOLVE_HOST: return "resolve";
  case CURLE_COULDNT_CONNECT:
  case CURLE_INTERFACE_FAILED: return "connect";
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_CRL_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_SHUTDOWN_FAILED:
  case CURLE_SSL_INVALIDCERTSTATUS:
  case CURLE_SSL_CLIENTCERT:
  case CURLE_SSL_ENGINE_INITFAILED: return "tls";
  case CURLE_PARTIAL_FILE:
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_ERROR:
  case CURLE_RECV_ERROR:
  case CURLE_SEND_FAIL_REWIND:
  case CURLE_HTTP2:
  case CURLE_HTTP2_STREAM: return "cut";
  case CURLE_FILESIZE_EXCEEDED: return "too_large";
  case CURLE_URL_MALFORMAT: return "bad_url";
  default: return "other";
  }
}

/* Takes the call out of curl and gives its place at the host to the next one. */
static void land(struct np_fetch_call *call) {
  struct np_fetch *f = call->f;
  unlink_call(call);
  curl_multi_remove_handle(f->multi, call->easy);
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

static void collect(struct np_fetch *f) {
  int left;
  for (CURLMsg *m; (m = curl_multi_info_read(f->multi, &left));) {
    if (m->msg != CURLMSG_DONE) continue;
    CURLcode result = m->data.result; /* m is gone once the handle is removed */
    struct np_fetch_call *call = NULL;
    long status = 0;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &call);
    curl_easy_getinfo(m->easy_handle, CURLINFO_RESPONSE_CODE, &status);
    call->status = (int)status;
    if (call->too_large || result == CURLE_FILESIZE_EXCEEDED)
      fail_call(call, "too_large", "the answer is larger than allowed");
    else if (result == CURLE_OK && (call->in_head || !call->had_head || status < 200)) /* half a head is an answer to curl */
      fail_call(call, "cut", "the connection was closed before the answer was whole");
    else if (result != CURLE_OK)
      fail_call(call, code_of(result), call->error[0] ? call->error : curl_easy_strerror(result));
    land(call);
    append(&f->finished, call);
  }
}

static void on_socket(evutil_socket_t fd, short what, void *arg) {
  struct np_fetch *f = arg;
  int running;
  curl_multi_socket_action(f->multi, fd, (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0),
                           &running);
  collect(f);
  deliver(f);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_fetch *f = arg;
  int running;
  curl_multi_socket_action(f->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  collect(f);
  deliver(f);
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  deliver(arg);
}

static int on_want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known) {
  (void)easy;
  struct np_fetch *f = arg;
  struct event *ev = known;
  if (what == CURL_POLL_REMOVE) {
    if (ev) event_free(ev);
    curl_multi_assign(f->multi, fd, NULL);
    return 0;
  }
  short want = (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
  if (!ev) {
    ev = event_new(f->base, fd, want, on_socket, f);
    if (!ev) return -1;
    curl_multi_assign(f->multi, fd, ev);
  } else {
    if (event_get_events(ev) == want) return 0;
    event_del(ev);
    event_assign(ev, f->base, fd, want, on_socket, f);
  }
  return want == EV_PERSIST ? 0 : event_add(ev, NULL);
}

static int on_want_timer(CURLM *multi, long ms, void *arg) {
  (void)multi;
  struct np_fetch *f = arg;
  if (ms < 0) return event_del(f->timer);
  return event_add(f->timer, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

/* Running a call */

static void set_options(struct np_fetch_call *call) {
  struct np_fetch *f = call->f;
  CURL *e = call->easy;
  curl_easy_setopt(e, CURLOPT_URL, call->url);
  curl_easy_setopt(e, CURLOPT_PRIVATE, call);
  curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->error);
  curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* giving up does not wait for a resolver that hangs */
  curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt(e, CURLOPT_CAINFO, f->ca_bundle);
  curl_easy_setopt(e, CURLOPT_CAPATH, NULL); /* with one, curl would parse all certificates for every connection */
  if (f->extra) {
    curl_easy_setopt(e, CURLOPT_SSL_CTX_FUNCTION, on_tls);
    curl_easy_setopt(e, CURLOPT_SSL_CTX_DATA, f);
  }
  curl_easy_setopt(e, CURLOPT_PROXY, "");
  curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "");
  curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)IDLE_SECONDS);
  curl_easy_setopt(e, CURLOPT_USERAGENT, f->user_agent);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open);
  curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
  curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
  curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->headers);
  if (strcmp(call->method, "HEAD") == 0) {
    curl_easy_setopt(e, CURLOPT_NOBODY, 1L); /* and no MAXFILESIZE: its Content-Length is not of what comes */
    return;
  }
  curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)call->answer_max);
  if (call->body) {
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_len);
    curl_easy_setopt(e, CURLOPT_POSTFIELDS, call->body);
  }
  curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, call->method);
}

/* Its place at the host is taken already. */
static void launch(struct np_fetch_call *call) {
  struct np_fetch *f = call->f;
  call->easy = f->pooled ? f->pool[--f->pooled] : curl_easy_init();
  if (!call->easy) abort(); /* as np_alloc */
  set_options(call);
  np_buf_clear(&call->got);
  np_buf_clear(&call->got_headers);
  call->in_head = call->had_head = false;
  call->error[0] = 0;
  append(&f->running, call);
  event_del(f->idle);
  CURLMcode bad = curl_multi_add_handle(f->multi, call->easy);
  if (bad == CURLM_OK) return;
  fail_call(call, "other", curl_multi_strerror(bad));
  land(call);
  append(&f->finished, call);
  event_active(f->wake, EV_TIMEOUT, 0);
}

static void queue(struct np_fetch_call *call) {
  struct np_fetch *f = call->f;
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

static void free_call(struct np_fetch_call *call) {
  event_free(call->deadline);
  free(call->method);
  free(call->url);
  free(call->origin);
  free(call->name);
  curl_slist_free_all(call->headers);
  free(call->body);
  np_buf_free(&call->got_headers);
  np_buf_free(&call->got);
  free(call);
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
  if (call->in == &f->finished) return; /* `follow` will see that the time is over */
  bool waited = call->in != &f->running;
  stop(call);
  char why[80];
  snprintf(why, sizeof why, waited ? "no free connection within %g s" : "no answer within %g s", call->timeout);
  fail_call(call, "timeout", why);
  append(&f->finished, call);
  deliver(f);
}

/* Redirects */

static char *location(const struct np_fetch_call *call) {
  static const char name[] = "location: ";
  for (const char *line = np_buf_text(&call->got_headers); *line; line = strchr(line, '\n') + 1)
    if (strncmp(line, name, sizeof name - 1) == 0) return np_strndup(line + sizeof name - 1, strcspn(line + sizeof name - 1, "\n"));
  return NULL;
}

static void become_get(struct np_fetch_call *call) {
  free(call->method);
  call->method = np_strdup("GET");
  free(call->body);
  call->body = NULL;
  leave_out(call, of_body);
}

/* True where the answer was a redirect that is now being followed; else the call is to be told as it is. */
static bool follow(struct np_fetch_call *call) {
  int s = call->status;
  if (call->code || !call->redirects || (s != 301 && s != 302 && s != 303 && s != 307 && s != 308)) return false;
  char *to = location(call);
  if (!to) return false;
  char *was = np_strdup(call->origin), *asked = np_strdup(call->url);
  struct np_error err;
  const char *why = NULL;
  if (call->redirects < 0)
    why = "too many redirects";
  else if (set_url(call, to, &err))
    why = "redirected to what is no URL that can be asked";
  else if (call->may_redirect && !call->may_redirect(call->arg, call->url))
    why = "redirected to where it may not go";
  if (why) {
    if (strcmp(call->url, asked) != 0) { /* url tells the last one asked */
      free(call->url);
      call->url = asked;
      asked = NULL;
    }
    fail_call(call, "redirect", why);
  } else if (!event_pending(call->deadline, EV_TIMEOUT, NULL)) {
    fail_call(call, "timeout", "no answer in time");
  } else {
    if (--call->redirects == 0) call->redirects = -1; /* the next one is one too many */
    if ((s == 303 && strcmp(call->method, "HEAD") != 0) || (s < 303 && strcmp(call->method, "POST") == 0)) become_get(call);
    if (strcmp(was, call->origin) != 0) leave_out(call, credentials);
    queue(call);
  }
  free(to);
  free(was);
  free(asked);
  return !call->code;
}

/* Telling */

static void tell(struct np_fetch_call *call) {
  event_del(call->deadline);
  struct np_fetch_answer a = {.url = call->url, .headers = "", .body = "", .code = call->code};
  if (call->code) {
    a.why = call->why;
  } else {
    a.status = call->status;
    a.headers = np_buf_text(&call->got_headers);
    a.body = np_buf_text(&call->got);
    a.body_len = call->got.len;
  }
  call->done(call->arg, &a);
  free_call(call);
}

/* Only those that were there at first, so that a program which answers failures by trying again does not hold the loop. */
static void deliver(struct np_fetch *f) {
  f->delivering = true;
  for (size_t n = f->finished.count; n && f->finished.head && !f->dead; n--) {
    struct np_fetch_call *call = f->finished.head;
    unlink_call(call);
    if (!follow(call)) tell(call);
  }
  f->delivering = false;
  if (f->dead)
    free(f);
  else if (f->finished.head)
    event_active(f->wake, EV_TIMEOUT, 0);
}

/* Making and freeing */

static CURLM *make_multi(struct np_fetch *f) {
  CURLM *m = curl_multi_init();
  if (!m) return NULL;
  curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_want_socket);
  curl_multi_setopt(m, CURLMOPT_SOCKETDATA, f);
  curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_want_timer);
  curl_multi_setopt(m, CURLMOPT_TIMERDATA, f);
  curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
  return m;
}

/* curl closes old connections only when it makes new ones; where nothing is asked any more they go with their handle. */
static void on_idle(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_fetch *f = arg;
  CURLM *fresh = f->running.count ? NULL : make_multi(f);
  if (!fresh) return;
  curl_multi_cleanup(f->multi);
  f->multi = fresh;
}

static STACK_OF(X509) * read_certificates(const char *path, struct np_error *err) {
  BIO *file = BIO_new_file(path, "r");
  if (!file) {
    np_fail(err, "%s: cannot be read: %s", path, strerror(errno));
    ERR_clear_error();
    return NULL;
  }
  STACK_OF(X509) *all = sk_X509_new_null();
  for (X509 *one; (one = PEM_read_bio_X509_AUX(file, NULL, NULL, NULL));) sk_X509_push(all, one);
  BIO_free(file);
  bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (ended && sk_X509_num(all) > 0) return all;
  np_fail(err, "%s: not a file of certificates in PEM", path);
  sk_X509_pop_free(all, X509_free);
  return NULL;
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
  f->base = base;
  f->per_host = o.per_host > 0 ? o.per_host : 8;
  f->user_agent = np_strdup(o.user_agent ? o.user_agent : "neap");
  const char *bundle = curl_version_info(CURLVERSION_NOW)->cainfo;
  if (bundle && access(bundle, R_OK) == 0) f->ca_bundle = bundle;
  f->timer = evtimer_new(base, on_timer, f);
  f->wake = evtimer_new(base, on_wake, f);
  f->idle = evtimer_new(base, on_idle, f);
  f->multi = make_multi(f);
  if (!f->timer || !f->wake || !f->idle || !f->multi) {
    np_fail(err, "HTTP out does not start: out of memory or descriptors");
    goto fail;
  }
  if (o.ca_file && !(f->extra = read_certificates(o.ca_file, err))) goto fail;
  return f;
fail:
  np_fetch_free(f);
  return NULL;
}

static int check_request(const struct np_fetch_request *r, struct np_error *err) {
  if (!r->method || !is_token(r->method, strlen(r->method)) || strcmp(r->method, "CONNECT") == 0)
    return np_fail(err, "not an HTTP method that can be used");
  if (!r->url) return np_fail(err, "no URL");
  if (!(r->timeout > 0) || r->timeout > 1e9) return np_fail(err, "the timeout must be more than 0 seconds");
  if (r->redirects < 0) return np_fail(err, "the number of redirects must not be negative");
  return 0;
}

static int set_headers(struct np_fetch_call *call, const struct np_fetch_request *r, struct np_error *err) {
  bool typed = false;
  for (size_t i = 0; i < r->header_count; i++) {
    if (add_checked_header(call, r->headers[i], err)) return -1;
    if (is_named(r->headers[i], type)) typed = true;
  }
  add_header(call, "Expect:");
  if (!typed) add_header(call, "Content-Type:"); /* curl would say that it is a form */
  return 0;
}

struct np_fetch_call *np_fetch_start(struct np_fetch *f, const struct np_fetch_request *r, np_fetch_done *done, void *arg,
                                     struct np_error *err) {
  if (check_request(r, err)) return NULL;
  struct np_fetch_call *call = np_alloc(sizeof *call);
  *call = (struct np_fetch_call){.f = f, .done = done, .arg = arg, .timeout = r->timeout, .redirects = r->redirects};
  call->may_redirect = r->may_redirect;
  call->answer_max = r->answer_max ? r->answer_max : ANSWER_MAX;
  call->method = np_strdup(r->method);
  call->deadline = evtimer_new(f->base, on_deadline, call);
  bool sends = strcmp(r->method, "POST") == 0 || strcmp(r->method, "PUT") == 0 || strcmp(r->method, "PATCH") == 0;
  if (r->body || sends) call->body = np_strndup(r->body, r->body ? r->body_len : 0); /* an empty one says Content-Length: 0 */
  if (r->body) call->body_len = r->body_len;
  if (!call->deadline) abort(); /* as np_alloc */
  if (set_headers(call, r, err)) {
    free_call(call);
    return NULL;
  }
  struct timeval in = {.tv_sec = (time_t)r->timeout, .tv_usec = (suseconds_t)((r->timeout - (double)(time_t)r->timeout) * 1e6)};
  event_add(call->deadline, &in);
  struct np_error bad;
  if (set_url(call, r->url, &bad) == 0) {
    queue(call);
  } else {
    call->url = np_strdup(r->url);
    fail_call(call, "bad_url", bad.text);
    append(&f->finished, call);
    event_active(f->wake, EV_TIMEOUT, 0);
  }
  return call;
}

void np_fetch_cancel(struct np_fetch_call *call) {
  if (!call->in) return; /* from within its own callback: too late, and freed soon */
  stop(call);
  free_call(call);
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
  if (f->multi) curl_multi_cleanup(f->multi);
  while (f->pooled) curl_easy_cleanup(f->pool[--f->pooled]);
  if (f->timer) event_free(f->timer);
  if (f->wake) event_free(f->wake);
  if (f->idle) event_free(f->idle);
  if (f->extra) sk_X509_pop_free(f->extra, X509_free);
  free(f->user_agent);
  if (!f->delivering) free(f);
}
