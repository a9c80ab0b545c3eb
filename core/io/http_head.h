/* The head of an HTTP/1.1 request: where it ends and what it says (RFC 9110, RFC 9112). Strict: what two readers on the way
 * could understand in two ways is refused, so nothing can be smuggled past one of them. Any thread. */
#ifndef NP_IO_HTTP_HEAD_H
#define NP_IO_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "io/serve.h"

enum np_http_coding { NP_CODING_IDENTITY, NP_CODING_GZIP, NP_CODING_OTHER };

/* Zero-initialised is empty; used again for one request after the other. */
struct np_http_head {
  struct np_buf text; /* owned: a copy of the head, into which the fields below point */
  const char *method; /* borrowed from text, as all of these; terminated */
  const char *target; /* as it came */
  const char *path;   /* decoded, without the query; "*" for OPTIONS * */
  size_t path_len;
  const char *query;         /* raw; "" where there is none */
  struct np_header *headers; /* owned */
  size_t header_count, header_cap;
  int minor;       /* 1 for HTTP/1.1, 0 for HTTP/1.0 */
  bool keep_alive; /* what version and Connection ask for */
  bool chunked;
  bool expects;               /* Expect: 100-continue, which only 1.1 knows */
  int64_t length;             /* Content-Length; -1 where there is none */
  enum np_http_coding coding; /* Content-Encoding */
  size_t hosts;               /* how many there were; with the next two, what the above is concluded from */
  bool asks_close, asks_keep;
};

/* Looks for a head's end in what has come so far. 1: it is here, *len bytes with its blank line (and a blank line before it,
 * which is allowed once). 0: more is to come; *scanned, 0 at first, keeps what has been looked at. Else the status to refuse
 * with: 400, 414 (not even the request line fits into max bytes) or 431. */
int np_http_head_find(const char *s, size_t n, size_t max, size_t *scanned, size_t *len);

/* Reads a whole head of len bytes. 0, or the status to refuse with and a constant sentence in *why. */
int np_http_head_read(struct np_http_head *h, const char *s, size_t len, size_t header_max, const char **why);
void np_http_head_free(struct np_http_head *h);

bool np_http_is_token(const char *s); /* a method or a field name: not empty, RFC 9110 5.6.2 */

#endif
