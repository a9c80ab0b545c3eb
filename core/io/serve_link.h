/* A connected, non-blocking socket, in the clear or under TLS 1.2 and newer. The loop's thread only. */
#ifndef NP_IO_SERVE_LINK_H
#define NP_IO_SERVE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

struct np_tls; /* a certificate and its key */
struct ssl_st;

struct np_link {
  int fd;             /* owned; -1 once closed */
  struct ssl_st *ssl; /* owned; NULL in the clear */
  bool wants_write;   /* what was tried last goes on once the socket takes bytes, whatever it was */
};

struct np_tls *np_tls_new(const char *certificate, const char *key, struct np_error *err);
void np_tls_free(struct np_tls *t);
/* t goes on with what fresh has, which is freed. Links that are open stay with what they began with. */
void np_tls_renew(struct np_tls *t, struct np_tls *fresh);

void np_link_open(struct np_link *l, int fd, struct np_tls *t); /* takes fd; t may be NULL */
/* 1 done, 0 not yet, -1 it failed. */
int np_link_handshake(struct np_link *l);
/* As recv and send: 0 from read is the end, -1 with errno EAGAIN is not now. Give read 16 KiB and more: less could leave
 * bytes inside TLS, of which the loop would not know. */
ssize_t np_link_read(struct np_link *l, void *to, size_t n);
ssize_t np_link_write(struct np_link *l, const void *bytes, size_t n);
/* Says that nothing further will be sent. */
void np_link_shutdown(struct np_link *l);
/* Closes; with reset the other side sees an error rather than an end. Closing twice does nothing. */
void np_link_close(struct np_link *l, bool reset);

#endif
