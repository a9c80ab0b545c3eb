/* What a rule's filters remember outlives a change of the rule where the filter is the same. What only filters remember that neither what is in force nor what
 * was before it has (for it may be gone back to) is removed after a change, some keys at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/deploy_parts.h"

#define PAGE 200  /* keys that go in one commit */
#define JUMPS 100 /* filters that are passed over in one go */

struct np_filters {
  struct np_buf kept; /* owned: "HASH HASH#2 …", each with a space behind it */
  char *after;        /* owned: keys up to this one have been looked at */
};

void np_unit_filters_free(struct np_unit *u) {
  if (!u->filters) return;
  np_buf_free(&u->filters->kept);
  free(u->filters->after);
  free(u->filters);
  u->filters = NULL;
}

static void keep_those_of(struct np_buf *kept, const struct np_code *code) {
  for (size_t i = 0; i < code->on_count; i++) np_buf_addf(kept, "%s ", code->ons[i].memory);
}

void np_unit_filters_changed(struct np_unit *u, const struct np_code *before) {
  np_unit_filters_free(u);
  if (!before || u->kind != NP_RULE || before->kind != NP_RULE) return;
  u->filters = np_alloc(sizeof *u->filters);
  u->filters->after = np_strdup("");
  np_buf_adds(&u->filters->kept, " ");
  keep_those_of(&u->filters->kept, u->code);
  keep_those_of(&u->filters->kept, before);
}

struct page {
  struct np_filters *f;
  struct np_writeset *ws; /* owned: what goes */
  char space[300];
  char *after; /* owned: where the next page begins; NULL: there is none */
};

/* Keys stand by filter: those of one that is kept are passed over at once. */
static bool take_key(void *arg, struct np_text key, struct np_text value, int64_t version) {
  (void)value, (void)version;
  struct page *p = arg;
  size_t word = strcspn(key.ptr, " ");
  struct np_buf name = {0}, after = {0};
  np_buf_addc(&name, ' ');
  np_buf_add(&name, key.ptr, word);
  np_buf_addc(&name, ' ');
  bool kept = strstr(p->f->kept.data, name.data) != NULL;
  if (kept) {
    np_buf_add(&after, key.ptr, word);
    np_buf_addc(&after, ' ' + 1);
  } else {
    struct np_op *op = np_writeset_add(p->ws, NP_OP_PUT);
    op->as.put.space = np_writeset_text(p->ws, p->space, strlen(p->space));
    op->as.put.key = np_writeset_text(p->ws, key.ptr, key.len);
    np_buf_add(&after, key.ptr, key.len);
  }
  free(p->after);
  p->after = after.data;
  np_buf_free(&name);
  return !kept;
}

void np_unit_filters_sweep(struct np_deploy *d, struct np_unit *u) {
  struct np_error err;
  if (!u->filters) return;
  struct page p = {.f = u->filters, .ws = np_writeset_new()};
  snprintf(p.space, sizeof p.space, "filter:%s", u->instance);
  bool read = true, more = true;
  for (int i = 0; i < JUMPS && read && more && p.ws->count < PAGE; i++) {
    read = np_reader_keys(d->host->reader, p.space, "", u->filters->after, np_now_ms(), PAGE, take_key, &p, &err) == 0;
    more = p.after != NULL;
    if (!more || !read) break;
    free(u->filters->after);
    u->filters->after = p.after;
    p.after = NULL;
  }
  free(p.after);
  bool any = p.ws->first;
  if (!read || !any)
    np_writeset_unref(p.ws);
  else if (np_keeper_apply(d->host->keeper, p.ws, &err) != NP_COMMITTED)
    read = false;
  if (!read)
    np_log(NP_WARN, "what its former filters remember is not removed; the next change does it", "plugin", u->instance, "error",
           err.text, NULL);
  if (!read || !more) np_unit_filters_free(u);
}
