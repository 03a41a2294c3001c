/* The `warmpool` command: small verbs over the HTTP API. It links nothing heavy: a task's round trip is shorter than
 * loading a library. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

#define EXIT_FAILED 125 /* warmpool or the engine failed */

struct cli {
    const char *program; /* argv[0] */
    char *socket;        /* path */
    int argc;            /* of the verb, its name first */
    char **argv;
};

struct verb {
    const char *name;
    int (*run)(struct cli *cli);
    const char *arguments, *help; /* `help` is one line; `detail` more of them */
    const char *detail;
};

extern const struct verb verbs[];
const struct verb *verb_find(const char *name);
void verb_usage(const struct verb *verb);

/* Says "warmpool: ..." on stderr and returns EXIT_FAILED. */
int failed(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As failed(), for a wrong command line; names the verb's help. Returns 2... which scripts may tell from a task's
 * failure. */
int misused(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- options: before or after a verb's arguments, up to "--" ------------------------------------------------------ */

struct option_spec {
    const char *name;                           /* "--timeout" */
    const char **text;                          /* set to the value that follows */
    bool *flag;                                 /* or set to true */
    int (*each)(void *user, const char *value); /* or called with each value; -1 ends, -2 too and has said why */
    void *user;
    const char *form; /* how such a value looks; NULL: NAME=VALUE */
    bool hidden;      /* a value that is wrong is not repeated: it may be a secret */
};

/* Moves what is no option to the front of `cli->argv` (after the verb's name), stops at "--". `rest` gets the index of
 * what stands after "--" (or argc). 0, -1 after a message; 1 when --help was asked for and shown. */
int options_read(struct cli *cli, const struct option_spec *specs, size_t count, int *rest);

/* "500ms", "30s", "5m", "1h", or a number of milliseconds. */
int options_time(const char *text, unsigned long *milliseconds);

/* --- the API --------------------------------------------------------------------------------------------------------
 */

/* A connection to the daemon, or -1 after a message when `loud`. */
int client_connect(const struct cli *cli, bool loud);

struct reply {
    int status;         /* HTTP; 0: the daemon hung up */
    struct buffer body; /* NUL-terminated by buffer_text() */
};

/* One request and its answer. 0, or -1 after a message. `body` may be NULL. */
int client_call(const struct cli *cli, const char *method, const char *path, const char *body, struct reply *reply,
                bool loud);
/* Says what an answer of 400 and up says; returns EXIT_FAILED. */
int client_refused(const struct reply *reply);
/* Sends a request, reads the head of its answer; what came after the head stays in `rest`. The status, or -1. */
int client_begin(int fd, const char *method, const char *path, const char *headers, const char *body, size_t size,
                 struct buffer *rest, size_t *content_length);
int write_all(int fd, const void *data, size_t size);

/* --- what the verbs that ask and print share (show.c) --------------------------------------------------------------
 */

#define LEASE_ID_LENGTH 17U /* l and 16 hexadecimal digits */

struct json_t;

/* Reads --json and `more` options and checks that `arguments` words follow the verb. 0, or the code to end with in
 * `code`. */
int ask_begin(struct cli *cli, const struct option_spec *more, size_t more_count, int arguments, const char *what,
              bool *json, int *code);
/* Asks; with `print` prints the answer and returns NULL with code 0. */
struct json_t *ask(const struct cli *cli, const char *method, const char *path, const char *body, bool print,
                   int *code);
long long json_number(const struct json_t *json, const char *key);
const char *json_text(const struct json_t *json, const char *key); /* "-" where there is none */
/* "2026-11-23T19:14:59.314Z" as "3m": since then, or until then. */
void print_age(const char *date, char out[24]);

/* --- verbs
 * ------------------------------------------------------------------------------------------------------------ */

int verb_up(struct cli *cli);
int verb_down(struct cli *cli);
int verb_run(struct cli *cli);
int verb_status(struct cli *cli);
int verb_ps(struct cli *cli);
int verb_metrics(struct cli *cli);
int verb_scale(struct cli *cli);
int verb_warm(struct cli *cli);
int verb_refresh(struct cli *cli);
int verb_pool(struct cli *cli); /* pause, resume, drain */
int verb_cp(struct cli *cli);
int verb_lease(struct cli *cli);
int verb_renew(struct cli *cli);
int verb_release(struct cli *cli);
int verb_leases(struct cli *cli);
int verb_reload(struct cli *cli);
int verb_events(struct cli *cli);
int verb_delegate(struct cli *cli);
/* Replaces this process by `warmpoold ARG...` (argv[0] is filled in); returns only when that fails. */
int daemon_exec(const struct cli *cli, char *argv[]);
