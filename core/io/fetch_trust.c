/* Trust: the system's certificates and those of a file. */
#include "io/fetch_trust.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

struct np_fetch_trust {
  const char *system;     /* borrowed from curl; a file, NULL where there is none */
  STACK_OF(X509) * extra; /* owned; NULL where only the system's count */
};

/* Closes `from`. NULL where there is none in it, or something else. */
static STACK_OF(X509) * take_certificates(BIO *from) {
  STACK_OF(X509) *all = sk_X509_new_null();
  for (X509 *one; (one = PEM_read_bio_X509_AUX(from, NULL, NULL, NULL));) sk_X509_push(all, one);
  BIO_free(from);
  bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (ended && sk_X509_num(all) > 0) return all;
  sk_X509_pop_free(all, X509_free);
  return NULL;
}

static STACK_OF(X509) * read_certificates(const char *path, struct np_error *err) {
  BIO *file = BIO_new_file(path, "r");
  if (!file) {
    np_fail(err, "%s: cannot be read: %s", path, strerror(errno));
    ERR_clear_error();
    return NULL;
  }
  STACK_OF(X509) *all = take_certificates(file);
  if (!all) np_fail(err, "%s: not a file of certificates in PEM", path);
  return all;
}

static int add_all(X509_STORE *store, const STACK_OF(X509) * all) {
  for (int i = 0; i < sk_X509_num(all); i++)
    if (!X509_STORE_add_cert(store, sk_X509_value(all, i))) return -1;
  return 0;
}

/* The system's store is cached by curl over all connections of this multi handle; certificates it has already are left as they are. */
static CURLcode on_tls(CURL *easy, void *context, void *arg) {
  (void)easy;
  const struct np_fetch_trust *t = arg;
  return add_all(SSL_CTX_get_cert_store(context), t->extra) ? CURLE_SSL_CACERT_BADFILE : CURLE_OK;
}

struct np_fetch_trust *np_fetch_trust_new(const char *ca_file, struct np_error *err) {
  struct np_fetch_trust *t = np_alloc(sizeof *t);
  const char *bundle = curl_version_info(CURLVERSION_NOW)->cainfo;
  if (bundle && access(bundle, R_OK) == 0) t->system = bundle;
  if (!ca_file || (t->extra = read_certificates(ca_file, err))) return t;
  free(t);
  return NULL;
}

/* No CAPATH: with one, curl would not keep the parsed certificates, and read all of them for every connection. */
void np_fetch_trust_apply(const struct np_fetch_trust *t, const char *ca, CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
  if (ca) {
    struct curl_blob blob = {.data = (void *)(uintptr_t)ca, .len = strlen(ca), .flags = CURL_BLOB_NOCOPY};
    curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    return;
  }
  curl_easy_setopt(easy, CURLOPT_CAINFO, t->system);
  if (!t->extra) return;
  curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls);
  curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, t);
}

int np_fetch_trust_context(const struct np_fetch_trust *t, const char *ca, SSL_CTX *context, struct np_error *err) {
  if (ca) {
    STACK_OF(X509) *all = take_certificates(BIO_new_mem_buf(ca, -1));
    int bad = !all || add_all(SSL_CTX_get_cert_store(context), all);
    sk_X509_pop_free(all, X509_free);
    return bad ? np_fail(err, "ca is no certificate in PEM") : 0;
  }
  if (t->system && SSL_CTX_load_verify_file(context, t->system) != 1) {
    ERR_clear_error();
    return np_fail(err, "%s: cannot be read", t->system);
  }
  return t->extra && add_all(SSL_CTX_get_cert_store(context), t->extra) ? np_fail(err, "the certificates of trust cannot be used")
                                                                        : 0;
}

void np_fetch_trust_free(struct np_fetch_trust *t) {
  if (!t) return;
  sk_X509_pop_free(t->extra, X509_free);
  free(t);
}
