/* libcurl's multi interface on one thread's event loop, and what all that goes out by it has in common. Nothing of the program's runs
 * while curl is on the stack: curl's callbacks only store, and `ended` and `settled` are called afterwards. Private to core/io. */
#ifndef NP_IO_CURL_LOOP_H
#define NP_IO_CURL_LOOP_H

#include <curl/curl.h>
#include <stdbool.h>

struct event;
struct event_base;

struct np_curl {
  struct event_base *base;                               /* borrowed */
  CURLM *multi;                                          /* owned; NULL where it could not be had */
  struct event *timer;                                   /* owned; curl's own timeouts */
  void (*ended)(void *arg, CURL *easy, CURLcode result); /* of each transfer that is over; easy is still in `multi` */
  void (*settled)(void *arg);                            /* after the last of them; may close this */
  void *arg;
};

/* c's base, ended, settled and arg are set. -1 out of memory or descriptors; then close it all the same. */
int np_curl_open(struct np_curl *c);
/* A fresh multi handle, which closes all connections that rest; nothing may be in the old one. */
void np_curl_renew(struct np_curl *c);
void np_curl_close(struct np_curl *c);

/* What every transfer is told: no signals, no proxy, TLS 1.2 at least, giving up does not wait for a resolver. */
void np_curl_prepare(CURL *e);
/* A client's certificate, PEM, borrowed until the transfer is over. key NULL: it stands in cert. cert NULL: none. */
void np_curl_identity(CURL *e, const char *cert, const char *key);
/* For CURLOPT_OPENSOCKETFUNCTION: the address that is connected to is judged, so that a name cannot change its mind in between.
 * `name` is "host:port" as it was asked. Where it leads to where it may not, *near becomes true. */
curl_socket_t np_curl_socket(const struct curl_sockaddr *address, bool names_lead_anywhere, const char *name, bool *near);
/* What went wrong: "timeout", "resolve", "connect", "tls", "cut", "too_large", "bad_url", "other". */
const char *np_curl_code(CURLcode result);
extern const char np_curl_near[]; /* the sentence for *near */

#endif
