/* The way to a broker: where its name leads, and whom to trust there. On a thread of its own, for both may take long. */
#include <arpa/inet.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/fetch_reach.h"
#include "io/fetch_trust.h"
#include "io/mqtt_parts.h"

static int fail(struct np_mqtt_way *w, const char *code, const char *why) {
  w->code = code;
  snprintf(w->why, sizeof w->why, "%s", why);
  return -1;
}

/* Addresses */

static void add_address(struct np_mqtt_way *w, const struct addrinfo *a) {
  char text[128];
  if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST)) return;
  w->addresses = np_realloc(w->addresses, (w->count + 1) * sizeof *w->addresses);
  w->addresses[w->count++] = np_strdup(text);
}

/* Who asks for a near address by name is not led there by whoever runs that name's DNS. */
static bool says_near(const struct np_mqtt_way *w) {
  char asked[300];
  snprintf(asked, sizeof asked, strchr(w->host, ':') ? "[%s]:%d" : "%s:%d", w->host, w->port);
  return np_fetch_says_near(asked);
}

static int find_addresses(struct np_mqtt_way *w) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
  char why[300];
  int bad = getaddrinfo(w->host, NULL, &hints, &found);
  if (bad) {
    snprintf(why, sizeof why, "%.200s: %s", w->host, gai_strerror(bad));
    return fail(w, "resolve", why);
  }
  bool anywhere = w->anywhere || says_near(w), near = false;
  for (const struct addrinfo *a = found; a; a = a->ai_next) {
    if (!anywhere && np_fetch_is_near(a->ai_addr))
      near = true;
    else
      add_address(w, a);
  }
  freeaddrinfo(found);
  if (w->count) return 0;
  snprintf(why, sizeof why, "the name %.120s leads to this machine or its link: say the address itself where that is meant",
           w->host);
  return near ? fail(w, "near", why) : fail(w, "resolve", "the name has no address");
}

/* TLS */

static int on_verify(int ok, X509_STORE_CTX *store) {
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  struct np_mqtt_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
  if (!ok) snprintf(tls->why, sizeof tls->why, "%s", X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
  return ok;
}

/* libmosquitto is told an address, and would ask the server for the certificate of that. */
static void on_handshake(const SSL *ssl, int where, int value) {
  (void)value;
  const struct np_mqtt_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
  struct in6_addr address;
  if (!(where & SSL_CB_HANDSHAKE_START)) return;
  bool numeric = inet_pton(AF_INET, tls->host, &address) == 1 || inet_pton(AF_INET6, tls->host, &address) == 1;
  SSL_set_tlsext_host_name((SSL *)(uintptr_t)ssl, numeric ? NULL : (char *)(uintptr_t)tls->host); /* RFC 6066 3: names only */
}

static int no_password(char *to, int size, int writing, void *arg) {
  (void)to, (void)size, (void)writing, (void)arg;
  return -1;
}

static int take_certificate(SSL_CTX *context, const char *pem) {
  BIO *bio = BIO_new_mem_buf(pem, -1);
  X509 *first = PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL), *more;
  int bad = !first || SSL_CTX_use_certificate(context, first) != 1;
  while (!bad && (more = PEM_read_bio_X509(bio, NULL, no_password, NULL)))
    if (SSL_CTX_add0_chain_cert(context, more) != 1) {
      X509_free(more);
      bad = 1;
    }
  X509_free(first);
  BIO_free(bio);
  ERR_clear_error();
  return bad;
}

static int take_key(SSL_CTX *context, const char *pem) {
  BIO *bio = BIO_new_mem_buf(pem, -1);
  EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
  int bad = !key || SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1;
  EVP_PKEY_free(key);
  BIO_free(bio);
  ERR_clear_error();
  return bad;
}

static int expect_host(SSL_CTX *context, const char *host) {
  X509_VERIFY_PARAM *p = SSL_CTX_get0_param(context);
  X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return X509_VERIFY_PARAM_set1_ip_asc(p, host) == 1 || X509_VERIFY_PARAM_set1_host(p, host, 0) == 1 ? 0 : -1;
}

static int trust(struct np_mqtt_way *w, SSL_CTX *context) {
  struct np_error err;
  struct np_fetch_trust *t = np_fetch_trust_new(w->ca ? NULL : w->ca_file, &err);
  if (!t) return fail(w, "tls", err.text);
  int bad = np_fetch_trust_context(t, w->ca, context, &err);
  np_fetch_trust_free(t);
  return bad ? fail(w, "tls", err.text) : 0;
}

static int read_certificates(struct np_mqtt_way *w) {
  struct np_mqtt_tls *tls = w->tls = np_alloc(sizeof *tls);
  SSL_CTX *context = tls->context = SSL_CTX_new(TLS_client_method());
  if (!context) return fail(w, "tls", "OpenSSL has no room for it");
  snprintf(tls->host, sizeof tls->host, "%s", w->host);
  SSL_CTX_set_app_data(context, tls);
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verify);
  SSL_CTX_set_info_callback(context, on_handshake);
  if (expect_host(context, w->host)) return fail(w, "tls", "the host is no name that a certificate could have");
  if (trust(w, context)) return -1;
  if (w->cert && take_certificate(context, w->cert)) return fail(w, "tls", "cert is no certificate in PEM");
  if (w->cert && take_key(context, w->key ? w->key : w->cert))
    return fail(w, "tls", "key is no key in PEM that fits cert; it has to be unencrypted");
  return 0;
}

/* The job */

static void find(struct np_aside_job *job) {
  struct np_mqtt_way *w = (struct np_mqtt_way *)job;
  if (find_addresses(w) == 0 && w->tls_wanted) read_certificates(w);
}

void np_mqtt_tls_free(struct np_mqtt_tls *tls) {
  if (!tls) return;
  SSL_CTX_free(tls->context);
  free(tls);
}

static void drop(struct np_aside_job *job) {
  struct np_mqtt_way *w = (struct np_mqtt_way *)job;
  free(w->host), free(w->cert), free(w->key), free(w->ca), free(w->ca_file);
  for (size_t i = 0; i < w->count; i++) free(w->addresses[i]);
  free(w->addresses);
  np_mqtt_tls_free(w->tls);
  free(w);
}

static char *copy(const char *text) { return text && *text ? np_strdup(text) : NULL; }

struct np_mqtt_way *np_mqtt_way_new(const struct np_mqtt_net *net, const struct np_mqtt_options *o, bool with_tls) {
  struct np_mqtt_way *w = np_alloc(sizeof *w);
  w->job = (struct np_aside_job){.work = find, .drop = drop};
  w->host = np_strdup(o->host);
  w->port = o->port;
  w->cert = copy(o->cert);
  w->key = copy(o->key);
  w->ca = copy(o->ca);
  w->ca_file = copy(net->ca_file);
  w->anywhere = net->names_lead_anywhere;
  w->tls_wanted = with_tls;
  return w;
}
