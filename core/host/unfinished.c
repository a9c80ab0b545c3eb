/* Signs of a set of files that is still being written. */
#include "host/unfinished.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define DEPTH_MAX 8

static bool is_young(const char *path, int ms) {
  struct stat st;
  if (lstat(path, &st) < 0) return false;
  int64_t changed = (int64_t)st.st_ctim.tv_sec * 1000 + st.st_ctim.tv_nsec / 1000000;
  return np_now_ms() - changed < ms;
}

/* rsync writes ".low.lua.aB3xYz" and renames it; with --delay-updates it keeps all in ".~tmp~" until the end. */
static bool is_of_rsync(const char *name) {
  if (strcmp(name, ".~tmp~") == 0) return true;
  size_t n = strlen(name);
  if (name[0] != '.' || n < 13 || memcmp(name + n - 11, ".lua.", 5) != 0) return false;
  for (size_t i = n - 6; i < n; i++)
    if (!isalnum((unsigned char)name[i])) return false;
  return true;
}

static bool look_into(struct np_buf *path, int ms, int depth) {
  DIR *d = depth > DEPTH_MAX ? NULL : opendir(np_buf_text(path));
  bool found = false;
  size_t len = path->len;
  for (struct dirent *e; d && !found && (e = readdir(d));) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    np_buf_addf(path, "/%s", e->d_name);
    if (e->d_name[0] == '.')
      found = (is_of_rsync(e->d_name) || (depth == 0 && strcmp(e->d_name, ".hold") == 0)) && is_young(path->data, ms);
    else if (e->d_type == DT_DIR || e->d_type == DT_LNK || e->d_type == DT_UNKNOWN)
      found = look_into(path, ms, depth + 1); /* of what is no folder opendir says so */
    if (found) break;
    path->len = len;
    path->data[len] = 0;
  }
  if (d) closedir(d);
  return found;
}

/* Of a worktree or submodule .git is a file that names the folder: "gitdir: PATH". */
static void add_git_folder(struct np_buf *path) {
  char line[1024];
  FILE *f = fopen(path->data, "re");
  bool named = f && fgets(line, sizeof line, f) && strncmp(line, "gitdir: ", 8) == 0;
  if (f) fclose(f);
  if (!named) return;
  line[strcspn(line, "\n")] = 0;
  if (line[8] == '/')
    path->len = 0;
  else
    path->len -= 4; /* beside .git */
  np_buf_adds(path, line + 8);
}

/* git holds its index's lock from before it writes the first file until after the last. */
static bool git_is_at_work(const char *root, int ms, struct np_buf *sign) {
  struct stat st;
  char *real = realpath(root, NULL);
  for (char *end; real && *real; *end = 0) {
    np_buf_clear(sign);
    np_buf_addf(sign, "%s/.git", real);
    end = strrchr(real, '/');
    if (lstat(sign->data, &st) < 0) continue;
    if (S_ISREG(st.st_mode)) add_git_folder(sign);
    np_buf_adds(sign, "/index.lock");
    bool found = is_young(sign->data, ms);
    free(real);
    return found;
  }
  free(real);
  return false;
}

bool np_unfinished(const char *root, int ms, struct np_buf *sign) {
  if (git_is_at_work(root, ms, sign)) return true;
  np_buf_clear(sign);
  np_buf_adds(sign, root);
  return look_into(sign, ms, 0);
}
