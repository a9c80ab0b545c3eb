/* The commands that ask a running host. */
#include "cli/ask.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/duration.h"
#include "host/client.h"
#include "host/client_call.h"
#include "host/config.h"

int np_ask_config_failed(const struct np_error *err, bool json) {
  if (json)
    np_client_error(stdout, err->text);
  else
    fprintf(stderr, "%s\n", err->text);
  return 1;
}

static bool is_number(const char *s) {
  char *end;
  strtod(s, &end);
  return *s && !*end && !strpbrk(s, "xXnN"); /* JSON has no hexadecimals, infinities and the like */
}

static int add_filters(const struct np_line *l, struct np_buf *request) {
  long last;
  if (l->subject) np_buf_addf(request, ",\"of\":\"%s\"", l->subject);
  if (l->values[DESTINATION]) {
    np_buf_adds(request, ",\"destination\":");
    np_buf_add_json(request, l->values[DESTINATION], strlen(l->values[DESTINATION]));
  }
  for (enum option o = DEVICE; o <= QUALITY; o++) {
    if (!l->values[o]) continue;
    np_buf_addf(request, ",\"%s\":", np_cli_options[o].name + 2);
    if (o != BELOW && o != ABOVE) {
      np_buf_add_json(request, l->values[o], strlen(l->values[o]));
    } else {
      if (!is_number(l->values[o])) return np_line_bad_value(l, o, "a number");
      np_buf_addf(request, "%.17g", strtod(l->values[o], NULL));
    }
  }
  if (np_line_whole(l, LAST, 100000, "a number from 1 to 100000", &last) < 0) return -1;
  if (l->values[LAST]) np_buf_addf(request, ",\"last\":%ld", last);
  return 0;
}

/* What is asked of the host, after its command. */
static int add_subject(const struct np_line *l, struct np_buf *request) {
  if (l->command == TAIL) return add_filters(l, request);
  if (l->command == RELOAD && l->values[EMPTY]) np_buf_adds(request, ",\"empty\":true");
  if (l->command == REQUEST) {
    const char *number = l->subject;
    if (!number) return np_line_wrong(l, "which request?");
    if (*number == 'q') number++; /* as neap explain has it */
    if (!*number || strspn(number, "0123456789") != strlen(number) || strlen(number) > 18) {
      fprintf(stderr, "neap request: expected the number of a request, got \"%s\"\n", l->subject);
      return -1;
    }
    np_buf_addf(request, ",\"id\":%lld,\"people\":%s", strtoll(number, NULL, 10),
                l->values[WITH_PEOPLE] || l->values[RECORDING] ? "true" : "false");
  }
  if (l->command == EXPLAIN) {
    if (!l->subject) return np_line_wrong(l, "of what? An ID is such as r12, q12 or a message's");
    np_buf_adds(request, ",\"id\":");
    np_buf_add_json(request, l->subject, strlen(l->subject));
    np_buf_addf(request, ",\"people\":%s", l->values[WITH_PEOPLE] ? "true" : "false");
  }
  if (l->command == PEOPLE && l->subject) {
    np_buf_adds(request, ",\"reference\":");
    np_buf_add_json(request, l->subject, strlen(l->subject));
  }
  if (l->command == PEOPLE) np_buf_addf(request, ",\"forget\":%s", l->values[FORGET] ? "true" : "false");
  return 0;
}

/* A word that nothing else takes is a CONFIG, and may have been meant as something else. */
static void say_what_was_taken(const struct np_line *l, struct np_error *err) {
  if (!l->argument || access(l->argument, F_OK) == 0) return;
  np_fail(err, "CONFIG %s: %s%s", l->argument, strerror(errno),
          l->command == TAIL && !l->subject ? "; tails are of readings, matches, messages, attempts and acknowledgements" : "");
}

int np_ask_host(const struct np_line *l, const char *config, const char *command, struct np_buf *request) {
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct np_error err;
  char *store = np_config_store(config, &flags, &err);
  if (!store) say_what_was_taken(l, &err);
  const struct np_client client = {store, command, request->data, l->values[JSON]};
  int code = store ? np_client_run(&client) : np_ask_config_failed(&err, l->values[JSON]);
  free(store);
  np_buf_free(request);
  return code;
}

static const char *tail_of(const char *word) {
  static const char *const kinds[] = {"tail matches", "tail messages", "tail attempts", "tail acknowledgements"};
  size_t i = 0;
  while (i < 3 && strcmp(kinds[i] + strlen("tail "), word) != 0) i++;
  return kinds[i];
}

int np_ask(const struct np_line *l) {
  struct np_buf request = {0};
  if (l->values[RECORDING] && l->values[JSON]) return np_line_wrong(l, "--recording is no JSON");
  np_buf_addf(&request, "{\"command\":\"%s\"", np_cli_commands[l->command].name);
  if (add_subject(l, &request) != 0) {
    np_buf_free(&request);
    return 2;
  }
  np_buf_addc(&request, '}');
  const char *shown = np_cli_commands[l->command].name;
  if (l->values[RECORDING]) shown = "recording";
  if (l->command == TAIL && l->subject && strcmp(l->subject, "readings") != 0) shown = tail_of(l->subject);
  return np_ask_host(l, l->argument, shown, &request);
}

/* "issue" is the connection's command "keys.issue". NULL where it is none. */
static const char *key_command(const char *word) {
  static const char *const names[] = {"keys.issue", "keys.list", "keys.revoke"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i] + strlen("keys."), word) == 0) return names[i];
  return NULL;
}

int np_ask_call(const struct np_line *l) {
  struct np_error err;
  struct np_buf request = {0};
  const char *connection = l->word_count ? l->words[0] : NULL, *name = l->word_count > 1 ? l->words[1] : NULL;
  if (l->command == KEYS) {
    connection = name;
    name = l->word_count ? key_command(l->words[0]) : NULL;
    if (!name) return np_line_wrong(l, "expected issue, list or revoke");
  }
  if (!connection) return np_line_wrong(l, "of which connection?");
  if (!name && l->values[ARGS]) return np_line_wrong(l, "--args: of which command?");
  size_t n = l->word_count > 2 ? l->word_count - 2 : 0;
  if (np_call_request(&request, connection, name, l->words + 2, n, l->values[ARGS], &err) == 0)
    return np_ask_host(l, l->values[CONFIG], "call", &request);
  fprintf(stderr, "neap %s: %s\n", np_cli_commands[l->command].name, err.text);
  np_buf_free(&request);
  return 2;
}

static bool is_generation(const char *word) { return word[strspn(word, "0123456789")] == 0 && strlen(word) < 10; }

int np_ask_generations(const struct np_line *l) {
  bool messages = l->values[MESSAGES];
  size_t most = l->command == HISTORY || l->command == APPROVE || l->command == RELEASE ? 1
                : l->command == DIFF && !messages                                       ? 3
                                                                                        : 2;
  if (!l->word_count) return np_line_wrong(l, "of which plugin?");
  if (l->command == DIFF && !messages && l->word_count < 2)
    return np_line_wrong(l, "since which generation? neap history PLUGIN lists them");
  if (l->word_count > most) return np_line_wrong(l, "too many arguments");
  for (size_t i = 1; i < l->word_count; i++)
    if (!is_generation(l->words[i])) return np_line_wrong(l, "a generation is a number");
  static const char *const names[] = {
      [HISTORY] = "history", [DIFF] = "sources", [ROLLBACK] = "rollback", [APPROVE] = "approve", [RELEASE] = "release"};
  const char *command = messages ? "messages" : names[l->command];
  struct np_buf request = {0};
  np_buf_addf(&request, "{\"command\":\"%s\",\"instance\":", command);
  np_buf_add_json(&request, l->words[0], strlen(l->words[0]));
  for (size_t i = 1; i < l->word_count; i++)
    np_buf_addf(&request, ",\"%c\":%ld", i == 1 ? 'a' : 'b', strtol(l->words[i], NULL, 10));
  np_buf_addc(&request, '}');
  return np_ask_host(l, l->values[CONFIG], command, &request);
}

static int add_age(const struct np_line *l, enum option o, struct np_buf *request) {
  int64_t ms;
  if (!l->values[o]) return 0;
  if (np_duration_parse(l->values[o], strlen(l->values[o]), &ms) < 0)
    return np_line_bad_value(l, o, "an age such as \"7d\" or \"1h\"");
  np_buf_addf(request, ",\"%s\":%lld", np_cli_options[o].name + 2, (long long)ms);
  return 0;
}

int np_ask_dead(const struct np_line *l) {
  static const char *const actions[] = {"list", "show", "retry", "drop"};
  const char *action = l->word_count ? l->words[0] : "list", *id = l->word_count > 1 ? l->words[1] : NULL;
  size_t i = 0;
  while (i < 4 && strcmp(actions[i], action) != 0) i++;
  if (i == 4) return np_line_wrong(l, "expected list, show, retry or drop");
  if (l->word_count > 2) return np_line_wrong(l, "too many arguments");
  bool show = i == 1, any = id || l->values[DESTINATION] || l->values[OLDER] || l->values[NEWER];
  if (show && !id) return np_line_wrong(l, "which message?");
  if (i > 1 && !any && !l->values[ALL]) return np_line_wrong(l, "which ones? Name an ID, --destination, --older, --newer or --all");
  struct np_buf request = {0};
  np_buf_addf(&request, "{\"command\":\"dead\",\"action\":\"%s\"", action);
  if (id) np_buf_adds(&request, ",\"id\":"), np_buf_add_json(&request, id, strlen(id));
  const char *destination = l->values[DESTINATION];
  if (destination) np_buf_adds(&request, ",\"destination\":"), np_buf_add_json(&request, destination, strlen(destination));
  if (l->values[ALL]) np_buf_adds(&request, ",\"all\":true");
  if (add_age(l, OLDER, &request) < 0 || add_age(l, NEWER, &request) < 0) {
    np_buf_free(&request);
    return 2;
  }
  np_buf_addc(&request, '}');
  return np_ask_host(l, l->values[CONFIG], show ? "letter" : "dead", &request);
}

static void add_text(struct np_buf *request, const char *name, const char *value) {
  if (!value) return;
  np_buf_addf(request, ",\"%s\":", name);
  np_buf_add_json(request, value, strlen(value));
}

int np_ask_ack(const struct np_line *l) {
  bool list = !l->word_count || strcmp(l->words[0], "list") == 0;
  if (l->word_count > 1) return np_line_wrong(l, "too many arguments");
  if (list && (l->values[BY] || l->values[NOTE])) return np_line_wrong(l, "which message?");
  struct np_buf request = {0};
  np_buf_adds(&request, "{\"command\":\"ack\"");
  if (!list) add_text(&request, "id", l->words[0]);
  add_text(&request, "by", l->values[BY]);
  add_text(&request, "note", l->values[NOTE]);
  np_buf_addc(&request, '}');
  return np_ask_host(l, l->values[CONFIG], "ack", &request);
}

static void add_tags(const struct np_line *l, struct np_buf *request, const char *field, char sign) {
  int n = 0;
  np_buf_addf(request, ",\"%s\":[", field);
  for (size_t i = 1; i < l->word_count; i++) {
    if (l->words[i][0] != sign) continue;
    if (n++) np_buf_addc(request, ',');
    np_buf_add_json(request, l->words[i] + 1, strlen(l->words[i] + 1));
  }
  np_buf_addc(request, ']');
}

int np_ask_tag(const struct np_line *l) {
  struct np_buf request = {0};
  if (!l->word_count) return np_line_wrong(l, "of which device?");
  for (size_t i = 1; i < l->word_count; i++)
    if (l->words[i][0] != '+' && l->words[i][0] != '-') return np_line_wrong(l, "expected +NAME or -NAME after the device");
  np_buf_adds(&request, "{\"command\":\"tag\",\"device\":");
  np_buf_add_json(&request, l->words[0], strlen(l->words[0]));
  if (l->values[VENDOR]) {
    np_buf_adds(&request, ",\"vendor\":");
    np_buf_add_json(&request, l->values[VENDOR], strlen(l->values[VENDOR]));
  }
  add_tags(l, &request, "add", '+');
  add_tags(l, &request, "remove", '-');
  np_buf_addc(&request, '}');
  return np_ask_host(l, l->values[CONFIG], "tag", &request);
}
