#include "base/real.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t np_real_text(char text[NP_REAL_TEXT], double d) {
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, NP_REAL_TEXT, "%.*g", digits, d);
    if (strtod(text, NULL) == d) break;
  }
  if (!strpbrk(text, ".eEni")) strcat(text, ".0");
  return strlen(text);
}
