/* neap types, and writing files. */
#include "cli/types.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

#define FILES(X) X(plugin) X(shapes) X(crypto) X(file) X(http) X(json) X(log) X(mqtt) X(smtp) X(time) X(webhooks) X(test)
#define DECLARE(name) extern const char _binary_core_types_##name##_lua_start[], _binary_core_types_##name##_lua_end[];
#define ENTRY(name) {#name, _binary_core_types_##name##_lua_start, _binary_core_types_##name##_lua_end},
FILES(DECLARE)

static const struct { const char *name, *start, *end; } files[] = {FILES(ENTRY)};

int np_cli_write(const char *path, const char *text, size_t len, bool fresh, struct np_error *err) {
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (fresh ? O_EXCL : O_TRUNC), 0666);
  if (fd < 0) return np_fail(err, "%s: cannot be written: %s", path, strerror(errno));
  ssize_t n = 1;
  while (len && (n = write(fd, text, len)) > 0) text += n, len -= (size_t)n;
  int why = n < 0 ? errno : 0;
  if (close(fd) < 0 && !why) why = errno;
  if (why && fresh) unlink(path); /* no half of a file stays */
  errno = why;
  return why ? np_fail(err, "%s: cannot be written: %s", path, strerror(why)) : 0;
}

int np_cli_folder(const char *path, struct np_error *err) {
  char *copy = np_strdup(path);
  struct stat st;
  int result = 0;
  for (char *at = copy + 1; result == 0; at++) {
    if (*at && *at != '/') continue;
    char end = *at;
    *at = 0;
    if (mkdir(copy, 0777) < 0 && (errno != EEXIST || stat(copy, &st) < 0 || !S_ISDIR(st.st_mode)))
      result = np_fail(err, "%s: no folder can be made: %s", copy, strerror(errno));
    *at = end;
    if (!end) break;
  }
  free(copy);
  return result;
}

/* Is it one that may be overwritten? What is not there is. */
static bool is_ours(const char *path) {
  char head[9] = "";
  FILE *f = fopen(path, "r");
  if (!f) return errno == ENOENT;
  size_t n = fread(head, 1, 8, f);
  fclose(f);
  return n == 8 && strcmp(head, "---@meta") == 0;
}

int np_types_write(const char *folder, struct np_error *err) {
  struct np_buf path = {0};
  np_buf_addf(&path, "%s/neap", folder);
  int result = np_cli_folder(path.data, err);
  for (size_t i = 0; i < sizeof files / sizeof *files && result == 0; i++) {
    np_buf_free(&path);
    np_buf_addf(&path, "%s/neap/%s.lua", folder, files[i].name);
    if (!is_ours(path.data))
      result = np_fail(err, "%s: is there, and neap has not written it: give another folder", path.data);
    else
      result = np_cli_write(path.data, files[i].start, (size_t)(files[i].end - files[i].start), false, err);
  }
  np_buf_free(&path);
  return result;
}

void np_cli_wrote(const char *path, bool json) {
  struct np_buf b = {0};
  if (json) np_buf_add_json(&b, path, strlen(path));
  printf(json ? "{\"wrote\":%s}\n" : "wrote %s\n", json ? b.data : path);
  np_buf_free(&b);
}
