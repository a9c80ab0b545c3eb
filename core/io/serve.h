/* HTTP/1.1 in: a listener and its connections on one thread's event loop (RFC 9110, RFC 9112). No Lua, no routes.
 *
 * A request is shown to the program twice: when its head has been read, so that it can be refused before its body is
 * taken in, and when it is whole. It is answered later, from any event on the same thread, exactly once. The request
 * stays valid until it has been answered, also where the client has vanished: then the answer goes nowhere.
 *
 * Refused without the program seeing them, by a plain answer and a closed connection: a malformed head or chunk (400),
 * a head past its limit (431), a target past its limit (414), both Content-Length and Transfer-Encoding (400), a method
 * that is not a token (400), an unknown Transfer-Encoding (501), a version other than 1.0 and 1.1 (505), no Host in
 * 1.1 (400), an Expect other than 100-continue (417). A body past body_max (413) and a body whose gzip is broken (400) or
 * whose Content-Encoding is unknown (415) are reported to the program by `refused`, so that it can use its own words.
 * A body whose client vanishes or is too slow (408), or whose chunks are malformed, ends in `done` alone.
 *
 * No callback is called from inside an np_request_ function or np_server_drain: they only take note, the loop does the rest.
 * np_server_free calls `done`, and must not be called from a callback. All functions: the loop's thread only. */
#ifndef NP_IO_SERVE_H
#define NP_IO_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct event_base;
struct np_server;
struct np_request;

struct np_header {
  const char *name;  /* as it came; compare without case */
  const char *value; /* blanks around it are gone */
};

struct np_request {
  const char *method; /* "GET"; HEAD is shown as HEAD, its answer's body is dropped by the server */
  const char *target; /* as it came: "/a%20b?x=1" */
  const char *path;   /* decoded, terminated, no query; a target that does not decode is refused with 400 */
  size_t path_len;    /* of path, which may hold no 0 byte: such a target is refused too */
  const char *query;  /* raw, after the '?'; "" where there is none */
  const struct np_header *headers;
  size_t header_count;
  const char *body; /* whole and un-gzipped; terminated; valid from `request` until the answer */
  size_t body_len;
  const char *remote; /* "192.0.2.7" */
  int64_t received;   /* ms since 1970: when its head was complete */
  size_t body_max;    /* the program may lower or raise it in `head`; counts un-gzipped bytes */
  void *user;         /* the program's, NULL at first */
};

/* What the program does with requests. Callbacks may answer at once. */
struct np_server_handler {
  /* The head is here, the body is not. May set body_max and user; may answer, then the body is not taken in. */
  void (*head)(void *arg, struct np_request *req);
  /* The request is whole. Not called where `head` answered. */
  void (*request)(void *arg, struct np_request *req);
  /* The body cannot be had: status 413, 400 or 415, and why. Must answer before it returns; the connection closes after. */
  void (*refused)(void *arg, struct np_request *req, int status, const char *why);
  /* The request has been answered and written, or its client is gone: user may be freed. Always called, once. Where the
   * request was shown whole, not before it has been answered, except by np_server_free. */
  void (*done)(void *arg, struct np_request *req);
};

struct np_server_options {
  const char *address;     /* "127.0.0.1:8080", "[::1]:0"; port 0 picks one. NULL, in a test: only what np_server_take gives */
  bool alone;              /* fails where anybody listens there already; else it shares the port with others of this user */
  const char *certificate; /* PEM chain; NULL is plain HTTP */
  const char *key;         /* PEM */
  size_t head_max;         /* bytes of request line and headers; 0 is 16 KiB */
  size_t header_count_max; /* 0 is 100 */
  size_t body_max;         /* the default; 0 is 4 MiB */
  double head_timeout;     /* seconds for a whole head from its first byte; 0 is 10 */
  double body_timeout;     /* seconds for a whole body, for each started MiB announced or received; 0 is 30 */
  double write_timeout;    /* seconds without any byte of an answer accepted; 0 is 30 */
  double idle_timeout;     /* seconds a kept-alive connection may be silent; 0 is 75 */
  size_t connections_max;  /* past it new ones wait in the kernel's queue; 0 is 10,000 */
};

/* Listens with SO_REUSEPORT, so that each lane has its own listener on one port. NULL and err where it cannot. */
struct np_server *np_server_new(struct event_base *base, const struct np_server_options *options,
                                const struct np_server_handler *handler, void *arg, struct np_error *err);
/* A connection that is there already, such as one end of a socketpair; its descriptor is the server's from now on. */
void np_server_take(struct np_server *s, int fd, const char *remote);
int np_server_port(const struct np_server *s);
/* Stops listening and closes idle connections; those with a request go on, answered with Connection: close. */
void np_server_drain(struct np_server *s);
/* What connects from now on sees this certificate, of which the server is the owner then. Only a server that was made with one. */
struct np_tls;
void np_server_renew(struct np_server *s, struct np_tls *fresh);
size_t np_server_connections(const struct np_server *s);
/* Closes everything. Requests that were not answered get their `done`. */
void np_server_free(struct np_server *s);

/* First header of that name without case, or NULL. */
const char *np_request_header(const struct np_request *req, const char *name);

/* Answers. Copies headers and body. Date, Content-Length and Connection are the server's; Content-Type is the program's.
 * Statuses 1xx, 204 and 304 and answers to HEAD carry no body. A header with CR, LF or 0 in it is left out. */
void np_request_reply(struct np_request *req, int status, const struct np_header *headers, size_t header_count, const void *body,
                      size_t body_len);

/* A streamed answer: start once, write any number of times, finish once. Chunked for 1.1, until close for 1.0.
 * np_request_write returns false when enough is buffered (64 KiB): then `more` is called once there is room, or once the
 * client is gone; np_request_gone tells which. After a client is gone, writes are dropped; finish must still be called. */
void np_request_start(struct np_request *req, int status, const struct np_header *headers, size_t header_count,
                      void (*more)(void *arg, struct np_request *req), void *arg);
bool np_request_write(struct np_request *req, const void *bytes, size_t n);
void np_request_finish(struct np_request *req);
/* Ends a streamed answer that cannot be completed: the connection is closed so that the client sees it is cut. */
void np_request_abort(struct np_request *req);
/* The client has closed its side. It may still read: a whole answer is tried all the same, a streamed one is cut. `more` is
 * called once for it in any case. */
bool np_request_gone(const struct np_request *req);

#endif
