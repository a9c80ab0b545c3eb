/* Sets: what is put in force together, or held back together.
 *
 * With deploy = "atomic" the folder and neap.lua are one set: while anything of it is not in order, nothing that has changed is put in force,
 * and nothing that is gone is retired. Without it each plugin stands for itself, except that plugins never come to run with different texts of one
 * library: where one that is in force cannot take a library's new text, none that requires it is given it. What an operator went back to is left
 * out of both: he has said what is to be in force. */
#include <stdlib.h>
#include <string.h>

#include "host/deploy_parts.h"

/* Built of what the files say now. */
static bool is_fresh(const struct np_unit *u) { return u->built.code && !u->last_good && !u->pinned; }

/* At a start nothing is in force yet: what stands in the store as good is what was. */
static bool is_change(const struct np_unit *u) { return is_fresh(u) && (u->code || !u->stored); }

static void hold(struct np_deploy *d, struct np_unit *u, char *why, struct np_deploy_change *change) {
  if (d->host && !np_unit_same(why, u->held_before))
    np_log(NP_ERROR, u->code ? "not put in force; the generation before goes on" : "not in force", "plugin", u->instance, "error",
           why, NULL);
  np_unit_discard(d, u);
  np_unit_set(&u->error, NULL); /* that of an earlier text */
  free(u->held);
  u->held = why;
  change->failed++;
  if (!u->code && u->want) np_unit_fall_back(d, u, why);
}

/* Anything that is not in order: its message; NULL where all is. */
static const char *trouble(const struct np_deploy *d) {
  if (d->config_error) return d->config_error;
  for (size_t i = 0; i < d->unit_count; i++) {
    const struct np_unit *u = d->units[i];
    bool failed = !u->built.code || u->last_good;
    if (np_gate_holds(u)) return np_gate_holds(u);
    if (u->error && failed && !u->held && !u->unconfigured && (u->wanted || u->configured || u->code)) return u->error;
  }
  return NULL;
}

/* Where nothing was ever in force there is nothing that a set could be held back for. */
static bool is_first_start(const struct np_deploy *d) {
  for (size_t i = 0; i < d->unit_count; i++)
    if (d->units[i]->code || d->units[i]->last_number) return false;
  return true;
}

static bool hold_all(struct np_deploy *d, struct np_deploy_change *change) {
  const char *why = trouble(d);
  bool any = false;
  if (!why || is_first_start(d)) return false;
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    bool gone = u->code && !u->wanted;
    if (gone) u->wanted = true;
    if (!gone && !is_change(u)) continue;
    hold(d, u, np_unit_text("held back with all that has changed (deploy = \"atomic\") until this is mended: %s", why), change);
    any = true;
  }
  return any;
}

/* Libraries that a plugin in force has another text of than the file: by their place among the files, who. */
static bool note_stuck(const struct np_deploy *d, struct np_unit *u, struct np_unit **stuck) {
  const struct np_code *code = u->built.code ? u->built.code : u->code;
  bool any = false;
  if (!code || !u->wanted || u->pinned || is_fresh(u)) return false;
  for (size_t i = 0; i < code->library_count; i++) {
    const struct np_file *f = np_sources_find(&d->sources, true, code->libraries[i]);
    if (!f || strcmp(f->hash, code->library_hashes[i]) == 0) continue;
    size_t at = (size_t)(f - d->sources.files);
    if (!stuck[at]) stuck[at] = u, any = true;
  }
  return any;
}

static bool hold_with(struct np_deploy *d, struct np_unit *u, struct np_unit *const *stuck, struct np_deploy_change *change) {
  const struct np_code *code = u->built.code;
  for (size_t i = 0; is_fresh(u) && i < code->library_count; i++) {
    const struct np_file *f = np_sources_find(&d->sources, true, code->libraries[i]);
    const struct np_unit *by = f ? stuck[f - d->sources.files] : NULL;
    if (!by || by == u) continue;
    const char *why = by->held ? by->held : by->error ? by->error : np_gate_holds(by) ? np_gate_holds(by) : "it waits";
    hold(d, u,
         np_unit_text("held back, so that all that require %s have the same text of it: %s requires it too and cannot take it: %s",
                      f->source.path, by->instance, why),
         change);
    return true;
  }
  return false;
}

/* Until no more is: what is held back stays with the texts that it has of other libraries, too. */
static bool hold_dependants(struct np_deploy *d, struct np_deploy_change *change) {
  struct np_unit **stuck = np_alloc((d->sources.count + 1) * sizeof *stuck);
  bool any = false;
  for (bool more = true; more;) {
    more = false;
    for (size_t i = 0; i < d->unit_count; i++)
      if (note_stuck(d, d->units[i], stuck)) more = true;
    for (size_t i = 0; more && i < d->unit_count; i++)
      if (hold_with(d, d->units[i], stuck, change)) any = true;
  }
  free(stuck);
  return any;
}

bool np_deploy_hold(struct np_deploy *d, struct np_deploy_change *change) {
  if (d->config->atomic && hold_all(d, change)) return true;
  return hold_dependants(d, change);
}
