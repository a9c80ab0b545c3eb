/* Where a name may lead. Private to core/io. */
#ifndef NP_IO_FETCH_REACH_H
#define NP_IO_FETCH_REACH_H

#include <stdbool.h>
#include <sys/socket.h>

/* Whether an address is this machine's own or its link's: loopback, link-local, unspecified, also within an IPv6 address. Others, private
 * networks among them, are not. */
bool np_fetch_is_near(const struct sockaddr *address);
/* Whether "host:port" or "[v6]:port" says itself that it is near: an address, localhost, or a name below it (RFC 6761). */
bool np_fetch_says_near(const char *name);

#endif
