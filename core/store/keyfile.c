/* The key file. */
#include "store/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/clock.h"

enum { DIGITS = 2 * NP_SEAL_KEY };
#define SPACE "host" /* no plugin's: those begin with "plugin:" and the like */
#define CHECK "seal"

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 64 hex digits, and blanks after them at the most. */
static int parse(const char *text, size_t n, unsigned char key[NP_SEAL_KEY]) {
  while (n && strchr(" \t\r\n", text[n - 1])) n--;
  if (n != DIGITS) return -1;
  for (int i = 0; i < NP_SEAL_KEY; i++) {
    int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return -1;
    key[i] = (unsigned char)(high << 4 | low);
  }
  return 0;
}

/* 1 and the key; 0 where there is no such file; -1 and err. */
static int read_key(const char *path, unsigned char key[NP_SEAL_KEY], struct np_error *err) {
  char text[DIGITS + 64];
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), result = -1;
  if (fd < 0 && errno == ENOENT) return 0;
  if (fd < 0 || fstat(fd, &st) < 0) {
    np_fail(err, "the key file %s cannot be read: %s", path, strerror(errno));
  } else if (!S_ISREG(st.st_mode)) {
    np_fail(err, "the key file %s is not a file", path);
  } else if (st.st_mode & 077) {
    np_fail(err, "the key file %s can be read or written by others (mode %03o): chmod 600 %s", path, st.st_mode & 0777, path);
  } else {
    ssize_t n = read(fd, text, sizeof text);
    if (n < 0)
      np_fail(err, "the key file %s cannot be read: %s", path, strerror(errno));
    else if (parse(text, (size_t)n, key) < 0)
      np_fail(err, "the key file %s is no key: it has to be 64 hex digits; restore it from its backup", path);
    else
      result = 1;
    OPENSSL_cleanse(text, sizeof text);
  }
  if (fd >= 0) close(fd);
  return result;
}

static int sync_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  char *folder = slash ? np_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : np_strdup(".");
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = fd < 0 ? -1 : fsync(fd);
  if (fd >= 0) close(fd);
  free(folder);
  return result;
}

/* On disk, whole, before anything is sealed with it. */
static int make_key(const char *path, unsigned char key[NP_SEAL_KEY], struct np_error *err) {
  char text[DIGITS + 2];
  if (getrandom(key, NP_SEAL_KEY, 0) != NP_SEAL_KEY) return np_fail(err, "no random bytes: %s", strerror(errno));
  for (int i = 0; i < NP_SEAL_KEY; i++) snprintf(text + 2 * i, 3, "%02x", key[i]);
  text[DIGITS] = '\n';
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), result = -1;
  if (fd < 0) {
    np_fail(err, "the key file %s cannot be made: %s", path, strerror(errno));
  } else {
    if (write(fd, text, DIGITS + 1) == DIGITS + 1 && fsync(fd) == 0 && sync_folder(path) == 0) result = 0;
    if (result < 0) {
      np_fail(err, "the key file %s cannot be written: %s", path, strerror(errno));
      unlink(path); /* half a key helps nobody, and nothing is sealed with it */
    }
    close(fd);
  }
  OPENSSL_cleanse(text, sizeof text);
  return result;
}

static int save_check(struct np_store *store, const char *check, struct np_error *err) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, SPACE, strlen(SPACE));
  op->as.put.key = np_writeset_text(ws, CHECK, strlen(CHECK));
  op->as.put.value = np_writeset_text(ws, check, strlen(check));
  int result = np_store_apply(store, &ws, 1, err);
  if (result == 0 && ws->outcome != NP_COMMITTED) result = np_fail(err, "%s", ws->error);
  np_writeset_unref(ws);
  return result;
}

/* Does the key fit what the store is sealed with? A store that was never sealed takes it. */
static int match(struct np_store *store, const struct np_seal *seal, const char *known, const char *path, struct np_error *err) {
  char check[33];
  np_seal_check(seal, check);
  if (!*known) return save_check(store, check, err);
  if (strcmp(known, check) == 0) return 0;
  return np_fail(
      err,
      "the key file %s is not the one that this store is sealed with: put the right one back, from its backup, or use the "
      "store that belongs to it",
      path);
}

struct np_seal *np_keyfile_open(struct np_store *store, struct np_reader *reader, const char *path, bool *made,
                                struct np_error *err) {
  unsigned char key[NP_SEAL_KEY];
  struct np_buf known = {0};
  struct np_seal *seal = NULL;
  int64_t version;
  *made = false;
  int found = np_reader_get(reader, SPACE, CHECK, strlen(CHECK), np_now_ms(), &known, &version, err), has = -1;
  if (found >= 0) has = read_key(path, key, err);
  if (has == 0 && found == 1) {
    has = np_fail(
        err,
        "the key file %s is missing, and this store is sealed with it: restore it from its backup. Without it, what is sealed "
        "cannot be read by anybody",
        path);
  } else if (has == 0) {
    has = make_key(path, key, err);
    *made = has == 0;
  }
  if (has >= 0) seal = np_seal_new(key, err);
  if (seal && match(store, seal, np_buf_text(&known), path, err) < 0) {
    np_seal_free(seal);
    seal = NULL;
  }
  OPENSSL_cleanse(key, sizeof key);
  np_buf_free(&known);
  return seal;
}
