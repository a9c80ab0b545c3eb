/* Numbers as text. */
#ifndef NP_BASE_REAL_H
#define NP_BASE_REAL_H

#include <stddef.h>

#define NP_REAL_TEXT 40
/* The shortest text that reads back as the same number, with a point or an exponent so that it reads as no integer; d is finite. Its length. */
size_t np_real_text(char text[NP_REAL_TEXT], double d);

#endif
