/* HTTP out: libcurl's multi interface on one thread's event loop. Connections are reused, at most `per_host` at once to one host
 * (more wait their turn); certificates are verified; redirects are followed only where asked; an answer is bounded; every request has a deadline.
 * All functions: the loop's thread only. np_fetch_global_init once in main before threads start; it has SIGPIPE ignored, for
 * OpenSSL writes with write(2). */
#ifndef NP_IO_FETCH_H
#define NP_IO_FETCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

struct event_base;
struct np_fetch;
struct np_fetch_call;

struct np_fetch_request;

struct np_fetch_scripted {
  int status;
  const char *code, *why; /* where it fails, as in np_fetch_answer; static, and borrowed until it has been told */
  struct np_buf headers;  /* owned by the answer: "name: value\n" lines */
  struct np_buf body;     /* owned by the answer */
};

struct np_fetch_options {
  int per_host;           /* 0 is 8 */
  const char *ca_file;    /* more trusted certificates, PEM; NULL is the system's */
  const char *user_agent; /* NULL is "neap" */
  /* A test's: answers in place of the network, from the loop. NULL: nothing is asked of it. */
  void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer);
  void *script_arg;
  bool names_lead_anywhere; /* else a name that leads to loopback or a link-local address is not asked: see core/io/fetch_reach.h */
};

struct np_fetch_request { /* copied by np_fetch_start */
  const char *method;
  const char *url;            /* http or https only */
  const char *const *headers; /* "Name: value", header_count of them */
  size_t header_count;
  const void *body; /* NULL is none */
  size_t body_len;
  bool gzip; /* the body is sent gzipped, and Content-Encoding says so; a test's script sees it as it was given */
  /* PEM; NULL or "": none, and the system's trust. `key` NULL: it stands in `cert`. With `ca` nobody else is trusted. */
  const char *cert, *key, *ca;
  double timeout;    /* seconds for all of it, connecting included; must be > 0 */
  size_t answer_max; /* bytes of body, uncompressed; 0 is 16 MiB */
  int redirects;     /* how many to follow; 0 is none */
  /* Asked before a redirect is followed: false ends the call with code "redirect". NULL allows any.
   * It must not call np_fetch_*. */
  bool (*may_redirect)(void *arg, const char *url);
};

struct np_fetch_answer { /* borrowed, valid during the callback */
  int status;            /* 0 where there was no answer */
  /* NULL where there was one; else "timeout", "resolve", "connect", "tls", "cut", "too_large", "redirect", "near", "bad_url", "other". */
  const char *code;
  const char *why;     /* a sentence, where code is set */
  const char *url;     /* the last one asked */
  const char *headers; /* "name: value\n" lines of the last answer, names in lower case */
  const char *body;
  size_t body_len;
};

typedef void np_fetch_done(void *arg, const struct np_fetch_answer *answer);

int np_fetch_global_init(struct np_error *err);
struct np_fetch *np_fetch_new(struct event_base *base, const struct np_fetch_options *options, struct np_error *err);
/* Starts. The callback comes later, never from within this call. NULL and err where the request makes no sense: its method, a
 * header, its timeout. A URL that cannot be asked is the world's fault and comes back as "bad_url". Content-Length,
 * Transfer-Encoding, Connection and Expect are left out of the headers, Authorization, Cookie and the client's certificate where a
 * redirect leaves the host. */
struct np_fetch_call *np_fetch_start(struct np_fetch *f, const struct np_fetch_request *request, np_fetch_done *done, void *arg,
                                     struct np_error *err);
/* Gives up: the callback will not be called. Also from within another call's callback. */
void np_fetch_cancel(struct np_fetch_call *call);
size_t np_fetch_running(const struct np_fetch *f); /* started and not yet called back, waiting ones included */
void np_fetch_free(struct np_fetch *f);            /* cancels what runs; also from within a callback */

#endif
