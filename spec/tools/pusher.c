/* Pushes Sinocare CGM readings as their cloud does, for specs and benchmarks: C kept-alive connections, one request
 * outstanding on each, as fast as they are answered or at a rate.
 *
 * At a rate each push has its moment, and its latency counts from there, also where all connections were still waiting for
 * answers: a server that stalls is not spared the pushes that it kept from being made. Reading number n is the same in every
 * run: device (n - 1) % devices, its serial number, its time three minutes after the one before. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

#define GRACE_US 60000000 /* for answers that are outstanding at the end: whoever is slow has not failed */
#define FIRST_REST_US 10000
#define LONGEST_REST_US 500000
#define ANSWER_MAX (1 << 20)
#define STEP_S 180

static const char usage[] =
    "pusher [OPTIONS]: pushes CGM readings as Sinocare's cloud does\n"
    "  --url URL             http://127.0.0.1:8080/sinocare/push\n"
    "  --connections N       kept alive, one request outstanding on each (64)\n"
    "  --seconds S           ends after that, whatever else is said (10)\n"
    "  --count N             ends after N pushes\n"
    "  --rate R              pushes a second in all; 0 is as fast as they are answered (0)\n"
    "  --devices N           SN-0001 and so on (50)\n"
    "  --low-every K         each K-th reading is 3.1, the others 5.6\n"
    "  --prefix P            testId is P-<n> (differs from run to run)\n"
    "  --start-serial N      the first serialNo (1)\n"
    "  --start-time T        testTime of serialNo 1, Asia/Shanghai (2024-01-01 00:00:00)\n"
    "  --batch N             N readings a request, {\"readings\":[{device,metric,value,at}]}; any 2xx is ok\n"
    "  --acked FILE          appends the testId of each push that was answered with 200 and code 0\n"
    "  --reconnect           connects again and pushes the same again where there was no answer\n"
    "  --duplicate-every K   pushes each K-th again after it was acknowledged\n"
    "  --json                the report as one line of JSON\n";

struct options {
  const char *url, *prefix, *acked;
  long connections, count, devices, low_every, start_serial, batch, duplicate_every;
  double seconds, rate;
  int64_t start_time; /* seconds since 1970, as if Shanghai were UTC */
  bool reconnect, json;
};

enum state { CLOSED, RESTING, CONNECTING, IDLE, SENDING, READING };

struct conn {
  int fd;
  enum state state;
  uint32_t events; /* that epoll waits for */
  bool has_push;
  bool duplicate; /* the push was acknowledged before */
  bool was_open;  /* it is not its first connection */
  bool again;     /* the push went out before, and was not answered */
  long n;         /* the push, from 1 */
  int64_t due;    /* us; latency counts from here */
  int64_t rest_until, rest;
  struct np_buf out, in; /* owned */
  size_t written;
  struct conn *next_idle;
};

struct report {
  long sent, ok, refused, failed, reconnects, repushed, duplicates;
  long by_status[600];
  int64_t begun, last;
};

/* Latencies: 64 buckets for each power of two, so that a value is known to 1.6 %. */
#define PARTS 64
static long buckets[PARTS * 40], measured;
static int64_t slowest;

static struct options o = {
    .url = "http://127.0.0.1:8080/sinocare/push", .connections = 64, .devices = 50, .start_serial = 1, .seconds = 10};
static struct report r;
static struct conn *conns, *idle_head, *idle_tail;
static long resting, outstanding, begun_pushes;
static int poller, acked_fd = -1;
static struct np_buf acked, head;
static struct addrinfo *address;
static int64_t now, ends;
static volatile sig_atomic_t stopped;

static void die(const char *what, const char *why) {
  fprintf(stderr, "pusher: %s: %s\n", what, why);
  exit(2);
}

/* Latencies */

static size_t bucket_of(int64_t us) {
  if (us < 2 * PARTS) return us < 0 ? 0 : (size_t)us;
  int shift = 63 - __builtin_clzll((unsigned long long)us) - 6;
  size_t i = (size_t)shift * PARTS + (size_t)(us >> shift);
  return i < sizeof buckets / sizeof *buckets ? i : sizeof buckets / sizeof *buckets - 1;
}

static int64_t bucket_top(size_t i) {
  if (i < 2 * PARTS) return (int64_t)i;
  int shift = (int)(i / PARTS) - 1;
  return (((int64_t)(i - (size_t)shift * PARTS) + 1) << shift) - 1;
}

static void measure(int64_t us) {
  buckets[bucket_of(us)]++;
  measured++;
  if (us > slowest) slowest = us;
}

static int64_t percentile(double part) {
  long want = (long)(part * (double)measured + 0.9999999), seen = 0;
  for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++)
    if ((seen += buckets[i]) >= want && seen) return bucket_top(i) < slowest ? bucket_top(i) : slowest;
  return 0;
}

/* Requests */

/* Days since 1970 to a date: Howard Hinnant's civil_from_days, for dates from 1970 on. */
static void add_time(struct np_buf *b, int64_t s) {
  int64_t z = s / 86400 + 719468, era = z / 146097;
  unsigned doe = (unsigned)(z - era * 146097), yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
  unsigned d = doy - (153 * mp + 2) / 5 + 1, m = mp < 10 ? mp + 3 : mp - 9, y = yoe + (unsigned)era * 400 + (m <= 2),
           t = (unsigned)(s % 86400);
  const unsigned parts[] = {y / 100, y % 100, m, d, t / 3600, t / 60 % 60, t % 60};
  static const char after[] = {0, '-', '-', ' ', ':', ':', 0};
  char text[20];
  size_t n = 0;
  for (size_t i = 0; i < 7; i++) {
    text[n++] = (char)('0' + parts[i] / 10 % 10);
    text[n++] = (char)('0' + parts[i] % 10);
    if (after[i]) text[n++] = after[i];
  }
  np_buf_add(b, text, n);
}

/* snprintf to the end of a buffer that has room: np_buf_addf would format twice. */
__attribute__((format(printf, 2, 3))) static void add(struct np_buf *b, const char *format, ...) {
  char *to = np_buf_reserve(b, 512);
  va_list args;
  va_start(args, format);
  int n = vsnprintf(to, 512, format, args);
  va_end(args);
  b->len += (size_t)(n < 511 ? n : 511);
}

static const char *result_of(long n) { return o.low_every && n % o.low_every == 0 ? "3.1" : "5.6"; }

static void add_push(struct np_buf *b, long n) {
  long device = (n - 1) % o.devices + 1, serial = (n - 1) / o.devices + 1;
  add(b,
      "{\"reservedCode\":\"01\",\"data\":{\"testId\":\"%.200s-%ld\",\"deviceSn\":\"SN-%04ld\",\"testResult\":\"%s\",\"serialNo\":%"
      "ld,\"testTime\":\"",
      o.prefix, n, device, result_of(n), serial);
  add_time(b, o.start_time + (serial - 1) * STEP_S);
  np_buf_adds(b, "\",\"idCard\":\"\",\"visitId\":\"\",\"patientName\":\"\",\"customerName\":\"\",\"patientId\":\"\",\"inSerialId\":"
                 "\"\",\"status\":\"0\","
                 "\"cgmDay\":8,\"increMinute\":3,\"low\":null,\"high\":null,\"cgmStatus\":\"2\"}}");
}

static void add_batch(struct np_buf *b, long n) {
  np_buf_adds(b, "{\"readings\":[");
  for (long i = 0; i < o.batch; i++) {
    long k = (n - 1) * o.batch + i + 1, serial = (k - 1) / o.devices + 1;
    int64_t at = (o.start_time - 8 * 3600 + (serial - 1) * STEP_S) * 1000;
    add(b, "%s{\"device\":\"SN-%04ld\",\"metric\":\"glucose\",\"value\":%s,\"at\":%lld}", i ? "," : "", (k - 1) % o.devices + 1,
        result_of(k), (long long)at);
  }
  np_buf_adds(b, "]}");
}

static void render(struct conn *c) {
  static struct np_buf body; /* reused */
  np_buf_clear(&body);
  if (o.batch)
    add_batch(&body, c->n);
  else
    add_push(&body, c->n);
  np_buf_clear(&c->out);
  np_buf_add(&c->out, head.data, head.len);
  add(&c->out, "%zu\r\n\r\n", body.len);
  np_buf_add(&c->out, body.data, body.len);
}

/* Connections */

static void want(struct conn *c, uint32_t events) {
  if (c->events == events) return;
  struct epoll_event e = {.events = events, .data.ptr = c};
  epoll_ctl(poller, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &e);
  c->events = events;
}

static void hang_up(struct conn *c) {
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  c->events = 0;
}

static void be_idle(struct conn *c, enum state state) {
  c->state = state;
  c->next_idle = NULL;
  if (idle_tail)
    idle_tail->next_idle = c;
  else
    idle_head = c;
  idle_tail = c;
}

static void end_push(struct conn *c) {
  c->has_push = false;
  outstanding--;
  r.last = now;
}

static void rest(struct conn *c) {
  c->rest = c->rest ? c->rest * 2 : FIRST_REST_US;
  if (c->rest > LONGEST_REST_US) c->rest = LONGEST_REST_US;
  c->rest_until = now + c->rest;
  c->state = RESTING;
  resting++;
}

/* There was no answer. */
static void lose(struct conn *c) {
  hang_up(c);
  if (c->state == IDLE) { /* stays among the idle ones, and connects when it has something to push */
    c->state = CLOSED;
    return;
  }
  if (c->has_push && c->state != CONNECTING) c->again = true;
  if (c->has_push && !o.reconnect) {
    r.failed++;
    c->again = false;
    end_push(c);
  }
  rest(c);
}

static void send_more(struct conn *c) {
  while (c->written < c->out.len) {
    ssize_t n = send(c->fd, c->out.data + c->written, c->out.len - c->written, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) return lose(c);
    if (n < 0) {
      c->state = SENDING;
      return want(c, EPOLLIN | EPOLLOUT);
    }
    c->written += (size_t)n;
  }
  c->state = READING;
  want(c, EPOLLIN);
}

static void push(struct conn *c) {
  c->state = SENDING;
  c->written = 0;
  if (c->again) r.repushed++;
  c->again = false;
  np_buf_clear(&c->in);
  send_more(c);
}

static void open_conn(struct conn *c) {
  c->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) die("socket", strerror(errno));
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  c->state = CONNECTING;
  if (connect(c->fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS)
    lose(c);
  else
    want(c, EPOLLOUT);
}

static void connected(struct conn *c) {
  int bad = 0;
  socklen_t n = sizeof bad;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &bad, &n);
  if (bad) return lose(c);
  if (c->was_open) r.reconnects++;
  c->was_open = true;
  want(c, EPOLLIN);
  if (c->has_push) return push(c);
  be_idle(c, IDLE);
}

/* The schedule */

static bool is_over(void) { return stopped || now >= ends || (o.count && begun_pushes >= o.count); }

static int64_t due_of(long nth) { return o.rate > 0 ? r.begun + (int64_t)((double)nth * 1e6 / o.rate) : now; }

static void begin(struct conn *c, long n, int64_t due, bool duplicate) {
  c->n = n;
  c->due = due;
  c->duplicate = duplicate;
  c->has_push = true;
  outstanding++;
  r.sent++;
  render(c);
  if (c->fd < 0)
    open_conn(c);
  else
    push(c);
}

/* Gives idle connections what is due. */
static void begin_due(void) {
  while (idle_head && !is_over() && due_of(begun_pushes) <= now) {
    struct conn *c = idle_head;
    idle_head = c->next_idle;
    if (!idle_head) idle_tail = NULL;
    int64_t due = due_of(begun_pushes);
    begin(c, (o.start_serial - 1) * o.devices + ++begun_pushes, due, false);
  }
}

static void wake_rested(void) {
  for (long i = 0; resting && i < o.connections; i++) {
    struct conn *c = &conns[i];
    if (c->state != RESTING || c->rest_until > now) continue;
    resting--;
    if (!c->has_push) {
      be_idle(c, CLOSED);
      continue;
    }
    open_conn(c);
  }
}

/* Answers */

static void acknowledge(const struct conn *c) {
  if (acked_fd < 0) return;
  add(&acked, "%.200s-%ld\n", o.prefix, c->n);
}

static void flush_acked(void) {
  if (acked.len && write(acked_fd, acked.data, acked.len) != (ssize_t)acked.len) die(o.acked, strerror(errno));
  np_buf_clear(&acked);
}

static bool has_code_0(const char *body, size_t n) {
  const char *at = memmem(body, n, "\"code\"", 6), *end = body + n;
  if (!at) return false;
  for (at += 6; at < end && (isspace((unsigned char)*at) || *at == ':'); at++) {}
  return at < end && *at == '0' && (at + 1 == end || (!isdigit((unsigned char)at[1]) && at[1] != '.'));
}

static void answered(struct conn *c, int status, const char *body, size_t n, bool close_it) {
  bool ok = o.batch ? status / 100 == 2 : status == 200 && has_code_0(body, n);
  measure(now - c->due);
  r.by_status[status]++;
  if (ok)
    r.ok++;
  else
    r.refused++;
  if (ok) r.by_status[status]--; /* it counts the refused */
  if (ok && !c->duplicate) acknowledge(c);
  bool again = ok && !c->duplicate && o.duplicate_every && c->n % o.duplicate_every == 0;
  end_push(c);
  c->rest = 0;
  if (close_it) hang_up(c);
  if (again && !stopped && now < ends) {
    r.duplicates++;
    begin(c, c->n, now, true);
  } else {
    be_idle(c, close_it ? CLOSED : IDLE);
  }
}

static const char *header(const char *text, const char *end, const char *name) {
  size_t n = strlen(name);
  for (const char *line = text; (line = memmem(line, (size_t)(end - line), "\r\n", 2));) {
    line += 2;
    if ((size_t)(end - line) > n && strncasecmp(line, name, n) == 0 && line[n] == ':')
      return line + n + 1 + strspn(line + n + 1, " \t");
  }
  return NULL;
}

/* The end of a chunked body that starts at `at`, its chunks moved together in place; NULL where it is not whole yet. */
static const char *unchunk(char *at, const char *end, size_t *body_len) {
  char *to = at;
  const char *from = at;
  for (;;) {
    const char *line = memmem(from, (size_t)(end - from), "\r\n", 2);
    if (!line) return NULL;
    size_t n = strtoul(from, NULL, 16);
    if ((size_t)(end - line) < n + 4) return NULL;
    if (!n) { /* trailers end with an empty line */
      const char *last = memmem(line, (size_t)(end - line), "\r\n\r\n", 4);
      *body_len = (size_t)(to - at);
      return last ? last + 4 : NULL;
    }
    from = line + 2;
    to += n; /* moved once all of it is there */
    from += n + 2;
  }
}

static void join_chunks(char *at) {
  char *to = at, *from = at;
  for (size_t n; (n = strtoul(from, &from, 16));) {
    from = strstr(from, "\r\n") + 2;
    memmove(to, from, n);
    to += n;
    from += n + 2;
  }
}

/* Looks whether the answer is whole; ended where the server has closed. */
static void parse(struct conn *c, bool ended) {
  char *text = c->in.data, *end = text + c->in.len;
  char *blank = c->in.len ? memmem(text, c->in.len, "\r\n\r\n", 4) : NULL;
  if (!blank) {
    if (ended) lose(c);
    return;
  }
  int status = blank - text >= 12 && memcmp(text, "HTTP/1.", 7) == 0 ? atoi(text + 9) : 0;
  if (status < 100 || status > 599) die("answer", "not HTTP/1.1");
  char *body = blank + 4;
  if (status < 200) {
    c->in.len = (size_t)(end - body);
    memmove(text, body, c->in.len + 1);
    return parse(c, ended);
  }
  const char *length = header(text, blank + 2, "content-length"), *coding = header(text, blank + 2, "transfer-encoding"),
             *connection = header(text, blank + 2, "connection");
  bool close_it = ended || (connection && strncasecmp(connection, "close", 5) == 0) || text[7] == '0';
  size_t n = (size_t)(end - body);
  if (status == 204 || status == 304) {
    n = 0;
  } else if (coding) {
    if (!unchunk(body, end, &n)) {
      if (ended) lose(c);
      return;
    }
    join_chunks(body);
  } else if (length) {
    size_t whole = strtoul(length, NULL, 10);
    if (n < whole) {
      if (ended) lose(c);
      return;
    }
    n = whole;
  } else if (!ended) {
    return; /* its body ends where the connection does */
  }
  answered(c, status, body, n, close_it);
}

static void receive(struct conn *c) {
  if (c->in.len > ANSWER_MAX) die("answer", "larger than 1 MiB");
  char *to = np_buf_reserve(&c->in, 4096);
  ssize_t n = recv(c->fd, to, 4096, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) {
    c->in.len += (size_t)n;
    to[n] = 0;
  }
  if (c->state == IDLE) return lose(c); /* closed, or bytes that nobody asked for */
  if (n < 0) return lose(c);
  if (c->state == READING)
    parse(c, n == 0);
  else if (n == 0)
    lose(c);
}

static void on_event(struct conn *c, uint32_t events) {
  if (c->fd < 0) return; /* given up earlier in this batch */
  if (c->state == CONNECTING) return connected(c);
  if (c->state == SENDING && events & EPOLLOUT) send_more(c);
  if (c->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
}

/* The loop */

static int64_t next_moment(void) {
  int64_t at = is_over() ? ends + GRACE_US : ends;
  if (!is_over() && idle_head && due_of(begun_pushes) < at) at = due_of(begun_pushes);
  for (long i = 0; resting && i < o.connections; i++)
    if (conns[i].state == RESTING && conns[i].rest_until < at) at = conns[i].rest_until;
  return at;
}

static void run(void) {
  sigset_t none;
  sigemptyset(&none);
  struct epoll_event events[256];
  now = r.begun = r.last = np_mono_us();
  ends = r.begun + (int64_t)(o.seconds * 1e6);
  for (long i = 0; i < o.connections; i++) open_conn(&conns[i]);
  for (;;) {
    begin_due();
    if (is_over() && (stopped || now >= ends) && ends > now) ends = now; /* a signal: the grace counts from here */
    if (is_over() && (!outstanding || stopped > 1 || now >= ends + GRACE_US)) break;
    int64_t in = next_moment() - now;
    if (in < 0) in = 0;
    struct timespec wait = {.tv_sec = in / 1000000, .tv_nsec = in % 1000000 * 1000};
    int n = epoll_pwait2(poller, events, 256, &wait, &none);
    if (n < 0 && errno != EINTR) die("epoll", strerror(errno));
    now = np_mono_us();
    for (int i = 0; i < n; i++) on_event(events[i].data.ptr, events[i].events);
    if (resting) wake_rested();
    if (acked.len) flush_acked();
  }
  r.failed += outstanding;
  if (!measured) r.last = now;
}

/* The report */

static double own_cpu_us(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void print_report(void) {
  double seconds = (double)(r.last - r.begun) / 1e6, rate = seconds > 0 ? (double)measured / seconds : 0;
  double cpu = measured ? own_cpu_us() / (double)measured : 0;
  const double parts[] = {0.5, 0.9, 0.99, 0.999};
  static const char *const names[] = {"p50", "p90", "p99", "p999"};
  struct np_buf statuses = {0};
  for (int i = 0; i < 600; i++)
    if (r.by_status[i])
      np_buf_addf(&statuses, o.json ? "%s\"%d\":%ld" : "%s%d: %ld", statuses.len ? (o.json ? "," : ", ") : "", i, r.by_status[i]);
  if (o.json) {
    printf("{\"sent\":%ld,\"ok\":%ld,\"refused\":%ld,\"refused_by_status\":{%s},\"failed\":%ld,\"reconnects\":%ld,\"repushed\":%ld,"
           "\"duplicates\":%ld,\"seconds\":%.3f,\"requests_per_second\":%.1f,\"latency_us\":{",
           r.sent, r.ok, r.refused, np_buf_text(&statuses), r.failed, r.reconnects, r.repushed, r.duplicates, seconds, rate);
    for (int i = 0; i < 4; i++) printf("\"%s\":%lld,", names[i], (long long)percentile(parts[i]));
    printf("\"max\":%lld},\"own_cpu_us_per_request\":%.1f}\n", (long long)slowest, cpu);
  } else {
    printf("sent        %ld (%ld of them duplicates; %ld pushed again)\nok          %ld\nrefused     %ld%s%s%s\nfailed      "
           "%ld\nreconnects  %ld\n",
           r.sent, r.duplicates, r.repushed, r.ok, r.refused, statuses.len ? " (" : "", np_buf_text(&statuses),
           statuses.len ? ")" : "", r.failed, r.reconnects);
    printf("seconds     %.3f\nrequests/s  %.1f\nlatency    ", seconds, rate);
    for (int i = 0; i < 4; i++) printf(" %s %lld us,", names[i], (long long)percentile(parts[i]));
    printf(" max %lld us\nown CPU     %.1f us a request\n", (long long)slowest, cpu);
  }
  np_buf_free(&statuses);
}

/* Setting up */

static void on_signal(int number) {
  (void)number;
  stopped = stopped + 1;
}

static void set_up_signals(void) {
  sigset_t both;
  sigemptyset(&both);
  sigaddset(&both, SIGINT);
  sigaddset(&both, SIGTERM);
  sigprocmask(SIG_BLOCK, &both, NULL); /* let in while waiting only */
  sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
  sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
}

static void set_up_url(void) {
  char host[256] = "", port[6] = "80";
  const char *at = o.url;
  if (strncmp(at, "http://", 7) != 0) die(o.url, "only http:// is pushed to");
  at += 7;
  size_t authority = strcspn(at, "/?#");
  const char *path = at + authority;
  const char *end = at + authority, *colon = memrchr(at, ':', authority);
  if (colon && memchr(colon, ']', (size_t)(end - colon))) colon = NULL;
  const char *from = *at == '[' ? at + 1 : at, *to = colon ? colon : end;
  if (*at == '[') to--;
  if (to <= from || to - from >= (ptrdiff_t)sizeof host || (colon && (end - colon < 2 || end - colon > 6))) die(o.url, "not a URL");
  memcpy(host, from, (size_t)(to - from));
  if (colon) snprintf(port, sizeof port, "%.*s", (int)(end - colon - 1), colon + 1);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  int bad = getaddrinfo(host, port, &hints, &address);
  if (bad) die(host, gai_strerror(bad));
  np_buf_addf(&head,
              "POST %s HTTP/1.1\r\nHost: %.*s\r\nContent-Type: application/json\r\nContent-Length: ", *path == '/' ? path : "/",
              (int)authority, at);
}

static double number(const char *name, const char *text, double least) {
  char *end;
  double v = strtod(text, &end);
  if (end == text || *end || !(v >= least) || v > 1e15) die(name, "not a number that makes sense");
  return v;
}

static int64_t shanghai(const char *text) {
  struct tm t = {0};
  const char *end = strptime(text, "%Y-%m-%d %H:%M:%S", &t);
  if (!end || *end || t.tm_year < 70) die(text, "not a time such as 2024-01-01 00:00:00");
  return timegm(&t);
}

static void read_options(int argc, char **argv) {
  static const struct option known[] = {{"url", 1, 0, 'u'},
                                        {"connections", 1, 0, 'c'},
                                        {"seconds", 1, 0, 's'},
                                        {"count", 1, 0, 'n'},
                                        {"rate", 1, 0, 'r'},
                                        {"devices", 1, 0, 'd'},
                                        {"low-every", 1, 0, 'l'},
                                        {"prefix", 1, 0, 'p'},
                                        {"start-serial", 1, 0, 'S'},
                                        {"start-time", 1, 0, 't'},
                                        {"batch", 1, 0, 'b'},
                                        {"acked", 1, 0, 'a'},
                                        {"reconnect", 0, 0, 'R'},
                                        {"duplicate-every", 1, 0, 'D'},
                                        {"json", 0, 0, 'j'},
                                        {"help", 0, 0, 'h'},
                                        {0, 0, 0, 0}};
  int which = 0;
  o.start_time = shanghai("2024-01-01 00:00:00");
  for (int c; (c = getopt_long(argc, argv, "", known, &which)) != -1;) {
    const char *name = c == '?' ? "" : known[which].name;
    switch (c) {
    case 'u': o.url = optarg; break;
    case 'c': o.connections = (long)number(name, optarg, 1); break;
    case 's': o.seconds = number(name, optarg, 0); break;
    case 'n': o.count = (long)number(name, optarg, 1); break;
    case 'r': o.rate = number(name, optarg, 0); break;
    case 'd': o.devices = (long)number(name, optarg, 1); break;
    case 'l': o.low_every = (long)number(name, optarg, 0); break;
    case 'p': o.prefix = optarg; break;
    case 'S': o.start_serial = (long)number(name, optarg, 1); break;
    case 't': o.start_time = shanghai(optarg); break;
    case 'b': o.batch = (long)number(name, optarg, 1); break;
    case 'a': o.acked = optarg; break;
    case 'R': o.reconnect = true; break;
    case 'D': o.duplicate_every = (long)number(name, optarg, 0); break;
    case 'j': o.json = true; break;
    case 'h': fputs(usage, stdout); exit(0);
    default: fputs(usage, stderr); exit(2);
    }
  }
  if (optind < argc) die(argv[optind], "not an option");
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  char prefix[40];
  snprintf(prefix, sizeof prefix, "%llx-%d", (unsigned long long)np_now_ms(), (int)getpid());
  if (!o.prefix) o.prefix = prefix;
  set_up_url();
  set_up_signals();
  if (o.acked && (acked_fd = open(o.acked, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) < 0) die(o.acked, strerror(errno));
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  poller = epoll_create1(EPOLL_CLOEXEC);
  conns = np_alloc((size_t)o.connections * sizeof *conns);
  for (long i = 0; i < o.connections; i++) conns[i].fd = -1;
  run();
  print_report();
  for (long i = 0; i < o.connections; i++) {
    hang_up(&conns[i]);
    np_buf_free(&conns[i].out);
    np_buf_free(&conns[i].in);
  }
  free(conns);
  np_buf_free(&head);
  np_buf_free(&acked);
  freeaddrinfo(address);
  return r.ok || r.refused ? 0 : 1;
}
