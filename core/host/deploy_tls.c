/* The certificate that is served. Its files are watched: what is in them, once both fit each other, is what connects next sees. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/deploy_parts.h"
#include "io/serve_link.h"

#define FILES_MAX (1u << 20)

static bool add_file(struct np_buf *b, const char *path) {
  FILE *f = fopen(path, "re");
  if (!f) return false;
  size_t n;
  while (b->len < FILES_MAX && (n = fread(np_buf_reserve(b, 16384), 1, 16384, f)) > 0) b->len += n;
  bool whole = !ferror(f);
  fclose(f);
  return whole;
}

/* "" where one of them cannot be read, which is no certificate's. */
static void print_of(const struct np_config *c, char print[65]) {
  struct np_buf both = {0};
  print[0] = 0;
  if (add_file(&both, c->certificate) && add_file(&both, c->key)) np_sha256_hex(np_buf_text(&both), both.len, print);
  np_buf_free(&both);
}

void np_deploy_tls_begin(struct np_deploy *d) {
  if (d->host->config->certificate) print_of(d->host->config, d->tls_print);
}

/* Each lane gets its own, all of them or none. */
static int renew(struct np_deploy *d, struct np_error *err) {
  const struct np_config *c = d->host->config;
  struct np_tls **fresh = np_alloc((size_t)d->lanes * sizeof *fresh);
  int n = 0;
  while (n < d->lanes && (fresh[n] = np_tls_new(c->certificate, c->key, err))) n++;
  for (int i = 0; i < n && n < d->lanes; i++) np_tls_free(fresh[i]);
  for (int i = 0; i < d->lanes && n == d->lanes; i++) {
    struct np_letter *letter = np_alloc(sizeof *letter);
    letter->kind = NP_LETTER_TLS;
    letter->tls = fresh[i];
    np_lane_send(d->host->lanes[i], letter);
  }
  free(fresh);
  return n == d->lanes ? 0 : -1;
}

void np_deploy_tls_look(struct np_deploy *d) {
  struct np_error err;
  char print[65];
  if (!d->host->config->certificate) return;
  print_of(d->host->config, print);
  if (strcmp(print, d->tls_print) == 0) {
    np_unit_set(&d->tls_error, NULL);
  } else if (renew(d, &err) == 0) {
    np_log(NP_INFO, "the certificate is renewed", "certificate", d->host->config->certificate, NULL);
    memcpy(d->tls_print, print, sizeof print);
    np_unit_set(&d->tls_error, NULL);
  } else if (!np_unit_same(d->tls_error, err.text)) {
    np_log(NP_ERROR, "the certificate is not renewed; the one before goes on", "error", err.text, NULL);
    np_unit_set(&d->tls_error, err.text);
  }
}

const char *np_deploy_tls_error(const struct np_deploy *d) { return d->tls_error; }
