/* One call: what it asks, what it has got, and how both are said to curl. Private to core/io/fetch*.c. */
#ifndef NP_IO_FETCH_CALL_H
#define NP_IO_FETCH_CALL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "io/fetch.h"

struct event;
struct np_fetch_list;

struct np_fetch_call {
  struct np_fetch *f; /* borrowed */
  struct np_fetch_call *prev, *next;
  struct np_fetch_list *in;   /* borrowed; NULL while it is being told */
  struct event *deadline;     /* owned */
  CURL *easy;                 /* owned while running */
  char *method, *url;         /* owned */
  char *origin;               /* owned; "https://host:443", NULL where the URL is bad */
  char *name;                 /* owned; "host:443", for sentences */
  struct curl_slist *headers; /* owned */
  char *body;                 /* owned; NULL where there is none */
  size_t body_len, answer_max;
  bool gzip;             /* the body is still to be gzipped */
  char *cert, *key, *ca; /* owned; NULL where there is none */
  int redirects;         /* left to follow; -1 where the next is one too many, 0 where none was asked for */
  bool (*may_redirect)(void *arg, const char *url);
  np_fetch_done *done;
  void *arg;
  double timeout;
  struct np_buf got_headers, got;
  bool in_head, had_head; /* between a status line and its empty line; past one */
  bool too_large;
  bool names_lead_anywhere, near; /* a name led where it may not */
  int status;
  const char *code; /* static; set where it failed */
  char why[720];
  char error[CURL_ERROR_SIZE]; /* curl's words */
};

/* NULL and err where the request makes no sense. A URL that cannot be asked gives a call that has failed. */
struct np_fetch_call *np_fetch_call_new(const struct np_fetch_request *r, struct np_error *err);
void np_fetch_call_free(struct np_fetch_call *call);
/* Before it is handed to curl: everything but the trust of all calls, and nothing got yet. */
void np_fetch_call_prepare(struct np_fetch_call *call, const char *user_agent, long idle_seconds);
/* curl is done with it: takes the status, or what went wrong. */
void np_fetch_call_end(struct np_fetch_call *call, CURLcode result);
void np_fetch_call_fail(struct np_fetch_call *call, const char *code, const char *why);
/* True where its answer is a redirect to be followed: it asks the new place now. Else it is to be told, as it is or as failed. */
bool np_fetch_call_redirect(struct np_fetch_call *call);
/* What a test's script says is its answer. */
void np_fetch_call_script(struct np_fetch_call *call,
                          void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer),
                          void *arg);
void np_fetch_call_tell(struct np_fetch_call *call);

#endif
