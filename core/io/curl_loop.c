/* curl's multi interface driven by libevent. */
#include "io/curl_loop.h"

#include <event2/event.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "io/fetch_reach.h"

#define CONNECTIONS_KEPT 256L

const char np_curl_near[] = "the name leads to this machine or its link: where that is meant, the settings have to say the address";

static void collect(struct np_curl *c) {
  int left;
  for (CURLMsg *m; (m = curl_multi_info_read(c->multi, &left));)
    if (m->msg == CURLMSG_DONE) c->ended(c->arg, m->easy_handle, m->data.result);
  c->settled(c->arg);
}

static void on_socket(evutil_socket_t fd, short what, void *arg) {
  struct np_curl *c = arg;
  int running;
  curl_multi_socket_action(c->multi, fd, (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0),
                           &running);
  collect(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_curl *c = arg;
  int running;
  curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  collect(c);
}

static int on_want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known) {
  (void)easy;
  struct np_curl *c = arg;
  struct event *ev = known;
  if (what == CURL_POLL_REMOVE) {
    if (ev) event_free(ev);
    curl_multi_assign(c->multi, fd, NULL);
    return 0;
  }
  short want = (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
  if (!ev) {
    ev = event_new(c->base, fd, want, on_socket, c);
    if (!ev) return -1;
    curl_multi_assign(c->multi, fd, ev);
  } else {
    if (event_get_events(ev) == want) return 0;
    event_del(ev);
    event_assign(ev, c->base, fd, want, on_socket, c);
  }
  return want == EV_PERSIST ? 0 : event_add(ev, NULL);
}

static int on_want_timer(CURLM *multi, long ms, void *arg) {
  (void)multi;
  struct np_curl *c = arg;
  if (ms < 0) return event_del(c->timer);
  return event_add(c->timer, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

static CURLM *make_multi(struct np_curl *c) {
  CURLM *m = curl_multi_init();
  if (!m) return NULL;
  curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_want_socket);
  curl_multi_setopt(m, CURLMOPT_SOCKETDATA, c);
  curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_want_timer);
  curl_multi_setopt(m, CURLMOPT_TIMERDATA, c);
  curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
  return m;
}

int np_curl_open(struct np_curl *c) {
  c->timer = evtimer_new(c->base, on_timer, c);
  c->multi = c->timer ? make_multi(c) : NULL;
  return c->multi ? 0 : -1;
}

void np_curl_renew(struct np_curl *c) {
  CURLM *fresh = make_multi(c);
  if (!fresh) return;
  curl_multi_cleanup(c->multi);
  c->multi = fresh;
}

void np_curl_close(struct np_curl *c) {
  if (c->multi) curl_multi_cleanup(c->multi);
  if (c->timer) event_free(c->timer);
  c->multi = NULL;
  c->timer = NULL;
}

/* Of a transfer */

void np_curl_prepare(CURL *e) {
  curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt(e, CURLOPT_PROXY, "");
}

static void set_blob(CURL *e, CURLoption option, const char *pem) {
  struct curl_blob blob = {.data = (void *)(uintptr_t)pem, .len = pem ? strlen(pem) : 0, .flags = CURL_BLOB_NOCOPY};
  if (pem) curl_easy_setopt(e, option, &blob);
}

/* The connection that a client's certificate has made is reused by calls with the same one alone: curl compares them. */
void np_curl_identity(CURL *e, const char *cert, const char *key) {
  set_blob(e, CURLOPT_SSLCERT_BLOB, cert);
  set_blob(e, CURLOPT_SSLKEY_BLOB, key ? key : cert);
  if (cert) curl_easy_setopt(e, CURLOPT_KEYPASSWD, ""); /* else OpenSSL would ask at the terminal */
}

curl_socket_t np_curl_socket(const struct curl_sockaddr *a, bool names_lead_anywhere, const char *name, bool *near) {
  if (!names_lead_anywhere && np_fetch_is_near(&a->addr) && !np_fetch_says_near(name)) {
    *near = true;
    return CURL_SOCKET_BAD;
  }
  return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

const char *np_curl_code(CURLcode result) {
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
