/* Signs of a set of files that is still being written, in a folder of the test's own. */
#include "host/unfinished.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

static char folder[] = "/tmp/neap-unfinished-XXXXXX";

static void run(const char *command) {
  char line[300];
  snprintf(line, sizeof line, "cd %s && %s", folder, command);
  if (system(line) != 0) exit(1);
}

static bool is_sign(const char *command, const char *path, int ms) {
  char root[300];
  struct np_buf sign = {0};
  run(command);
  snprintf(root, sizeof root, "%s/a/plugins", folder);
  bool found = np_unfinished(root, ms, &sign);
  if (found) CHECK(strstr(np_buf_text(&sign), path), "%s", np_buf_text(&sign));
  np_buf_free(&sign);
  run("rm -rf a/.git a/plugins/.[!.]* a/plugins/rules/.[!.]*");
  return found;
}

int main(void) {
  static const struct {
    const char *file;
    bool sign;
  } files[] = {{"plugins/rules/.low.lua.aB3xY9", true},
               {"plugins/.x.lua.000000", true},
               {"plugins/rules/.~tmp~", true},
               {"plugins/.hold", true},
               {".git/index.lock", true},
               {"plugins/.git/index.lock", true},
               {"plugins/rules/.low.lua.swp", false},
               {"plugins/rules/.hold", false},
               {"plugins/rules/.low.lua.aB3x-9", false},
               {"plugins/rules/.#low.lua", false},
               {"plugins/rules/.low.lua.aB3", false},
               {"plugins/rules/.lua.aB3xY9", false},
               {".git/index", false},
               {".hold", false},
               {".git/HEAD.lock", false}};
  char command[200];
  if (!mkdtemp(folder)) return 1;
  run("mkdir -p a/plugins/rules && ln -s . a/plugins/loop && ln -s nowhere a/plugins/broken");
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(command, sizeof command, "mkdir -p \"$(dirname a/%s)\" && touch a/%s", files[i].file, files[i].file);
    CHECK(is_sign(command, files[i].file, 30000) == files[i].sign, "%s", files[i].file);
    CHECK(!is_sign(command, files[i].file, -1000), "%s", files[i].file); /* left behind: older than that */
  }
  CHECK(is_sign("mkdir b && touch b/index.lock && echo \"gitdir: ../b\" > a/.git", "b/index.lock", 30000));
  snprintf(command, sizeof command, "echo \"gitdir: %s/b\" > a/.git", folder);
  CHECK(is_sign(command, "b/index.lock", 30000));
  CHECK(!is_sign("echo \"gitdir: ../nowhere\" > a/.git", "", 30000));
  CHECK(!is_sign("echo broken > a/.git", "", 30000));
  CHECK(!is_sign("rm -rf a/plugins; mkdir -p a", "", 30000));
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command) != 0 || check_end();
}
