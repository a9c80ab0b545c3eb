/* Rules whose derived readings would come back to them are not put in force together: the newcomer is refused, and what is in force goes on. */
#include <stdlib.h>
#include <string.h>

#include "host/circle.h"
#include "host/deploy_parts.h"

struct ring { /* the rules that are to be in force, and that derive */
  struct np_unit **units;
  const struct np_code **codes;
  size_t count;
};

static struct ring rules_of(const struct np_deploy *d) {
  struct ring r = {np_alloc((d->unit_count + 1) * sizeof *r.units), np_alloc((d->unit_count + 1) * sizeof *r.codes), 0};
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    const struct np_code *code = u->built.code ? u->built.code : u->code;
    if (!u->wanted || !code || !code->derive_count) continue;
    r.units[r.count] = u;
    r.codes[r.count++] = code;
  }
  return r;
}

/* Its readings are held until it is mended; at a start its last good generation is tried instead. */
static void refuse(struct np_deploy *d, struct np_unit *u, const char *why, struct np_deploy_change *change) {
  bool was_good = u->last_good;
  np_unit_fail(d, u, why);
  change->failed++;
  u->clashed = true;
  np_gate_refused(u, NP_STAGE_CIRCLES, why);
  np_unit_discard(d, u);
  np_unit_set(&u->bad, u->tried);
  if (!u->code && !was_good) np_unit_fall_back(d, u, why);
}

static void note_good(void *arg, const struct np_generation *g) { *(bool *)arg = strcmp(g->verdict.ptr, "good") == 0; }

/* At a start: whether it was in force before, as far as the store tells. */
static bool was_in_force(const struct np_deploy *d, const struct np_unit *u) {
  bool good = false;
  if (!u->stored || u->clashed || !d->host) return false;
  if (u->last_good) return true;
  return np_reader_generation(d->host->reader, u->instance, NULL, note_good, &good, NULL) == 1 && good;
}

static bool refuse_one(struct np_deploy *d, const struct ring *r, bool was, struct np_deploy_change *change) {
  for (size_t i = r->count; i-- > 0;) {
    struct np_unit *u = r->units[i];
    struct np_buf why = {0};
    if (!u->built.code || was_in_force(d, u) != was) continue;
    np_buf_addf(&why, "%s: ", u->built.code->file);
    bool found = np_circle_find(r->codes, r->count, i, &why);
    if (found) refuse(d, u, why.data, change);
    np_buf_free(&why);
    if (found) return true;
  }
  return false;
}

bool np_deploy_circles(struct np_deploy *d, struct np_deploy_change *change) {
  bool any = false;
  for (bool more = true; more; any |= more) {
    struct ring r = rules_of(d);
    more = refuse_one(d, &r, false, change) || refuse_one(d, &r, true, change);
    free(r.units);
    free(r.codes);
  }
  return any;
}
