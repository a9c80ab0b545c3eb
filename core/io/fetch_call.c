/* One call: its request, checked and copied; curl's options and callbacks for it; redirects. */
#include "io/fetch_call.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "io/curl_loop.h"

#define ANSWER_MAX ((size_t)16 << 20)
#define HEADERS_MAX ((size_t)256 << 10)

void np_fetch_call_fail(struct np_fetch_call *call, const char *code, const char *why) {
  call->code = code;
  if (call->name)
    snprintf(call->why, sizeof call->why, "%.200s: %.500s", call->name, why);
  else
    snprintf(call->why, sizeof call->why, "%.500s", why);
}

/* URLs */

static int part(CURLU *u, CURLUPart what, unsigned flags, char **to) {
  char *s = NULL;
  if (curl_url_get(u, what, &s, flags) != CURLUE_OK) return -1;
  *to = np_strdup(s);
  curl_free(s);
  return 0;
}

/* Sets url, origin and name of the call to `url`, which may be relative to the one it has. On -1 nothing has changed. */
static int set_url(struct np_fetch_call *call, const char *url, struct np_error *err) {
  CURLU *u = curl_url();
  char *whole = NULL, *scheme = NULL, *host = NULL, *port = NULL;
  CURLUcode bad = CURLUE_OUT_OF_MEMORY;
  if (u && call->origin) bad = curl_url_set(u, CURLUPART_URL, call->url, 0);
  if (u && (!call->origin || bad == CURLUE_OK))
    bad = curl_url_set(u, CURLUPART_URL, url, call->origin ? CURLU_URLENCODE | CURLU_ALLOW_SPACE : 0);
  if (bad != CURLUE_OK) {
    np_fail(err, "not a URL: %s", curl_url_strerror(bad));
    goto fail;
  }
  if (part(u, CURLUPART_SCHEME, 0, &scheme) || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)) {
    np_fail(err, "only http and https URLs are asked");
    goto fail;
  }
  if (part(u, CURLUPART_URL, 0, &whole) || part(u, CURLUPART_HOST, 0, &host) ||
      part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, &port)) {
    np_fail(err, "not a URL: no host");
    goto fail;
  }
  struct np_buf origin = {0};
  for (char *c = host; *c; c++) *c = (char)tolower((unsigned char)*c);
  np_buf_addf(&origin, "%s://%s:%s", scheme, host, port);
  free(call->url);
  free(call->origin);
  free(call->name);
  call->url = whole;
  call->origin = origin.data;
  call->name = np_strdup(origin.data + strlen(scheme) + 3);
  free(scheme);
  free(host);
  free(port);
  curl_url_cleanup(u);
  return 0;
fail:
  free(whole);
  free(scheme);
  free(host);
  free(port);
  curl_url_cleanup(u);
  return -1;
}

/* Headers */

static bool is_token(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isalnum((unsigned char)s[i]) && !(s[i] && strchr("!#$%&'*+-.^_`|~", s[i]))) return false;
  return n > 0;
}

static bool is_named(const char *line, const char *const *names) {
  size_t n = strcspn(line, ":;");
  for (; *names; names++)
    if (strlen(*names) == n && strncasecmp(line, *names, n) == 0) return true;
  return false;
}

static const char *const ours[] = {"content-length", "transfer-encoding", "expect", "connection", NULL};
static const char *const of_body[] = {"content-type", "content-encoding", "content-language", "content-md5", "digest", NULL};
static const char *const credentials[] = {"authorization", "cookie", "proxy-authorization", NULL};
static const char *const type[] = {"content-type", NULL};

static void add_header(struct np_fetch_call *call, const char *line) {
  struct curl_slist *more = curl_slist_append(call->headers, line);
  if (!more) abort(); /* as np_alloc */
  call->headers = more;
}

/* "Name:" means to curl that it is not to be sent; "Name;" sends it empty. */
static int add_checked_header(struct np_fetch_call *call, const char *line, struct np_error *err) {
  size_t name = strcspn(line, ":");
  if (!is_token(line, name) || line[name] != ':') return np_fail(err, "a header is not \"Name: value\"");
  if (strpbrk(line, "\r\n")) return np_fail(err, "the header %.*s has a line break in it", (int)(name < 100 ? name : 100), line);
  if (is_named(line, ours)) return 0;
  if (line[name + 1 + strspn(line + name + 1, " \t")]) {
    add_header(call, line);
  } else {
    char *empty = np_strndup(line, name + 1);
    empty[name] = ';';
    add_header(call, empty);
    free(empty);
  }
  return 0;
}

static void leave_out(struct np_fetch_call *call, const char *const *names) {
  struct curl_slist *old = call->headers;
  call->headers = NULL;
  for (struct curl_slist *h = old; h; h = h->next)
    if (!is_named(h->data, names)) add_header(call, h->data);
  curl_slist_free_all(old);
}

/* curl's callbacks: none of them may lead to the program */

static size_t on_header(char *bytes, size_t size, size_t count, void *arg) {
  struct np_fetch_call *call = arg;
  struct np_buf *to = &call->got_headers;
  size_t whole = size * count, n = whole;
  while (n && (bytes[n - 1] == '\r' || bytes[n - 1] == '\n')) n--;
  if (!call->in_head) {
    if (n < 5 || memcmp(bytes, "HTTP/", 5) != 0) return whole; /* a trailer: not a header, RFC 9110 6.5.1 */
    call->in_head = true;
    np_buf_clear(to); /* what came before was a 1xx */
    return whole;
  }
  if (!n) {
    call->in_head = false;
    call->had_head = true;
    return whole;
  }
  if (to->len + n + 2 > HEADERS_MAX) {
    call->too_large = true;
    return 0;
  }
  size_t from = to->len;
  if ((bytes[0] == ' ' || bytes[0] == '\t') && to->len) { /* a folded line goes on with the one before */
    to->len--;
    np_buf_addc(to, ' ');
    while (n && (*bytes == ' ' || *bytes == '\t')) bytes++, n--;
    np_buf_add(to, bytes, n);
  } else {
    char *colon = memchr(bytes, ':', n);
    if (!colon || !is_token(bytes, (size_t)(colon - bytes))) return whole;
    for (char *c = bytes; c < colon; c++) np_buf_addc(to, (char)tolower((unsigned char)*c));
    np_buf_adds(to, ": ");
    char *end = bytes + n;
    for (colon++; colon < end && (*colon == ' ' || *colon == '\t'); colon++) {}
    np_buf_add(to, colon, (size_t)(end - colon));
  }
  while (to->len > from && (to->data[to->len - 1] == ' ' || to->data[to->len - 1] == '\t') && to->data[to->len - 2] != ':')
    to->len--;
  for (size_t i = from; i < to->len; i++)
    if (to->data[i] == '\r' || to->data[i] == '\n' || !to->data[i]) to->data[i] = ' ';
  np_buf_addc(to, '\n');
  return whole;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
  struct np_fetch_call *call = arg;
  size_t n = size * count;
  if (n > call->answer_max - call->got.len) {
    call->too_large = true;
    return n ? 0 : 1; /* anything but n ends the transfer */
  }
  np_buf_add(&call->got, bytes, n);
  return n;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *a) {
  struct np_fetch_call *call = arg;
  (void)purpose;
  return np_curl_socket(a, call->names_lead_anywhere, call->name, &call->near);
}

/* curl and the call */

static void gzip_body(struct np_fetch_call *call) {
  call->gzip = false;
  if (!call->body) return;
  z_stream z = {.next_in = (Bytef *)call->body, .avail_in = (uInt)call->body_len};
  if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort(); /* as np_alloc */
  uLong most = deflateBound(&z, (uLong)call->body_len);
  char *zipped = np_alloc(most);
  z.next_out = (Bytef *)zipped;
  z.avail_out = (uInt)most;
  if (deflate(&z, Z_FINISH) != Z_STREAM_END) abort(); /* there is room for all */
  free(call->body);
  call->body = zipped;
  call->body_len = z.total_out;
  deflateEnd(&z);
}

void np_fetch_call_prepare(struct np_fetch_call *call, const char *user_agent, long idle_seconds) {
  np_buf_clear(&call->got);
  np_buf_clear(&call->got_headers);
  call->in_head = call->had_head = call->near = false;
  call->error[0] = 0;
  CURL *e = call->easy;
  curl_easy_setopt(e, CURLOPT_URL, call->url);
  curl_easy_setopt(e, CURLOPT_PRIVATE, call);
  curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->error);
  np_curl_prepare(e);
  curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "");
  curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, idle_seconds);
  curl_easy_setopt(e, CURLOPT_USERAGENT, user_agent);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, call);
  curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
  curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
  curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->headers);
  np_curl_identity(e, call->cert, call->key);
  if (call->gzip) gzip_body(call);
  if (strcmp(call->method, "HEAD") == 0) {
    curl_easy_setopt(e, CURLOPT_NOBODY, 1L); /* and no MAXFILESIZE: its Content-Length is not of what comes */
    return;
  }
  curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)call->answer_max);
  if (call->body) {
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_len);
    curl_easy_setopt(e, CURLOPT_POSTFIELDS, call->body);
  }
  curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, call->method);
}

/* A head that was cut is an answer to curl, and so is an early hint. */
void np_fetch_call_end(struct np_fetch_call *call, CURLcode result) {
  long status = 0;
  curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
  call->status = (int)status;
  if (call->too_large || result == CURLE_FILESIZE_EXCEEDED)
    np_fetch_call_fail(call, "too_large", "the answer is larger than allowed");
  else if (result != CURLE_OK && call->near)
    np_fetch_call_fail(call, "near", np_curl_near);
  else if (result == CURLE_OK && (call->in_head || !call->had_head || status < 200))
    np_fetch_call_fail(call, "cut", "the connection was closed before the answer was whole");
  else if (result != CURLE_OK)
    np_fetch_call_fail(call, np_curl_code(result), call->error[0] ? call->error : curl_easy_strerror(result));
}

/* Redirects */

static char *location(const struct np_fetch_call *call) {
  static const char name[] = "location: ";
  for (const char *line = np_buf_text(&call->got_headers); *line; line = strchr(line, '\n') + 1)
    if (strncmp(line, name, sizeof name - 1) == 0) return np_strndup(line + sizeof name - 1, strcspn(line + sizeof name - 1, "\n"));
  return NULL;
}

static void become_get(struct np_fetch_call *call) {
  free(call->method);
  call->method = np_strdup("GET");
  free(call->body);
  call->body = NULL;
  leave_out(call, of_body);
}

/* `cert` may hold the key too. */
static void forget_identity(struct np_fetch_call *call) {
  char **secrets[] = {&call->cert, &call->key};
  for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
    if (*secrets[i]) OPENSSL_cleanse(*secrets[i], strlen(*secrets[i]));
    free(*secrets[i]);
    *secrets[i] = NULL;
  }
}

bool np_fetch_call_redirect(struct np_fetch_call *call) {
  int s = call->status;
  if (call->code || !call->redirects || (s != 301 && s != 302 && s != 303 && s != 307 && s != 308)) return false;
  char *to = location(call);
  if (!to) return false;
  char *was = np_strdup(call->origin), *asked = np_strdup(call->url);
  struct np_error err;
  const char *why = NULL;
  if (call->redirects < 0)
    why = "too many redirects";
  else if (set_url(call, to, &err))
    why = "redirected to what is no URL that can be asked";
  else if (call->may_redirect && !call->may_redirect(call->arg, call->url))
    why = "redirected to where it may not go";
  if (why) {
    if (strcmp(call->url, asked) != 0) { /* url tells the last one asked */
      free(call->url);
      call->url = asked;
      asked = NULL;
    }
    np_fetch_call_fail(call, "redirect", why);
  } else {
    if (--call->redirects == 0) call->redirects = -1; /* the next one is one too many */
    if ((s == 303 && strcmp(call->method, "HEAD") != 0) || (s < 303 && strcmp(call->method, "POST") == 0)) become_get(call);
    if (strcmp(was, call->origin) != 0) {
      leave_out(call, credentials);
      forget_identity(call);
    }
  }
  free(to);
  free(was);
  free(asked);
  return !call->code;
}

/* Making, telling, freeing */

static int check_request(const struct np_fetch_request *r, struct np_error *err) {
  if (!r->method || !is_token(r->method, strlen(r->method)) || strcmp(r->method, "CONNECT") == 0)
    return np_fail(err, "not an HTTP method that can be used");
  if (!r->url) return np_fail(err, "no URL");
  if (!(r->timeout > 0) || r->timeout > 1e9) return np_fail(err, "the timeout must be more than 0 seconds");
  if (r->redirects < 0) return np_fail(err, "the number of redirects must not be negative");
  if (r->key && *r->key && !(r->cert && *r->cert)) return np_fail(err, "a client's key needs its certificate");
  if (r->gzip && r->body_len > UINT32_MAX / 2) return np_fail(err, "a body to be gzipped is at most 2 GiB");
  return 0;
}

static const char *const coding[] = {"content-encoding", NULL};

static int set_headers(struct np_fetch_call *call, const struct np_fetch_request *r, struct np_error *err) {
  bool typed = false;
  for (size_t i = 0; i < r->header_count; i++) {
    if (add_checked_header(call, r->headers[i], err)) return -1;
    if (is_named(r->headers[i], type)) typed = true;
    if (r->gzip && is_named(r->headers[i], coding)) return np_fail(err, "a body that has a Content-Encoding is not gzipped again");
  }
  if (r->gzip && r->body) add_header(call, "Content-Encoding: gzip");
  add_header(call, "Expect:");
  if (!typed) add_header(call, "Content-Type:"); /* curl would say that it is a form */
  return 0;
}

void np_fetch_call_free(struct np_fetch_call *call) {
  free(call->method);
  free(call->url);
  free(call->origin);
  free(call->name);
  curl_slist_free_all(call->headers);
  free(call->body);
  forget_identity(call);
  free(call->ca);
  np_buf_free(&call->got_headers);
  np_buf_free(&call->got);
  free(call);
}

static char *copy_pem(const char *pem) { return pem && *pem ? np_strdup(pem) : NULL; }

struct np_fetch_call *np_fetch_call_new(const struct np_fetch_request *r, struct np_error *err) {
  if (check_request(r, err)) return NULL;
  struct np_fetch_call *call = np_alloc(sizeof *call);
  call->timeout = r->timeout;
  call->redirects = r->redirects;
  call->may_redirect = r->may_redirect;
  call->answer_max = r->answer_max ? r->answer_max : ANSWER_MAX;
  call->method = np_strdup(r->method);
  bool sends = strcmp(r->method, "POST") == 0 || strcmp(r->method, "PUT") == 0 || strcmp(r->method, "PATCH") == 0;
  if (r->body || sends) call->body = np_strndup(r->body, r->body ? r->body_len : 0); /* an empty one says Content-Length: 0 */
  if (r->body) call->body_len = r->body_len;
  call->gzip = r->gzip;
  call->cert = copy_pem(r->cert);
  call->key = copy_pem(r->key);
  call->ca = copy_pem(r->ca);
  if (set_headers(call, r, err)) {
    np_fetch_call_free(call);
    return NULL;
  }
  struct np_error bad;
  if (set_url(call, r->url, &bad)) {
    call->url = np_strdup(r->url);
    np_fetch_call_fail(call, "bad_url", bad.text);
  }
  return call;
}

void np_fetch_call_script(struct np_fetch_call *call,
                          void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer),
                          void *arg) {
  struct np_fetch_scripted a = {0};
  const char *headers[200];
  struct np_fetch_request r = {.method = call->method,
                               .url = call->url,
                               .headers = headers,
                               .body = call->body,
                               .body_len = call->body_len,
                               .timeout = call->timeout};
  for (struct curl_slist *h = call->headers; h && r.header_count < sizeof headers / sizeof *headers; h = h->next)
    if (h->data[strcspn(h->data, ":") + (strchr(h->data, ':') != NULL)]) headers[r.header_count++] = h->data; /* not "Expect:" */
  script(arg, &r, &a);
  np_buf_free(&call->got_headers);
  np_buf_free(&call->got);
  call->status = a.status;
  call->got_headers = a.headers;
  call->got = a.body;
  if (a.code)
    np_fetch_call_fail(call, a.code, a.why);
  else if (call->got.len > call->answer_max)
    np_fetch_call_fail(call, "too_large", "the answer is larger than allowed");
}

void np_fetch_call_tell(struct np_fetch_call *call) {
  struct np_fetch_answer a = {.url = call->url, .headers = "", .body = "", .code = call->code};
  if (call->code) {
    a.why = call->why;
  } else {
    a.status = call->status;
    a.headers = np_buf_text(&call->got_headers);
    a.body = np_buf_text(&call->got);
    a.body_len = call->got.len;
  }
  call->done(call->arg, &a);
}
