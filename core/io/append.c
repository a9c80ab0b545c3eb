/* Appends lines to a file. The order of things is what keeps them whole: lock, see that the name still leads to what was locked, cut off
 * what a kill left, look for ids, put aside, write, fsync; where any of it fails, the file is as long as it was before. */
#include "io/append.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

struct work {
  const struct np_append *a;
  struct np_append_result *r;
  int dir, fd; /* owned; -1 while closed */
  int64_t size;
  struct timespec changed;
  struct np_buf tail;    /* owned: the end of the file */
  struct np_buf earlier; /* owned: the ends of those before, where this one is short */
};

__attribute__((format(printf, 3, 4))) static int fail(struct work *w, const char *code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(w->r->why, sizeof w->r->why, format, args);
  va_end(args);
  w->r->code = code;
  return -1;
}

static int fail_errno(struct work *w, const char *doing) {
  int e = errno;
  return fail(w, e == ENOSPC || e == EDQUOT ? "full" : "other", "%s %s/%s: %s", doing, w->a->folder, w->a->name, strerror(e));
}

bool np_append_is_name(const char *name) {
  static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  size_t len = strlen(name);
  return len > 0 && len <= 150 && *name != '.' && *name != '-' && strspn(name, plain) == len;
}

/* Opening */

static int open_folder(struct work *w) {
  w->dir = open(w->a->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (w->dir >= 0) return 0;
  if (errno == ENOTDIR || errno == ELOOP)
    return fail(w, "folder", "%s is a symbolic link or no folder: name the folder itself", w->a->folder);
  return fail(w, "folder", "the folder %s: %s", w->a->folder, strerror(errno));
}

static int lock(struct work *w, int64_t until) {
  while (flock(w->fd, LOCK_EX | LOCK_NB)) {
    if (errno != EWOULDBLOCK && errno != EINTR) return fail_errno(w, "locking");
    if (np_work_us() > until)
      return fail(w, "busy", "%s/%s is being written by somebody else all the time", w->a->folder, w->a->name);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  return 0;
}

/* 1 where it was put aside between open and lock: then it has to be opened again. */
static int open_once(struct work *w, int64_t until) {
  struct stat st, named;
  w->fd = openat(w->dir, w->a->name, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640);
  if (w->fd < 0 && errno == ELOOP) return fail(w, "name", "%s/%s is a symbolic link", w->a->folder, w->a->name);
  if (w->fd < 0) return fail_errno(w, "opening");
  if (fstat(w->fd, &st)) return fail_errno(w, "looking at");
  if (!S_ISREG(st.st_mode)) return fail(w, "name", "%s/%s is no file", w->a->folder, w->a->name);
  if (st.st_nlink > 1) return fail(w, "name", "%s/%s has a second name (a hard link)", w->a->folder, w->a->name);
  if (lock(w, until)) return -1;
  if (fstat(w->fd, &st)) return fail_errno(w, "looking at");
  if (fstatat(w->dir, w->a->name, &named, AT_SYMLINK_NOFOLLOW) || named.st_ino != st.st_ino || named.st_dev != st.st_dev) {
    close(w->fd);
    w->fd = -1;
    return 1;
  }
  w->size = st.st_size;
  w->changed = st.st_mtim;
  return 0;
}

static int open_file(struct work *w, int64_t until) {
  int again;
  do again = open_once(w, until);
  while (again > 0 && np_work_us() <= until);
  return again > 0 ? fail(w, "busy", "%s/%s is put aside all the time", w->a->folder, w->a->name) : again;
}

/* What stands there */

static int read_tail(struct work *w, int fd, int64_t size, struct np_buf *to) {
  size_t want = size > NP_APPEND_TAIL ? NP_APPEND_TAIL : (size_t)size;
  char *at = np_buf_reserve(to, want + 1);
  for (size_t got = 0; got < want;) {
    ssize_t n = pread(fd, at + got, want - got, size - (int64_t)want + (int64_t)got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(w, "reading");
    if (n == 0) return fail(w, "other", "%s/%s became shorter while it was read", w->a->folder, w->a->name);
    got += (size_t)n;
  }
  to->len += want;
  to->data[to->len] = 0;
  return 0;
}

/* What comes after the last line break is of a line that nobody was told is there. */
static int cut_rest(struct work *w) {
  size_t keep = w->tail.len;
  while (keep && w->tail.data[keep - 1] != '\n') keep--;
  if (keep == w->tail.len) return 0;
  if (!keep && w->size > (int64_t)w->tail.len)
    return fail(w, "other", "%s/%s ends with more than %u bytes without a line break: it is not what was written here",
                w->a->folder, w->a->name, NP_APPEND_TAIL);
  w->r->cut = (int64_t)(w->tail.len - keep);
  if (ftruncate(w->fd, w->size - w->r->cut)) return fail_errno(w, "cutting");
  w->size -= w->r->cut;
  w->tail.len = keep;
  return 0;
}

static const char *extension(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot ? dot : name + strlen(name);
}

static bool was_put_aside(const struct np_append *a, const char *name) {
  const char *ext = extension(a->name);
  size_t stem = (size_t)(ext - a->name), len = strlen(name);
  return len > stem + strlen(ext) + 16 && memcmp(name, a->name, stem) == 0 && name[stem] == '-' &&
         strcmp(name + len - strlen(ext), ext) == 0 && name[stem + 9] == 'T' && name[stem + 16] == 'Z';
}

struct names {
  char **list; /* owned, and each */
  size_t count;
};

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* What has been put aside, oldest first. */
static int list_earlier(struct work *w, struct names *names) {
  int copy = openat(w->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = copy < 0 ? NULL : fdopendir(copy);
  if (!d) {
    if (copy >= 0) close(copy);
    return fail_errno(w, "listing the folder of");
  }
  for (struct dirent *e; (e = readdir(d));) {
    if (!was_put_aside(w->a, e->d_name)) continue;
    names->list = np_realloc(names->list, (names->count + 1) * sizeof *names->list);
    names->list[names->count++] = np_strdup(e->d_name);
  }
  closedir(d);
  if (names->count) qsort(names->list, names->count, sizeof *names->list, by_name);
  return 0;
}

static int read_one_earlier(struct work *w, const char *name) {
  int fd = openat(w->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct stat st;
  if (fd < 0) return errno == ENOENT ? 0 : fail_errno(w, "opening what was put aside of"); /* taken away meanwhile */
  int bad = 0;
  if (fstat(fd, &st))
    bad = fail_errno(w, "looking at what was put aside of");
  else if (S_ISREG(st.st_mode))
    bad = read_tail(w, fd, st.st_size, &w->earlier);
  close(fd);
  return bad;
}

/* The ends of the files before, which may hold what came last where this one is short: as many as the tail has room for. */
static int read_earlier(struct work *w) {
  struct names names = {0};
  int bad = list_earlier(w, &names);
  for (size_t i = names.count; i-- && !bad && w->tail.len + w->earlier.len < NP_APPEND_TAIL;)
    bad = read_one_earlier(w, names.list[i]);
  for (size_t i = 0; i < names.count; i++) free(names.list[i]);
  free(names.list);
  return bad;
}

/* Ids, looked for at their place in each line. */

static int by_id(const void *x, const void *y) {
  const struct np_append_line *const *a = x, *const *b = y;
  size_t n = (*a)->id_len < (*b)->id_len ? (*a)->id_len : (*b)->id_len;
  int order = memcmp((*a)->id, (*b)->id, n);
  return order ? order : ((*a)->id_len > (*b)->id_len) - ((*a)->id_len < (*b)->id_len);
}

struct ids {
  const struct np_append_line **sorted; /* owned */
  bool *known;                          /* borrowed: by the line's place in np_append */
  size_t at, len;                       /* where an id stands in each line, and how long it is */
};

static void find_ids(const struct np_append *a, const struct ids *ids, const struct np_buf *text) {
  for (const char *line = np_buf_text(text), *end = line + text->len; line < end;) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    if (!stop) return;
    if ((size_t)(stop - line) >= ids->at + ids->len) {
      struct np_append_line sought = {.id = line + ids->at, .id_len = ids->len};
      const struct np_append_line *key = &sought, **found = bsearch(&key, ids->sorted, a->count, sizeof *ids->sorted, by_id);
      if (found) ids->known[*found - a->lines] = true;
    }
    line = stop + 1;
  }
}

static int find_known(struct work *w, bool *known) {
  const struct np_append *a = w->a;
  struct ids ids = {.known = known};
  for (size_t i = 0; i < a->count; i++) {
    const char *at = memmem(a->lines[i].text, a->lines[i].len, a->lines[i].id, a->lines[i].id_len);
    size_t place = at ? (size_t)(at - a->lines[i].text) : 0;
    if (!at || !a->lines[i].id_len || (i && (place != ids.at || a->lines[i].id_len != ids.len)))
      return fail(w, "other", "the ids do not stand at the same place of each line");
    ids.at = place;
    ids.len = a->lines[i].id_len;
  }
  ids.sorted = np_alloc((a->count + 1) * sizeof *ids.sorted);
  for (size_t i = 0; i < a->count; i++) ids.sorted[i] = &a->lines[i];
  qsort(ids.sorted, a->count, sizeof *ids.sorted, by_id);
  find_ids(a, &ids, &w->earlier);
  find_ids(a, &ids, &w->tail);
  free(ids.sorted);
  return 0;
}

/* Writing */

static bool same_day(time_t a, time_t b) { return a / 86400 == b / 86400; }

/* Not every file system can say "unless it is there" (NFS cannot); whoever else puts aside waits for the lock. */
static int rename_to_new(struct work *w, const char *name) {
  struct stat st;
  if (renameat2(w->dir, w->a->name, w->dir, name, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  if (fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) errno = EEXIST;
  if (errno != ENOENT) return -1;
  return renameat(w->dir, w->a->name, w->dir, name);
}

static int put_aside(struct work *w, int64_t until) {
  const char *ext = extension(w->a->name);
  char stamp[20], name[256];
  struct tm tm;
  gmtime_r(&w->changed.tv_sec, &tm);
  strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
  int bad = -1;
  for (int n = 0; bad && n < 1000; n++) { /* several in one second are in order by name too */
    char more[16] = "";
    if (n) snprintf(more, sizeof more, "_%03d", n);
    snprintf(name, sizeof name, "%.*s-%s%s%s", (int)(ext - w->a->name), w->a->name, stamp, more, ext);
    bad = rename_to_new(w, name);
    if (bad && errno != EEXIST) break;
  }
  if (bad) return fail_errno(w, "putting aside");
  if (fsync(w->fd) || fsync(w->dir)) return fail_errno(w, "fsync of");
  close(w->fd);
  w->fd = -1;
  return open_file(w, until);
}

static int write_all(struct work *w, const struct np_buf *text) {
  for (size_t at = 0; at < text->len;) {
    ssize_t n = write(w->fd, text->data + at, text->len - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(w, "writing");
    at += (size_t)n;
  }
  /* Also where there was nothing to write: what stands there may have been written by one who was killed before this. */
  if (fsync(w->fd)) return fail_errno(w, "fsync of");
  return w->size == 0 && fsync(w->dir) ? fail_errno(w, "fsync of the folder of") : 0;
}

static int add_lines(struct work *w, int64_t until, const bool *known) {
  const struct np_append *a = w->a;
  struct np_buf text = {0};
  for (size_t i = 0; i < a->count; i++) {
    if (known[i]) {
      w->r->known++;
      continue;
    }
    np_buf_add(&text, a->lines[i].text, a->lines[i].len);
    np_buf_addc(&text, '\n');
    w->r->written++;
  }
  bool aside =
      w->size && text.len &&
      ((a->bytes_most && w->size + (int64_t)text.len > a->bytes_most) || (a->daily && !same_day(w->changed.tv_sec, time(NULL))));
  int bad = aside ? put_aside(w, until) : 0;
  if (!bad && a->head && text.len && !w->size) {
    struct np_buf whole = {0};
    np_buf_addf(&whole, "%s\n", a->head);
    np_buf_add(&whole, text.data, text.len);
    np_buf_free(&text);
    text = whole;
  }
  if (!bad && write_all(w, &text)) {
    bad = -1; /* what was written is taken back, so that it is not taken for what is on disk */
    if (ftruncate(w->fd, w->size) == 0) (void)!fsync(w->fd);
  }
  np_buf_free(&text);
  return bad;
}

void np_append_run(const struct np_append *a, double patience, struct np_append_result *result) {
  struct work w = {.a = a, .r = result, .dir = -1, .fd = -1};
  int64_t until = np_work_us() + (int64_t)(patience * 1e6);
  *result = (struct np_append_result){0};
  bool *known = np_alloc(a->count + 1);
  int bad = open_folder(&w) || open_file(&w, until) || read_tail(&w, w.fd, w.size, &w.tail) || cut_rest(&w) ||
            (w.size < NP_APPEND_TAIL && read_earlier(&w)) || find_known(&w, known) || add_lines(&w, until, known);
  if (bad) result->written = result->known = 0;
  if (w.fd >= 0) close(w.fd);
  if (w.dir >= 0) close(w.dir);
  np_buf_free(&w.tail);
  np_buf_free(&w.earlier);
  free(known);
}
