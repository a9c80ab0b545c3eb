/* The commands that ask a running host. Each gives the process's exit code. */
#ifndef NP_CLI_ASK_H
#define NP_CLI_ASK_H

#include "base/error.h"
#include "cli/line.h"

int np_ask(const struct np_line *l); /* plugins, reload, devices, destinations, tail, request, people */
int np_ask_call(const struct np_line *l);
int np_ask_generations(const struct np_line *l); /* history, diff, rollback, approve */
int np_ask_dead(const struct np_line *l);
int np_ask_ack(const struct np_line *l);
int np_ask_replay(const struct np_line *l);
int np_ask_tag(const struct np_line *l);

/* Tells of a configuration that cannot be read. 1, the exit code. */
int np_ask_config_failed(const struct np_error *err, bool json);

#endif
