/* Hexadecimal and base64 (RFC 4648), strict: one text for one value, so that a signed text cannot be varied. */
#include <limits.h>

#include "lib/crypto.h"

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void np_hex(char *out, const void *bytes, size_t n) {
  static const char digits[] = "0123456789abcdef";
  const uint8_t *p = bytes;
  for (size_t i = 0; i < n; i++) {
    *out++ = digits[p[i] >> 4];
    *out++ = digits[p[i] & 15];
  }
}

size_t np_base64(char *out, const void *bytes, size_t n, bool url) {
  const char *set = url ? url_safe : standard, *start = out;
  const uint8_t *p = bytes;
  for (; n >= 3; n -= 3, p += 3) {
    *out++ = set[p[0] >> 2];
    *out++ = set[(p[0] & 3) << 4 | p[1] >> 4];
    *out++ = set[(p[1] & 15) << 2 | p[2] >> 6];
    *out++ = set[p[2] & 63];
  }
  if (n) {
    *out++ = set[p[0] >> 2];
    *out++ = set[(p[0] & 3) << 4 | (n == 2 ? p[1] >> 4 : 0)];
    if (n == 2)
      *out++ = set[(p[1] & 15) << 2];
    else if (!url)
      *out++ = '=';
    if (!url) *out++ = '=';
  }
  return (size_t)(out - start);
}

static int digit_of(unsigned char c, bool url) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == (url ? '-' : '+')) return 62;
  if (c == (url ? '_' : '/')) return 63;
  return -1;
}

ptrdiff_t np_unbase64(uint8_t *out, const char *text, size_t n, enum np_base64 form) {
  const uint8_t *start = out;
  bool url = form != NP_BASE64_STRICT;
  if (form == NP_BASE64_STRICT && n % 4 != 0) return -1;
  if (form != NP_BASE64_URL && n % 4 == 0 && n && text[n - 1] == '=') n -= text[n - 2] == '=' ? 2 : 1;
  if (n % 4 == 1) return -1;
  uint32_t bits = 0;
  for (size_t i = 0; i < n; i++) {
    int d = digit_of((unsigned char)text[i], url);
    if (d < 0) return -1;
    bits = bits << 6 | (uint32_t)d;
    if (i % 4 == 3) {
      *out++ = (uint8_t)(bits >> 16);
      *out++ = (uint8_t)(bits >> 8);
      *out++ = (uint8_t)bits;
    }
  }
  if (n % 4 == 2) {
    if (bits & 15) return -1;
    *out++ = (uint8_t)(bits >> 4);
  } else if (n % 4 == 3) {
    if (bits & 3) return -1;
    *out++ = (uint8_t)(bits >> 10);
    *out++ = (uint8_t)(bits >> 2);
  }
  return out - start;
}

static const char *check_text(lua_State *L, size_t *n) {
  const char *s = luaL_checklstring(L, 1, n);
  luaL_argcheck(L, *n <= INT_MAX, 1, "longer than 2 GB");
  np_spend(L, (int64_t)(*n / 4));
  return s;
}

/*** Lower-case hexadecimal.
 * @param s string  @return string */
static int hex(lua_State *L) {
  size_t n;
  const char *s = check_text(L, &n);
  luaL_Buffer b;
  np_hex(luaL_buffinitsize(L, &b, NP_HEX_SIZE(n)), s, n);
  luaL_pushresultsize(&b, NP_HEX_SIZE(n));
  return 1;
}

static int hex_digit(unsigned char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*** Bytes of a hexadecimal text in either case.
 * @param s string  @return string? bytes, or nil, why, "format" */
static int unhex(lua_State *L) {
  size_t n;
  const char *s = check_text(L, &n);
  if (n % 2) return np_crypto_no(L, "unhex", "an odd number of digits", "format");
  luaL_Buffer b;
  char *out = luaL_buffinitsize(L, &b, n / 2);
  for (size_t i = 0; i < n; i += 2) {
    int high = hex_digit((unsigned char)s[i]), low = hex_digit((unsigned char)s[i + 1]);
    if (high < 0 || low < 0) return np_crypto_no(L, "unhex", "a character that is no hexadecimal digit", "format");
    *out++ = (char)(high << 4 | low);
  }
  luaL_pushresultsize(&b, n / 2);
  return 1;
}

static int encode(lua_State *L, bool url) {
  size_t n;
  const char *s = check_text(L, &n);
  luaL_Buffer b;
  char *out = luaL_buffinitsize(L, &b, NP_BASE64_SIZE(n));
  luaL_pushresultsize(&b, np_base64(out, s, n, url));
  return 1;
}

static int decode(lua_State *L, const char *what, enum np_base64 form) {
  size_t n;
  const char *s = check_text(L, &n);
  luaL_Buffer b;
  char *out = luaL_buffinitsize(L, &b, n / 4 * 3 + 2);
  ptrdiff_t len = np_unbase64((uint8_t *)out, s, n, form);
  if (len < 0) return np_crypto_no(L, what, "the text is not base64 as RFC 4648 has it", "format");
  luaL_pushresultsize(&b, (size_t)len);
  return 1;
}

/*** Base64 with padding, on one line.
 * @param s string  @return string */
static int base64(lua_State *L) { return encode(L, false); }

/*** Bytes of a base64 text. Padding is required, white space refused.
 * @param s string  @return string? bytes, or nil, why, "format" */
static int unbase64(lua_State *L) { return decode(L, "unbase64", NP_BASE64_STRICT); }

/*** Base64 in the URL alphabet, without padding.
 * @param s string  @return string */
static int base64url(lua_State *L) { return encode(L, true); }

/*** Bytes of a base64 text in the URL alphabet, with its padding or without.
 * @param s string  @return string? bytes, or nil, why, "format" */
static int unbase64url(lua_State *L) { return decode(L, "unbase64url", NP_BASE64_URL_EITHER); }

const luaL_Reg np_crypto_text[] = {{"hex", hex},
                                   {"unhex", unhex},
                                   {"base64", base64},
                                   {"unbase64", unbase64},
                                   {"base64url", base64url},
                                   {"unbase64url", unbase64url},
                                   {NULL, NULL}};
