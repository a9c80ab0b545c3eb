/* The dialog of a mail: however the server's answers are cut into pieces, and whatever they are. */
#include "io/mail_dialog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static char *to[] = {(char *)"a@b.example", (char *)"c@d.example"};

/* Plays the server's bytes in pieces of at most `most` and at most a line, each once all is sent; what was said, in `said`, and the code that it
 * comes to. */
static const char *play(const char *bytes, size_t len, size_t most, struct np_buf *said, struct np_buf *why) {
  struct np_mail_dialog d = {.from = "x@y.example", .to = to, .to_count = 2, .text = ".\r\nhi\r\n", .len = 7};
  struct np_error err;
  const char *code = "waits";
  np_mail_dialog_begin(&d, true);
  while (len && !d.over) {
    const char *stop = memchr(bytes, '\n', len);
    size_t n = stop ? (size_t)(stop - bytes) + 1 : len;
    if (n > most) n = most;
    np_buf_add(said, d.out.data, d.out.len);
    np_buf_clear(&d.out);
    if (np_mail_dialog_take(&d, bytes, n, &err) < 0) {
      code = "other";
      np_buf_adds(why, err.text);
      break;
    }
    bytes += n;
    len -= n;
  }
  np_buf_add(said, d.out.data, d.out.len);
  if (d.over) code = np_mail_dialog_judge(&d, why);
  np_mail_dialog_free(&d);
  return code;
}

static bool same(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

static void test_pieces(void) {
  static const char *const dialogs[] = {"250-a\r\n250 b\r\n250 ok\r\n550-no\r\n550 such\r\n354 go\r\n250 taken\r\n",
                                        "250\n250\n250\n354\n250\n",
                                        "250 \r\n550 a\r\n450 b\r\n",
                                        "250 a\r\n421 b\r\n250 c\r\n",
                                        "2500 a\r\n",
                                        "25",
                                        "xyz\r\n",
                                        "\r\n",
                                        "250 a\r\n250 b\r\n250 c\r\n250 d\r\n",
                                        "999 a\r\n",
                                        "000 a\r\n"};
  static const char *const codes[] = {NULL, NULL, "later", "later", "other", "waits", "other", "other", "other", "other", "other"};
  for (size_t i = 0; i < sizeof dialogs / sizeof *dialogs; i++) {
    struct np_buf whole = {0}, why = {0};
    const char *code = play(dialogs[i], strlen(dialogs[i]), 1000, &whole, &why);
    CHECK(same(code, codes[i]));
    for (size_t most = 1; most < 20; most++) {
      struct np_buf said = {0}, other = {0};
      CHECK(same(code, play(dialogs[i], strlen(dialogs[i]), most, &said, &other)));
      CHECK(strcmp(np_buf_text(&whole), np_buf_text(&said)) == 0);
      CHECK(strcmp(np_buf_text(&why), np_buf_text(&other)) == 0);
      np_buf_free(&said), np_buf_free(&other);
    }
    np_buf_free(&whole), np_buf_free(&why);
  }
}

static void test_commands(void) {
  struct np_buf said = {0}, why = {0};
  play("250 a\r\n250 b\r\n250 c\r\n354 d\r\n", 28, 1000, &said, &why);
  CHECK(strcmp(np_buf_text(&said), "MAIL FROM:<x@y.example> SIZE=7\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
                                   "..\r\nhi\r\n.\r\n") == 0);
  np_buf_free(&said), np_buf_free(&why);
}

/* What is answered before it is asked: the answers may belong to other commands than they seem to, and a mail be lost by it. */
static void test_early(void) {
  static const char *const dialogs[] = {"250 a\r\n250 b\r\n",   "550 a\r\n550 b\r\n",   "354 go\r\n250 taken\r\n",
                                        "354 go\r\n354 go\r\n", "354 go\r\n554 no\r\n", "354 go\r\n421 bye\r\n"};
  static const enum np_mail_stage stages[] = {NP_MAIL_FROM, NP_MAIL_RCPT, NP_MAIL_DATA, NP_MAIL_DATA, NP_MAIL_DATA, NP_MAIL_DATA};
  static const char *const codes[] = {"other", "other", "other", "other", "refused", "later"};
  for (size_t i = 0; i < sizeof dialogs / sizeof *dialogs; i++) {
    struct np_mail_dialog d = {.from = "x@y.example", .to = to, .to_count = 2, .text = "hi\r\n", .len = 4};
    struct np_error err;
    struct np_buf why = {0};
    np_mail_dialog_begin(&d, false);
    np_buf_clear(&d.out);
    d.stage = stages[i];
    d.accepted = stages[i] == NP_MAIL_DATA;
    bool wrong = np_mail_dialog_take(&d, dialogs[i], strlen(dialogs[i]), &err) < 0;
    CHECK(wrong || d.over, "%zu", i);
    CHECK(same(wrong ? "other" : np_mail_dialog_judge(&d, &why), codes[i]), "%zu", i);
    np_mail_dialog_free(&d);
    np_buf_free(&why);
  }
}

static void test_endless(void) {
  struct np_mail_dialog d = {.from = "x@y.example", .to = to, .to_count = 2, .text = "hi\r\n", .len = 4};
  struct np_error err;
  int lines = 0;
  np_mail_dialog_begin(&d, false);
  np_buf_clear(&d.out);
  while (lines < 100000 && np_mail_dialog_take(&d, "250-x\r\n", 7, &err) == 0) lines++;
  CHECK(lines == 65536 / 7, "%d", lines);
  CHECK(d.words.len < 400, "%zu", d.words.len);
  np_mail_dialog_free(&d);
}

/* A server that says anything: never taken without a 354 and a 2xx after it. */
static void test_anything(void) {
  static const char *const parts[] = {"250", "354", "550",  "421",      "4", "-",          " ",         "\r\n",
                                      "\n",  "a",   "\xff", "\xc3\xa4", "",  "250 ok\r\n", "354 go\r\n"};
  srand(7);
  for (int round = 0; round < 20000; round++) {
    struct np_buf bytes = {0}, said = {0}, why = {0};
    for (int n = rand() % 30; n > 0; n--) {
      const char *part = parts[(size_t)rand() % (sizeof parts / sizeof *parts)];
      np_buf_add(&bytes, part, *part ? strlen(part) : 1);
    }
    const char *code = play(np_buf_text(&bytes), bytes.len, 1 + (size_t)rand() % 9, &said, &why);
    if (!code) CHECK(strstr(np_buf_text(&said), "\r\n.\r\n") && !why.len);
    if (code && strcmp(code, "waits") != 0) CHECK(why.len > 0);
    np_buf_free(&bytes), np_buf_free(&said), np_buf_free(&why);
  }
}

static void test_addresses(void) {
  static const char *const good[] = {"a@b", "a.b+c@d-e.example", "!#$%&'*+/=?^_`{|}~-@x.y"};
  static const char *const bad[] = {"",     "@",       "a@",      "@b",         "a@b@c",  "a b@c",   "a@b c",
                                    "a@b.", "a@.b",    ".a@b",    "a.@b",       "a..b@c", "a@b\r\n", "<a@b>",
                                    "a@b>", "\"a\"@b", "a@[::1]", "\xc3\xa4@b", "a@b_c"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(np_mail_is_address(good[i]));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!np_mail_is_address(bad[i]));
  char longest[400];
  for (int here = 64; here <= 65; here++) {
    memset(longest, 'x', sizeof longest);
    strcpy(longest + here, "@y.example");
    CHECK(np_mail_is_address(longest) == (here == 64));
  }
}

int main(void) {
  test_commands();
  test_early();
  test_endless();
  test_pieces();
  test_anything();
  test_addresses();
  return check_end();
}
