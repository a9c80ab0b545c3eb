/* The story of a reading, a message or a request, for neap explain: as JSON, a tree. Main thread. */
#ifndef NP_HOST_STORY_H
#define NP_HOST_STORY_H

#include "base/buf.h"
#include "host/facts.h"
#include "host/host.h"

struct np_story {
  struct np_host *host; /* borrowed */
  struct np_buf *out;   /* borrowed: JSON is added to it */
  bool people;          /* with the bodies of messages */
  const int64_t *way;   /* borrowed: readings that are told wherever they come, however many others there are */
  size_t way_count;
  int64_t asked; /* the reading that is told at length among those that were derived; 0 */
  int left;      /* so many more that were derived are told of */
  struct np_facts_cache facts;
};

/* The reading with its rules, and what they sent and derived, which is told in the same way: an object. brief: rules that do not match are counted only. -1 and err: what was added is worth nothing. */
int np_story_reading(struct np_story *s, const struct np_reading *r, bool brief, struct np_error *err);
/* A message with its attempts: an object. */
int np_story_message(struct np_story *s, const struct np_sent *m, struct np_error *err);
/* One rule and one reading: whether its filters match, by the generation in force now, and why: fields of an object that has begun. story_rule.c */
struct np_status;
enum np_why np_story_matches(struct np_story *s, const struct np_status *rule, const struct np_reading *r);
/* A field whose value comes next; an element of a list. */
void np_story_field(struct np_buf *b, const char *name);
void np_story_next(struct np_buf *b);
/* The same with copies of all texts, which belong to ws. */
struct np_sent np_sent_copy(struct np_writeset *ws, const struct np_sent *from);

#endif
