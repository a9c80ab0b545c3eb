/* The Lua files under plugins/. */
#include "host/sources.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/near.h"

#define DEPTH_MAX 8
#define FILE_MAX_BYTES (4u << 20)

void np_sha256_hex(const void *bytes, size_t n, char hex[65]) {
  unsigned char digest[32];
  EVP_Digest(bytes, n, digest, NULL, EVP_sha256(), NULL);
  for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void np_source_free(struct np_source *s) {
  free(s->name), free(s->path), free(s->text);
  *s = (struct np_source){0};
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

static char *read_file(const char *path, size_t *len) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return NULL;
  if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
    close(fd);
    errno = S_ISDIR(st.st_mode) ? EISDIR : ENOTSUP;
    return NULL;
  }
  struct np_buf b = {0};
  ssize_t n;
  while ((n = read(fd, np_buf_reserve(&b, 16384), 16384)) > 0 && b.len < FILE_MAX_BYTES) b.len += (size_t)n;
  int why = n < 0 ? errno : b.len >= FILE_MAX_BYTES ? EFBIG : 0;
  close(fd);
  if (why) {
    np_buf_free(&b);
    errno = why;
    return NULL;
  }
  b.data[b.len] = 0;
  *len = b.len;
  return b.data;
}

static bool is_below(const char *relative, const char *folder) { return strncmp(relative, folder, strlen(folder)) == 0; }

/* "rules/low-glucose.lua" -> "low-glucose"; "lib/glucose/units.lua" -> "glucose.units"; "tables/wards.csv" -> "table:wards" */
static char *name_of(const char *relative) {
  bool table = is_below(relative, "tables/"), library = table || is_below(relative, "lib/");
  const char *slash = strrchr(relative, '/'), *start = library ? strchr(relative, '/') + 1 : slash ? slash + 1 : relative;
  struct np_buf name = {0};
  if (table) np_buf_adds(&name, NP_TABLE);
  np_buf_add(&name, start, strlen(start) - 4);
  np_buf_addc(&name, 0);
  for (char *c = name.data; library && *c; c++)
    if (*c == '/') *c = '.';
  return name.data;
}

static const char *why_unread(int code) {
  return code == EFBIG     ? "it is larger than 4 MiB: is it a plugin at all?"
         : code == ENOTSUP ? "it is no ordinary file"
         : code == EISDIR  ? "it is a folder: name a folder without .lua at its end"
         : code == ENOENT  ? "it is a link to what is not there"
                           : strerror(code);
}

static void add_file(struct np_sources *s, const char *path, const char *relative, const char *shown, bool link) {
  size_t len;
  char *text = read_file(path, &len);
  if (!text && errno == ENOENT && !link) return; /* it has gone meanwhile */
  int code = errno;
  s->files = np_realloc(s->files, (s->count + 1) * sizeof *s->files);
  struct np_file *f = &s->files[s->count++];
  const char *slash = strrchr(relative, '/');
  *f = (struct np_file){.library = is_below(relative, "lib/") || is_below(relative, "tables/")};
  f->folder = slash ? np_strndup(relative, (size_t)(slash - relative)) : np_strdup("");
  f->source.name = name_of(relative);
  f->source.path = np_strdup(shown);
  if (text) {
    f->source.text = text;
    f->source.len = len;
    np_sha256_hex(f->source.text, f->source.len, f->hash);
    return;
  }
  struct np_buf why = {0};
  np_buf_addf(&why, "%s: cannot be read: %s", shown, why_unread(code));
  f->error = why.data;
  f->source.text = np_strdup("");
}

/* -1 where a folder is there but cannot be looked into: its files are not gone for that. */
static int look_into(struct np_sources *s, const char *folder, const char *relative, const char *shown, int depth,
                     struct np_error *err) {
  if (depth > DEPTH_MAX) return 0;
  DIR *d = opendir(folder);
  if (!d) return errno == ENOENT || errno == ENOTDIR ? 0 : np_fail(err, "%s: cannot be read: %s", folder, strerror(errno));
  int result = 0;
  for (struct dirent *e; result == 0 && (errno = 0, e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    struct np_buf path = {0}, below = {0}, name = {0};
    struct stat st;
    np_buf_addf(&path, "%s/%s", folder, e->d_name);
    np_buf_addf(&below, "%s%s%s", relative, relative[0] ? "/" : "", e->d_name);
    np_buf_addf(&name, "%s/%s", shown, e->d_name);
    bool lua = ends_with(e->d_name, ".lua") || (is_below(below.data, "tables/") && ends_with(e->d_name, ".csv"));
    lua = lua && !ends_with(e->d_name, "_spec.lua") && strlen(e->d_name) > 4;
    if (!lua && stat(path.data, &st) == 0 && S_ISDIR(st.st_mode))
      result = look_into(s, path.data, below.data, name.data, depth + 1, err);
    else if (lua)
      add_file(s, path.data, below.data, name.data, lstat(path.data, &st) == 0 && S_ISLNK(st.st_mode));
    np_buf_free(&path), np_buf_free(&below), np_buf_free(&name);
    errno = 0;
  }
  if (result == 0 && errno) result = np_fail(err, "%s: cannot be read: %s", folder, strerror(errno));
  closedir(d);
  return result;
}

static int compare_files(const void *a, const void *b) {
  const struct np_file *x = a, *y = b;
  if (x->library != y->library) return x->library ? -1 : 1;
  int order = strcmp(x->source.name, y->source.name);
  return order ? order : strcmp(x->source.path, y->source.path);
}

static void find_doubles(struct np_sources *s) {
  for (size_t i = 1; i < s->count; i++) {
    struct np_file *a = &s->files[i - 1], *b = &s->files[i];
    if (a->library != b->library || strcmp(a->source.name, b->source.name) != 0) continue;
    struct np_buf why = {0};
    np_buf_addf(&why, "%s: has the same name as %s: a plugin is known by its file's name, rename one", b->source.path,
                a->source.path);
    free(a->error), free(b->error);
    a->error = np_strdup(why.data);
    b->error = why.data;
  }
}

int np_sources_read(struct np_sources *s, const char *root, struct np_error *err) {
  *s = (struct np_sources){0};
  struct stat st;
  if (stat(root, &st) == 0 && access(root, R_OK | X_OK) < 0) return np_fail(err, "%s: cannot be read: %s", root, strerror(errno));
  const char *slash = strrchr(root, '/');
  if (look_into(s, root, "", slash && slash[1] ? slash + 1 : root, 0, err) < 0) {
    np_sources_free(s);
    return -1;
  }
  if (s->count) qsort(s->files, s->count, sizeof *s->files, compare_files);
  find_doubles(s);
  struct np_buf all = {0};
  for (size_t i = 0; i < s->count; i++)
    if (s->files[i].library) np_bundle_add(&all, &s->files[i].source);
  np_sha256_hex(np_buf_text(&all), all.len, s->library_hash);
  np_buf_free(&all);
  return 0;
}

void np_sources_free(struct np_sources *s) {
  for (size_t i = 0; i < s->count; i++) {
    np_source_free(&s->files[i].source);
    free(s->files[i].folder), free(s->files[i].error);
  }
  free(s->files);
  *s = (struct np_sources){0};
}

const struct np_file *np_sources_find(const struct np_sources *s, bool library, const char *name) {
  for (size_t low = 0, high = s->count; low < high;) {
    size_t middle = (low + high) / 2;
    const struct np_file *f = &s->files[middle];
    int order = f->library != library ? (f->library ? -1 : 1) : strcmp(f->source.name, name);
    if (order == 0) return f;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

const char *np_sources_near(const struct np_sources *s, const char *name) {
  const char **names = np_alloc((s->count + 1) * sizeof *names);
  size_t n = 0;
  for (size_t i = 0; i < s->count; i++)
    if (!s->files[i].library) names[n++] = s->files[i].source.name;
  const char *meant = np_near(name, strlen(name), names, n);
  free(names);
  return meant;
}

/* "-- neap: LEN NAME PATH" and the text, for each. The plugin's own file has the name "-". */
void np_bundle_add(struct np_buf *bundle, const struct np_source *source) {
  np_buf_addf(bundle, "-- neap: %zu %s %s\n", source->len, source->name[0] ? source->name : "-", source->path);
  np_buf_add(bundle, source->text, source->len);
  np_buf_addc(bundle, '\n');
}

int np_bundle_read(const char *bundle, size_t len, struct np_source *list, int max, struct np_error *err) {
  const char *at = bundle, *end = bundle + len;
  int n = 0;
  while (at < end) {
    size_t size;
    int used = 0;
    char name[256], path[1024];
    const char *line = memchr(at, '\n', (size_t)(end - at));
    if (!line || n == max || sscanf(at, "-- neap: %zu %255s %1023[^\n]%n", &size, name, path, &used) != 3 || at + used != line ||
        size >= (size_t)(end - line)) {
      while (n) np_source_free(&list[--n]);
      return np_fail(err, "the stored generation is not readable");
    }
    list[n++] =
        (struct np_source){.name = np_strdup(name), .path = np_strdup(path), .text = np_strndup(line + 1, size), .len = size};
    at = line + 1 + size + 1;
  }
  return n;
}
