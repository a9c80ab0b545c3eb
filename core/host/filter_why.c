/* Why a filter fires or does not, in words: each of its fields with what the reading has. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "host/filter_parts.h"
#include "store/seal.h"

struct telling {
  const struct np_filter *f;
  const struct np_reading *r;
  const struct np_filter_world *w;
  np_why_fn *fn;
  void *arg;
  bool no, unknown;
  struct np_buf b; /* owned: the sentence */
};

static void tell(struct telling *t, const char *field, enum np_why why) {
  t->no |= why == NP_WHY_NO;
  t->unknown |= why == NP_WHY_UNKNOWN;
  if (t->fn) t->fn(t->arg, field, why, np_buf_text(&t->b));
  np_buf_clear(&t->b);
}

static enum np_why yes_or_no(bool yes) { return yes ? NP_WHY_YES : NP_WHY_NO; }

static void unreadable(struct telling *t, const char *field, const struct np_error *err) {
  np_buf_addf(&t->b, "cannot be known: %s", err->text);
  tell(t, field, NP_WHY_UNKNOWN);
}

static void add_number(struct np_buf *b, const struct np_value *v) {
  if (v->type == NP_NUMBER_INT)
    np_buf_addf(b, "%" PRId64, v->i);
  else
    np_buf_addf(b, "%.14g", v->d);
}

static void add_value(struct np_buf *b, const struct np_value *v) {
  if (v->type == NP_STRING)
    np_buf_add_json(b, v->s.ptr ? v->s.ptr : "", v->s.len);
  else if (v->type == NP_BOOL)
    np_buf_adds(b, v->i ? "true" : "false");
  else
    add_number(b, v);
}

static void add_text(struct np_buf *b, struct np_text t) { np_buf_add_json(b, t.ptr ? t.ptr : "", t.len); }

static void add_patterns(struct telling *t, enum np_filter_field field) {
  const struct np_filter *f = t->f;
  for (size_t i = 0; i < f->counts[field]; i++) {
    if (i == 5 && f->counts[field] > 6) {
      np_buf_addf(&t->b, " or one of %zu more", f->counts[field] - i);
      return;
    }
    np_buf_adds(&t->b, !i ? "" : i + 1 == f->counts[field] ? " or " : ", ");
    np_buf_add_json(&t->b, f->patterns[field][i].text, f->patterns[field][i].len);
  }
}

static void why_text(struct telling *t, enum np_filter_field field, struct np_text text) {
  bool yes = np_filter_takes(t->f, field, text);
  if (field == NP_F_OWNER && text.len && !np_seal_is_reference(text.ptr, text.len))
    np_buf_adds(&t->b, "what is no reference, and so is not shown,"); /* it may be a name */
  else
    add_text(&t->b, text);
  np_buf_adds(&t->b, yes ? " fits " : " is not ");
  add_patterns(t, field);
  tell(t, np_filter_fields[field], yes_or_no(yes));
}

static void why_facts(struct telling *t) {
  const struct np_facts *facts = NULL;
  struct np_error err;
  if (!(np_filter_needs(t->f) & NP_FILTER_FACTS)) return;
  bool known = t->w && t->w->facts;
  int status = known ? t->w->facts(t->w->arg, t->r, &facts, &err) : 0;
  for (int i = NP_F_PLACE; i <= NP_F_TAG; i++) {
    if (!t->f->patterns[i]) continue;
    if (status < 0) {
      unreadable(t, np_filter_fields[i], &err);
    } else if (!known) {
      np_buf_adds(&t->b, "is the device's, which is not at hand; wanted is ");
      add_patterns(t, i);
      tell(t, np_filter_fields[i], NP_WHY_UNKNOWN);
    } else if (i == NP_F_TAG) {
      bool yes = np_filter_takes_facts(t->f, i, facts);
      np_buf_adds(&t->b, "the device has ");
      for (size_t k = 0; facts && k < facts->tag_count; k++) {
        np_buf_adds(&t->b, k ? ", " : "");
        add_text(&t->b, facts->tags[k]);
      }
      np_buf_adds(&t->b, !facts || !facts->tag_count ? "no tags" : "");
      np_buf_adds(&t->b, yes ? ": fits " : ": none is ");
      add_patterns(t, i);
      tell(t, "tag", yes_or_no(yes));
    } else {
      struct np_text none = {"", 0};
      why_text(t, i, facts ? i == NP_F_PLACE ? facts->place : facts->owner : none);
    }
  }
}

static void why_quality(struct telling *t) {
  if (!t->f->qualified) return;
  bool yes = t->f->qualities >> t->r->quality & 1;
  np_buf_addf(&t->b, "\"%s\" %s", np_quality_names[t->r->quality], yes ? "fits" : "is not");
  for (int q = NP_VALID, n = 0; q <= NP_INVALID; q++)
    if (t->f->qualities >> q & 1) np_buf_addf(&t->b, "%s\"%s\"", n++ ? " or " : " ", np_quality_names[q]);
  tell(t, "quality", yes_or_no(yes));
}

static void why_derived(struct telling *t) {
  if (!t->f->derived_set) return;
  bool yes = np_filter_takes_depth(t->f, t->r->depth);
  if (t->r->depth) {
    np_buf_adds(&t->b, "the rule ");
    add_text(&t->b, t->r->connection);
    np_buf_adds(&t->b, " derived it");
  } else {
    np_buf_adds(&t->b, "no rule derived it");
  }
  tell(t, "derived", yes_or_no(yes));
}

static void why_limit(struct telling *t, const char *field, const char *word, const struct np_value *limit, bool yes) {
  const struct np_value *v = &t->r->value;
  add_value(&t->b, v);
  np_buf_addf(&t->b, !np_value_is_number(v) ? " is no number, so not %s " : yes ? " is %s " : " is not %s ", word);
  add_number(&t->b, limit);
  tell(t, field, yes_or_no(yes));
}

static void why_limits(struct telling *t) {
  const struct np_filter *f = t->f;
  const struct np_value *v = &t->r->value;
  bool number = np_value_is_number(v);
  if (f->below_set) why_limit(t, "below", "below", &f->below, number && np_value_less(v, &f->below));
  if (f->above_set) why_limit(t, "above", "above", &f->above, number && np_value_less(&f->above, v));
  if (!f->outside_set) return;
  char side = np_filter_side(f, v);
  add_value(&t->b, v);
  np_buf_adds(&t->b, !number       ? " is no number, so not outside "
                     : side == 'l' ? " is below "
                     : side == 'h' ? " is above "
                                   : " is inside ");
  add_number(&t->b, &f->below);
  np_buf_adds(&t->b, " to ");
  add_number(&t->b, &f->above);
  tell(t, "outside", yes_or_no(side != 0));
}

static void add_time(struct np_buf *b, int64_t at) {
  int64_t seconds = at / 1000 - (at % 1000 < 0), days = seconds / 86400 - (seconds % 86400 < 0), left = seconds - days * 86400;
  struct np_date d = np_date(days);
  np_buf_addf(b, "%04" PRId64 "-%02d-%02dT%02d:%02d:%02dZ", d.year, d.month, d.day, (int)(left / 3600), (int)(left / 60 % 60),
              (int)(left % 60));
}

/* False: told already that it cannot be known. */
static bool remembered(struct telling *t, const char *field, enum np_memory_kind kind, struct np_memory *m) {
  struct np_error err;
  *m = (struct np_memory){0};
  if (!t->w || !t->w->recall) {
    np_buf_adds(&t->b, "depends on what was remembered at that time, which is not at hand");
    tell(t, field, NP_WHY_UNKNOWN);
    return false;
  }
  if (t->w->recall(t->w->arg, t->r, kind, m, &err) == 0) return true;
  unreadable(t, field, &err);
  return false;
}

static void why_margin(struct telling *t) {
  struct np_memory m;
  if (!t->f->margin_set || !remembered(t, "margin", NP_MEMORY_MARGIN, &m)) return;
  const struct np_value *v = &t->r->value;
  bool fired = m.mark && m.mark != 'r', late = m.mark && np_filter_moment(t->r) < m.at,
       back = fired && np_filter_is_back(t->f, v, m.mark);
  bool yes = !late && (!fired || back) && np_filter_side(t->f, v);
  if (late)
    np_buf_adds(&t->b, "it was measured before the reading that this last changed at, ");
  else if (!m.mark)
    np_buf_adds(&t->b, "it has never fired for this device and metric");
  else if (!fired)
    np_buf_adds(&t->b, "the value had come back by the margin, ");
  else if (back)
    np_buf_adds(&t->b, "the value comes back by the margin; it had fired ");
  else
    np_buf_adds(&t->b, "it has fired and the value has not come back by the margin since ");
  if (m.mark) add_time(&t->b, m.at);
  tell(t, "margin", yes || (!late && !fired) ? NP_WHY_YES : NP_WHY_NO);
}

static void why_changed(struct telling *t) {
  struct np_error err;
  if (!t->f->changed) return;
  if (!t->w || !t->w->before) {
    np_buf_adds(&t->b, "depends on the reading before, which is not at hand");
    tell(t, "changed", NP_WHY_UNKNOWN);
    return;
  }
  int yes = np_filter_changed(t->f, t->r, t->w, &err);
  if (yes < 0) {
    unreadable(t, "changed", &err);
    return;
  }
  add_value(&t->b, &t->r->value);
  np_buf_adds(&t->b, yes ? " differs from the reading before, or is the first" : " is what the reading before it had");
  tell(t, "changed", yes_or_no(yes));
}

static void why_rate(struct telling *t) {
  const struct np_filter *f = t->f;
  struct np_error err;
  double rate = 0;
  if (!f->rate_set) return;
  if (!t->w || !t->w->before) {
    np_buf_adds(&t->b, "depends on the reading before, which is not at hand");
    tell(t, "rate", NP_WHY_UNKNOWN);
    return;
  }
  int found = np_filter_rate(f, t->r, t->w, &rate, &err);
  if (found < 0) {
    unreadable(t, "rate", &err);
    return;
  }
  bool yes = found && np_filter_rate_fits(f, rate);
  if (!found) {
    np_buf_adds(&t->b, "there is no earlier number in this unit to compare with");
  } else {
    np_buf_addf(&t->b, "%.12g per %s is%s", rate, f->per_text, yes ? "" : " not");
    if (f->rate_above_set) np_buf_addf(&t->b, " above %.14g", f->rate_above);
    if (f->rate_below_set) np_buf_addf(&t->b, "%s below %.14g", f->rate_above_set ? " and" : "", f->rate_below);
  }
  tell(t, "rate", yes_or_no(yes));
}

static void why_first(struct telling *t) {
  struct np_memory m;
  if (!t->f->first || !remembered(t, "first", NP_MEMORY_FIRST, &m)) return;
  if (!m.mark) {
    np_buf_adds(&t->b, "none of this device has fired it yet");
  } else {
    np_buf_addf(&t->b, "first = \"%s\", and it has fired at ", t->f->first_text);
    add_time(&t->b, m.at);
  }
  tell(t, "first", yes_or_no(np_filter_is_first(t->f, t->r, &m)));
}

static void why_clock(struct telling *t) {
  const struct np_filter *f = t->f;
  if (!f->hours_set && !f->weekdays) return;
  struct np_local local = np_filter_local(f, t->r->at);
  if (f->hours_set) {
    bool yes = f->minutes[local.minute / 8] >> local.minute % 8 & 1;
    np_buf_addf(&t->b, "it was %02d:%02d in %s, which is%s in %s", local.minute / 60, local.minute % 60, f->zone_name,
                yes ? "" : " not", f->hours_text);
    tell(t, "hours", yes_or_no(yes));
  }
  if (!f->weekdays) return;
  bool yes = f->weekdays >> local.weekday & 1;
  np_buf_addf(&t->b, "it was a \"%s\" in %s, which is%s in", np_weekdays[local.weekday], f->zone_name, yes ? "" : " not");
  for (int d = 0, n = 0; d < 7; d++)
    if (f->weekdays >> d & 1) np_buf_addf(&t->b, "%s\"%s\"", n++ ? ", " : " ", np_weekdays[d]);
  tell(t, "weekdays", yes_or_no(yes));
}

enum np_why np_filter_why(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *world, np_why_fn *fn,
                          void *arg) {
  struct telling t = {.f = f, .r = r, .w = world, .fn = fn, .arg = arg};
  for (int i = NP_F_METRIC; i <= NP_F_UNIT; i++)
    if (f->patterns[i]) why_text(&t, i, np_filter_text(r, i));
  why_facts(&t);
  why_quality(&t);
  why_derived(&t);
  why_limits(&t);
  why_margin(&t);
  why_changed(&t);
  why_rate(&t);
  why_clock(&t);
  why_first(&t);
  np_buf_free(&t.b);
  return t.no ? NP_WHY_NO : t.unknown ? NP_WHY_UNKNOWN : NP_WHY_YES;
}
