/* What of an HTTP message's head nobody is to see: told by the names of headers and parameters. The list of names is core/host/recording.lua's too. */
#include "base/redact.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static const char *const parts[] = {"auth", "cookie", "key", "pass", "pwd", "secret", "sign", "token", "credential", "session"};
static const char *const whole[] = {"sig", "mac", "hmac", "code", "pin"}; /* all of what stands behind the last "-" or "_" */

static bool has(const char *name, size_t len, const char *part) {
  size_t n = strlen(part);
  for (size_t i = 0; i + n <= len; i++)
    if (strncasecmp(name + i, part, n) == 0) return true;
  return false;
}

static bool is(const char *name, size_t len, const char *what) { return strlen(what) == len && strncasecmp(name, what, len) == 0; }

bool np_redact_is_secret(const char *name, size_t len) {
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (has(name, len, parts[i])) return true;
  size_t last = len;
  while (last && name[last - 1] != '-' && name[last - 1] != '_') last--;
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
    if (is(name + last, len - last, whole[i])) return true;
  return false;
}

static bool is_hidden(const char *name, size_t len, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (is(name, len, names[i])) return true;
  return np_redact_is_secret(name, len);
}

void np_redact_headers(struct np_buf *out, const char *lines, size_t len, const char *const *names, size_t count) {
  for (const char *at = lines, *end = lines + len, *next; at < end; at = next) {
    const char *stop = memchr(at, '\n', (size_t)(end - at)), *colon;
    next = stop ? stop + 1 : end;
    colon = memchr(at, ':', (size_t)(next - at));
    if (colon && is_hidden(at, (size_t)(colon - at), names, count)) {
      np_buf_add(out, at, (size_t)(colon - at));
      np_buf_adds(out, stop ? ": ***\n" : ": ***");
    } else {
      np_buf_add(out, at, (size_t)(next - at));
    }
  }
}

/* "a=1&token=2" up to a fragment. */
static void add_query(struct np_buf *out, const char *at, const char *end, const char *const *names, size_t count) {
  while (at < end) {
    const char *stop = memchr(at, '&', (size_t)(end - at));
    if (!stop) stop = end;
    const char *equals = memchr(at, '=', (size_t)(stop - at));
    bool hidden = equals && is_hidden(at, (size_t)(equals - at), names, count);
    np_buf_add(out, at, (size_t)((hidden ? equals + 1 : stop) - at));
    if (hidden) np_buf_adds(out, "***");
    if (stop < end) np_buf_addc(out, '&');
    at = stop < end ? stop + 1 : end;
  }
}

/* Userinfo in a text. */

static bool in_word(char c) { return (unsigned char)c > ' ' && c != '"' && c != '<' && c != '>' && c != 0x7f; }

static const char *last_of(const char *from, const char *end, char c) {
  while (end > from && end[-1] != c) end--;
  return end > from ? end - 1 : NULL;
}

/* "host:x" where x is no port: the ":" stands before a password, then. */
static bool has_odd_port(const char *from, const char *end) {
  const char *bracket = last_of(from, end, ']'), *colon = last_of(bracket ? bracket : from, end, ':');
  return colon && strspn(colon + 1, "0123456789") < (size_t)(end - colon - 1);
}

/* The "@" that ends the userinfo of the URL whose authority begins there; NULL: it has none. */
static const char *userinfo_end(const char *from, const char *end) {
  const char *authority = from;
  while (authority < end && !strchr("/?#", *authority)) authority++;
  const char *at = last_of(from, authority, '@');
  return at || !has_odd_port(from, authority) ? at : last_of(authority, end, '@');
}

/* The same for a word without "://". */
static const char *credentials_end(const char *from, const char *end) {
  const char *at = last_of(from, end, '@');
  return at && last_of(from, at, ':') ? at : NULL;
}

struct hiding {
  struct np_buf out;
  const char *done; /* up to there all is in `out` */
};

/* What stands from there up to the "@", if it is anything. */
static void hide(struct hiding *h, const char *from, const char *at) {
  if (!at || at == from) return;
  np_buf_add(&h->out, h->done, (size_t)(from - h->done));
  np_buf_adds(&h->out, "***");
  h->done = at;
}

static void hide_in_word(struct hiding *h, const char *word, const char *end, bool value) {
  const char *slashes = memmem(word, (size_t)(end - word), "://", 3);
  if (!slashes && value) hide(h, word, credentials_end(word, end));
  for (; slashes; slashes = memmem(slashes, (size_t)(end - slashes), "://", 3)) {
    slashes += 3;
    const char *at = userinfo_end(slashes, end);
    hide(h, slashes, at);
    if (at) slashes = at;
  }
}

void np_redact_userinfo(struct np_buf *text, bool value) {
  if (!text->len || !memchr(text->data, '@', text->len)) return;
  struct hiding h = {.done = text->data};
  const char *end = text->data + text->len;
  for (const char *word = text->data, *stop; word < end; word = stop + 1) {
    for (stop = word; stop < end && in_word(*stop);) stop++;
    hide_in_word(&h, word, stop, value);
  }
  if (h.out.len) {
    np_buf_add(&h.out, h.done, (size_t)(end - h.done));
    np_buf_clear(text);
    np_buf_add(text, h.out.data, h.out.len);
  }
  np_buf_free(&h.out);
}

void np_redact_url(struct np_buf *out, const char *url, size_t len, const char *const *names, size_t count) {
  const char *end = url + len, *fragment = memchr(url, '#', len), *rest = fragment ? fragment : end;
  const char *query = memchr(url, '?', (size_t)(rest - url)), *path_end = query ? query : rest, *at = url, *user = NULL;
  for (const char *s = url; !user && s + 3 <= path_end; s++)
    if (memcmp(s, "://", 3) == 0) user = s + 3;
  if (user) { /* the last "@" before the path ends what says who asks */
    const char *host = memchr(user, '/', (size_t)(path_end - user));
    if (!host) host = path_end;
    while (host > user && host[-1] != '@') host--;
    np_buf_add(out, at, (size_t)(user - at));
    if (host > user) np_buf_adds(out, "***@");
    at = host;
  }
  np_buf_add(out, at, (size_t)(path_end - at));
  if (query) {
    np_buf_addc(out, '?');
    add_query(out, query + 1, rest, names, count);
  }
  np_buf_add(out, rest, (size_t)(end - rest));
}
