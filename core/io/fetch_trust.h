/* Whom what goes out trusts: the system's certificates and, where a file is given, those in it. Private to core/io. */
#ifndef NP_IO_FETCH_TRUST_H
#define NP_IO_FETCH_TRUST_H

#include <curl/curl.h>
#include <openssl/ssl.h>

#include "base/error.h"

struct np_fetch_trust;

struct np_fetch_trust *np_fetch_trust_new(const char *ca_file, struct np_error *err); /* ca_file may be NULL */
/* ca: PEM, then those in it are trusted and nobody else; NULL is none. t and ca outlive the transfer. */
void np_fetch_trust_apply(const struct np_fetch_trust *t, const char *ca, CURL *easy);
/* The same for a TLS context of our own: -1 and err where ca, or the system's certificates, cannot be read. Any thread. */
int np_fetch_trust_context(const struct np_fetch_trust *t, const char *ca, SSL_CTX *context, struct np_error *err);
void np_fetch_trust_free(struct np_fetch_trust *t);

#endif
