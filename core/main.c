
/* neap: the command line. */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "cli/ask.h"
#include "cli/import.h"
#include "cli/keep.h"
#include "cli/line.h"
#include "cli/new.h"
#include "cli/types.h"
#include "host/client.h"
#include "host/config.h"
#include "host/deploy.h"
#include "host/host.h"
#include "host/replay_dry.h"
#include "host/stage.h"
#include "test/run.h"

#ifndef NP_VERSION
#define NP_VERSION "0.1.0"
#endif

static int version(bool json) {
  puts(json ? "{\"version\":\"" NP_VERSION "\"}" : "neap " NP_VERSION);
  return 0;
}

static int run(const struct np_line *l) {
  static const char *const levels[] = {"debug", "info", "warn", "error"}, *const forms[] = {"human", "json"};
  struct np_config_flags flags = {.listen = l->values[LISTEN], .store = l->values[STORE], .plugins = l->values[PLUGINS_DIR]};
  struct np_error err;
  long lanes = 0;
  int level = NP_INFO, json = !isatty(STDERR_FILENO);
  if (np_line_whole(l, LANES, 64, "a number from 1 to 64", &lanes) < 0 ||
      np_line_word(l, LOG_LEVEL, levels, 4, "debug, info, warn or error", &level) < 0 ||
      np_line_word(l, LOG, forms, 2, "human or json", &json) < 0)
    return 2;
  flags.lanes = (int)lanes;
  signal(SIGPIPE, SIG_IGN);
  np_log_setup((enum np_log_level)level, json);
  struct np_config *config = np_config_load(l->argument, &flags, &err);
  return config ? np_host_run(config, NULL) : np_ask_config_failed(&err, false);
}

static int sandbox(const struct np_line *l) {
  static const char *const levels[] = {"debug", "info", "warn", "error"}, *const forms[] = {"human", "json"};
  long lanes = 0;
  int level = NP_WARN, json = !isatty(STDERR_FILENO);
  if (np_line_whole(l, LANES, 64, "a number from 1 to 64", &lanes) < 0 ||
      np_line_word(l, LOG_LEVEL, levels, 4, "debug, info, warn or error", &level) < 0 ||
      np_line_word(l, LOG, forms, 2, "human or json", &json) < 0)
    return 2;
  struct np_stage stage = {.vendor = l->argument,
                           .listen = l->values[LISTEN],
                           .store = l->values[STORE],
                           .plugins = l->values[PLUGINS_DIR],
                           .lanes = (int)lanes,
                           .json = l->values[JSON] != NULL};
  signal(SIGPIPE, SIG_IGN);
  np_log_setup((enum np_log_level)level, json);
  return np_stage_run(&stage);
}

static int check(const struct np_line *l) {
  struct np_config_flags flags = {.plugins = l->values[PLUGINS_DIR]};
  struct np_error err;
  bool json = l->values[JSON];
  np_log_setup(NP_WARN, !isatty(STDERR_FILENO));
  struct np_config *config = np_config_load(l->argument, &flags, &err);
  if (!config) return np_ask_config_failed(&err, json);
  int troubles = np_deploy_check(&(struct np_check_options){config, json, l->values[AGAINST]});
  np_config_free(config);
  return troubles != 0;
}

static int replay(const struct np_line *l) {
  struct np_replay_dry dry = {.rule = l->values[RULE],
                              .device = l->values[DEVICE],
                              .metric = l->values[METRIC],
                              .vendor = l->values[VENDOR],
                              .connection = l->values[CONNECTION],
                              .json = l->values[JSON] != NULL};
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct np_error err;
  if (l->values[FAILED] || l->values[REQUESTS]) return np_line_wrong(l, "requests are a connection's: which one?");
  if (l->values[AGAIN] || l->values[RATE]) return np_line_wrong(l, "--again and --rate are for --send");
  if (!l->values[DRY_RUN]) return np_line_wrong(l, "expected --dry-run or --send");
  if (!dry.rule == !l->values[ALL]) return np_line_wrong(l, "expected --rule NAME, or --all");
  if (np_cli_time(l, SINCE, &dry.from) < 0 || np_cli_time(l, UNTIL, &dry.to) < 0) return 2;
  np_log_setup(NP_WARN, !isatty(STDERR_FILENO));
  struct np_config *config = np_config_load(l->values[CONFIG], &flags, &err);
  if (!config) return np_ask_config_failed(&err, dry.json);
  dry.config = config;
  dry.store = config->store;
  int code = np_replay_dry(&dry);
  np_config_free(config);
  return code;
}

static int test(const struct np_line *l) {
  long seconds = 0;
  if (np_line_whole(l, TIMEOUT, 3600, "a number from 1 to 3600", &seconds) < 0) return 2;
  signal(SIGPIPE, SIG_IGN);
  return np_test(&(struct np_test_options){.seconds = (int)seconds,
                                           .words = l->words,
                                           .count = l->word_count,
                                           .plugins = l->values[PLUGINS_DIR],
                                           .json = l->values[JSON],
                                           .watch = l->values[WATCH]});
}

static int types(const struct np_line *l) {
  const char *folder = l->argument ? l->argument : "types";
  struct np_error err;
  bool json = l->values[JSON];
  if (np_types_write(folder, &err) < 0) {
    if (json)
      np_client_error(stdout, err.text);
    else
      fprintf(stderr, "neap types: %s\n", err.text);
    return 1;
  }
  struct np_buf path = {0};
  np_buf_addf(&path, "%s/neap", folder);
  np_cli_wrote(path.data, json);
  np_buf_free(&path);
  return 0;
}

static int help(const struct np_line *l) {
  int c = l->argument ? np_cli_find(l->argument) : HELP;
  if (c < 0) return 2;
  if (l->argument)
    np_cli_help((enum command)c);
  else
    np_cli_overview(stdout);
  return 0;
}

static int act(const struct np_line *l) {
  if (l->help) {
    np_cli_help(l->command);
    return 0;
  }
  switch (l->command) {
  case RUN: return run(l);
  case CHECK: return check(l);
  case TEST: return test(l);
  case VERSION: return version(l->values[JSON] != NULL);
  case HELP: return help(l);
  case CALL:
  case KEYS: return np_ask_call(l);
  case HISTORY:
  case DIFF:
  case ROLLBACK:
  case RELEASE:
  case APPROVE: return np_ask_generations(l);
  case REPLAY:
    if (np_ask_replays_meant(l)) return np_ask_replays(l);
    return l->word_count || !(l->values[RULE] || l->values[ALL] || l->values[DRY_RUN]) ? np_ask_requests(l) : replay(l);
  case DEAD: return np_ask_dead(l);
  case ACK: return np_ask_ack(l);
  case BACKUP: return np_cli_backup(l);
  case EXPORT: return np_cli_export(l);
  case IMPORT: return np_cli_import(l);
  case NEW: return np_new(l);
  case TYPES: return types(l);
  case TAG: return np_ask_tag(l);
  case SANDBOX: return sandbox(l);
  default: return np_ask(l);
  }
}

/* A socket or the store must not get the number of a standard stream that was closed, for others write to that. */
static void open_standard_streams(void) {
  int fd;
  do fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) close(fd);
}

int main(int argc, char **argv) {
  open_standard_streams();
  if (argc < 2) {
    np_cli_overview(stderr);
    return 2;
  }
  if (strcmp(argv[1], "--version") == 0) return version(false);
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    np_cli_overview(stdout);
    return 0;
  }
  int command = np_cli_find(argv[1]);
  if (command < 0) return 2;
  struct np_line l = {.command = (enum command)command, .words = np_alloc((size_t)argc * sizeof *l.words)};
  int code = np_line_read(&l, argc, argv) < 0 ? 2 : act(&l);
  free(l.words);
  return code;
}
