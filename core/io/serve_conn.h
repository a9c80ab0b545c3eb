/* Inside the HTTP server: what a server and a connection hold, shared by serve.c (listening, deadlines), serve_conn.c (a
 * connection's bytes), serve_request.c (its way from request to request) and serve_answer.c (np_request_*). Not for others.
 *
 * The program's callbacks are called from np_conn_run alone, and that from the loop alone: never from inside an np_request_
 * function. Those note what is to be done and queue the connection; so callbacks do not nest, and a request outlives the
 * function that answers it. */
#ifndef NP_IO_SERVE_CONN_H
#define NP_IO_SERVE_CONN_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "io/http_body.h"
#include "io/http_head.h"
#include "io/http_reply.h"
#include "io/serve.h"
#include "io/serve_link.h"

#define NP_SERVE_SCRATCH 65536     /* read at once; at least TLS's longest record */
#define NP_SERVE_BUFFERED 65536    /* of an answer, before the program is asked to wait */
#define NP_SERVE_KEPT 65536        /* a buffer longer than this is not kept for the next request */
#define NP_SERVE_LINGER_US 2000000 /* after the last answer, without a byte */
#define NP_SERVE_NEVER INT64_MAX   /* a deadline */

enum np_conn_phase {
  NP_CONN_HANDSHAKE,
  NP_CONN_HEAD,    /* waiting for a request, or in the middle of its head */
  NP_CONN_BODY,    /* the program has seen the head */
  NP_CONN_PENDING, /* the program's turn; then until its answer is written */
  NP_CONN_LINGER,  /* answered for the last time: what still comes is thrown away, so that the client gets to read the answer */
  NP_CONN_CLOSED,  /* to be freed at the end of np_conn_run */
};

struct np_conn {
  struct np_request req;    /* first, so that a request is its connection */
  struct np_server *server; /* borrowed */
  TAILQ_ENTRY(np_conn) all, ready;
  struct event readable, writable;
  struct np_link link;
  enum np_conn_phase phase;
  int64_t deadline;       /* of the phase; us on the clock that only goes forward */
  int64_t write_deadline; /* for the next byte of an answer to be accepted */
  int64_t since;          /* when this phase's deadline started to run: a body's first byte, a linger's start */

  const char *at; /* bytes not yet looked at: borrowed from the server's scratch or from `in`, within np_conn_run only */
  size_t left;
  struct np_buf in; /* owned: what has to wait for a later run, from in_at on */
  size_t in_at;
  size_t scanned;  /* of a head that is not whole yet */
  size_t lingered; /* bytes thrown away */

  struct np_http_head head;
  struct np_http_body reader;
  struct np_buf body;
  struct np_buf out; /* owned: of an answer, what the kernel has not taken yet, from out_at on */
  size_t out_at;
  void (*more)(void *arg, struct np_request *req);
  void *more_arg;

  bool running;           /* inside np_conn_run */
  bool queued;            /* in the server's ready list */
  bool reading, writing;  /* its events are added */
  bool begun;             /* the first byte of a head is here */
  bool kept;              /* has answered a request before this one */
  bool eof;               /* the client sends no more; it may still read */
  bool gone;              /* the socket is closed */
  bool body_due;          /* bytes of this request's body are still to come */
  bool skips;             /* the body of a request that was answered at its head is here whole, and is skipped */
  bool shown;             /* the program has seen this request, and is owed its `done` */
  bool started, finished; /* its answer */
  bool chunked, bodiless; /* its answer */
  bool wants_more;        /* the program is owed a call of more */
  bool close;             /* no further request after this one */
};

TAILQ_HEAD(np_conns, np_conn);

struct np_server {
  struct event_base *base;         /* borrowed */
  struct np_server_options option; /* defaults filled in; its strings are gone */
  struct np_server_handler handler;
  void *arg;
  int fd; /* owned; -1 once it no longer listens */
  int port;
  struct np_tls *tls; /* owned; NULL in the clear */
  struct event acceptable, retry, sweep, wake;
  struct np_conns all, ready; /* connections: owned; those with something to do */
  size_t count;
  bool listening; /* acceptable is added */
  bool starved;   /* out of file descriptors; said so in the log */
  bool draining, freeing;
  int64_t now; /* us, as of the current event */
  int64_t date_second;
  char date[NP_HTTP_DATE_SIZE];
  struct np_buf answer; /* owned: where answers are put together; empty between calls */
  char scratch[NP_SERVE_SCRATCH];
};

static inline void np_conn_reuse(struct np_buf *b) {
  if (b->cap > NP_SERVE_KEPT)
    np_buf_free(b);
  else
    np_buf_clear(b);
}
static inline int64_t np_serve_us(double seconds) { return (int64_t)(seconds * 1e6); }
static inline struct np_conn *np_conn_of(const struct np_request *req) { return (struct np_conn *)(uintptr_t)req; }
static inline size_t np_conn_buffered(const struct np_conn *c) { return c->out.len - c->out_at; }

/* serve_conn.c */
struct np_conn *np_conn_new(struct np_server *s, int fd); /* takes fd */
void np_conn_run(struct np_conn *c);                      /* carries it on as far as it gets; may free it */
void np_conn_queue(struct np_conn *c);                    /* np_conn_run soon, from the loop */
void np_conn_sweep(struct np_conn *c);                    /* looks at its deadlines; may free it */
void np_conn_drain(struct np_conn *c);                    /* soon closes it where it is idle */
void np_conn_send(struct np_conn *c, const void *bytes, size_t n);
void np_conn_flush(struct np_conn *c);
void np_conn_lost(struct np_conn *c, bool reset); /* closes its socket; its request goes on until it is answered */
void np_conn_free(struct np_conn *c);

/* serve_request.c */
bool np_conn_step(struct np_conn *c);     /* false when it has to wait for something */
bool np_conn_await(struct np_conn *c);    /* waits for the next request's head */
bool np_conn_too_late(struct np_conn *c); /* a deadline has passed: says so to the client, false where there is nothing to say */

/* serve_answer.c: an answer in the server's own words, where nothing has been answered yet; the connection closes after. */
void np_conn_refuse(struct np_conn *c, int status, const char *why);

/* serve.c */
void np_serve_left(struct np_server *s); /* a connection is gone: others may come */

#endif
