/* The body of an HTTP/1.1 request as it comes in: Content-Length or chunks, un-gzipped on the way, never past a bound.
 * Chunk extensions are skipped, trailers are dropped; both are bounded. Any thread. */
#ifndef NP_IO_HTTP_BODY_H
#define NP_IO_HTTP_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum np_http_body_state {
  NP_BODY_MORE,      /* go on */
  NP_BODY_WHOLE,     /* nothing further belongs to it */
  NP_BODY_TOO_BIG,   /* past the bound */
  NP_BODY_MALFORMED, /* its chunks */
  NP_BODY_BROKEN,    /* its gzip */
};

struct z_stream_s;

/* Zero-initialised is empty. */
struct np_http_body {
  enum {
    NP_CHUNK_NONE,
    NP_CHUNK_SIZE,
    NP_CHUNK_EXTENSION,
    NP_CHUNK_SIZE_LF,
    NP_CHUNK_DATA,
    NP_CHUNK_DATA_CR,
    NP_CHUNK_DATA_LF,
    NP_TRAILER_START,
    NP_TRAILER,
    NP_TRAILER_LF,
    NP_TRAILER_END
  } at;          /* NP_CHUNK_NONE: by Content-Length */
  uint64_t left; /* bytes to come of the body, or of this chunk */
  uint64_t raw;  /* bytes that came, before they were un-gzipped */
  size_t max;    /* bytes allowed, after they were un-gzipped */
  size_t line;   /* bytes of this chunk's head, or of all trailers */
  int digits;    /* of this chunk's size */
  bool gzip;
  bool member_ended;    /* between two gzip members */
  struct z_stream_s *z; /* owned; NULL until the first byte of gzip */
};

/* Starts on a body of `length` bytes, or a chunked one where length is -1. Says at once that a body is empty or too big. */
enum np_http_body_state np_http_body_start(struct np_http_body *b, int64_t length, bool gzip, size_t max);
/* Takes in up to n bytes, *used of them, and appends the content to out. */
enum np_http_body_state np_http_body_feed(struct np_http_body *b, const char *s, size_t n, size_t *used, struct np_buf *out);
void np_http_body_free(struct np_http_body *b);

#endif
