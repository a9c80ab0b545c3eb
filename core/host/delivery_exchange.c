/* What a delivery's handler asked by HTTP, and what it was answered, for those who look why an attempt failed. Copied as it goes, masked where it is to be
 * kept. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/redact.h"
#include "host/delivery_parts.h"

#define SECRET_LEAST 6
#define SHOWN_MOST 2000 /* bytes that are kept of each */

static struct np_exchange *exchange_of(struct np_env *env) {
  struct np_task *t = ((struct np_instance *)env)->running;
  return t && t->mode == NP_DELIVERING ? &((struct np_delivery *)t->owner)->exchange : NULL;
}

/* Shorter ones would mask ordinary text. */
static void hide(struct np_task *t, const char *s, size_t len) {
  if (len >= SECRET_LEAST) np_task_mask_credential(t, s, len);
}

/* "Bearer x" hides x as well. */
static void hide_header(struct np_task *t, const char *line) {
  const char *colon = strchr(line, ':');
  if (!colon || !np_redact_is_secret(line, (size_t)(colon - line))) return;
  const char *value = colon + 1 + strspn(colon + 1, " "), *space = strrchr(value, ' ');
  hide(t, value, strlen(value));
  if (space) hide(t, space + 1, strlen(space + 1));
}

static void hide_query(struct np_task *t, const char *url) {
  const char *at = strchr(url, '?');
  while (at && *at != '#') {
    size_t n = strcspn(++at, "&#"), name = strcspn(at, "=&#");
    if (name < n && np_redact_is_secret(at, name)) hide(t, at + name + 1, n - name - 1);
    at = at[n] ? at + n : NULL;
  }
}

/* Who is asked may say back what it was told: a page that shows a request's headers, for example. */
static void hide_credentials(struct np_env *env, const struct np_fetch_request *r) {
  struct np_task *t = ((struct np_instance *)env)->running;
  for (size_t i = 0; t && i < r->header_count; i++) hide_header(t, r->headers[i]);
  if (t) hide_query(t, r->url);
}

void np_exchange_asks(struct np_env *env, const struct np_fetch_request *r) {
  struct np_exchange *x = exchange_of(env);
  hide_credentials(env, r);
  if (!x) return;
  x->count++;
  np_buf_clear(&x->request);
  np_buf_clear(&x->reply);
  np_buf_addf(&x->request, "%s %s\n", r->method, r->url);
  for (size_t i = 0; i < r->header_count && x->request.len < 4 * SHOWN_MOST; i++) np_buf_addf(&x->request, "%s\n", r->headers[i]);
}

void np_exchange_got(struct np_env *env, int status, const char *headers) {
  struct np_exchange *x = exchange_of(env);
  size_t n = strlen(headers);
  if (!x || !status) return;
  if (n > 4 * SHOWN_MOST) n = 4 * SHOWN_MOST;
  while (n && headers[n - 1] != '\n') n--; /* half of a value would not be known as what it is */
  np_buf_add(&x->reply, headers, n);
}

/* By value too, and no longer than is kept: up to the end of a line, where one ends by then. */
static char *keep(const struct np_buf *text) {
  char *masked = np_mask_text(np_buf_text(text), text->len);
  size_t len = SHOWN_MOST;
  if (strlen(masked) <= len) return masked;
  while (len && masked[len - 1] != '\n') len--;
  if (!len) len = SHOWN_MOST;
  while ((masked[len] & 0xc0) == 0x80) len--; /* between characters */
  masked = np_realloc(masked, len + sizeof "…\n");
  memcpy(masked + len, "…\n", sizeof "…\n");
  return masked;
}

void np_exchange_keep(struct np_exchange *x, const struct np_terms *terms) {
  const char *const *names = (const char *const *)terms->redact, *request = np_buf_text(&x->request), *line = strchr(request, '\n');
  const char *url = strchr(request, ' ');
  struct np_buf shown = {0};
  if (!x->count || !line || !url) return;
  np_buf_add(&shown, request, (size_t)(url + 1 - request));
  np_redact_url(&shown, url + 1, (size_t)(line - url - 1), names, terms->redact_count);
  np_redact_headers(&shown, line, strlen(line), names, terms->redact_count);
  x->asked = keep(&shown);
  np_buf_clear(&shown);
  np_redact_headers(&shown, np_buf_text(&x->reply), x->reply.len, names, terms->redact_count);
  if (shown.len) x->told = keep(&shown);
  np_buf_free(&shown);
}

void np_exchange_forget(struct np_exchange *x) {
  np_buf_free(&x->request);
  np_buf_free(&x->reply);
  free(x->asked);
  free(x->told);
  *x = (struct np_exchange){0};
}
