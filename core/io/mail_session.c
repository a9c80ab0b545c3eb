/* A connection to a mail server: made by libcurl up to the end of AUTH (CURLOPT_CONNECT_ONLY), ours from there on. Such a connection is
 * closed by libcurl without QUIT, for which it would wait. */
#include <event2/event.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "io/mail_parts.h"

#define REST_SECONDS 10 /* servers wait for the next mail for minutes */
#define RESTING_MOST 16

/* Places */

const char *np_mail_place_part(const struct np_mail_place *p, enum np_mail_place_part which) {
  const char *s = np_buf_text(&p->bytes);
  for (int i = 0; i < (int)which; i++) s += strlen(s) + 1;
  return s;
}

void np_mail_place_copy(struct np_mail_place *to, const struct np_mail_place *from) {
  np_buf_add(&to->bytes, from->bytes.data, from->bytes.len);
}

void np_mail_place_free(struct np_mail_place *p) {
  if (p->bytes.data) OPENSSL_cleanse(p->bytes.data, p->bytes.len);
  np_buf_free(&p->bytes);
}

static bool same_place(const struct np_mail_place *a, const struct np_mail_place *b) {
  return a->bytes.len == b->bytes.len && memcmp(a->bytes.data, b->bytes.data, a->bytes.len) == 0;
}

/* The end */

void np_mail_session_close(struct np_mail_session *s, bool polite) {
  static const char quit[] = "QUIT\r\n";
  size_t n;
  if (polite && s->readable) curl_easy_send(s->easy, quit, sizeof quit - 1, &n);
  if (s->readable) event_free(s->readable);
  if (s->writable) event_free(s->writable);
  if (s->tired) event_free(s->tired);
  curl_multi_remove_handle(s->m->curl.multi, s->easy);
  curl_easy_cleanup(s->easy);
  np_mail_place_free(&s->place);
  free(s->name);
  free(s);
}

static void leave_rest(struct np_mail_session *s) {
  struct np_mail_session **at = &s->m->resting;
  while (*at != s) at = &(*at)->next;
  *at = s->next;
  s->m->resting_count--;
  event_del(s->tired);
}

static void on_tired(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_mail_session *s = arg;
  leave_rest(s);
  np_mail_session_close(s, true);
}

void np_mail_session_rest(struct np_mail_session *s) {
  if (s->m->resting_count == RESTING_MOST) {
    np_mail_session_close(s, true);
    return;
  }
  event_del(s->writable); /* all is said, perhaps before the loop has told that it can be */
  s->call = NULL;
  s->used = true;
  s->next = s->m->resting;
  s->m->resting = s;
  s->m->resting_count++;
  event_add(s->tired, &(struct timeval){.tv_sec = REST_SECONDS});
}

/* The dialog */

static void cut(struct np_mail_session *s, const char *why) { np_mail_call_end(s->call, "cut", why); }

/* False where the call has ended. OpenSSL wants what it could not send again at the same place: `out` stays as it is until all of it is gone. */
static bool flush(struct np_mail_session *s) {
  struct np_buf *out = &s->call->dialog.out;
  while (s->sent < out->len) {
    size_t n = 0;
    CURLcode result = curl_easy_send(s->easy, out->data + s->sent, out->len - s->sent, &n);
    s->sent += n;
    if (result == CURLE_AGAIN) {
      event_add(s->writable, NULL);
      return true;
    }
    if (result != CURLE_OK) {
      cut(s, "the connection was closed before all was said");
      return false;
    }
  }
  np_buf_clear(out);
  s->sent = 0;
  return true;
}

static void on_writable(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  flush(arg);
}

/* False where there is nothing more to be read now, or the call has ended. */
static bool read_some(struct np_mail_session *s) {
  char bytes[4096];
  size_t n = 0;
  struct np_error err;
  struct np_mail_dialog *d = &s->call->dialog;
  CURLcode result = curl_easy_recv(s->easy, bytes, sizeof bytes, &n);
  if (result == CURLE_AGAIN) return false;
  if (result != CURLE_OK || n == 0) {
    cut(s, "the connection was closed before the answer was whole");
    return false;
  }
  if (np_mail_dialog_take(d, bytes, n, &err) < 0) {
    np_mail_call_end(s->call, "other", err.text);
    return false;
  }
  if (d->over) {
    np_mail_call_end(s->call, NULL, NULL);
    return false;
  }
  return flush(s);
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_mail_session *s = arg;
  if (!s->call) { /* it rests: a farewell, or an end */
    leave_rest(s);
    np_mail_session_close(s, false);
    return;
  }
  while (read_some(s)) {}
}

/* libcurl says no user and no password to a server that does not offer AUTH, and goes on. Who has set them wants them used. */
static bool is_unknown(const struct np_mail_session *s) { return *np_mail_place_part(&s->place, NP_MAIL_USER) && !s->known; }

static void go_on(struct np_mail_session *s) {
  if (is_unknown(s)) {
    np_mail_call_end(s->call, "settings",
                     "offers no login (AUTH), so that user and password cannot be said: take them out where it needs none");
    return;
  }
  s->sent = 0;
  np_mail_dialog_begin(&s->call->dialog, s->size);
  flush(s);
}

bool np_mail_session_reuse(struct np_mail_call *call) {
  struct np_mail_session *s = call->m->resting;
  while (s && !same_place(&s->place, &call->place)) s = s->next;
  if (!s) return false;
  leave_rest(s);
  s->call = call;
  call->session = s;
  go_on(s);
  return true;
}

/* Connecting */

static size_t on_line(char *bytes, size_t size, size_t count, void *arg) {
  struct np_mail_session *s = arg;
  size_t n = size * count;
  if (n > 3 && memcmp(bytes, "220", 3) == 0) s->asks = s->known = false; /* what was said before TLS does not count after it */
  if (n > 9 && memcmp(bytes, "250", 3) == 0 && memcmp(bytes + 4, "AUTH ", 5) == 0) s->asks = true;
  if (n > 3 && memcmp(bytes, "235", 3) == 0) s->known = s->asks;
  if (n > 8 && memcmp(bytes, "250", 3) == 0 && memcmp(bytes + 4, "SIZE", 4) == 0) s->size = true;
  if (!s->call) return n;
  np_mail_dialog_line(&s->call->dialog, bytes, n);
  return np_mail_dialog_bound(&s->call->dialog, NULL) < 0 ? 0 : n;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *a) {
  struct np_mail_session *s = arg;
  (void)purpose;
  return np_curl_socket(a, s->m->names_lead_anywhere, s->name, &s->near);
}

static const char *or_null(const char *s) { return *s ? s : NULL; }

static void prepare(struct np_mail_session *s) {
  const struct np_mail_place *p = &s->place;
  CURL *e = s->easy;
  np_curl_prepare(e);
  curl_easy_setopt(e, CURLOPT_URL, np_mail_place_part(p, NP_MAIL_URL));
  curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
  curl_easy_setopt(e, CURLOPT_PRIVATE, s);
  curl_easy_setopt(e, CURLOPT_ERRORBUFFER, s->error);
  curl_easy_setopt(e, CURLOPT_CONNECT_ONLY, 1L);
  curl_easy_setopt(e, CURLOPT_USE_SSL, (long)(*np_mail_place_part(p, NP_MAIL_PLAIN) ? CURLUSESSL_NONE : CURLUSESSL_ALL));
  curl_easy_setopt(e, CURLOPT_USERNAME, or_null(np_mail_place_part(p, NP_MAIL_USER)));
  curl_easy_setopt(e, CURLOPT_PASSWORD, or_null(np_mail_place_part(p, NP_MAIL_PASSWORD)));
  curl_easy_setopt(e, CURLOPT_LOGIN_OPTIONS, "AUTH=PLAIN;AUTH=LOGIN"); /* others would ask Kerberos, and block */
  curl_easy_setopt(e, CURLOPT_SASL_IR, 1L);
  curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_line);
  curl_easy_setopt(e, CURLOPT_HEADERDATA, s);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, s);
  np_curl_identity(e, or_null(np_mail_place_part(p, NP_MAIL_CERT)), or_null(np_mail_place_part(p, NP_MAIL_KEY)));
  np_fetch_trust_apply(s->m->trust, or_null(np_mail_place_part(p, NP_MAIL_CA)), e);
}

void np_mail_session_open(struct np_mail_call *call) {
  struct np_mail_session *s = np_alloc(sizeof *s);
  s->m = call->m;
  s->call = call;
  s->name = np_strdup(call->name);
  np_mail_place_copy(&s->place, &call->place);
  s->easy = curl_easy_init();
  if (!s->easy) abort(); /* as np_alloc */
  call->session = s;
  prepare(s);
  CURLMcode bad = curl_multi_add_handle(s->m->curl.multi, s->easy);
  if (bad != CURLM_OK) np_mail_call_end(call, "other", curl_multi_strerror(bad));
}

/* What the server said while libcurl led the dialog, or what libcurl says of it. */
static void connect_failed(struct np_mail_session *s, CURLcode result) {
  const struct np_mail_reply *last = &s->call->dialog.last;
  const char *words = s->error[0] ? s->error : curl_easy_strerror(result);
  struct np_error err;
  if (np_mail_dialog_bound(&s->call->dialog, &err) < 0)
    np_mail_call_end(s->call, "other", err.text);
  else if (s->near)
    np_mail_call_end(s->call, "near", np_curl_near);
  else if (last->status >= 400 && result != CURLE_RECV_ERROR && result != CURLE_SEND_ERROR)
    np_mail_call_end(s->call, NULL, NULL);
  else if (result == CURLE_USE_SSL_FAILED)
    np_mail_call_end(s->call, "tls", "does not offer STARTTLS");
  else if (result == CURLE_LOGIN_DENIED)
    np_mail_call_end(s->call, "settings", "offers neither PLAIN nor LOGIN for user and password");
  else
    np_mail_call_end(s->call, np_curl_code(result), words);
}

void np_mail_session_ended(struct np_mail_session *s, CURLcode result) {
  curl_socket_t fd = CURL_SOCKET_BAD;
  if (result == CURLE_OK && curl_easy_getinfo(s->easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK && fd != CURL_SOCKET_BAD) {
    s->readable = event_new(s->m->curl.base, fd, EV_READ | EV_PERSIST, on_readable, s);
    s->writable = event_new(s->m->curl.base, fd, EV_WRITE, on_writable, s);
    s->tired = evtimer_new(s->m->curl.base, on_tired, s);
    if (!s->readable || !s->writable || !s->tired) abort(); /* as np_alloc */
    event_add(s->readable, NULL);
    go_on(s);
  } else {
    connect_failed(s, result == CURLE_OK ? CURLE_RECV_ERROR : result);
  }
}
