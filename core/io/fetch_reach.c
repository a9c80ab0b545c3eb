/* Where a name may lead: whoever runs a name's DNS could have it lead to this machine's own services, or to a cloud's metadata. */
#include "io/fetch_reach.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

static bool is_near_v4(uint32_t a) { return a >> 24 == 127 || a >> 24 == 0 || a >> 16 == 0xa9fe; }

static bool holds_near_v4(const struct in6_addr *a, int at) {
  uint32_t v4;
  memcpy(&v4, a->s6_addr + at, sizeof v4);
  return is_near_v4(ntohl(v4));
}

/* Those that hold an IPv4 address lead where that leads: mapped, compatible (RFC 4291), by NAT64 (RFC 6052), 6to4 (RFC 3056). */
static bool is_near_v6(const struct in6_addr *a) {
  static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b}, to4[2] = {0x20, 0x02};
  if (IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LINKLOCAL(a)) return true;
  if (IN6_IS_ADDR_V4MAPPED(a) || IN6_IS_ADDR_V4COMPAT(a) || memcmp(a->s6_addr, nat64, sizeof nat64) == 0)
    return holds_near_v4(a, 12);
  return memcmp(a->s6_addr, to4, sizeof to4) == 0 && holds_near_v4(a, 2);
}

bool np_fetch_is_near(const struct sockaddr *address) {
  if (address->sa_family == AF_INET) return is_near_v4(ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr));
  if (address->sa_family == AF_INET6) return is_near_v6(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
  return true; /* nothing else is asked */
}

bool np_fetch_says_near(const char *name) {
  static const char below[] = "localhost";
  const char *colon = strrchr(name, ':');
  size_t len = colon ? (size_t)(colon - name) : strlen(name), tail = sizeof below - 1;
  char host[64];
  struct in_addr v4;
  if (name[0] == '[') return true; /* no name has a bracket */
  if (len && name[len - 1] == '.') len--;
  if (len >= tail && strncasecmp(name + len - tail, below, tail) == 0 && (len == tail || name[len - tail - 1] == '.')) return true;
  if (len >= sizeof host) return false;
  memcpy(host, name, len);
  host[len] = 0;
  return inet_pton(AF_INET, host, &v4) == 1;
}
