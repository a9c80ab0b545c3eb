/* Sentences about failures. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int(np_fail)(struct np_error *err, const char *format, ...) { /* in brackets: for make lint it is a macro too, see spec/lint.h */
  if (!err) return -1;
  va_list args;
  va_start(args, format);
  int n = vsnprintf(err->text, sizeof err->text, format, args);
  va_end(args);
  if (n >= (int)sizeof err->text) memcpy(err->text + sizeof err->text - 4, "...", 4);
  return -1;
}
