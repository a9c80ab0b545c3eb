/* A disk whose fsync fails or hangs, or that does not know all of rename, as NFS, for one folder: loaded before the C library (LD_PRELOAD). The file
 * $FAULTY_DISK_SAYS says "fail", "hang" (until it says something else), "plain", or anything else; $FAULTY_DISK is the folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int says(const char *what) {
  char text[16] = "";
  int fd = open(getenv("FAULTY_DISK_SAYS"), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  return n > 0 && strncmp(text, what, strlen(what)) == 0;
}

static int is_on_it(int fd) {
  char link[40], path[4096];
  const char *folder = getenv("FAULTY_DISK");
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (!folder || n < 0) return 0;
  path[n] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
  int (*real)(int, const char *, int, const char *, unsigned) =
      (int (*)(int, const char *, int, const char *, unsigned))dlsym(RTLD_NEXT, "renameat2");
  if (is_on_it(from) && flags && says("plain")) {
    errno = EINVAL;
    return -1;
  }
  return real(from, old, to, new, flags);
}

int fsync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  if (is_on_it(fd)) {
    while (says("hang")) usleep(10000);
    if (says("fail")) {
      errno = EIO;
      return -1;
    }
  }
  return real(fd);
}
