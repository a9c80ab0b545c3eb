/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef NP_BASE_UTF8_H
#define NP_BASE_UTF8_H

#include <stddef.h>

/* Bytes of the character that starts at s (1 to 4), or 0 where s[0..n) starts with none. */
size_t np_utf8_len(const char *s, size_t n);
/* Offset of the first byte that is not UTF-8, or n where all of it is. */
size_t np_utf8_check(const char *s, size_t n);

#endif
