/* `import`: a client that has readings to bring is handed over, with its socket, to a thread of its own. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <lauxlib.h>

#include "host/admin_talk.h"
#include "host/import.h"

int np_talk_import_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  int type = lua_getfield(L, request, "rules");
  t->rules = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return type == LUA_TBOOLEAN || type == LUA_TNIL ? 0 : np_fail(err, "rules: expected true or false");
}

static int start(struct np_talk *t, struct np_error *err) {
  struct np_host *host = t->host;
  char by[100];
  if (host->importer && !np_importer_done(host->importer)) return np_fail(err, "another import is under way");
  np_importer_free(host->importer);
  host->importer = NULL;
  int fd = fcntl(bufferevent_getfd(t->bev), F_DUPFD_CLOEXEC, 3);
  if (fd < 0) return np_fail(err, "the host has no descriptor left: %s", strerror(errno));
  np_talk_cause(t, "neap import", by, sizeof by);
  host->importer = np_importer_start(host, fd, t->rules, by, err);
  return host->importer ? 0 : -1;
}

/* The client sends nothing more before it has the answer, and with the answer the talk is over. */
void np_talk_import(struct np_talk *t) {
  struct np_error err;
  bufferevent_disable(t->bev, EV_READ);
  if (start(t, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_adds(&t->out, "{\"importing\":true}\n");
  np_talk_end(t);
}
