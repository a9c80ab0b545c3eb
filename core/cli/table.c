/* The commands, their options, and what neap help says of them. */
#include "cli/line.h"

#include <string.h>

#include "base/buf.h"
#include "base/near.h"

#define WIDTH 100
#define COLUMN 23 /* where what an option does begins */

const struct np_cli_option np_cli_options[OPTIONS] = {
    [LISTEN] = {"--listen", "ADDRESS", "where to take requests, such as 127.0.0.1:8080", BIT(RUN) | BIT(SANDBOX)},
    [STORE] = {"--store", "PATH", "the store's file, such as neap.db", BIT(RUN) | BIT(SANDBOX) | CLIENTS},
    [PLUGINS_DIR] = {"--plugins", "FOLDER", "where the plugins are", BIT(RUN) | BIT(CHECK) | BIT(TEST) | BIT(SANDBOX) | BIT(NEW)},
    [LANES] = {"--lanes", "N", "threads that serve, 1 to 64; one for each core by default", BIT(RUN) | BIT(SANDBOX)},
    [LOG_LEVEL] = {"--log-level", "LEVEL", "debug, info (the default), warn or error", BIT(RUN) | BIT(SANDBOX)},
    [LOG] = {"--log", "FORM", "human (the default on a terminal) or json", BIT(RUN) | BIT(SANDBOX)},
    [JSON] = {"--json", NULL, "JSON, an object a line",
              BIT(CHECK) | BIT(TEST) | BIT(SANDBOX) | BIT(NEW) | BIT(TYPES) | BIT(VERSION) | CLIENTS},
    [DEVICE] = {"--device", "NAME", "only this device's readings; * stands for any letters here and below",
                BIT(TAIL) | BIT(EXPORT) | BIT(REPLAY)},
    [METRIC] = {"--metric", "NAME", "only this metric", BIT(TAIL) | BIT(EXPORT) | BIT(REPLAY)},
    [VENDOR] = {"--vendor", "NAME", "only this vendor's", BIT(TAIL) | BIT(EXPORT) | BIT(REPLAY) | BIT(TAG) | BIT(IMPORT)},
    [CONNECTION] = {"--connection", "NAME", "only those that came by this connection",
                    BIT(TAIL) | BIT(EXPORT) | BIT(REPLAY) | BIT(IMPORT)},
    [RULE] = {"--rule", "NAME", "only of this rule", BIT(TAIL) | BIT(REPLAY)},
    [BELOW] = {"--below", "NUMBER", "only values below it", BIT(TAIL)},
    [ABOVE] = {"--above", "NUMBER", "only values above it", BIT(TAIL)},
    [QUALITY] = {"--quality", "WORD", "only valid, warmup or invalid ones", BIT(TAIL)},
    [LAST] = {"--last", "N", "begin with the newest N", BIT(TAIL)},
    [CONFIG] = {"--config", "PATH", "the host's neap.lua, or a folder with one; ./neap.lua by default", WORDY},
    [ARGS] = {"--args", "JSON", "an object of arguments, whose values are of JSON's types", CALLS},
    [FAILED] = {"--failed", NULL, "those that have failed", BIT(REPLAY)},
    [WITH_PEOPLE] = {"--people", NULL, "what came, and what was sent, too; the host logs that", BIT(REQUEST) | BIT(EXPLAIN)},
    [RECORDING] = {"--recording", NULL, "the same as neap test plays it, secrets masked", BIT(REQUEST)},
    [FORGET] = {"--forget", NULL, "removes what is kept of that person instead", BIT(PEOPLE)},
    [EMPTY] = {"--empty", NULL, "the plugins' folder is empty on purpose: all are retired", BIT(RELOAD)},
    [WATCH] = {"--watch", NULL, "again whenever a file changes, until Ctrl-C", BIT(TEST)},
    [TIMEOUT] = {"--timeout", "SECONDS", "that one test may take; 20 by default", BIT(TEST)},
    [AGAINST] = {"--against", "STORE", "a host's store: what would each rule send otherwise than now?", BIT(CHECK)},
    [MESSAGES] = {"--messages", NULL, "what a rule sends otherwise, in place of its text", BIT(DIFF)},
    [DESTINATION] = {"--destination", "NAME", "only what was for this destination", BIT(DEAD) | BIT(TAIL)},
    [OLDER] = {"--older", "AGE", "only what has been dead for longer, such as 7d", BIT(DEAD)},
    [NEWER] = {"--newer", "AGE", "only what has been dead for less, such as 1h", BIT(DEAD)},
    [ALL] = {"--all", NULL, "all of them, where nothing else says which", BIT(DEAD) | BIT(REPLAY)},
    [FORMAT] = {"--format", "FORM", "ndjson (the default, but for a FILE.csv) or csv", BIT(EXPORT) | BIT(IMPORT)},
    [SINCE] = {"--since", "TIME", "only what was measured then or later, such as 2026-03-01T08:00:00Z or 24h (ago)",
               BIT(EXPORT) | BIT(REPLAY)},
    [DRY_RUN] = {"--dry-run", NULL, "only tells what would be otherwise than it was", BIT(REPLAY)},
    [BY] = {"--by", "NAME", "whose acknowledgement it is; yours where it is not given", BIT(ACK)},
    [NOTE] = {"--note", "TEXT", "what there is to say about it", BIT(ACK)},
    [REQUESTS] = {"--requests", "FROM..TO", "those of these numbers, whatever became of them", BIT(REPLAY)},
    [AFTER] = {"--after", "N", "only those that come after request N: to go on from there", BIT(REPLAY)},
    [RULES] = {"--rules", NULL, "rules are run on readings that are new, too", BIT(REPLAY) | BIT(IMPORT)},
    [RATE] = {"--rate", "N/s", "not more than so many a second, or N/m a minute; with --send 20/s by default", BIT(REPLAY)},
    [ZONE] = {"--zone", "NAME", "where times without an offset are meant, such as Europe/Berlin", BIT(IMPORT)},
    [SKIP_BAD] = {"--skip-bad", "FILE", "puts lines that cannot be taken into this file, and goes on", BIT(IMPORT)},
    [SEND] = {"--send", NULL, "sends what the rule would have sent and that is not on record as sent", BIT(REPLAY)},
    [AGAIN] = {"--again", NULL, "sends that, too", BIT(REPLAY)},
    [UNTIL] = {"--until", "TIME", "only what was measured then or earlier", BIT(EXPORT) | BIT(REPLAY)},
};

/* Where an option means something else to one command. */
static const struct {
  enum command command;
  enum option option;
  const char *about;
} otherwise[] = {
    {TAG, VENDOR, "whose device it is, where several vendors have one of that name"},
    {IMPORT, VENDOR, "whose devices those are that do not say it"},
    {IMPORT, CONNECTION, "by which those came that do not say it; the vendor's name by default"},
    {IMPORT, RULES, "rules are run on readings that are new, as if they came now"},
    {REPLAY, SINCE, "only what came then or later, such as 2026-03-01T08:00:00Z or 24h (ago)"},
    {REPLAY, UNTIL, "only what came then or earlier"},
};

const struct np_cli_command np_cli_commands[COMMANDS] = {
    [RUN] = {"run", "[CONFIG]", "runs a host until it is told to stop",
             "CONFIG is a neap.lua, or a folder with one. Without it, ./neap.lua is read if it is there, and defaults do "
             "otherwise. Changes of neap.lua and of plugins are put into force while it runs. Ctrl-C and SIGTERM finish what is "
             "under way and stop.",
             "neap run examples/ward --listen 127.0.0.1:9000"},
    [CHECK] = {"check", "[CONFIG]", "checks the configuration and all plugins without running them",
               "Prints a line for each trouble. The exit code is 1 where there is any. Specs are run where neap.lua asks for them. "
               "Against a store, each rule is run over the last readings there, and so is the generation of it that is in force: "
               "the messages that would be new, gone or different are shown. The store may be in use, and is not changed.",
               "neap check examples/ward --against /var/lib/neap/neap.db"},
    [TEST] = {"test", "[PLUGIN|FILE ...]", "runs plugins' own specs",
              "A spec is NAME_spec.lua below the folder of plugins, beside the plugin that it tests, or a file that is given. "
              "Without words all are run. Time stands still in a test but for what the test moves, and nothing leaves this "
              "process. The exit code is 1 where one fails.",
              "neap test low-glucose --watch"},
    [PLUGINS] = {"plugins", "[CONFIG]", "shows the plugins of a running host",
                 "The state of each: in force; last good (the file is broken, an older generation serves); held (nothing can serve "
                 "it, its work waits); unconfigured (it needs a setting).",
                 "neap plugins examples/ward"},
    [RELOAD] = {"reload", "[CONFIG]", "has a running host look at its plugins now",
                "A host notices changes by itself within a second; this tells what became of them. The exit code is 1 where a "
                "plugin failed. Where all files are gone at once, as with a mount that is not there, what is in force goes on, "
                "unless --empty is given.",
                "neap reload examples/ward"},
    [DEVICES] = {"devices", "[CONFIG]", "lists the devices that a running host knows", "", "neap devices --json --store neap.db"},
    [TAG] = {"tag", "DEVICE [+NAME|-NAME ...]", "shows a device's tags, gives it some and takes some away",
             "Rules match them (tag = \"icu\" in a filter). What a device is given here stays until it is taken away here; tags "
             "that its vendor's plugin gives are the plugin's to take away. Either all changes are made, on disk before this ends, "
             "or none. The exit code is 1 where none could be made.",
             "neap tag GA-0017 +icu -hall"},
    [DESTINATIONS] = {"destinations", "[CONFIG]", "shows how deliveries of a running host go",
                      "What waits for each destination and since when, what is dead, and its circuit: closed is well; one that "
                      "keeps failing is open, and only probed until a delivery arrives.",
                      "neap destinations examples/ward"},
    [DEAD] = {"dead", "list|show|retry|drop [ID]", "shows dead letters, tries them again, or drops them",
              "Messages that a destination refused, that were tried for as long as may be, or that have expired. show ID gives any "
              "message, each attempt at it, and its body without what the destination's terms redact. retry puts it back under its "
              "id, before what still waits of its device; what has arrived meanwhile arrived before it. Its age counts anew, and "
              "what made it expire no longer does. drop moves it to the table dropped, with who did it.",
              "neap dead retry --destination desk --newer 1h"},
    [ACK] = {"ack", "list|ID", "acknowledges a message, or lists those that wait for it",
             "The first acknowledgement of a message counts: of a second one it is told who was first, and nothing changes. A rule "
             "can wait for it, and send on what nobody has acknowledged in time. list, or nothing, shows the messages that ask for "
             "an acknowledgement and have none, oldest first, whether they have arrived or not. The exit code is 1 where there is "
             "no such message.",
             "neap ack msg_0199a3 --by \"Sister Agnes\" --note \"with the patient\""},
    [TAIL] = {"tail", "[readings|matches|messages|attempts|acknowledgements] [CONFIG]",
              "shows readings, or what rules do and send, as it happens",
              "readings where none is named. matches: each reading that a rule's filters let through, and what the rule did. "
              "messages: what rules send. attempts: each try at delivering, with its answer. acknowledgements: whose, of which "
              "message. --below, --above, --quality and --last are for readings, --destination for all but readings and matches. "
              "Nobody waits for whoever reads slowly: of all but readings, what is left out is counted. Goes on until Ctrl-C.",
              "neap tail --metric glucose --below 3.9 --last 10"},
    [CALL] =
        {"call", "CONNECTION [COMMAND [name=value ...]]", "has a connection of a running host carry out a command",
         "Without COMMAND, what the connection can be told to do is listed, with what each takes. A value that is a number or true "
         "or false is read as what the command declares. The result is printed as JSON once all that the command did is on disk. "
         "The exit code is 1 where the command refuses or fails, or no host is running, and 2 where the command line is wrong.",
         "neap call ward-3 keys.list --config examples/ward"},
    [KEYS] = {"keys", "issue|list|revoke CONNECTION [name=value ...]",
              "issues, lists and revokes the keys that a connection's clients use",
              "The same as neap call CONNECTION keys.issue, keys.list and keys.revoke. A secret is printed once, when it is "
              "issued: neap keeps none that could be printed again. neap call CONNECTION tells what each takes.",
              "neap keys issue ward-3 name=desk"},
    [REQUEST] = {"request", "ID [CONFIG]", "shows a request of a vendor as it was kept, and what became of it",
                 "A reading's `request` in the store is such an ID. What came may be about people: it is shown only with --people.",
                 "neap request 4711 --people"},
    [EXPLAIN] =
        {"explain", "ID [CONFIG]", "tells the whole story of a reading, a message or a request",
         "ID is r and a reading's number (seq in neap tail --json), q and a request's, or a message's id. Told is the request that "
         "it came with, its readings, for each rule why it matches or not, what it sent, and each attempt to deliver that, with "
         "the time in between. What is on record is told as it was; whether a rule matches is computed by the rules in force now.",
         "neap explain r4711"},
    [PEOPLE] = {"people", "[REFERENCE] [CONFIG]", "shows what is kept of a person",
                "A device's owner is such a REFERENCE. The host logs each that is shown. Without one, people are counted.",
                "neap people p_0123456789abcdef0123456789abcdef"},
    [SANDBOX] =
        {"sandbox", "VENDOR", "runs a host of its own with a vendor's API, invented data and credentials",
         "For whoever writes a client of that API. It runs until Ctrl-C, on a free port and a store in a new folder, which is "
         "removed at the end, unless --listen and --store say otherwise. With --json one line says all there is to know; the log "
         "goes to standard error, warnings and errors alone. The exit code is 2 where the vendor has no sandbox.",
         "neap sandbox dreisam --listen 127.0.0.1:9000"},
    [HISTORY] = {"history", "PLUGIN", "shows the generations of a plugin of a running host, newest first",
                 "Each with when and why it came into force, or why it was not let in. PLUGIN is a name of neap plugins.",
                 "neap history low-glucose"},
    [DIFF] = {"diff", "PLUGIN A [B] | PLUGIN --messages [A]", "shows what differs between two generations of a plugin",
              "B is the one in force where it is not given. What a generation required from plugins/lib belongs to it. The exit "
              "code is 0 where they are the same, 1 where they differ. With --messages it shows which messages of a rule are "
              "others since A, by device, as a run over the last readings found when A came to the gate; A is the newest that came "
              "there where it is not given.",
              "neap diff low-glucose 3 4"},
    [ROLLBACK] = {"rollback", "PLUGIN [GENERATION]", "goes back to an earlier generation of a plugin",
                  "To the good one before what is in force that has another text, where none is named; settings are those of "
                  "neap.lua. It stays in force, also over a restart, until the "
                  "text of the plugin's file changes. What the plugin keeps in the store stays as it is.",
                  "neap rollback low-glucose"},
    [APPROVE] =
        {"approve", "PLUGIN", "puts in force what waits to be approved",
         "A rule whose policy is \"hold\" waits where a change of it would send other messages: neap plugins shows it, neap diff "
         "PLUGIN --messages shows which. The generation before goes on until then. To do without it, save the file as it was.",
         "neap approve low-glucose"},
    [RELEASE] = {"release", "PLUGIN", "ends a plugin's quarantine",
                 "A plugin that goes past its limits again and again is quarantined: its work is held, and it is tried again after "
                 "a while. This does so now. Requests that came meanwhile are run again by neap replay --failed.",
                 "neap release low-glucose"},
    [REPLAY] =
        {"replay", "CONNECTION --failed|--requests FROM..TO | --rule NAME --dry-run|--send | list|show|stop|resume [N]",
         "runs requests again, or rules on what came",
         "CONNECTION: its requests that were kept, oldest first, by the generation in force, with the time at which they came as "
         "the present. --failed takes those that its plugin had failed on; --requests, --since and --until take any. What becomes "
         "of one is on disk together with what it did; one that fails stays as it was. What it gives that is known already is not "
         "stored again, and rules are not run on what is new, unless the request had failed or --rules is given; all else that its "
         "handler does, it does again. With --dry-run nothing is written, and it is told what each would give: new, different from "
         "what is stored, or missing. The exit code is 1 where any fails.\n\n--rule with --dry-run: a rule, or --all, as its file "
         "stands, is run over the readings of the store, and what it would send is compared with what was sent, also by replays. "
         "Nothing is sent, and nothing is changed. The rule begins without any memory.\n\nWith --send: the host runs the rule in "
         "force likewise, and sends what is not on record as sent, each with the number of the replay, which destinations tell. "
         "What has expired is not sent. Live messages go first, and --rate bounds it. It goes on without this command, and over a "
         "restart; list, show, stop and resume are about such replays. The exit code is 1 where it could not go on to its end. See "
         "--dry-run first.",
         "neap replay --rule low-glucose --since 24h --send"},
    [NEW] = {"new", "vendor|rule|destination NAME", "writes a plugin that works, and a spec that tests it",
             "Below ./plugins, or the folder that is given. Beside that folder, where they are not there yet: .luarc.json and "
             "types for editors, and .luacheckrc for luacheck. Nothing that is there is overwritten.",
             "neap new rule hot-fridge"},
    [TYPES] = {"types", "[FOLDER]", "writes definitions of all that plugins can call, for editors",
               "LuaCATS, as lua-language-server and its like read it, into FOLDER/neap; FOLDER is types where none is given. What "
               "an earlier neap has written there is overwritten.",
               "neap types"},
    [BACKUP] =
        {"backup", "FILE", "copies the store, which may be in use, into a new file",
         "As it is at one moment; the copy is checked before it gets its name. To restore it, stop the host, put it in the store's "
         "place and start. The key file, without which encrypted values cannot be read, is not in it: keep it elsewhere.",
         "neap backup /backup/neap-monday.db --config /etc/neap"},
    [EXPORT] = {"export", "", "writes readings to standard output",
                "In the order in which they came, those that are stored when it begins. A host may be running on the store. NDJSON "
                "has an object a line; CSV has values as JSON writes them: 12 is a number, \"12\" a text.",
                "neap export --metric glucose --since 2026-03-01T00:00:00Z --format csv > glucose.csv"},
    [IMPORT] = {"import", "FILE|-", "takes readings from a file, or from standard input, into the store",
                "What neap export writes, and files of others: of CSV, the first line names the columns. device, metric, value and "
                "at have to be there, and vendor here or there. A time is ms since 1970 or such as 2026-03-01T08:00:00Z. Rules are "
                "not run on what is imported, unless --rules says so. What is known already is passed over, so that an import can "
                "be run again. A line that cannot be taken ends it, and is named with line, column and field; what came before it "
                "may be in the store. A host may be running on the store: it is asked then, and what comes in goes first. The exit "
                "code is 1 where a line could not be taken.",
                "neap import glucose-2025.csv --vendor sinocare --connection ward-3 --zone Europe/Berlin"},
    [VERSION] = {"version", "", "prints the version", "", "neap version"},
    [HELP] = {"help", "[COMMAND]", "explains a command", "", "neap help run"},
};

void np_cli_overview(FILE *out) {
  fputs("neap moves device readings between vendors' clouds, rules and destinations, by Lua plugins that are reloaded as they "
        "change.\n\n"
        "Usage: neap COMMAND [CONFIG] [OPTIONS]\n\nCommands:\n",
        out);
  for (size_t i = 0; i < COMMANDS; i++) {
    int width = fprintf(out, "  %s %s", np_cli_commands[i].name, np_cli_commands[i].arguments);
    if (width > 20) {
      fputc('\n', out);
      width = 0;
    }
    fprintf(out, "%*s %s\n", 20 - width, "", np_cli_commands[i].about);
  }
  fputs("\nneap help COMMAND tells more. For example: neap run examples/ward\n", out);
}

/* text in lines of at most WIDTH bytes, of which the first begins at column at; "\n\n" ends a paragraph. */
static void print_wrapped(const char *text, int indent, int at) {
  for (const char *word = text; *word;) {
    size_t n = strcspn(word, " \n"), gap = strspn(word + n, " \n");
    bool paragraph = gap == 2 && word[n] == '\n';
    if (at > indent && at + 1 + (int)n > WIDTH) at = indent, printf("\n%*s", indent, "");
    at += printf("%s%.*s", at > indent ? " " : "", (int)n, word);
    if (paragraph) at = indent, printf("\n\n%*s", indent, "");
    word += n + gap;
  }
  putchar('\n');
}

static const char *about(enum command c, enum option o) {
  for (size_t i = 0; i < sizeof otherwise / sizeof *otherwise; i++)
    if (otherwise[i].command == c && otherwise[i].option == o) return otherwise[i].about;
  return np_cli_options[o].about;
}

void np_cli_help(enum command c) {
  struct np_buf head = {0};
  np_buf_addf(&head, "neap %s%s%s: %s.", np_cli_commands[c].name, *np_cli_commands[c].arguments ? " " : "",
              np_cli_commands[c].arguments, np_cli_commands[c].about);
  print_wrapped(head.data, 0, 0);
  np_buf_free(&head);
  if (*np_cli_commands[c].more) putchar('\n'), print_wrapped(np_cli_commands[c].more, 0, 0);
  if (BIT(c) & OFFLINE)
    printf("\nThe store is the one that --config names, or --store.\n");
  else if (BIT(c) & WORDY)
    printf("\nThe host is found by the store that --config names, or by --store.\n");
  else if (BIT(c) & CLIENTS)
    printf("\nThe host is found by the store that CONFIG names, or by --store.\n");
  bool any = false;
  for (size_t i = 0; i < OPTIONS; i++) {
    if (!(np_cli_options[i].commands & BIT(c))) continue;
    char usage[40];
    snprintf(usage, sizeof usage, "%s%s%s", np_cli_options[i].name, np_cli_options[i].value ? " " : "",
             np_cli_options[i].value ? np_cli_options[i].value : "");
    printf("%s  %-20s ", any ? "" : "\nOptions:\n", usage);
    print_wrapped(about(c, (enum option)i), COLUMN, COLUMN);
    any = true;
  }
  printf("\nFor example: %s\n", np_cli_commands[c].example);
}

int np_cli_find(const char *word) {
  const char *names[COMMANDS];
  for (size_t i = 0; i < COMMANDS; i++) {
    if (strcmp(np_cli_commands[i].name, word) == 0) return (int)i;
    names[i] = np_cli_commands[i].name;
  }
  const char *meant = np_near(word, strlen(word), names, COMMANDS);
  if (meant)
    fprintf(stderr, "neap: unknown command \"%s\", did you mean \"%s\"?\n", word, meant);
  else
    fprintf(stderr, "neap: unknown command \"%s\": neap help lists them\n", word);
  return -1;
}
