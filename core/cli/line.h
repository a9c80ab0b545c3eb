/* The command line: what commands and options there are, and what was typed. Private to core/cli and main.c. */
#ifndef NP_CLI_LINE_H
#define NP_CLI_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum command {
  RUN,
  CHECK,
  TEST,
  PLUGINS,
  RELOAD,
  DEVICES,
  TAG,
  DESTINATIONS,
  DEAD,
  ACK,
  TAIL,
  CALL,
  KEYS,
  SANDBOX,
  REQUEST,
  EXPLAIN,
  PEOPLE,
  HISTORY,
  DIFF,
  ROLLBACK,
  APPROVE,
  RELEASE,
  REPLAY,
  NEW,
  BACKUP,
  EXPORT,
  IMPORT,
  TYPES,
  VERSION,
  HELP,
  COMMANDS
};
_Static_assert(COMMANDS <= 32, "each command has a bit");
#define BIT(command) (1u << (command))
#define CALLS (BIT(CALL) | BIT(KEYS))
#define BACKS (BIT(HISTORY) | BIT(DIFF) | BIT(ROLLBACK) | BIT(APPROVE) | BIT(RELEASE))
#define OFFLINE (BIT(BACKUP) | BIT(EXPORT) | BIT(IMPORT)) /* open the store themselves */
#define WORDY                                                                                                                      \
  (CALLS | BACKS | BIT(REPLAY) | BIT(TAG) | BIT(DEAD) | BIT(ACK) | OFFLINE) /* take words, and the CONFIG as an option */
#define CLIENTS                                                                                                                    \
  (BIT(PLUGINS) | BIT(RELOAD) | BIT(DEVICES) | BIT(DESTINATIONS) | BIT(TAIL) | BIT(REQUEST) | BIT(EXPLAIN) | BIT(PEOPLE) | WORDY)

enum option {
  LISTEN,
  STORE,
  PLUGINS_DIR,
  LANES,
  LOG_LEVEL,
  LOG,
  JSON,
  DEVICE,
  METRIC,
  VENDOR,
  CONNECTION,
  RULE,
  BELOW,
  ABOVE,
  QUALITY,
  LAST,
  CONFIG,
  ARGS,
  WITH_PEOPLE,
  RECORDING,
  FORGET,
  EMPTY,
  FAILED,
  WATCH,
  TIMEOUT,
  AGAINST,
  MESSAGES,
  DESTINATION,
  OLDER,
  NEWER,
  ALL,
  FORMAT,
  SINCE,
  UNTIL,
  DRY_RUN,
  SEND,
  AGAIN,
  RATE,
  BY,
  NOTE,
  REQUESTS,
  AFTER,
  RULES,
  ZONE,
  SKIP_BAD,
  OPTIONS
};

struct np_cli_option {
  const char *name, *value, *about; /* value NULL: takes none */
  unsigned commands;                /* that take it: BIT of each */
};
extern const struct np_cli_option np_cli_options[OPTIONS];

struct np_cli_command {
  const char *name, *arguments, *about, *more, *example;
};
extern const struct np_cli_command np_cli_commands[COMMANDS];

struct np_line { /* the command line, read */
  enum command command;
  const char *argument; /* CONFIG, or the command to explain; NULL */
  const char *subject;  /* the request, or the person; NULL */
  const char **words;   /* owned: of a call, all that are no options */
  size_t word_count;
  const char *values[OPTIONS]; /* NULL where not given; "" for one that takes none */
  bool help;
};

/* The command of that name; -1 where there is none, which has been told then. */
int np_cli_find(const char *word);
void np_cli_overview(FILE *out);
void np_cli_help(enum command c);

/* Reads argv from its third word on. -1 where it is wrong, which has been told then. */
int np_line_read(struct np_line *l, int argc, char **argv);
/* Says on standard error why the command cannot be carried out. 2, the exit code. */
int np_line_wrong(const struct np_line *l, const char *why);
/* Says that an option's value is none that it can have. -1. */
int np_line_bad_value(const struct np_line *l, enum option o, const char *expected);
/* An option's value as a number from 1 to max, or as one of n words. Left as it is where the option was not given; -1 where it is wrong. */
int np_line_whole(const struct np_line *l, enum option o, long max, const char *expected, long *value);
int np_line_word(const struct np_line *l, enum option o, const char *const *words, int n, const char *expected, int *which);

#endif
