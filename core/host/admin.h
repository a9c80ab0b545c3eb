/* The admin socket: what `neap plugins`, `reload`, `tail`, `devices` and others ask a running host. A Unix socket beside the store, for its owner
 * only: "neap.db.sock" beside "neap.db".
 *
 * A client sends one line, a JSON object of less than 64 KiB, and gets JSON objects, one a line, until the host closes:
 *   {"command":"plugins"}  an object for each instance (instance, plugin, kind, state, generation, since, file, hash, memory, memory_max,
 *                          held, pending, dead, error), then {"summary":{pid, version, port, lanes, epoch, tasks, states, timers, served, refused, failed,
 *                          descriptors, resident, queue, held, pending, dead, readings}}
 *   {"command":"reload"}   looks at all plugins now: an object for each that is not in force (instance, plugin, state, file, error), then
 *                          {"summary":{loaded, kept, failed, removed}}; failed are all whose file's present text cannot be in force
 *   {"command":"devices"}  an object for each device, then {"summary":{devices}}
 *   {"command":"tail", "device":…, "metric":…, "vendor":…, "connection":…, "unit":…, "quality":…, "below":…, "above":…, "last":N}
 *                          readings that pass the filter (filter.h), as they are committed; the newest N first where asked. Endless.
 *   {"command":"tail", "of":"matches"|"messages"|"attempts"|"acknowledgements", "rule":…, "destination":…, "device":…, "metric":…, "vendor":…, "connection":…}
 *                          {"tailing":…}, then what happens from then on, once it is committed: of a match its reading, rule, generation and what it did
 *                          (sent, armed, disarmed, stored, emitted, held), of a message its id, of an attempt its answer, of an acknowledgement whose it is. Each that is given is a
 *                          pattern. {"dropped":N} stands where N were left out, for the client was too slow. Endless.
 *   {"command":"call", "connection":…}
 *                          an object for each command of that connection (command, about, args), then {"summary":{commands}}
 *   {"command":"call", "connection":…, "name":…, "args":{…}, "words":{…}}
 *                          runs it: {"result":…} once it is committed, or {"error", "kind", "field"}. words are args as text. It goes on
 *                          where the client leaves.
 *   {"command":"request", "id":…, "people":true}  the inbox's row: id, received, connection, generation, method, target (or the route alone, where it is kept
 *                          encrypted), remote, status, outcome, error; with people also headers and body (or body_base64), which is logged;
 *                          then {"summary":{requests}}
 *   {"command":"people", "reference":…, "forget":true}  {reference, person:{connection, key, since, changed, details}}, which is logged; with forget
 *                          it is removed instead; then {"summary":{people}} or {forgotten}. Without a reference how many people are kept.
 *   {"command":"dead", "action":"list"|"show"|"retry"|"drop", "id":…, "destination":…, "older":ms, "newer":ms, "all":true}
 *                          list: an object for each dead letter, then {"summary":{dead}}. show: any message by its id, with its body as the terms of its
 *                          destination let it be seen, then an object for each attempt. retry and drop: {"summary":{retried}} or {dropped}, which is logged
 *   {"command":"ack", "id":…, "by":…, "note":…}  acknowledges a message: its object as in a list of dead letters, with acknowledged:{at, by, note} and first,
 *                          false where it had been already, then {"summary":{acknowledged}}. Without an id: an object for each message that asks for an
 *                          acknowledgement and has none, oldest first, then {"summary":{unacknowledged}}
 *   {"command":"destinations"}  an object for each: instance, plugin, state, circuit, failures, failing_since, next_probe, paused_until, flying, pending,
 *                          oldest, dead, last_arrival, batch, concurrency, error
 *   {"command":"explain", "id":"r12", "people":true}  {asked, of, request or request_gone, readings:[{…, rules:[{rule, generation, then, filters, matches, held,
 *                          messages:[{…, attempts}]}]}], message}: the story of a reading (r12), a request (q12) or a message; with people also what came
 *                          and the bodies of messages, which is logged; then {"summary":{stories}}
 *   {"command":"import", "rules":true}  {"importing":true}, then batches of readings as import.h has them, until the client closes
 *   {"command":"stop"}     drains as SIGTERM does; {"summary":{stopping}}
 * What cannot be done is answered by {"error":"a sentence"}. Times are ms since 1970. Main thread. */
#ifndef NP_HOST_ADMIN_H
#define NP_HOST_ADMIN_H

#include "host/host.h"

struct np_admin;

/* Listens, on host->base. The store is open and locked: a socket file that stands there is left from a host that was killed. */
struct np_admin *np_admin_new(struct np_host *host, struct np_error *err);
/* Readings may have been committed. */
void np_admin_committed(struct np_admin *a);
/* Everybody who was promised an answer has it. */
bool np_admin_idle(const struct np_admin *a);
/* Closes all and removes the socket file. Before the store is closed. */
void np_admin_free(struct np_admin *a);

/* A Unix socket address for a path of any length: -1 and err where its folder cannot be opened. *folder is to be closed after bind or connect. */
struct sockaddr_un;
int np_admin_address(const char *store, struct sockaddr_un *address, int *folder, struct np_error *err);

#endif
