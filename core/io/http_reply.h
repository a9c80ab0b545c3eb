/* The head of an HTTP/1.1 answer. Any thread. */
#ifndef NP_IO_HTTP_REPLY_H
#define NP_IO_HTTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "io/serve.h"

#define NP_HTTP_DATE_SIZE 30

enum { NP_REPLY_CHUNKED = -1, NP_REPLY_UNTIL_CLOSE = -2 }; /* lengths that are not known beforehand */

struct np_http_reply {
  int status;
  const struct np_header *headers; /* the program's; those that are the server's, or would break the head, are left out */
  size_t header_count;
  const char *date;       /* from np_http_date */
  const char *connection; /* "close", "keep-alive" or NULL */
  int64_t length;         /* of the body, or NP_REPLY_ one; not written for a status that has no body */
};

void np_http_reply_head(struct np_buf *out, const struct np_http_reply *r);
bool np_http_has_body(int status); /* not 1xx, 204, 304 */
const char *np_http_reason(int status);
void np_http_date(char to[NP_HTTP_DATE_SIZE], int64_t seconds);

#endif
