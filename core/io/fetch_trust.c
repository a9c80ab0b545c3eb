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

/* The system's store is cached by curl over all connections of this multi handle; certificates it has already are left as they are. */
static CURLcode on_tls(CURL *easy, void *context, void *arg) {
  (void)easy;
  const struct np_fetch_trust *t = arg;
  X509_STORE *store = SSL_CTX_get_cert_store(context);
  for (int i = 0; i < sk_X509_num(t->extra); i++)
    if (!X509_STORE_add_cert(store, sk_X509_value(t->extra, i))) return CURLE_SSL_CACERT_BADFILE;
  return CURLE_OK;
}

static STACK_OF(X509) * read_certificates(const char *path, struct np_error *err) {
  BIO *file = BIO_new_file(path, "r");
  if (!file) {
    np_fail(err, "%s: cannot be read: %s", path, strerror(errno));
    ERR_clear_error();
    return NULL;
  }
  STACK_OF(X509) *all = sk_X509_new_null();
  for (X509 *one; (one = PEM_read_bio_X509_AUX(file, NULL, NULL, NULL));) sk_X509_push(all, one);
  BIO_free(file);
  bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (ended && sk_X509_num(all) > 0) return all;
  np_fail(err, "%s: not a file of certificates in PEM", path);
  sk_X509_pop_free(all, X509_free);
  return NULL;
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

void np_fetch_trust_free(struct np_fetch_trust *t) {
  if (!t) return;
  sk_X509_pop_free(t->extra, X509_free);
  free(t);
}
