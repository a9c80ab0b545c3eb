/* Routes as a trie of segments: matching costs the path's length, whatever the number of routes. */
#include "io/routes.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/map.h"

struct answer {
  struct answer *next; /* owned; in the order they were added */
  char *method;        /* owned */
  void *value;         /* borrowed */
  char **names;        /* owned: of the parameters, for they may be named differently from method to method */
  size_t count;
};

struct node {
  struct np_map literal;  /* segment -> struct node, owned */
  struct node *parameter; /* owned */
  struct answer *answers; /* owned */
  struct answer *rests;   /* owned: of patterns whose "{rest...}" stands here */
};

struct np_routes {
  struct node root;
};

struct np_routes *np_routes_new(void) {
  return np_alloc(sizeof(struct np_routes));
}

static void answer_free(struct answer *a) {
  for (size_t i = 0; i < a->count; i++) free(a->names[i]);
  free(a->names);
  free(a->method);
  free(a);
}

static void answers_free(struct answer *a) {
  for (struct answer *next; a; a = next) {
    next = a->next;
    answer_free(a);
  }
}

static void node_free(void *value);

static void node_clear(struct node *n) {
  np_map_free(&n->literal, node_free);
  if (n->parameter) node_free(n->parameter);
  answers_free(n->answers);
  answers_free(n->rests);
}

static void node_free(void *value) {
  node_clear(value);
  free(value);
}

void np_routes_free(struct np_routes *r) {
  if (!r) return;
  node_clear(&r->root);
  free(r);
}

/* ---- adding ---- */

static bool is_name(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++) {
    bool letter = (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= 'a' && s[i] <= 'z') || s[i] == '_';
    if (!letter && !(i && s[i] >= '0' && s[i] <= '9')) return false;
  }
  return n > 0;
}

static bool is_parameter(const char *s, size_t n) { return n >= 2 && s[0] == '{' && s[n - 1] == '}'; }

static bool is_rest(const char *s, size_t n) { return n >= 5 && s[0] == '{' && memcmp(s + n - 4, "...}", 4) == 0; }

/* The segment at s ends here: at a '/' or the pattern's end. */
static size_t segment(const char *s) { return strcspn(s, "/"); }

static int check_parameter(const char *pattern, const char *s, size_t n, const char **names, size_t *lens, size_t count,
                           struct np_error *err) {
  if (is_rest(s, n)) {
    if (s[n]) return np_fail(err, "route %s: %.*s takes all that follows, so that nothing can stand behind it", pattern, (int)n, s);
    n -= 3;
  }
  if (!is_name(s + 1, n - 2)) return np_fail(err, "route %s: %.*s is not a name", pattern, (int)n, s);
  if (count == NP_ROUTE_PARAMS) return np_fail(err, "route %s: more than %d parameters", pattern, NP_ROUTE_PARAMS);
  for (size_t i = 0; i < count; i++)
    if (lens[i] == n - 2 && memcmp(names[i], s + 1, n - 2) == 0)
      return np_fail(err, "route %s: %.*s stands in it twice", pattern, (int)n, s);
  names[count] = s + 1;
  lens[count] = n - 2;
  return 0;
}

/* Fills names with the parameters' and returns how many there are. */
static int check(const char *method, const char *pattern, const char **names, size_t *lens, struct np_error *err) {
  if (!*method || strlen(method) > 16) return np_fail(err, "route %s: \"%s\" is not a method", pattern, method);
  for (const char *m = method; *m && strcmp(method, "*") != 0; m++)
    if (*m < 'A' || *m > 'Z') return np_fail(err, "route %s: the method %s is not in capitals", pattern, method);
  if (pattern[0] != '/') return np_fail(err, "route %s: a path starts with /", pattern);
  size_t count = 0;
  for (const char *s = pattern; *s; s += segment(s)) {
    s++;
    size_t n = segment(s);
    if (is_parameter(s, n)) {
      if (check_parameter(pattern, s, n, names, lens, count++, err) < 0) return -1;
    } else if (memchr(s, '{', n) || memchr(s, '}', n)) {
      return np_fail(err, "route %s: a parameter takes a whole segment, which %.*s is not", pattern, (int)n, s);
    } else if (memchr(s, '?', n) || memchr(s, '#', n)) {
      return np_fail(err, "route %s: a route is a path, without a query", pattern);
    }
  }
  return (int)count;
}

static struct node *child(struct node *n, const char *s, size_t len) {
  if (is_parameter(s, len)) {
    if (!n->parameter) n->parameter = np_alloc(sizeof *n->parameter);
    return n->parameter;
  }
  struct node *to = np_map_get(&n->literal, s, len);
  if (!to) {
    to = np_alloc(sizeof *to);
    np_map_put(&n->literal, s, len, to);
  }
  return to;
}

static struct answer *find(struct answer *a, const char *method) {
  for (; a; a = a->next)
    if (strcmp(a->method, method) == 0) return a;
  return NULL;
}

int np_routes_add(struct np_routes *r, const char *method, const char *pattern, void *value, void **clash, struct np_error *err) {
  const char *names[NP_ROUTE_PARAMS] = {0};
  size_t lens[NP_ROUTE_PARAMS] = {0};
  if (clash) *clash = NULL;
  int count = check(method, pattern, names, lens, err);
  if (count < 0) return -1;
  struct node *n = &r->root;
  bool rest = false;
  for (const char *s = pattern; *s; s += segment(s)) {
    s++;
    rest = is_rest(s, segment(s));
    if (!rest) n = child(n, s, segment(s));
  }
  struct answer **list = rest ? &n->rests : &n->answers, *there = find(*list, method);
  if (there) {
    if (clash) *clash = there->value;
    return np_fail(err, "route %s %s: there is one of that shape already", method, pattern);
  }
  struct answer *a = np_alloc(sizeof *a), **last = list;
  *a = (struct answer){.method = np_strdup(method), .value = value, .count = (size_t)count};
  a->names = np_alloc(sizeof *a->names * (size_t)count);
  for (size_t i = 0; i < a->count; i++) a->names[i] = np_strndup(names[i], lens[i]);
  while (*last) last = &(*last)->next;
  *last = a;
  return 0;
}

/* ---- matching ---- */

struct search {
  const char *method; /* NULL: no value is looked for, but all methods of the path are gathered */
  bool any;           /* "*" will do */
  const char *end;    /* of the path */
  struct np_route_match *m;
  const char *values[NP_ROUTE_PARAMS];
  size_t lens[NP_ROUTE_PARAMS];
};

static bool has_word(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *at = list; (at = strstr(at, word)); at += n)
    if ((at == list || at[-1] == ' ') && (at[n] == ',' || !at[n])) return true;
  return false;
}

/* Adds a method to a list such as "GET, HEAD". There is always room left for OPTIONS; what else does not fit is left out. */
static void add_word(char *list, size_t size, const char *word) {
  size_t len = strlen(list);
  if (has_word(list, word) || len + strlen(word) + 2 >= size) return;
  snprintf(list + len, size - len, "%s%s", len ? ", " : "", word);
}

static void gather(const struct answer *a, struct np_route_match *m) {
  char *allow = m->allow;
  const size_t size = sizeof m->allow;
  for (; a; a = a->next) {
    if (a->method[0] == '*') continue;
    m->count = 1;
    if (strcmp(a->method, "OPTIONS") != 0) add_word(allow, size - sizeof ", OPTIONS", a->method);
    if (strcmp(a->method, "GET") == 0) add_word(allow, size - sizeof ", OPTIONS", "HEAD");
  }
}

/* At one of these answers' patterns. True where the search is over. */
static bool arrive(struct search *q, struct answer *answers, size_t params) {
  if (!q->method) {
    gather(answers, q->m);
    return false;
  }
  const struct answer *a = find(answers, q->method);
  if (!a && strcmp(q->method, "HEAD") == 0) a = find(answers, "GET");
  if (!a && q->any) a = find(answers, "*");
  if (!a) return false; /* a less literal pattern may have it */
  q->m->value = a->value;
  q->m->count = params;
  for (size_t i = 0; i < params; i++) {
    q->m->names[i] = a->names[i];
    q->m->values[i] = q->values[i];
    q->m->lens[i] = q->lens[i];
  }
  return true;
}

/* at stands on the '/' before the next segment, or at the end. Goes as deep as the patterns do, however long the path is. */
static bool walk(struct search *q, const struct node *n, const char *at, size_t params);

static bool walk_rest(struct search *q, const struct node *n, const char *at, size_t params) {
  if (!n->rests || params == NP_ROUTE_PARAMS) return false;
  q->values[params] = at == q->end ? at : at + 1;
  q->lens[params] = (size_t)(q->end - q->values[params]);
  return arrive(q, n->rests, params + 1);
}

static bool walk_exact(struct search *q, const struct node *n, const char *at, size_t params) {
  if (at == q->end) return arrive(q, n->answers, params);
  const char *s = at + 1, *slash = memchr(s, '/', (size_t)(q->end - s)), *next = slash ? slash : q->end;
  size_t len = (size_t)(next - s);
  const struct node *literal = np_map_get(&n->literal, s, len);
  if (literal && walk(q, literal, next, params)) return true;
  if (!n->parameter || !len || params == NP_ROUTE_PARAMS) return false;
  q->values[params] = s;
  q->lens[params] = len;
  return walk(q, n->parameter, next, params + 1);
}

static bool walk(struct search *q, const struct node *n, const char *at, size_t params) {
  return walk_exact(q, n, at, params) || walk_rest(q, n, at, params);
}

void np_routes_match(const struct np_routes *r, const char *method, const char *path, size_t len, struct np_route_match *m) {
  m->value = NULL;
  m->count = 0;
  m->allow[0] = 0;
  if (!len || path[0] != '/') return;
  struct search q = {.method = method, .end = path + len, .m = m, .any = strcmp(method, "OPTIONS") != 0};
  if (walk(&q, &r->root, path, 0)) return;
  q.method = NULL;
  walk(&q, &r->root, path, 0);
  if (m->count) {
    m->count = 0;
    add_word(m->allow, sizeof m->allow, "OPTIONS");
  } else if (!q.any) {
    q.method = method;
    q.any = true;
    walk(&q, &r->root, path, 0);
  }
}
