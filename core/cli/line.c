/* Reading the command line. */
#include "cli/line.h"

#include <stdlib.h>
#include <string.h>

#include "base/near.h"

int np_line_wrong(const struct np_line *l, const char *why) {
  fprintf(stderr, "neap %s: %s: neap help %s\n", np_cli_commands[l->command].name, why, np_cli_commands[l->command].name);
  return 2;
}

static int unknown_option(enum command c, const char *word, size_t len) {
  const char *names[OPTIONS];
  size_t n = 0;
  for (size_t i = 0; i < OPTIONS; i++) {
    if (np_cli_options[i].commands & BIT(c))
      names[n++] = np_cli_options[i].name;
    else if (strlen(np_cli_options[i].name) == len && memcmp(np_cli_options[i].name, word, len) == 0) {
      fprintf(stderr, "neap %s: %s is not an option of this command\n", np_cli_commands[c].name, np_cli_options[i].name);
      return -1;
    }
  }
  const char *meant = np_near(word, len, names, n);
  if (meant)
    fprintf(stderr, "neap %s: unknown option %.*s, did you mean %s?\n", np_cli_commands[c].name, (int)len, word, meant);
  else
    fprintf(stderr, "neap %s: unknown option %.*s: neap help %s lists them\n", np_cli_commands[c].name, (int)len, word,
            np_cli_commands[c].name);
  return -1;
}

/* Takes argv[*i], and what follows it where it needs a value. */
static int read_option(struct np_line *l, int argc, char **argv, int *i) {
  const char *word = argv[*i], *equals = strchr(word, '=');
  size_t len = equals ? (size_t)(equals - word) : strlen(word), o = 0;
  const char *name = np_cli_commands[l->command].name;
  while (o < OPTIONS && !((np_cli_options[o].commands & BIT(l->command)) && strlen(np_cli_options[o].name) == len &&
                          memcmp(np_cli_options[o].name, word, len) == 0))
    o++;
  if (o == OPTIONS) return unknown_option(l->command, word, len);
  if (!np_cli_options[o].value) {
    l->values[o] = "";
    if (!equals) return 0;
    fprintf(stderr, "neap %s: %s takes no value\n", name, np_cli_options[o].name);
    return -1;
  }
  l->values[o] = equals ? equals + 1 : *i + 1 < argc ? argv[++*i] : NULL;
  if (l->values[o] && *l->values[o]) return 0;
  fprintf(stderr, "neap %s: %s needs a value: %s %s\n", name, np_cli_options[o].name, np_cli_options[o].name,
          np_cli_options[o].value);
  return -1;
}

static bool is_tail(const char *word) {
  return strcmp(word, "readings") == 0 || strcmp(word, "matches") == 0 || strcmp(word, "messages") == 0 ||
         strcmp(word, "attempts") == 0 || strcmp(word, "acknowledgements") == 0;
}

/* A request's number is the first word; a reference is told from a path by its looks. */
static bool takes_subject(const struct np_line *l, const char *word) {
  return !l->subject && (l->command == REQUEST || l->command == EXPLAIN || (l->command == PEOPLE && strncmp(word, "p_", 2) == 0) ||
                         (l->command == TAIL && is_tail(word)));
}

/* "-icu" takes the tag away. */
static bool is_tag(const struct np_line *l, const char *word) { return l->command == TAG && l->word_count && word[1] != '-'; }

int np_line_read(struct np_line *l, int argc, char **argv) {
  bool only_arguments = false;
  for (int i = 2; i < argc; i++) {
    const char *word = argv[i];
    if (!only_arguments && strcmp(word, "--") == 0)
      only_arguments = true;
    else if (!only_arguments && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0))
      l->help = true;
    else if (!only_arguments && word[0] == '-' && word[1] && !is_tag(l, word)) {
      if (read_option(l, argc, argv, &i) < 0) return -1;
    } else if (BIT(l->command) & (WORDY | BIT(TEST) | BIT(NEW))) {
      l->words[l->word_count++] = word;
    } else if (takes_subject(l, word)) {
      l->subject = word;
    } else if (l->command == VERSION || l->argument) {
      fprintf(stderr, "neap %s: \"%s\" is one argument too many: neap help %s\n", np_cli_commands[l->command].name, word,
              np_cli_commands[l->command].name);
      return -1;
    } else {
      l->argument = word;
    }
  }
  return 0;
}

int np_line_bad_value(const struct np_line *l, enum option o, const char *expected) {
  fprintf(stderr, "neap %s: %s: expected %s, got \"%s\"\n", np_cli_commands[l->command].name, np_cli_options[o].name, expected,
          l->values[o]);
  return -1;
}

int np_line_whole(const struct np_line *l, enum option o, long max, const char *expected, long *value) {
  char *end;
  if (!l->values[o]) return 0;
  *value = strtol(l->values[o], &end, 10);
  return *end || *value < 1 || *value > max ? np_line_bad_value(l, o, expected) : 0;
}

int np_line_word(const struct np_line *l, enum option o, const char *const *words, int n, const char *expected, int *which) {
  if (!l->values[o]) return 0;
  for (int i = 0; i < n; i++)
    if (strcmp(words[i], l->values[o]) == 0) {
      *which = i;
      return 0;
    }
  return np_line_bad_value(l, o, expected);
}
