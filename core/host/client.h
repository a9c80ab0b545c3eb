/* The commands that ask a running host: over its admin socket, shown to a person or passed on as JSON lines. */
#ifndef NP_HOST_CLIENT_H
#define NP_HOST_CLIENT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

struct np_client {
  const char *store;   /* the host's, as np_config_store gives it */
  const char *command; /* "plugins", "reload", "devices", "tail", "call", "requests" …; how the answer is shown */
  const char *request; /* JSON object of admin.h, without a newline */
  bool json;           /* lines go to standard output as they come */
};

/* A command's result is printed as it is, its error on standard error also where JSON is asked for.
 * Asks, prints, and returns the process's exit code: 0; 1 where there is no host, it refuses, or a reload has failed. A standard output
 * that is closed ends it quietly, and so does SIGINT during a tail. Of requests that
 * are run again it says how far they have come. Sets signals, so it is the last thing that a process does. */
int np_client_run(const struct np_client *c);

/* A socket to the host that runs on that store; -1 and err, *none where no host does. */
int np_client_connect(const char *store, bool *none, struct np_error *err);

void np_client_error(FILE *out, const char *text); /* {"error":…} on a line */

#endif
