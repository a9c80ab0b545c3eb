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
