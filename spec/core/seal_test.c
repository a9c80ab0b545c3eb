/* Sealing and the key file: what goes in comes out, and nothing else does. */
#include "store/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "store/keyfile.h"

static const unsigned char one[] = "the first key, 32 bytes, of test", other[] = "another key, of 32 bytes, a test";
static const struct np_seal_context here = {"kv", "plugin:ward-3", "token", 5};

static struct np_seal *seal_of(const unsigned char *key) {
  struct np_error err;
  struct np_seal *s = np_seal_new(key, &err);
  CHECK(s, "%s", err.text);
  if (!s) exit(check_end());
  return s;
}

static void round_trip(struct np_seal *s) {
  static const size_t sizes[] = {0, 1, 15, 16, 17, 380, 4096, 100000, 3000000};
  struct np_error err;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    size_t n = sizes[i];
    char *plain = malloc(n + 1), *sealed = malloc(n + NP_SEAL_MORE), *back = malloc(n + 1);
    for (size_t k = 0; k < n; k++) plain[k] = (char)(k * 31 + i);
    np_seal_put(s, &here, plain, n, sealed);
    CHECK(np_seal_is(sealed, n + NP_SEAL_MORE), "%zu bytes look sealed", n);
    long got = np_seal_get(s, &here, sealed, n + NP_SEAL_MORE, back, &err);
    CHECK(got == (long)n && memcmp(back, plain, n) == 0, "%zu bytes come back: %ld", n, got);
    if (n >= 15) CHECK(!memmem(sealed, n + NP_SEAL_MORE, plain, 15), "%zu bytes do not stand there in clear", n);
    free(plain), free(sealed), free(back);
  }
}

static void same_twice_differs(struct np_seal *s) {
  char a[5 + NP_SEAL_MORE], b[5 + NP_SEAL_MORE];
  np_seal_put(s, &here, "hello", 5, a);
  np_seal_put(s, &here, "hello", 5, b);
  CHECK(memcmp(a + 2 + 16, b + 2 + 16, 12) != 0 && memcmp(a + 30, b + 30, 5) != 0, "a nonce is never used again");
}

static void every_bit_counts(struct np_seal *s) {
  static const char text[] = "{\"idCard\":\"11010519491231002X\"}";
  enum { N = sizeof text - 1 };
  char sealed[N + NP_SEAL_MORE], back[N];
  struct np_error err;
  int opened = 0;
  np_seal_put(s, &here, text, N, sealed);
  for (size_t i = 0; i < sizeof sealed; i++)
    for (int bit = 0; bit < 8; bit++) {
      sealed[i] ^= (char)(1 << bit);
      opened += np_seal_get(s, &here, sealed, sizeof sealed, back, &err) >= 0;
      sealed[i] ^= (char)(1 << bit);
    }
  CHECK(opened == 0, "a changed bit is noticed, wherever it is: %d were not", opened);
  for (size_t n = 0; n < sizeof sealed; n++) opened += np_seal_get(s, &here, sealed, n, back, &err) >= 0;
  CHECK(opened == 0, "a cut value is noticed: %d were not", opened);
  CHECK(np_seal_get(s, &here, sealed, sizeof sealed, back, &err) == N, "and the whole one opens still");
}

static void places(struct np_seal *s) {
  static const struct np_seal_context elsewhere[] = {{"kv", "plugin:ward-3", "tokem", 5},   {"kv", "plugin:ward-3", "token", 4},
                                                     {"kv", "plugin:ward-4", "token", 5},   {"person", "plugin:ward-3", "token", 5},
                                                     {"kv", "plugin:ward-3token", "", 0},   {"kv", "plugin:ward-3", "", 0},
                                                     {"k", "v", "plugin:ward-3\0token", 19}};
  char sealed[6 + NP_SEAL_MORE], back[6];
  struct np_error err;
  np_seal_put(s, &here, "secret", 6, sealed);
  for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
    CHECK(np_seal_get(s, &elsewhere[i], sealed, sizeof sealed, back, &err) < 0, "place %zu does not open it", i);
  struct np_seal *o = seal_of(other);
  CHECK(np_seal_get(o, &here, sealed, sizeof sealed, back, &err) < 0 && strstr(err.text, "another key"), "another key does not");
  np_seal_free(o);
  struct np_seal *again = seal_of(one);
  CHECK(np_seal_get(again, &here, sealed, sizeof sealed, back, &err) == 6, "the same key of another run does");
  np_seal_free(again);
}

static void references(struct np_seal *s) {
  char a[NP_SEAL_REFERENCE + 1], b[NP_SEAL_REFERENCE + 1];
  np_seal_reference(s, "ward-3", "patient:1", 9, a);
  np_seal_reference(s, "ward-3", "patient:1", 9, b);
  CHECK(strcmp(a, b) == 0 && np_seal_is_reference(a, strlen(a)), "always the same: %s", a);
  np_seal_reference(s, "ward-", "3patient:1", 10, b);
  CHECK(strcmp(a, b) != 0, "a connection and a key do not run together");
  struct np_seal *o = seal_of(other);
  np_seal_reference(o, "ward-3", "patient:1", 9, b);
  CHECK(strcmp(a, b) != 0, "another key gives another");
  np_seal_free(o);
  CHECK(!np_seal_is_reference("p_0123456789abcdef0123456789abcdeF", 34) && !np_seal_is_reference(a, 33) &&
            !np_seal_is_reference("", 0),
        "what is none");
}

struct worker {
  pthread_t thread;
  struct np_seal *seal;
  char sealed[500][8 + NP_SEAL_MORE];
};

static void *seal_many(void *arg) {
  struct worker *w = arg;
  for (int i = 0; i < 500; i++) np_seal_put(w->seal, &here, "a secret", 8, w->sealed[i]);
  return NULL;
}

static int compare(const void *a, const void *b) { return memcmp((const char *)a + 2, (const char *)b + 2, 28); }

static void threads(struct np_seal *s) {
  enum { N = 4 };
  static struct worker workers[N];
  static char all[N * 500][8 + NP_SEAL_MORE];
  struct np_error err;
  char back[8];
  int bad = 0;
  for (int i = 0; i < N; i++) {
    workers[i].seal = s;
    pthread_create(&workers[i].thread, NULL, seal_many, &workers[i]);
  }
  for (int i = 0; i < N; i++) {
    pthread_join(workers[i].thread, NULL);
    memcpy(all[i * 500], workers[i].sealed, sizeof workers[i].sealed);
  }
  for (int i = 0; i < N * 500; i++)
    bad += np_seal_get(s, &here, all[i], sizeof all[i], back, &err) != 8 || memcmp(back, "a secret", 8) != 0;
  CHECK(bad == 0, "each thread's open on another: %d do not", bad);
  qsort(all, N * 500, sizeof *all, compare);
  for (int i = 1; i < N * 500; i++) bad += compare(all[i - 1], all[i]) == 0;
  CHECK(bad == 0, "salt and nonce are never the same twice");
}

/* Bytes of any kind open to nothing, and read nothing that is not theirs: what they are is read from them. */
static void noise(struct np_seal *s) {
  unsigned seed = 20240221;
  struct np_error err;
  int opened = 0;
  for (int i = 0; i < 20000; i++) {
    size_t n = (size_t)(rand_r(&seed) % 300);
    char *bytes = malloc(n + 1), *back = malloc(n + 1);
    for (size_t k = 0; k < n; k++) bytes[k] = (char)rand_r(&seed);
    if (n > 1 && i % 2) memcpy(bytes, "\0\1", 2);
    opened += np_seal_get(s, &here, bytes, n, back, &err) >= 0;
    free(bytes), free(back);
  }
  CHECK(opened == 0, "noise does not open: %d did", opened);
}

/* The key file. */

static char folder[] = "/tmp/neap-seal-XXXXXX";

struct opened {
  struct np_store *store;
  struct np_reader *reader;
};

static struct opened open_store(void) {
  char path[80];
  struct np_error err;
  snprintf(path, sizeof path, "%s/neap.db", folder);
  struct opened o = {.store = np_store_open(path, &err)};
  CHECK(o.store, "%s", err.text);
  o.reader = o.store ? np_reader_open(path, &err) : NULL;
  if (!o.reader) exit(check_end());
  return o;
}

/* Opens the store's seal by the key file of that name; "" where it does, else why not. */
static const char *try(const char *name, bool *made, char check[33]) {
  static struct np_error err;
  char path[80];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  struct opened o = open_store();
  struct np_seal *s = np_keyfile_open(o.store, o.reader, path, made, &err);
  if (s) {
    err.text[0] = 0;
    np_seal_check(s, check);
  }
  np_seal_free(s);
  np_reader_close(o.reader);
  np_store_close(o.store);
  return err.text;
}

static void write_file(const char *name, const char *text, mode_t mode) {
  char path[80];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  unlink(path);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
  CHECK(fd >= 0 && fchmod(fd, mode) == 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path,
        strerror(errno));
  close(fd);
}

static void key_file(void) {
  bool made;
  char first[33], second[33], path[80], moved[80];
  struct stat st;
  snprintf(path, sizeof path, "%s/k", folder);
  snprintf(moved, sizeof moved, "%s/moved", folder);
  CHECK(!*try("k", &made, first) && made, "it is made at the first start");
  CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 && st.st_size == 65, "mode 600, 64 digits and a line's end: %o",
        st.st_mode & 0777);
  CHECK(!*try("k", &made, second) && !made && strcmp(first, second) == 0, "and read at the next");
  chmod(path, 0640);
  CHECK(strstr(try("k", &made, second), "chmod 600"), "not where others can read it");
  chmod(path, 0600);
  CHECK(rename(path, moved) == 0, "");
  CHECK(strstr(try("k", &made, second), "is missing") && !made && access(path, F_OK) < 0, "a lost one is not made anew");
  write_file("k", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 0600);
  CHECK(strstr(try("k", &made, second), "is not the one"), "another one is told");
  CHECK(!*try("moved", &made, second) && strcmp(first, second) == 0, "at another place it is the same");
  static const char *const bad[] = {"",
                                    "\n",
                                    "0123",
                                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde",
                                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeg",
                                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_file("k", bad[i], 0600);
    CHECK(strstr(try("k", &made, second), "64 hex digits"), "\"%s\" is no key", bad[i]);
  }
  unlink(path);
  mkdir(path, 0700);
  CHECK(strstr(try("k", &made, second), "is not a file"), "a folder is none");
  CHECK(strstr(try("nowhere/k", &made, second), "is missing"), "nor is what is in no folder");
}

int main(void) {
  if (!mkdtemp(folder)) return 1;
  struct np_seal *s = seal_of(one);
  round_trip(s);
  same_twice_differs(s);
  every_bit_counts(s);
  places(s);
  references(s);
  threads(s);
  noise(s);
  np_seal_free(s);
  key_file();
  char command[100];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  if (system(command) != 0) return 1;
  return check_end();
}
