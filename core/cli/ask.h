/* The commands that ask a running host. Each gives the process's exit code. */
#ifndef NP_CLI_ASK_H
#define NP_CLI_ASK_H

#include "base/buf.h"
#include "base/error.h"
#include "cli/line.h"

int np_ask(const struct np_line *l); /* plugins, reload, devices, destinations, tail, request, people */
int np_ask_call(const struct np_line *l);
int np_ask_generations(const struct np_line *l); /* history, diff, rollback, approve */
int np_ask_dead(const struct np_line *l);
int np_ask_ack(const struct np_line *l);
int np_ask_requests(const struct np_line *l); /* replay CONNECTION; requests.c */
int np_ask_replays(const struct np_line *l);  /* replay --send, and replay list|show|stop|resume; replays.c */
bool np_ask_replays_meant(const struct np_line *l);
int np_ask_tag(const struct np_line *l);

/* Asks the host of that configuration, whose answer is shown as that command's, and frees the request. */
int np_ask_host(const struct np_line *l, const char *config, const char *command, struct np_buf *request);
/* Tells of a configuration that cannot be read. 1, the exit code. */
int np_ask_config_failed(const struct np_error *err, bool json);

#endif
