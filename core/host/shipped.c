/* The plugins that came with this neap. A program that was moved as a whole, with its share/, finds its own. */
#include "host/shipped.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

#ifndef NP_PLUGINS
#define NP_PLUGINS "/usr/local/share/neap/plugins"
#endif

/* "/opt/neap/bin/neap" -> "/opt/neap/share/neap/plugins". NULL where the program is in no bin/, or there is no such folder. */
static char *beside_program(void) {
  char program[PATH_MAX];
  struct stat st;
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  if (n < 0) return NULL;
  program[n] = 0;
  char *slash = strrchr(program, '/');
  if (!slash) return NULL;
  *slash = 0;
  slash = strrchr(program, '/');
  if (!slash || strcmp(slash, "/bin") != 0) return NULL;
  struct np_buf path = {0};
  np_buf_addf(&path, "%.*s/share/neap/plugins", (int)(slash - program), program);
  if (stat(path.data, &st) == 0 && S_ISDIR(st.st_mode)) return path.data;
  np_buf_free(&path);
  return NULL;
}

char *np_shipped_folder(void) {
  char *path = beside_program();
  return path ? path : np_strdup(NP_PLUGINS);
}

static bool look(struct np_buf *hint, const char *shipped, const char *folder, const char *file) {
  struct np_buf path = {0};
  struct stat st;
  np_buf_addf(&path, "%s/%s/%s.lua", shipped, folder, file);
  bool found = stat(path.data, &st) == 0 && S_ISREG(st.st_mode);
  if (found) np_buf_addf(hint, "; neap came with one: copy it from %s", path.data);
  np_buf_free(&path);
  return found;
}

char *np_shipped_hint(bool library, const char *name) {
  static const char *const folders[] = {"vendors", "rules", "destinations"};
  struct np_buf hint = {0};
  if (strchr(name, '/')) return np_strdup("");
  char *shipped = np_shipped_folder(), *file = np_strdup(name);
  for (char *c = file; library && *c; c++)
    if (*c == '.') *c = '/';
  bool found = library && look(&hint, shipped, "lib", file);
  for (size_t i = 0; !library && !found && i < sizeof folders / sizeof *folders; i++)
    found = look(&hint, shipped, folders[i], file);
  free(shipped), free(file);
  return found ? hint.data : np_strdup("");
}
