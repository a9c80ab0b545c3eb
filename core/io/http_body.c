/* Taking in a request's body. */
#include "io/http_body.h"

#include <stdlib.h>
#include <zlib.h>

#define CHUNK_LINE_MAX 1024
#define TRAILERS_MAX 8192
#define CHUNK_DIGITS_MAX 15
#define INFLATE_STEP 16384

/* What may come over the wire for max bytes of content. Gzip can be a little longer than what it holds; without this bound
 * one could send empty members for ever. */
static uint64_t raw_max(const struct np_http_body *b) {
  uint64_t slack = b->gzip ? b->max / 8 + 1024 : 0;
  return b->max > UINT64_MAX - slack ? UINT64_MAX : b->max + slack;
}

enum np_http_body_state np_http_body_start(struct np_http_body *b, int64_t length, bool gzip, size_t max) {
  np_http_body_free(b);
  b->gzip = gzip;
  b->max = max;
  b->at = length < 0 ? NP_CHUNK_SIZE : NP_CHUNK_NONE;
  b->left = length < 0 ? 0 : (uint64_t)length;
  if (b->left > raw_max(b)) return NP_BODY_TOO_BIG;
  return length == 0 ? NP_BODY_WHOLE : NP_BODY_MORE;
}

static enum np_http_body_state inflate_open(struct np_http_body *b) {
  b->z = np_alloc(sizeof *b->z);
  if (inflateInit2(b->z, 16 + MAX_WBITS) == Z_OK) return NP_BODY_MORE;
  free(b->z);
  b->z = NULL;
  return NP_BODY_BROKEN;
}

static enum np_http_body_state gunzip(struct np_http_body *b, const char *s, size_t n, struct np_buf *out) {
  if (!b->z && inflate_open(b) != NP_BODY_MORE) return NP_BODY_BROKEN;
  b->z->next_in = (Bytef *)(uintptr_t)s; /* zlib does not write there */
  b->z->avail_in = (uInt)n;
  do {
    if (b->member_ended) {
      if (!b->z->avail_in) break;
      inflateReset(b->z);
      b->member_ended = false;
    }
    size_t room = b->max - out->len < INFLATE_STEP ? b->max - out->len + 1 : INFLATE_STEP; /* one more shows that it is too big */
    b->z->next_out = (Bytef *)np_buf_reserve(out, room);
    b->z->avail_out = (uInt)room;
    int rc = inflate(b->z, Z_NO_FLUSH);
    out->len += room - b->z->avail_out;
    out->data[out->len] = 0;
    if (out->len > b->max) return NP_BODY_TOO_BIG;
    if (rc == Z_STREAM_END)
      b->member_ended = true;
    else if (rc == Z_BUF_ERROR)
      break; /* it wants more input */
    else if (rc != Z_OK)
      return NP_BODY_BROKEN;
  } while (b->z->avail_in || b->z->avail_out == 0);
  return NP_BODY_MORE;
}

/* Content: n bytes at s, at most what is left. */
static enum np_http_body_state content(struct np_http_body *b, const char *s, size_t n, struct np_buf *out) {
  b->raw += n;
  b->left -= n;
  if (b->raw > raw_max(b)) return NP_BODY_TOO_BIG;
  if (b->gzip) return gunzip(b, s, n, out);
  np_buf_add(out, s, n);
  return NP_BODY_MORE;
}

static enum np_http_body_state whole(const struct np_http_body *b) {
  return b->gzip && b->raw && !b->member_ended ? NP_BODY_BROKEN : NP_BODY_WHOLE;
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static enum np_http_body_state size_digit(struct np_http_body *b, char c) {
  if (hex(c) >= 0) {
    b->left = b->left << 4 | (uint64_t)hex(c);
    return ++b->digits > CHUNK_DIGITS_MAX ? NP_BODY_MALFORMED : NP_BODY_MORE;
  }
  if (!b->digits) return NP_BODY_MALFORMED;
  if (c == '\r')
    b->at = NP_CHUNK_SIZE_LF;
  else if (c == ';' || c == ' ' || c == '\t')
    b->at = NP_CHUNK_EXTENSION;
  else
    return NP_BODY_MALFORMED;
  return NP_BODY_MORE;
}

/* A chunk's size is known. */
static enum np_http_body_state chunk_begins(struct np_http_body *b) {
  bool last = !b->left;
  b->at = last ? NP_TRAILER_START : NP_CHUNK_DATA;
  b->line = 0;
  b->digits = 0;
  return b->left > raw_max(b) - b->raw ? NP_BODY_TOO_BIG : NP_BODY_MORE;
}

static bool is_text(char c) { return ((unsigned char)c >= 0x20 && c != 0x7f) || c == '\t'; }

/* One byte of what stands around the content. */
static enum np_http_body_state framing(struct np_http_body *b, char c) {
  if (++b->line > (b->at >= NP_TRAILER_START ? TRAILERS_MAX : CHUNK_LINE_MAX)) return NP_BODY_MALFORMED;
  switch (b->at) {
  case NP_CHUNK_SIZE: return size_digit(b, c);
  case NP_CHUNK_EXTENSION:
    if (c == '\r') b->at = NP_CHUNK_SIZE_LF;
    return c == '\r' || is_text(c) ? NP_BODY_MORE : NP_BODY_MALFORMED;
  case NP_CHUNK_SIZE_LF: return c == '\n' ? chunk_begins(b) : NP_BODY_MALFORMED;
  case NP_CHUNK_DATA_CR: b->at = NP_CHUNK_DATA_LF; return c == '\r' ? NP_BODY_MORE : NP_BODY_MALFORMED;
  case NP_CHUNK_DATA_LF:
    b->at = NP_CHUNK_SIZE;
    b->line = 0;
    return c == '\n' ? NP_BODY_MORE : NP_BODY_MALFORMED;
  case NP_TRAILER_START:
    b->at = c == '\r' ? NP_TRAILER_END : NP_TRAILER;
    return c == '\r' || is_text(c) ? NP_BODY_MORE : NP_BODY_MALFORMED;
  case NP_TRAILER:
    if (c == '\r') b->at = NP_TRAILER_LF;
    return c == '\r' || is_text(c) ? NP_BODY_MORE : NP_BODY_MALFORMED;
  case NP_TRAILER_LF: b->at = NP_TRAILER_START; return c == '\n' ? NP_BODY_MORE : NP_BODY_MALFORMED;
  case NP_TRAILER_END: return c == '\n' ? whole(b) : NP_BODY_MALFORMED;
  case NP_CHUNK_NONE:
  case NP_CHUNK_DATA: break; /* content, which does not come here */
  }
  return NP_BODY_MALFORMED;
}

enum np_http_body_state np_http_body_feed(struct np_http_body *b, const char *s, size_t n, size_t *used, struct np_buf *out) {
  enum np_http_body_state state = NP_BODY_MORE;
  size_t i = 0;
  while (i < n && state == NP_BODY_MORE) {
    if (b->at != NP_CHUNK_NONE && b->at != NP_CHUNK_DATA) {
      state = framing(b, s[i++]);
      continue;
    }
    size_t take = n - i < b->left ? n - i : (size_t)b->left;
    state = content(b, s + i, take, out);
    i += take;
    if (state != NP_BODY_MORE || b->left) continue;
    if (b->at == NP_CHUNK_NONE)
      state = whole(b);
    else
      b->at = NP_CHUNK_DATA_CR;
  }
  *used = i;
  return state;
}

void np_http_body_free(struct np_http_body *b) {
  if (b->z) {
    inflateEnd(b->z);
    free(b->z);
  }
  *b = (struct np_http_body){0};
}
