/* Writing an answer's head. */
#include "io/http_reply.h"

#include <string.h>
#include <strings.h>
#include <time.h>

#include "io/http_head.h"

const char *np_http_reason(int status) {
  switch (status) {
  case 200: return "OK";
  case 201: return "Created";
  case 202: return "Accepted";
  case 204: return "No Content";
  case 206: return "Partial Content";
  case 301: return "Moved Permanently";
  case 302: return "Found";
  case 303: return "See Other";
  case 304: return "Not Modified";
  case 307: return "Temporary Redirect";
  case 308: return "Permanent Redirect";
  case 400: return "Bad Request";
  case 401: return "Unauthorized";
  case 402: return "Payment Required";
  case 403: return "Forbidden";
  case 404: return "Not Found";
  case 405: return "Method Not Allowed";
  case 406: return "Not Acceptable";
  case 408: return "Request Timeout";
  case 409: return "Conflict";
  case 410: return "Gone";
  case 411: return "Length Required";
  case 412: return "Precondition Failed";
  case 413: return "Content Too Large";
  case 414: return "URI Too Long";
  case 415: return "Unsupported Media Type";
  case 416: return "Range Not Satisfiable";
  case 417: return "Expectation Failed";
  case 421: return "Misdirected Request";
  case 422: return "Unprocessable Content";
  case 425: return "Too Early";
  case 426: return "Upgrade Required";
  case 428: return "Precondition Required";
  case 429: return "Too Many Requests";
  case 431: return "Request Header Fields Too Large";
  case 500: return "Internal Server Error";
  case 501: return "Not Implemented";
  case 502: return "Bad Gateway";
  case 503: return "Service Unavailable";
  case 504: return "Gateway Timeout";
  case 505: return "HTTP Version Not Supported";
  case 507: return "Insufficient Storage";
  default: return "Status";
  }
}

bool np_http_has_body(int status) { return status >= 200 && status != 204 && status != 304; }

void np_http_date(char to[NP_HTTP_DATE_SIZE], int64_t seconds) {
  static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  time_t t = (time_t)seconds;
  struct tm tm;
  gmtime_r(&t, &tm);
  char format[40] = "???, %d ??? %Y %H:%M:%S GMT"; /* %a and %b would follow the locale */
  memcpy(format, days + 3 * tm.tm_wday, 3);
  memcpy(format + 8, months + 3 * tm.tm_mon, 3);
  strftime(to, NP_HTTP_DATE_SIZE, format, &tm);
}

static void add_number(struct np_buf *out, uint64_t n) {
  char digits[20], *p = digits + sizeof digits;
  do *--p = (char)('0' + n % 10);
  while (n /= 10);
  np_buf_add(out, p, (size_t)(digits + sizeof digits - p));
}

static bool is_servers(const char *name) {
  return strcasecmp(name, "Date") == 0 || strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Connection") == 0 ||
         strcasecmp(name, "Transfer-Encoding") == 0;
}

static void add_header(struct np_buf *out, const char *name, const char *value) {
  np_buf_adds(out, name);
  np_buf_add(out, ": ", 2);
  np_buf_adds(out, value);
  np_buf_add(out, "\r\n", 2);
}

static void add_framing(struct np_buf *out, const struct np_http_reply *r) {
  if (!np_http_has_body(r->status) || r->length == NP_REPLY_UNTIL_CLOSE) return;
  if (r->length == NP_REPLY_CHUNKED) {
    np_buf_adds(out, "Transfer-Encoding: chunked\r\n");
    return;
  }
  np_buf_adds(out, "Content-Length: ");
  add_number(out, (uint64_t)r->length);
  np_buf_add(out, "\r\n", 2);
}

void np_http_reply_head(struct np_buf *out, const struct np_http_reply *r) {
  np_buf_add(out, "HTTP/1.1 ", 9);
  add_number(out, (uint64_t)r->status);
  np_buf_addc(out, ' ');
  np_buf_adds(out, np_http_reason(r->status));
  np_buf_add(out, "\r\nDate: ", 8);
  np_buf_adds(out, r->date);
  np_buf_add(out, "\r\n", 2);
  for (size_t i = 0; i < r->header_count; i++) {
    const struct np_header *f = &r->headers[i];
    if (np_http_is_token(f->name) && !f->value[strcspn(f->value, "\r\n")] && !is_servers(f->name))
      add_header(out, f->name, f->value);
  }
  if (r->connection) add_header(out, "Connection", r->connection);
  add_framing(out, r);
  np_buf_add(out, "\r\n", 2);
}
