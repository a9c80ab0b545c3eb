/* One strict pass over a JSON text (RFC 8259) before lua-cjson reads it. It refuses what is not JSON, which cjson in part accepts, and
 * where cjson would lose something it writes the text anew with that value in a string of its own, which begins with U+0001 (a tag):
 *   []                               "\u0001"
 *   a number cjson would blur        "\u0001" and the number as it stands
 *   a string that begins with U+0001 one more U+0001 before it
 * Names of members are never tagged. Knows nothing of Lua. */
#ifndef NP_LIB_JSON_SIEVE_H
#define NP_LIB_JSON_SIEVE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

#define NP_JSON_DEPTH 128 /* arrays and objects within each other, at most */
#define NP_JSON_TAG 1     /* the byte a tagged string begins with */

struct np_json_sieve {
  struct np_buf *out; /* borrowed; in: empty. Holds the text to read where `rewritten` */
  bool rewritten;     /* the text needed a tag */
  bool restore;       /* what cjson makes of it has integers, arrays or tags to put right */
  int depth;          /* how deep it is */
  size_t values;      /* how much is in it, for a bound on the memory it needs: values, members, arrays and objects */
  size_t members;
  size_t tables;
};

/* 0, or -1 and err: "not JSON: unexpected '}' at byte 17 (line 2)". text need not be terminated. */
int np_json_sieve(struct np_json_sieve *s, const char *text, size_t len, struct np_error *err);

#endif
