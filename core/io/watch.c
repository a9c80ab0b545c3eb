/* File watching. Two looks at the same thing:
 *
 * inotify, with a watch on every folder below the paths and on the folder each path stands in, makes it prompt. What it says
 * of a name that counts is a change, whatever a later look at the file would show: two writes within one tick of the file
 * system's clock leave the same times behind. In the folder that a path only stands in, what counts is that a writer has closed
 * a file: neap.lua often has the store beside it, and each page that is written there would wake this thread.
 *
 * A walk every half second makes it sure: it sums a hash over path, inode, size and times of every file, symbolic links
 * followed, and so sees what inotify does not: targets of links outside the tree, links in the middle of a path, network file
 * systems, and what happened in a new folder before it had its watch. A walk that takes long is made less often. */
#include "io/watch.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

#define POLL_MS 500
#define DEPTH_MAX 8
#define ENTRIES_MAX 50000 /* a link to / must not make the host read the whole disk twice a second */
#define WATCHED                                                                                                                    \
  (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF)

struct root {
  char *path;         /* owned */
  char *folder;       /* owned; the folder it stands in */
  const char *name;   /* borrowed from path */
  int folder_wd;      /* -1 where the folder cannot be watched */
  uint64_t signature; /* of the last look */
};

struct folder { /* one inotify watch */
  int wd;
  bool inside; /* of a path that is watched; else a path only stands in it */
};

struct folders { /* sorted by wd */
  struct folder *at;
  size_t n, cap;
};

struct np_watch {
  struct event_base *base; /* borrowed */
  int inotify;             /* -1 where the system gives none: then there is the half second */
  struct event *told;      /* owned; inotify has something */
  struct event *poll;      /* owned */
  struct event *quiet;     /* owned; pending while a change waits to be told */
  void (*changed)(void *arg);
  void *arg;
  int quiet_ms;
  struct root *roots; /* owned */
  size_t root_count;
  struct folders folders; /* watched now */
  int64_t first;          /* us; when the change that waits began, 0 where none waits */
  bool unseen;            /* a change was found by looking: quiet is what a second look finds unchanged */
  bool warned;            /* of too many entries */
};

struct walk {
  struct folders *found; /* where watches are noted; NULL where only the signature is wanted */
  int inotify;
  struct np_buf path; /* of the folder being read */
  struct {
    dev_t dev;
    ino_t ino;
  } above[DEPTH_MAX + 1]; /* the folders it is in, so that a link to one of them is not followed */
  size_t entries;
  uint64_t sum;
};

/* Signature */

static uint64_t mix(uint64_t h, uint64_t word) {
  h = (h ^ word) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

static uint64_t mix_name(uint64_t h, const char *s) {
  size_t n = strlen(s);
  for (uint64_t word; n; n -= n < 8 ? n : 8, s += 8) {
    word = 0;
    memcpy(&word, s, n < 8 ? n : 8);
    h = mix(h, word);
  }
  return mix(h, 0x2f);
}

static uint64_t nanoseconds(struct timespec t) { return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec; }

/* A folder's own times are left out: they tell of hidden and temporary names too. */
static uint64_t mix_stat(uint64_t h, const struct stat *st) {
  h = mix(mix(mix(h, st->st_dev), st->st_ino), st->st_mode);
  if (S_ISDIR(st->st_mode)) return h;
  return mix(mix(mix(h, (uint64_t)st->st_size), nanoseconds(st->st_mtim)), nanoseconds(st->st_ctim));
}

/* Walking */

static bool left_out(const char *name) {
  size_t n = strlen(name);
  return name[0] == '.' || (n && name[n - 1] == '~');
}

static void note(struct walk *k, const char *path, bool inside, int *wd_out) {
  if (!k->found || k->inotify < 0) return;
  int wd = inotify_add_watch(k->inotify, path, (inside ? WATCHED : WATCHED & ~IN_MODIFY) | IN_ONLYDIR | IN_MASK_ADD);
  if (wd_out) *wd_out = wd;
  if (wd < 0) return;
  struct folders *l = k->found;
  if (l->n == l->cap) {
    l->cap = l->cap ? 2 * l->cap : 32;
    l->at = np_realloc(l->at, l->cap * sizeof *l->at);
  }
  l->at[l->n++] = (struct folder){.wd = wd, .inside = inside};
}

static void walk_folder(struct walk *k, int parent, const char *name, const struct stat *st, int depth, uint64_t h);

static void walk_entry(struct walk *k, int parent, const char *name, int depth, uint64_t h) {
  struct stat st;
  h = mix_name(h, name);
  k->entries++;
  if (fstatat(parent, name, &st, 0) != 0 && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
    k->sum += mix(h, (uint64_t)errno);
    return;
  }
  k->sum += mix_stat(h, &st);
  if (S_ISDIR(st.st_mode) && depth <= DEPTH_MAX) walk_folder(k, parent, name, &st, depth, h);
}

static bool is_above(const struct walk *k, const struct stat *st, int depth) {
  for (int i = 0; i < depth; i++)
    if (k->above[i].dev == st->st_dev && k->above[i].ino == st->st_ino) return true;
  return false;
}

/* The watch comes before the reading: what happens after the reading is told, what happened before is seen. */
static void walk_folder(struct walk *k, int parent, const char *name, const struct stat *st, int depth, uint64_t h) {
  if (is_above(k, st, depth)) return;
  k->above[depth].dev = st->st_dev;
  k->above[depth].ino = st->st_ino;
  size_t len = k->path.len;
  if (len) np_buf_addc(&k->path, '/');
  np_buf_adds(&k->path, name);
  note(k, np_buf_text(&k->path), true, NULL);
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (dir) {
    for (struct dirent *e; k->entries < ENTRIES_MAX && (e = readdir(dir));)
      if (!left_out(e->d_name)) walk_entry(k, fd, e->d_name, depth + 1, h);
    closedir(dir);
  } else {
    k->sum += mix(h, (uint64_t)errno);
    if (fd >= 0) close(fd);
  }
  k->path.len = len;
}

static int by_wd(const void *a, const void *b) {
  const struct folder *x = a, *y = b;
  return (x->wd > y->wd) - (x->wd < y->wd);
}

static struct folder *find(const struct folders *l, int wd) {
  struct folder key = {.wd = wd};
  return l->n ? bsearch(&key, l->at, l->n, sizeof key, by_wd) : NULL;
}

static void sort(struct folders *l) {
  if (l->n) qsort(l->at, l->n, sizeof *l->at, by_wd);
  size_t n = 0;
  for (size_t i = 0; i < l->n; i++) {
    if (n && l->at[n - 1].wd == l->at[i].wd)
      l->at[n - 1].inside |= l->at[i].inside;
    else
      l->at[n++] = l->at[i];
  }
  l->n = n;
}

/* Puts the watches that were found in the place of those before. True where there are new ones. */
static bool replace(struct np_watch *w, struct folders *found) {
  bool more = false;
  sort(found);
  for (size_t i = 0; i < found->n; i++)
    if (!find(&w->folders, found->at[i].wd)) more = true;
  for (size_t i = 0; i < w->folders.n; i++)
    if (!find(found, w->folders.at[i].wd)) inotify_rm_watch(w->inotify, w->folders.at[i].wd);
  free(w->folders.at);
  w->folders = *found;
  return more;
}

static uint64_t look_at(struct np_watch *w, struct root *r, struct folders *found) {
  struct walk k = {.found = found, .inotify = w->inotify};
  if (found) {
    r->folder_wd = -1;
    note(&k, r->folder, false, &r->folder_wd);
  }
  walk_entry(&k, AT_FDCWD, r->path, 0, 0);
  np_buf_free(&k.path);
  if (k.entries >= ENTRIES_MAX && !w->warned) {
    w->warned = true;
    np_log(NP_WARN, "too many files to watch; changes past the first 50,000 are not seen", "path", r->path, NULL);
  }
  return k.sum;
}

/* Looks at everything. *differs where something is not as at the last look; *grew where folders are watched that were not. */
static void look(struct np_watch *w, bool and_watch, bool *differs, bool *grew) {
  struct folders found = {0};
  *differs = *grew = false;
  for (size_t i = 0; i < w->root_count; i++) {
    uint64_t s = look_at(w, &w->roots[i], and_watch ? &found : NULL);
    if (s != w->roots[i].signature) *differs = true;
    w->roots[i].signature = s;
  }
  if (and_watch) *grew = replace(w, &found);
}

/* Telling */

static void set_timer(struct event *timer, int64_t ms) {
  event_add(timer, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

/* A change: it is told after quiet_ms without another, at most ten times that after the first. */
static void touch(struct np_watch *w, bool unseen) {
  int64_t now = np_mono_us();
  if (!w->first) w->first = now;
  w->unseen |= unseen;
  int64_t left = 10 * (int64_t)w->quiet_ms - (now - w->first) / 1000;
  if (left < 0) left = 0;
  set_timer(w->quiet, left < w->quiet_ms ? left : w->quiet_ms);
}

static bool counts(const struct np_watch *w, const struct inotify_event *e) {
  if (e->mask & IN_Q_OVERFLOW) return true;
  const struct folder *f = find(&w->folders, e->wd);
  if (!f) return false;
  if (!e->len) return f->inside || (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT));
  if (f->inside && !left_out(e->name)) return true;
  for (size_t i = 0; i < w->root_count; i++)
    if (w->roots[i].folder_wd == e->wd && strcmp(w->roots[i].name, e->name) == 0) return true;
  return false;
}

/* Takes all that inotify has to say. True where some of it is a change. */
static bool listen_in(struct np_watch *w) {
  _Alignas(struct inotify_event) char bytes[16384];
  bool any = false;
  for (ssize_t n; w->inotify >= 0 && (n = read(w->inotify, bytes, sizeof bytes)) > 0;) {
    const struct inotify_event *e;
    for (char *at = bytes; at < bytes + n; at += sizeof *e + e->len) {
      e = (const struct inotify_event *)(const void *)at;
      if (!any && counts(w, e)) any = true;
    }
  }
  return any;
}

static void on_told(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_watch *w = arg;
  if (listen_in(w)) touch(w, false);
}

static void on_poll(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_watch *w = arg;
  bool differs = false, grew;
  int64_t begun = np_mono_us();
  if (!w->first) look(w, false, &differs, &grew); /* else on_quiet will look */
  if (differs) touch(w, true);
  int64_t took = (np_mono_us() - begun) / 1000;
  set_timer(w->poll, took * 20 > POLL_MS ? took * 20 : POLL_MS);
}

static void on_quiet(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_watch *w = arg;
  bool differs, grew, more = listen_in(w);
  bool late = np_mono_us() - w->first >= 10000 * (int64_t)w->quiet_ms;
  look(w, true, &differs, &grew);
  /* What goes on in folders that had no watch is not told: they may not be quiet yet. */
  if (!late && (more || grew || (w->unseen && differs))) {
    touch(w, false);
    return;
  }
  w->first = 0;
  w->unseen = false;
  w->changed(w->arg); /* may free w */
}

/* Making and freeing */

struct np_watch *np_watch_new(struct event_base *base, int quiet_ms, void (*changed)(void *arg), void *arg, struct np_error *err) {
  struct np_watch *w = np_alloc(sizeof *w);
  *w = (struct np_watch){.base = base, .changed = changed, .arg = arg, .quiet_ms = quiet_ms > 0 ? quiet_ms : 1};
  w->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (w->inotify >= 0) {
    w->told = event_new(base, w->inotify, EV_READ | EV_PERSIST, on_told, w);
    if (!w->told || event_add(w->told, NULL)) goto fail;
  } else {
    np_log(NP_WARN, "no inotify; files are looked at every half second only", "why", strerror(errno), NULL);
  }
  w->poll = evtimer_new(base, on_poll, w);
  w->quiet = evtimer_new(base, on_quiet, w);
  if (!w->poll || !w->quiet) goto fail;
  set_timer(w->poll, POLL_MS);
  return w;
fail:
  np_fail(err, "files cannot be watched: out of memory or descriptors");
  np_watch_free(w);
  return NULL;
}

void np_watch_add(struct np_watch *w, const char *path) {
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') n--;
  for (size_t i = 0; i < w->root_count; i++)
    if (strncmp(w->roots[i].path, path, n) == 0 && !w->roots[i].path[n]) return;
  w->roots = np_realloc(w->roots, (w->root_count + 1) * sizeof *w->roots);
  struct root *r = &w->roots[w->root_count++];
  *r = (struct root){.path = np_strndup(path, n), .folder_wd = -1};
  char *slash = strrchr(r->path, '/');
  r->name = slash ? slash + 1 : r->path;
  r->folder = !slash ? np_strdup(".") : np_strndup(r->path, slash == r->path ? 1 : (size_t)(slash - r->path));
  struct folders found = {0};
  r->signature = look_at(w, r, &found);
  for (size_t i = 0; i < w->folders.n; i++) { /* those of the other paths stay */
    found.at = np_realloc(found.at, (found.n + 1) * sizeof *found.at);
    found.cap = ++found.n;
    found.at[found.n - 1] = w->folders.at[i];
  }
  replace(w, &found);
}

void np_watch_quiet(struct np_watch *w, int quiet_ms) { w->quiet_ms = quiet_ms > 0 ? quiet_ms : 1; }

void np_watch_free(struct np_watch *w) {
  if (!w) return;
  if (w->told) event_free(w->told);
  if (w->poll) event_free(w->poll);
  if (w->quiet) event_free(w->quiet);
  if (w->inotify >= 0) close(w->inotify);
  for (size_t i = 0; i < w->root_count; i++) {
    free(w->roots[i].path);
    free(w->roots[i].folder);
  }
  free(w->roots);
  free(w->folders.at);
  free(w);
}
