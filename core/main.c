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
#include "base/near.h"
#include "host/client.h"
#include "host/client_call.h"
#include "host/config.h"
#include "host/deploy.h"
#include "host/host.h"
#include "host/stage.h"
#include "test/run.h"

#ifndef NP_VERSION
#define NP_VERSION "0.1.0"
#endif

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum command {
  RUN,
  CHECK,
  TEST,
  PLUGINS,
  RELOAD,
  DEVICES,
  TAIL,
  CALL,
  KEYS,
  SANDBOX,
  REQUEST,
  PEOPLE,
  HISTORY,
  DIFF,
  ROLLBACK,
  REPLAY,
  VERSION,
  HELP
};
#define BIT(command) (1u << (command))
#define CALLS (BIT(CALL) | BIT(KEYS))
#define BACKS (BIT(HISTORY) | BIT(DIFF) | BIT(ROLLBACK))
#define WORDY (CALLS | BACKS | BIT(REPLAY)) /* take words, and the CONFIG as an option */
#define CLIENTS (BIT(PLUGINS) | BIT(RELOAD) | BIT(DEVICES) | BIT(TAIL) | BIT(REQUEST) | BIT(PEOPLE) | WORDY)

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
  BELOW,
  ABOVE,
  QUALITY,
  LAST,
  CONFIG,
  ARGS,
  WITH_PEOPLE,
  FORGET,
  FAILED,
  WATCH,
  TIMEOUT,
  OPTIONS
};

static const struct {
  const char *name, *value, *about; /* value NULL: takes none */
  unsigned commands;
} options[OPTIONS] = {
    [LISTEN] = {"--listen", "ADDRESS", "where to take requests, such as 127.0.0.1:8080", BIT(RUN) | BIT(SANDBOX)},
    [STORE] = {"--store", "PATH", "the store's file, such as neap.db", BIT(RUN) | BIT(SANDBOX) | CLIENTS},
    [PLUGINS_DIR] = {"--plugins", "FOLDER", "where the plugins are", BIT(RUN) | BIT(CHECK) | BIT(TEST) | BIT(SANDBOX)},
    [LANES] = {"--lanes", "N", "threads that serve, 1 to 64; one for each core by default", BIT(RUN) | BIT(SANDBOX)},
    [LOG_LEVEL] = {"--log-level", "LEVEL", "debug, info (the default), warn or error", BIT(RUN) | BIT(SANDBOX)},
    [LOG] = {"--log", "FORM", "human (the default on a terminal) or json", BIT(RUN) | BIT(SANDBOX)},
    [JSON] = {"--json", NULL, "JSON, an object a line", BIT(CHECK) | BIT(TEST) | BIT(SANDBOX) | CLIENTS},
    [DEVICE] = {"--device", "NAME", "only this device's readings; * stands for any letters here and below", BIT(TAIL)},
    [METRIC] = {"--metric", "NAME", "only this metric", BIT(TAIL)},
    [VENDOR] = {"--vendor", "NAME", "only this vendor's", BIT(TAIL)},
    [CONNECTION] = {"--connection", "NAME", "only those that came by this connection", BIT(TAIL)},
    [BELOW] = {"--below", "NUMBER", "only values below it", BIT(TAIL)},
    [ABOVE] = {"--above", "NUMBER", "only values above it", BIT(TAIL)},
    [QUALITY] = {"--quality", "WORD", "only valid, warmup or invalid ones", BIT(TAIL)},
    [LAST] = {"--last", "N", "begin with the newest N", BIT(TAIL)},
    [CONFIG] = {"--config", "PATH", "the host's neap.lua, or a folder with one; ./neap.lua by default", WORDY},
    [ARGS] = {"--args", "JSON", "an object of arguments, whose values are of JSON's types", CALLS},
    [FAILED] = {"--failed", NULL, "those that have failed", BIT(REPLAY)},
    [WITH_PEOPLE] = {"--people", NULL, "its target, headers and body too; the host logs that", BIT(REQUEST)},
    [FORGET] = {"--forget", NULL, "removes what is kept of that person instead", BIT(PEOPLE)},
    [WATCH] = {"--watch", NULL, "again whenever a file changes, until Ctrl-C", BIT(TEST)},
    [TIMEOUT] = {"--timeout", "SECONDS", "that one test may take; 20 by default", BIT(TEST)},
};

static const struct {
  const char *name, *arguments, *about, *more, *example;
} commands[] = {
    [RUN] =
        {"run", "[CONFIG]", "runs a host until it is told to stop",
         "CONFIG is a neap.lua, or a folder with one. Without it, ./neap.lua is read if it is there, and defaults do otherwise.\n"
         "Changes of neap.lua and of plugins are put into force while it runs. Ctrl-C and SIGTERM finish what is under way and "
         "stop.",
         "neap run examples/ward --listen 127.0.0.1:9000"},
    [CHECK] = {"check", "[CONFIG]", "checks the configuration and all plugins without running them",
               "Prints a line for each trouble. The exit code is 1 where there is any.", "neap check examples/ward"},
    [TEST] = {"test", "[PLUGIN|FILE ...]", "runs plugins' own specs",
              "A spec is NAME_spec.lua below the folder of plugins, beside the plugin that it tests, or a file that is given. "
              "Without words "
              "all are run.\n"
              "Time stands still in a test but for what the test moves, and nothing leaves this process. The exit code is 1 where "
              "one fails.",
              "neap test low-glucose --watch"},
    [PLUGINS] = {"plugins", "[CONFIG]", "shows the plugins of a running host",
                 "The state of each: in force; last good (the file is broken, an older generation serves); held (nothing can serve "
                 "it, its work\n"
                 "waits); unconfigured (it needs a setting).",
                 "neap plugins examples/ward"},
    [RELOAD] = {"reload", "[CONFIG]", "has a running host look at its plugins now",
                "A host notices changes by itself within a second; this tells what became of them. The exit code is 1 where a "
                "plugin failed.",
                "neap reload examples/ward"},
    [DEVICES] = {"devices", "[CONFIG]", "lists the devices that a running host knows", "", "neap devices --json --store neap.db"},
    [TAIL] = {"tail", "[CONFIG]", "shows readings as they are stored", "Goes on until Ctrl-C.",
              "neap tail --metric glucose --below 3.9 --last 10"},
    [CALL] = {"call", "CONNECTION [COMMAND [name=value ...]]", "has a connection of a running host carry out a command",
              "Without COMMAND, what the connection can be told to do is listed, with what each takes. A value that is a number or "
              "true or false is\n"
              "read as what the command declares. The result is printed as JSON once all that the command did is on disk. The exit "
              "code is 1\n"
              "where the command refuses or fails, or no host is running, and 2 where the command line is wrong.",
              "neap call ward-3 keys.list --config examples/ward"},
    [KEYS] =
        {"keys", "issue|list|revoke CONNECTION [name=value ...]",
         "issues, lists and revokes the keys that a connection's clients use",
         "The same as neap call CONNECTION keys.issue, keys.list and keys.revoke. A secret is printed once, when it is issued: "
         "neap keeps none\nthat could be printed again. neap call CONNECTION tells what each takes.",
         "neap keys issue ward-3 name=desk"},
    [REQUEST] = {"request", "ID [CONFIG]", "shows a request of a vendor as it was kept, and what became of it",
                 "A reading's `request` in the store is such an ID. What came may be about people: it is shown only with --people.",
                 "neap request 4711 --people"},
    [PEOPLE] = {"people", "[REFERENCE] [CONFIG]", "shows what is kept of a person",
                "A device's owner is such a REFERENCE. The host logs each that is shown. Without one, people are counted.",
                "neap people p_0123456789abcdef0123456789abcdef"},
    [SANDBOX] =
        {"sandbox", "VENDOR", "runs a host of its own with a vendor's API, invented data and credentials",
         "For whoever writes a client of that API. It runs until Ctrl-C, on a free port and a store in a new folder, which is "
         "removed at the\nend, unless --listen and --store say otherwise. With --json one line says all there is to know; the "
         "log goes to standard error,\nwarnings and errors alone. The exit code is 2 where the vendor has no sandbox.",
         "neap sandbox dreisam --listen 127.0.0.1:9000"},
    [HISTORY] = {"history", "PLUGIN", "shows the generations of a plugin of a running host, newest first",
                 "Each with when and why it came into force, or why it was not let in. PLUGIN is a name of neap plugins.",
                 "neap history low-glucose"},
    [DIFF] = {"diff", "PLUGIN A [B]", "shows what differs between two generations of a plugin",
              "B is the one in force where it is not given. What a generation required from plugins/lib belongs to it. The exit "
              "code is 0\n"
              "where they are the same, 1 where they differ.",
              "neap diff low-glucose 3 4"},
    [ROLLBACK] = {"rollback", "PLUGIN [GENERATION]", "goes back to an earlier generation of a plugin",
                  "To the good one before what is in force, where none is named. It stays in force, also over a restart, until the "
                  "text of the\n"
                  "plugin's file changes. What the plugin keeps in the store stays as it is.",
                  "neap rollback low-glucose"},
    [REPLAY] = {"replay", "CONNECTION", "runs a connection's failed requests again",
                "Those that its plugin had failed on, which were kept, oldest first, by the generation in force, with the time at "
                "which they came as\n"
                "the present. What becomes of one is on disk together with what it did; one that fails again stays as it was. The "
                "exit code is 1\n"
                "where any is still not done.",
                "neap replay ward-3 --failed"},
    [VERSION] = {"version", "", "prints the version", "", "neap version"},
    [HELP] = {"help", "[COMMAND]", "explains a command", "", "neap help run"},
};

struct line { /* the command line, read */
  enum command command;
  const char *argument; /* CONFIG, or the command to explain; NULL */
  const char *subject;  /* the request, or the person; NULL */
  const char **words;   /* owned: of a call, all that are no options */
  size_t word_count;
  const char *values[OPTIONS]; /* NULL where not given; "" for one that takes none */
  bool help;
};

/* Help. */

static void print_overview(FILE *out) {
  fputs("neap moves device readings between vendors' clouds, rules and destinations, by Lua plugins that are reloaded as they "
        "change.\n\n"
        "Usage: neap COMMAND [CONFIG] [OPTIONS]\n\nCommands:\n",
        out);
  for (size_t i = 0; i < COUNT(commands); i++) {
    char usage[80];
    snprintf(usage, sizeof usage, "%s %s", commands[i].name, commands[i].arguments);
    if (strlen(usage) > 18)
      fprintf(out, "  %s\n  %-18s %s\n", usage, "", commands[i].about);
    else
      fprintf(out, "  %-18s %s\n", usage, commands[i].about);
  }
  fputs("\nneap help COMMAND tells more. For example: neap run examples/ward\n", out);
}

static void print_help(enum command c) {
  printf("neap %s%s%s: %s.\n", commands[c].name, *commands[c].arguments ? " " : "", commands[c].arguments, commands[c].about);
  if (*commands[c].more) printf("\n%s\n", commands[c].more);
  if (BIT(c) & WORDY)
    printf("\nThe host is found by the store that --config names, or by --store.\n");
  else if (BIT(c) & CLIENTS)
    printf("\nThe host is found by the store that CONFIG names, or by --store.\n");
  bool any = false;
  for (size_t i = 0; i < OPTIONS; i++) {
    if (!(options[i].commands & BIT(c))) continue;
    char usage[40];
    snprintf(usage, sizeof usage, "%s%s%s", options[i].name, options[i].value ? " " : "", options[i].value ? options[i].value : "");
    printf("%s  %-20s %s\n", any ? "" : "\nOptions:\n", usage, options[i].about);
    any = true;
  }
  printf("\nFor example: %s\n", commands[c].example);
}

static int version(void) {
  puts("neap " NP_VERSION);
  return 0;
}

/* Reading the command line. */

static int find_command(const char *word) {
  const char *names[COUNT(commands)];
  for (size_t i = 0; i < COUNT(commands); i++) {
    if (strcmp(commands[i].name, word) == 0) return (int)i;
    names[i] = commands[i].name;
  }
  const char *meant = np_near(word, strlen(word), names, COUNT(commands));
  if (meant)
    fprintf(stderr, "neap: unknown command \"%s\", did you mean \"%s\"?\n", word, meant);
  else
    fprintf(stderr, "neap: unknown command \"%s\": neap help lists them\n", word);
  return -1;
}

static int unknown_option(enum command c, const char *word, size_t len) {
  const char *names[OPTIONS];
  size_t n = 0;
  for (size_t i = 0; i < OPTIONS; i++) {
    if (options[i].commands & BIT(c))
      names[n++] = options[i].name;
    else if (strlen(options[i].name) == len && memcmp(options[i].name, word, len) == 0) {
      fprintf(stderr, "neap %s: %s is not an option of this command\n", commands[c].name, options[i].name);
      return -1;
    }
  }
  const char *meant = np_near(word, len, names, n);
  if (meant)
    fprintf(stderr, "neap %s: unknown option %.*s, did you mean %s?\n", commands[c].name, (int)len, word, meant);
  else
    fprintf(stderr, "neap %s: unknown option %.*s: neap help %s lists them\n", commands[c].name, (int)len, word, commands[c].name);
  return -1;
}

/* Takes argv[*i], and what follows it where it needs a value. */
static int read_option(struct line *l, int argc, char **argv, int *i) {
  const char *word = argv[*i], *equals = strchr(word, '=');
  size_t len = equals ? (size_t)(equals - word) : strlen(word), o = 0;
  const char *name = commands[l->command].name;
  while (o < OPTIONS &&
         !((options[o].commands & BIT(l->command)) && strlen(options[o].name) == len && memcmp(options[o].name, word, len) == 0))
    o++;
  if (o == OPTIONS) return unknown_option(l->command, word, len);
  if (!options[o].value) {
    l->values[o] = "";
    if (!equals) return 0;
    fprintf(stderr, "neap %s: %s takes no value\n", name, options[o].name);
    return -1;
  }
  l->values[o] = equals ? equals + 1 : *i + 1 < argc ? argv[++*i] : NULL;
  if (l->values[o] && *l->values[o]) return 0;
  fprintf(stderr, "neap %s: %s needs a value: %s %s\n", name, options[o].name, options[o].name, options[o].value);
  return -1;
}

/* A request's number is the first word; a reference is told from a path by its looks. */
static bool takes_subject(const struct line *l, const char *word) {
  return !l->subject && (l->command == REQUEST || (l->command == PEOPLE && strncmp(word, "p_", 2) == 0));
}

static int read_line(struct line *l, int argc, char **argv) {
  bool only_arguments = false;
  for (int i = 2; i < argc; i++) {
    const char *word = argv[i];
    if (!only_arguments && strcmp(word, "--") == 0)
      only_arguments = true;
    else if (!only_arguments && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0))
      l->help = true;
    else if (!only_arguments && word[0] == '-' && word[1]) {
      if (read_option(l, argc, argv, &i) < 0) return -1;
    } else if (BIT(l->command) & (WORDY | BIT(TEST))) {
      l->words[l->word_count++] = word;
    } else if (takes_subject(l, word)) {
      l->subject = word;
    } else if (l->command == VERSION || l->argument) {
      fprintf(stderr, "neap %s: \"%s\" is one argument too many: neap help %s\n", commands[l->command].name, word,
              commands[l->command].name);
      return -1;
    } else {
      l->argument = word;
    }
  }
  return 0;
}

static int bad_value(const struct line *l, enum option o, const char *expected) {
  fprintf(stderr, "neap %s: %s: expected %s, got \"%s\"\n", commands[l->command].name, options[o].name, expected, l->values[o]);
  return -1;
}

static int read_whole(const struct line *l, enum option o, long max, const char *expected, long *value) {
  char *end;
  if (!l->values[o]) return 0;
  *value = strtol(l->values[o], &end, 10);
  return *end || *value < 1 || *value > max ? bad_value(l, o, expected) : 0;
}

static int read_word(const struct line *l, enum option o, const char *const *words, int n, const char *expected, int *which) {
  if (!l->values[o]) return 0;
  for (int i = 0; i < n; i++)
    if (strcmp(words[i], l->values[o]) == 0) {
      *which = i;
      return 0;
    }
  return bad_value(l, o, expected);
}

/* Commands. */

static int config_failed(const struct np_error *err, bool json) {
  if (json) {
    struct np_buf b = {0};
    np_buf_adds(&b, "{\"error\":");
    np_buf_add_json(&b, err->text, strlen(err->text));
    np_buf_adds(&b, "}");
    puts(b.data);
    np_buf_free(&b);
  } else {
    fprintf(stderr, "%s\n", err->text);
  }
  return 1;
}

static int run(const struct line *l) {
  static const char *const levels[] = {"debug", "info", "warn", "error"}, *const forms[] = {"human", "json"};
  struct np_config_flags flags = {.listen = l->values[LISTEN], .store = l->values[STORE], .plugins = l->values[PLUGINS_DIR]};
  struct np_error err;
  long lanes = 0;
  int level = NP_INFO, json = !isatty(STDERR_FILENO);
  if (read_whole(l, LANES, 64, "a number from 1 to 64", &lanes) < 0 ||
      read_word(l, LOG_LEVEL, levels, 4, "debug, info, warn or error", &level) < 0 ||
      read_word(l, LOG, forms, 2, "human or json", &json) < 0)
    return 2;
  flags.lanes = (int)lanes;
  signal(SIGPIPE, SIG_IGN);
  np_log_setup((enum np_log_level)level, json);
  struct np_config *config = np_config_load(l->argument, &flags, &err);
  return config ? np_host_run(config, NULL) : config_failed(&err, false);
}

static int sandbox(const struct line *l) {
  static const char *const levels[] = {"debug", "info", "warn", "error"}, *const forms[] = {"human", "json"};
  long lanes = 0;
  int level = NP_WARN, json = !isatty(STDERR_FILENO);
  if (read_whole(l, LANES, 64, "a number from 1 to 64", &lanes) < 0 ||
      read_word(l, LOG_LEVEL, levels, 4, "debug, info, warn or error", &level) < 0 ||
      read_word(l, LOG, forms, 2, "human or json", &json) < 0)
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

static int check(const struct line *l) {
  struct np_config_flags flags = {.plugins = l->values[PLUGINS_DIR]};
  struct np_error err;
  bool json = l->values[JSON];
  np_log_setup(NP_WARN, !isatty(STDERR_FILENO));
  struct np_config *config = np_config_load(l->argument, &flags, &err);
  if (!config) return config_failed(&err, json);
  int troubles = np_deploy_check(config, json);
  np_config_free(config);
  return troubles != 0;
}

static int test(const struct line *l) {
  long seconds = 0;
  if (read_whole(l, TIMEOUT, 3600, "a number from 1 to 3600", &seconds) < 0) return 2;
  signal(SIGPIPE, SIG_IGN);
  return np_test(&(struct np_test_options){.seconds = (int)seconds,
                                           .words = l->words,
                                           .count = l->word_count,
                                           .plugins = l->values[PLUGINS_DIR],
                                           .json = l->values[JSON],
                                           .watch = l->values[WATCH]});
}

static bool is_number(const char *s) {
  char *end;
  strtod(s, &end);
  return *s && !*end && !strpbrk(s, "xXnN"); /* JSON has no hexadecimals, infinities and the like */
}

static int add_filters(const struct line *l, struct np_buf *request) {
  long last;
  for (enum option o = DEVICE; o <= QUALITY; o++) {
    if (!l->values[o]) continue;
    np_buf_addf(request, ",\"%s\":", options[o].name + 2);
    if (o != BELOW && o != ABOVE) {
      np_buf_add_json(request, l->values[o], strlen(l->values[o]));
    } else {
      if (!is_number(l->values[o])) return bad_value(l, o, "a number");
      np_buf_addf(request, "%.17g", strtod(l->values[o], NULL));
    }
  }
  if (read_whole(l, LAST, 100000, "a number from 1 to 100000", &last) < 0) return -1;
  if (l->values[LAST]) np_buf_addf(request, ",\"last\":%ld", last);
  return 0;
}

/* What is asked of the host, after its command. */
static int add_subject(const struct line *l, struct np_buf *request) {
  if (l->command == TAIL) return add_filters(l, request);
  if (l->command == REQUEST) {
    if (!l->subject || !*l->subject || strspn(l->subject, "0123456789") != strlen(l->subject) || strlen(l->subject) > 18) {
      fprintf(stderr, "neap request: expected the number of a request, got \"%s\"\n", l->subject ? l->subject : "");
      return -1;
    }
    np_buf_addf(request, ",\"id\":%lld,\"people\":%s", strtoll(l->subject, NULL, 10), l->values[WITH_PEOPLE] ? "true" : "false");
  }
  if (l->command == PEOPLE && l->subject) {
    np_buf_adds(request, ",\"reference\":");
    np_buf_add_json(request, l->subject, strlen(l->subject));
  }
  if (l->command == PEOPLE) np_buf_addf(request, ",\"forget\":%s", l->values[FORGET] ? "true" : "false");
  return 0;
}

static int ask(const struct line *l) {
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct np_error err;
  struct np_buf request = {0};
  char *store = NULL;
  int code = 2;
  np_buf_addf(&request, "{\"command\":\"%s\"", commands[l->command].name);
  if (add_subject(l, &request) == 0) {
    np_buf_addc(&request, '}');
    store = np_config_store(l->argument, &flags, &err);
    const struct np_client client = {store, commands[l->command].name, request.data, l->values[JSON]};
    code = store ? np_client_run(&client) : config_failed(&err, l->values[JSON]);
  }
  np_buf_free(&request);
  free(store);
  return code;
}

static int call_failed(const struct line *l, const char *why) {
  fprintf(stderr, "neap %s: %s: neap help %s\n", commands[l->command].name, why, commands[l->command].name);
  return 2;
}

/* "issue" is the connection's command "keys.issue". NULL where it is none. */
static const char *key_command(const char *word) {
  static const char *const names[] = {"keys.issue", "keys.list", "keys.revoke"};
  for (size_t i = 0; i < COUNT(names); i++)
    if (strcmp(names[i] + strlen("keys."), word) == 0) return names[i];
  return NULL;
}

static int call(const struct line *l) {
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct np_error err;
  struct np_buf request = {0};
  const char *connection = l->word_count ? l->words[0] : NULL, *name = l->word_count > 1 ? l->words[1] : NULL;
  if (l->command == KEYS) {
    connection = name;
    name = l->word_count ? key_command(l->words[0]) : NULL;
    if (!name) return call_failed(l, "expected issue, list or revoke");
  }
  if (!connection) return call_failed(l, "of which connection?");
  if (!name && l->values[ARGS]) return call_failed(l, "--args: of which command?");
  size_t n = l->word_count > 2 ? l->word_count - 2 : 0;
  int code = 2;
  if (np_call_request(&request, connection, name, l->words + 2, n, l->values[ARGS], &err) < 0) {
    fprintf(stderr, "neap %s: %s\n", commands[l->command].name, err.text);
  } else {
    char *store = np_config_store(l->values[CONFIG], &flags, &err);
    const struct np_client client = {store, "call", request.data, l->values[JSON]};
    code = store ? np_client_run(&client) : config_failed(&err, l->values[JSON]);
    free(store);
  }
  np_buf_free(&request);
  return code;
}

static bool is_generation(const char *word) { return word[strspn(word, "0123456789")] == 0 && strlen(word) < 10; }

static int generations(const struct line *l) {
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct np_error err;
  size_t most = l->command == HISTORY ? 1 : l->command == DIFF ? 3 : 2;
  if (!l->word_count) return call_failed(l, "of which plugin?");
  if (l->command == DIFF && l->word_count < 2) return call_failed(l, "which generation?");
  if (l->word_count > most) return call_failed(l, "too many arguments");
  for (size_t i = 1; i < l->word_count; i++)
    if (!is_generation(l->words[i])) return call_failed(l, "a generation is a number");
  static const char *const names[] = {[HISTORY] = "history", [DIFF] = "sources", [ROLLBACK] = "rollback"};
  struct np_buf request = {0};
  np_buf_addf(&request, "{\"command\":\"%s\",\"instance\":", names[l->command]);
  np_buf_add_json(&request, l->words[0], strlen(l->words[0]));
  for (size_t i = 1; i < l->word_count; i++)
    np_buf_addf(&request, ",\"%c\":%ld", i == 1 ? 'a' : 'b', strtol(l->words[i], NULL, 10));
  np_buf_addc(&request, '}');
  char *store = np_config_store(l->values[CONFIG], &flags, &err);
  const struct np_client client = {store, names[l->command], request.data, l->values[JSON]};
  int code = store ? np_client_run(&client) : config_failed(&err, l->values[JSON]);
  free(store);
  np_buf_free(&request);
  return code;
}

static int replay(const struct line *l) {
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct np_error err;
  if (l->word_count != 1) return call_failed(l, "of which connection?");
  if (!l->values[FAILED]) return call_failed(l, "expected --failed");
  struct np_buf request = {0};
  np_buf_adds(&request, "{\"command\":\"replay\",\"connection\":");
  np_buf_add_json(&request, l->words[0], strlen(l->words[0]));
  np_buf_addc(&request, '}');
  char *store = np_config_store(l->values[CONFIG], &flags, &err);
  const struct np_client client = {store, "replay", request.data, l->values[JSON]};
  int code = store ? np_client_run(&client) : config_failed(&err, l->values[JSON]);
  free(store);
  np_buf_free(&request);
  return code;
}

static int help(const struct line *l) {
  int c = l->argument ? find_command(l->argument) : HELP;
  if (c < 0) return 2;
  if (l->argument)
    print_help((enum command)c);
  else
    print_overview(stdout);
  return 0;
}

static int act(const struct line *l) {
  if (l->help) {
    print_help(l->command);
    return 0;
  }
  switch (l->command) {
  case RUN: return run(l);
  case CHECK: return check(l);
  case TEST: return test(l);
  case VERSION: return version();
  case HELP: return help(l);
  case CALL:
  case KEYS: return call(l);
  case HISTORY:
  case DIFF:
  case ROLLBACK: return generations(l);
  case REPLAY: return replay(l);
  case SANDBOX: return sandbox(l);
  default: return ask(l);
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
    print_overview(stderr);
    return 2;
  }
  if (strcmp(argv[1], "--version") == 0) return version();
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    print_overview(stdout);
    return 0;
  }
  int command = find_command(argv[1]);
  if (command < 0) return 2;
  struct line l = {.command = (enum command)command, .words = np_alloc((size_t)argc * sizeof *l.words)};
  int code = read_line(&l, argc, argv) < 0 ? 2 : act(&l);
  free(l.words);
  return code;
}
