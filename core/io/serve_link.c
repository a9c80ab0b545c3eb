/* Sockets with and without TLS. Writing goes past OpenSSL's own socket BIO, which would raise SIGPIPE. */
#include "io/serve_link.h"

#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"

struct np_tls {
  SSL_CTX *ctx;       /* owned */
  BIO_METHOD *method; /* owned */
};

static int bio_write(BIO *bio, const char *bytes, int n) {
  int fd = (int)BIO_get_fd(bio, NULL);
  BIO_clear_retry_flags(bio);
  ssize_t sent = send(fd, bytes, (size_t)n, MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return (int)sent;
}

/* OpenSSL's socket BIO but for writing. */
static BIO_METHOD *bio_method(void) {
  const BIO_METHOD *from = BIO_s_socket();
  BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOCKET, "socket without SIGPIPE");
  if (!m) return NULL;
  BIO_meth_set_write(m, bio_write);
  BIO_meth_set_read(m, BIO_meth_get_read(from));
  BIO_meth_set_ctrl(m, BIO_meth_get_ctrl(from));
  BIO_meth_set_create(m, BIO_meth_get_create(from));
  BIO_meth_set_destroy(m, BIO_meth_get_destroy(from));
  return m;
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len,
                       void *arg) {
  (void)ssl, (void)arg;
  static const unsigned char ours[] = "\x08http/1.1";
  int rc = SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, ours, sizeof ours - 1, in, in_len);
  return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* An encrypted key would otherwise ask on the terminal. */
static int no_password(char *to, int size, int writing, void *arg) {
  (void)to, (void)size, (void)writing, (void)arg;
  return -1;
}

/* "what FILE: why", from what OpenSSL has on its mind. */
static int fail_tls(struct np_error *err, const char *what, const char *file) {
  unsigned long code = ERR_peek_error();
  const char *why = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
  if (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE) why = "there is none in it, as PEM";
  if (ERR_GET_LIB(code) == ERR_LIB_X509 && ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH) why = "it is another certificate's";
  np_fail(err, "tls: %s %s: %s", what, file, why ? why : "it holds none that can be used");
  ERR_clear_error();
  return -1;
}

static int set_up(SSL_CTX *ctx, const char *certificate, const char *key, struct np_error *err) {
  SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets do it without memory here */
  SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
  SSL_CTX_set_default_passwd_cb(ctx, no_password);
  if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1) return fail_tls(err, "cannot use the certificate", certificate);
  if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) return fail_tls(err, "cannot use the key", key);
  if (SSL_CTX_check_private_key(ctx) != 1) return fail_tls(err, "the key does not belong to the certificate: key", key);
  return 0;
}

struct np_tls *np_tls_new(const char *certificate, const char *key, struct np_error *err) {
  if (!key) {
    np_fail(err, "the certificate %s comes without a key: give the key's file too", certificate);
    return NULL;
  }
  struct np_tls *t = np_alloc(sizeof *t);
  ERR_clear_error();
  t->method = bio_method();
  t->ctx = SSL_CTX_new(TLS_server_method());
  if (!t->method || !t->ctx) {
    np_fail(err, "cannot set up TLS: OpenSSL has no memory");
    goto fail;
  }
  if (set_up(t->ctx, certificate, key, err) == 0) return t;
fail:
  np_tls_free(t);
  return NULL;
}

void np_tls_free(struct np_tls *t) {
  if (!t) return;
  SSL_CTX_free(t->ctx);
  BIO_meth_free(t->method);
  free(t);
}

void np_tls_renew(struct np_tls *t, struct np_tls *fresh) {
  SSL_CTX *old = t->ctx; /* each open link has a reference of its own */
  t->ctx = fresh->ctx;
  fresh->ctx = old;
  np_tls_free(fresh);
}

void np_link_open(struct np_link *l, int fd, struct np_tls *t) {
  *l = (struct np_link){.fd = fd};
  if (!t) return;
  BIO *bio = BIO_new(t->method);
  l->ssl = SSL_new(t->ctx);
  if (!bio || !l->ssl) abort(); /* out of memory, as np_alloc has it */
  BIO_set_fd(bio, fd, BIO_NOCLOSE);
  SSL_set_bio(l->ssl, bio, bio);
  SSL_set_accept_state(l->ssl);
}

/* What OpenSSL says, in the words of recv: 0 the end, -1 with errno. */
static ssize_t verdict(struct np_link *l, int rc) {
  int saved = errno;
  switch (SSL_get_error(l->ssl, rc)) {
  case SSL_ERROR_WANT_READ: errno = EAGAIN; return -1;
  case SSL_ERROR_WANT_WRITE:
    l->wants_write = true;
    errno = EAGAIN;
    return -1;
  case SSL_ERROR_ZERO_RETURN: return 0;
  case SSL_ERROR_SYSCALL: errno = saved && saved != EAGAIN ? saved : ECONNRESET; break;
  default: errno = EPROTO; break;
  }
  SSL_set_quiet_shutdown(l->ssl, 1); /* after such an error nothing may be sent */
  return -1;
}

int np_link_handshake(struct np_link *l) {
  if (!l->ssl) return 1;
  ERR_clear_error();
  l->wants_write = false;
  int rc = SSL_do_handshake(l->ssl);
  if (rc == 1) return 1;
  return verdict(l, rc) < 0 && errno == EAGAIN ? 0 : -1;
}

ssize_t np_link_read(struct np_link *l, void *to, size_t n) {
  if (!l->ssl) return recv(l->fd, to, n, 0);
  ERR_clear_error();
  l->wants_write = false;
  size_t got;
  int rc = SSL_read_ex(l->ssl, to, n, &got);
  return rc == 1 ? (ssize_t)got : verdict(l, rc);
}

ssize_t np_link_write(struct np_link *l, const void *bytes, size_t n) {
  if (!l->ssl) return send(l->fd, bytes, n, MSG_NOSIGNAL);
  if (n == 0) return 0;
  ERR_clear_error();
  l->wants_write = false;
  size_t sent;
  int rc = SSL_write_ex(l->ssl, bytes, n < INT_MAX ? n : INT_MAX, &sent);
  if (rc == 1) return (ssize_t)sent;
  ssize_t said = verdict(l, rc);
  if (said == 0) errno = EPIPE;
  return -1;
}

void np_link_shutdown(struct np_link *l) {
  if (l->ssl && SSL_is_init_finished(l->ssl)) {
    ERR_clear_error();
    SSL_shutdown(l->ssl);
    ERR_clear_error();
  }
  if (l->fd >= 0) shutdown(l->fd, SHUT_WR);
}

void np_link_close(struct np_link *l, bool reset) {
  if (l->fd < 0) return;
  if (reset) setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
  SSL_free(l->ssl);
  close(l->fd);
  *l = (struct np_link){.fd = -1};
}
