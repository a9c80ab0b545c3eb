/* Circles: rules whose derived readings would come back to them. What a rule derives is what it declares (plugin:derives), and what meets a rule is what
 * its filters may take: of a filter the metric, the connection and `derived` are looked at, and all else is taken to fit. */
#ifndef NP_HOST_CIRCLE_H
#define NP_HOST_CIRCLE_H

#include "base/buf.h"
#include "host/plugin.h"

/* Whether what rules[start] derives comes back to it, by any of the n rules: then *text (the caller's) says how, with the shortest way, and what to do:
 * "what it derives comes back to it: a -> b -> a, by metrics \"x\" and \"y\": …". Any thread. */
bool np_circle_find(const struct np_code *const *rules, size_t n, size_t start, struct np_buf *text);

#endif
