/* File watching in a folder of the test's own under /tmp. */
#include "io/watch.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* In front of the kernel's inotify: can be missing, can be a pipe that the test writes to, counts watches. */

static enum { REAL, MISSING, FAKE } kind;
static int fake_end, highest_wd, fake_wds, real_fd;

int inotify_init1(int flags) {
  int ends[2];
  if (kind == REAL) return real_fd = (int)syscall(SYS_inotify_init1, flags);
  if (kind == MISSING || pipe2(ends, O_NONBLOCK | O_CLOEXEC)) return errno = EMFILE, -1;
  fake_end = ends[1];
  return ends[0];
}

int inotify_add_watch(int fd, const char *path, uint32_t mask) {
  if (kind == FAKE) return ++fake_wds; /* 1 is the folder that the first path stands in, 2 the path itself */
  int wd = (int)syscall(SYS_inotify_add_watch, fd, path, mask);
  if (wd > highest_wd) highest_wd = wd;
  return wd;
}

static struct event_base *base;
static char top[] = "/tmp/neap_watch_test_XXXXXX";
static int calls;

static void changed(void *arg) { ++*(int *)arg; }

static void give_up(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  fprintf(stderr, "not told of: %s\n", (const char *)arg);
  abort();
}

static void run_until(const int *count, const char *what) {
  struct event *guard = evtimer_new(base, give_up, (void *)(size_t)what);
  event_add(guard, &(struct timeval){.tv_sec = 60});
  while (!*count) event_base_loop(base, EVLOOP_ONCE);
  event_free(guard);
  CHECK(*count == 1, "%s", what);
}

static void run_until_told(const char *what) { run_until(&calls, what); }

/* That nothing is told can only be seen by letting two looks go by. */
static void run_two_looks(void) {
  event_base_loopexit(base, &(struct timeval){.tv_sec = 1, .tv_usec = 200000});
  event_base_dispatch(base);
}

static const char *in(const char *format, ...) {
  static char paths[8][300];
  static unsigned turn;
  char *to = paths[turn++ % 8];
  int n = snprintf(to, sizeof paths[0], "%s/", top);
  va_list args;
  va_start(args, format);
  vsnprintf(to + n, sizeof paths[0] - (size_t)n, format, args);
  va_end(args);
  return to;
}

static void put(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  if (!f) abort();
  fputs(text, f);
  fclose(f);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
  (void)st, (void)type, (void)where;
  return remove(path);
}

static void clear(void) { nftw(top, remove_one, 20, FTW_DEPTH | FTW_PHYS); }

/* Each step does one thing to the tree; being told of it is what is tested. */

static void write_new(void) { put(in("plugins/new.lua"), "1"); }
static void write_again(void) { put(in("plugins/a.lua"), "2"); }
static void write_same(void) { put(in("plugins/a.lua"), "2"); }
static void rename_over(void) {
  put(in("plugins/.a.lua.swp"), "2");
  rename(in("plugins/.a.lua.swp"), in("plugins/a.lua"));
}
static void rename_away(void) { rename(in("plugins/new.lua"), in("plugins/other.lua")); }
static void delete_one(void) { unlink(in("plugins/other.lua")); }
static void touch_one(void) { utimensat(AT_FDCWD, in("plugins/a.lua"), (struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0); }
static void make_folder(void) { mkdir(in("plugins/sub"), 0755); }
static void write_below(void) { put(in("plugins/sub/b.lua"), "b"); }
static void write_deep(void) {
  mkdir(in("plugins/sub/x"), 0755);
  mkdir(in("plugins/sub/x/y"), 0755);
  put(in("plugins/sub/x/y/deep.lua"), "1");
}
static void write_deep_again(void) { put(in("plugins/sub/x/y/deep.lua"), "22"); }
static void write_outside(void) { put(in("outside/target.lua"), "changed"); }
static void write_outside_again(void) { put(in("outside/target.lua"), "CHANGED"); }
static void write_in_linked(void) { put(in("outside/folder/c.lua"), "changed"); }
static void delete_target(void) { unlink(in("outside/target.lua")); }
static void delete_folder(void) { nftw(in("plugins"), remove_one, 20, FTW_DEPTH | FTW_PHYS); }
static void make_again(void) { mkdir(in("plugins"), 0755); }
static void write_in_new(void) { put(in("plugins/a.lua"), "after"); }
static void move_folder(void) { rename(in("plugins"), in("moved")); }
static void move_back(void) { rename(in("moved"), in("plugins")); }
static void checkout(void) {
  for (int i = 0; i < 30; i++) {
    mkdir(in("plugins/d%d", i), 0755);
    put(in("plugins/d%d/tmp_obj", i), "text");
    rename(in("plugins/d%d/tmp_obj", i), in("plugins/d%d/init.lua", i));
  }
  unlink(in("plugins/a.lua"));
  put(in("plugins/a.lua"), "as checked out");
}
static void write_checked_out(void) { put(in("plugins/d7/init.lua"), "edited"); }

static const struct {
  void (*act)(void);
  const char *what;
} steps[] = {{write_new, "a new file"},
             {write_again, "a file written again"},
             {write_same, "the same content written again"},
             {rename_over, "a temporary file renamed over a file"},
             {rename_away, "a file renamed"},
             {delete_one, "a file deleted"},
             {touch_one, "a file with other times"},
             {make_folder, "a new folder"},
             {write_below, "a file in a new folder"},
             {write_deep, "folders in folders"},
             {write_deep_again, "a file in a folder that had no watch when it was made"},
             {write_outside, "a file outside that a link points to"},
             {write_outside_again, "the same with the same size"},
             {write_in_linked, "a file in a folder outside that a link points to"},
             {delete_target, "the target of a link deleted"},
             {move_folder, "the folder moved away"},
             {move_back, "the folder moved back"},
             {checkout, "a checkout"},
             {write_checked_out, "a file in a folder that was checked out"},
             {delete_folder, "the folder deleted"},
             {make_again, "the folder made again"},
             {write_in_new, "a file in the folder that was made again"}};

static void set_up(void) {
  mkdir(top, 0755);
  mkdir(in("plugins"), 0755);
  mkdir(in("outside"), 0755);
  mkdir(in("outside/folder"), 0755);
  put(in("outside/target.lua"), "target");
  put(in("outside/folder/c.lua"), "c");
  put(in("plugins/a.lua"), "1");
  if (symlink("../outside/target.lua", in("plugins/linked.lua")) || symlink("../outside/folder", in("plugins/linked")) ||
      symlink("..", in("plugins/up")) || symlink(".", in("plugins/self")) || symlink("nowhere", in("plugins/dangling")))
    abort();
}

static struct np_watch *watch(int quiet_ms, const char *path) {
  struct np_error err = {""};
  calls = 0;
  struct np_watch *w = np_watch_new(base, quiet_ms, changed, &calls, &err);
  CHECK(w, "%s", err.text);
  np_watch_add(w, path);
  return w;
}

/* The clock of file times ticks every 4 ms or so: what is to be found by looking alone must not fall into one tick. */
static void let_times_differ(void) {
  struct stat a, b;
  put(in("outside/tick"), "");
  stat(in("outside/tick"), &a);
  do {
    put(in("outside/tick"), "");
    stat(in("outside/tick"), &b);
  } while (a.st_mtim.tv_nsec == b.st_mtim.tv_nsec && a.st_mtim.tv_sec == b.st_mtim.tv_sec);
  unlink(in("outside/tick"));
}

static void each_change(void) {
  set_up();
  unlink(in("plugins/up")); /* through it everything would be inside */
  char slashed[300];
  snprintf(slashed, sizeof slashed, "%s/", in("plugins"));
  struct np_watch *w = watch(20, slashed);
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    if (kind == MISSING) let_times_differ();
    calls = 0;
    steps[i].act();
    if (kind != MISSING || i % 2) run_until_told(steps[i].what); /* half of them: a look comes twice a second only */
  }
  np_watch_free(w);
  clear();
}

static void what_does_not_count(void) {
  set_up();
  struct np_watch *w = watch(20, in("plugins"));
  np_watch_add(w, in("plugins"));
  np_watch_add(w, in("plugins/"));
  unlink(in("plugins/up"));
  run_until_told("a link removed");
  calls = 0;
  put(in("plugins/.hidden"), "x");
  put(in("plugins/a.lua~"), "x");
  mkdir(in("plugins/.git"), 0755);
  put(in("plugins/.git/HEAD"), "x");
  put(in("beside"), "x");
  put(in("outside/other.lua"), "x");
  unlink(in("plugins/.hidden"));
  FILE *f = fopen(in("plugins/a.lua"), "r");
  fgetc(f);
  fclose(f);
  run_two_looks();
  CHECK(calls == 0, "told %d times", calls);
  np_watch_free(w);
  clear();
}

static void swap(const char *to) {
  if (symlink(to, in("fresh"))) abort();
  rename(in("fresh"), in("plugins"));
}

static void swapped_links(void) {
  mkdir(top, 0755);
  for (int i = 1; i <= 3; i++) {
    mkdir(in("release%d", i), 0755);
    mkdir(in("release%d/lib", i), 0755);
    put(in("release%d/lib/a.lua", i), "same");
  }
  swap("release1");
  struct np_watch *w = watch(20, in("plugins"));
  struct np_error err;
  int below = 0;
  struct np_watch *deeper = np_watch_new(base, 20, changed, &below, &err); /* the link is in the middle of its path */
  np_watch_add(deeper, in("plugins/lib"));
  swap("release2");
  run_until_told("the link swapped");
  run_until(&below, "a link swapped in the middle of a path");
  calls = 0;
  put(in("release2/lib/a.lua"), "changed");
  run_until_told("a file behind the new link");
  calls = 0;
  put(in("release1/lib/a.lua"), "changed");
  run_two_looks();
  CHECK(calls == 0, "told of the old release");
  swap("release3");
  run_until_told("the link swapped again");
  calls = 0;
  unlink(in("plugins"));
  run_until_told("the link removed");
  np_watch_free(deeper);
  np_watch_free(w);
  clear();
}

static void single_file(void) {
  mkdir(top, 0755);
  struct np_watch *w = watch(20, in("neap.lua"));
  put(in("neap.lua"), "1");
  run_until_told("a file that came to be");
  calls = 0;
  put(in("neap.lua.new"), "2");
  rename(in("neap.lua.new"), in("neap.lua"));
  run_until_told("a file renamed over");
  calls = 0;
  put(in("other.lua"), "1");
  unlink(in("other.lua"));
  run_two_looks();
  CHECK(calls == 0);
  np_watch_add(w, in("not/yet/there"));
  mkdir(in("not"), 0755);
  mkdir(in("not/yet"), 0755);
  put(in("not/yet/there"), "1");
  run_until_told("a file in folders that came to be");
  calls = 0;
  put(in("not/yet/there"), "2");
  run_until_told("the same file again");
  np_watch_free(w);
  clear();
}

/* A writer that writes every few ms, `writes` times. */
struct writer {
  struct event *timer;
  int writes, left;
};

static void write_on(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct writer *w = arg;
  char text[20];
  snprintf(text, sizeof text, "%d", w->left);
  put(in("plugins/a.lua"), text);
  w->writes++;
  if (--w->left) event_add(w->timer, &(struct timeval){.tv_usec = 3000});
}

static void coalescing(void) {
  set_up();
  struct np_watch *w = watch(300, in("plugins"));
  struct writer writer = {.left = 30};
  writer.timer = evtimer_new(base, write_on, &writer);
  event_active(writer.timer, EV_TIMEOUT, 0);
  run_until_told("thirty writes");
  CHECK(writer.writes == 30, "told after %d", writer.writes);
  np_watch_free(w);
  w = watch(20, in("plugins"));
  writer.left = 1000000; /* it is never quiet */
  event_active(writer.timer, EV_TIMEOUT, 0);
  run_until_told("writes that do not end");
  event_free(writer.timer);
  np_watch_free(w);
  clear();
}

static void say(int wd, uint32_t mask, const char *name) {
  union {
    struct inotify_event event;
    char bytes[sizeof(struct inotify_event) + 32];
  } u = {.event = {.wd = wd, .mask = mask, .len = *name ? 32 : 0}};
  if (*name) strcpy(u.event.name, name);
  ssize_t n = (ssize_t)(sizeof u.event + u.event.len);
  CHECK(write(fake_end, &u, (size_t)n) == n, "%s", name);
}

/* Nothing has changed here: what is told, is told because of the events. */
static void events(void) {
  set_up();
  kind = FAKE;
  struct np_watch *w;
  static const struct {
    int wd;
    uint32_t mask;
    const char *name;
  } count[] = {{2, IN_MODIFY, "a.lua"},
               {1, IN_MOVED_TO, "plugins"},
               {1, IN_MOVE_SELF, ""},
               {2, IN_ATTRIB, ""},
               {-1, IN_Q_OVERFLOW, ""}},
    ignored[] = {{2, IN_MODIFY, ".a.lua.swp"},
                 {2, IN_CREATE, "a.lua~"},
                 {1, IN_CREATE, "beside"},
                 {99, IN_MODIFY, "a.lua"},
                 {1, IN_ATTRIB, ""}};
  for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
    fake_wds = 0;
    w = watch(20, in("plugins"));
    say(count[i].wd, count[i].mask, count[i].name);
    run_until_told("an event");
    np_watch_free(w);
    close(fake_end);
  }
  fake_wds = 0;
  w = watch(20, in("plugins"));
  for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) say(ignored[i].wd, ignored[i].mask, ignored[i].name);
  run_two_looks();
  CHECK(calls == 0, "told %d times", calls);
  kind = REAL;
  np_watch_free(w);
  close(fake_end);
  clear();
}

static void thousands(void) {
  mkdir(top, 0755);
  mkdir(in("plugins"), 0755);
  for (int i = 0; i < 30; i++) {
    mkdir(in("plugins/d%d", i), 0755);
    for (int j = 0; j < 100; j++) put(in("plugins/d%d/f%d.lua", i, j), "x");
  }
  highest_wd = 0;
  struct np_watch *w = watch(20, in("plugins"));
  CHECK(highest_wd == 32, "%d watches for 32 folders", highest_wd);
  put(in("plugins/d17/f50.lua"), "y");
  run_until_told("one of thousands");
  np_watch_free(w);
  clear();
}

/* As a user to whom permissions mean something, in a process of its own. */
static void unreadable(void) {
  fflush(stdout);
  pid_t child = fork();
  if (child) {
    int status;
    waitpid(child, &status, 0);
    CHECK(status == 0, "status %d", status);
    return;
  }
  if (geteuid() == 0 && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))) _exit(3);
  event_reinit(base);
  check_failed = 0;
  mkdir(top, 0755);
  mkdir(in("plugins"), 0755);
  mkdir(in("plugins/shut"), 0755);
  put(in("plugins/shut/a.lua"), "1");
  put(in("plugins/b.lua"), "1");
  chmod(in("plugins/shut"), 0);
  struct np_watch *w = watch(20, in("plugins"));
  put(in("plugins/b.lua"), "2");
  run_until_told("a file beside an unreadable folder");
  calls = 0;
  chmod(in("plugins/shut"), 0755);
  run_until_told("a folder made readable");
  calls = 0;
  put(in("plugins/shut/a.lua"), "2");
  run_until_told("a file in it");
  calls = 0;
  chmod(in("plugins"), 0);
  run_until_told("all made unreadable");
  chmod(in("plugins"), 0755);
  np_watch_free(w);
  clear();
  _exit(check_failed != 0);
}

static struct np_watch *freed_within;

static void free_it(void *arg) {
  ++*(int *)arg;
  np_watch_free(freed_within);
}

/* Each write of a store beside neap.lua woke the main thread: an eighth of all the CPU that a push took. */
static void store_beside_does_not_wake(void) {
  mkdir(top, 0755);
  put(in("neap.lua"), "1");
  struct np_watch *w = watch(20, in("neap.lua"));
  int store = open(in("neap.db-wal"), O_WRONLY | O_CREAT, 0600), config = open(in("neap.lua"), O_WRONLY), waiting = -1;
  event_base_loop(base, EVLOOP_NONBLOCK);
  for (int i = 0; i < 100; i++) CHECK(write(store, "page", 4) == 4);
  CHECK(ioctl(real_fd, FIONREAD, &waiting) == 0 && waiting == 0, "%d bytes of events wait", waiting);
  calls = 0;
  CHECK(write(config, "22", 2) == 2);
  run_until_told("a file that its writer keeps open");
  close(config);
  close(store);
  np_watch_free(w);
  clear();
}

static void freeing(void) {
  set_up();
  struct np_error err;
  calls = 0;
  freed_within = np_watch_new(base, 20, free_it, &calls, &err);
  np_watch_add(freed_within, in("plugins"));
  write_new();
  run_until_told("a change on which the watch is freed");
  struct np_watch *w = watch(20, in("plugins"));
  write_again();
  event_base_loop(base, EVLOOP_NONBLOCK);
  np_watch_free(w); /* with a change that waits */
  event_base_loop(base, EVLOOP_NONBLOCK);
  CHECK(calls == 0);
  np_watch_free(NULL);
  clear();
}

int main(void) {
  if (!mkdtemp(top)) abort();
  rmdir(top);
  base = event_base_new();
  each_change();
  kind = MISSING;
  each_change();
  kind = REAL;
  what_does_not_count();
  swapped_links();
  single_file();
  store_beside_does_not_wake();
  coalescing();
  events();
  thousands();
  unreadable();
  freeing();
  event_base_free(base);
  libevent_global_shutdown();
  return check_end();
}
