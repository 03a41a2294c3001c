/* What the engine tests share: a loop with an engine on it, answers that are counted, and two servers of the test's
 * own on the same loop: a fake engine that answers what it is told to, and a proxy that can be broken. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/list.h"
#include "engine/engine.h"

#define LABEL         "io.warmpool.test.engine"
#define TEST_IMAGE    "warmpool-test-engine:conformance"
#define ANSWER_WAIT_S 60

struct fixture {
    uv_loop_t loop;
    struct log log;
    struct engine *engine;
    char label[32];     /* value of LABEL, this run's own */
    char directory[64]; /* for sockets */
    bool calling;       /* inside a call of engine.h: no answer may come now */
    bool closed;
    unsigned answers;  /* of all kinds */
    char logged[8192]; /* lines of the log, as far as they fit */
};

/* One request's answer, with what of it outlives the callback. */
struct result {
    struct fixture *fixture;
    unsigned answers;
    struct error error;
    char id[80], name[80], state[32], network_id[80], image[128], workdir[64], words[256], env[256];
    int64_t pid;
    int exit_code;
    bool running, oom_killed;
    size_t count, volume_count; /* rows of a list; VOLUMEs of an image */
    unsigned order;             /* how many answers came before */
};

/* Marks what must not answer by itself: CALL(f, engine_container_start(...)). */
#define CALL(f, expression)                                                                                            \
    do {                                                                                                               \
        (f)->calling = true;                                                                                           \
        expression;                                                                                                    \
        (f)->calling = false;                                                                                          \
    } while (0)

struct fixture *fixture_new(void);
/* Opens an engine and waits for its word. `host` NULL: the real one. */
void fixture_open(struct fixture *f, const char *host, uint32_t timeout_ms, unsigned max_parallel,
                  struct result *opened);
void fixture_close(struct fixture *f); /* the engine, if open, and waits for that */
void fixture_free(struct fixture *f);  /* asserts that the loop is left empty */

struct result result_of(struct fixture *f);
void wait_answer(struct result *result);
void wait_until(struct fixture *f, const bool *flag);
void wait_ms(struct fixture *f, uint64_t milliseconds);
void expect_ok(struct result *result); /* waits, too */
void expect_error(struct result *result, enum error_code code, const char *words);

void on_done(void *user, const struct error *error);
void on_id(void *user, const char *id, const struct error *error);
void on_inspect(void *user, const struct container_status *status, const struct error *error);
void on_list(void *user, const struct engine_object *objects, size_t count, const struct error *error);
void on_image(void *user, const struct image_status *status, const struct error *error);

/* --- the fake engine ------------------------------------------------------------------------------ */

struct fake {
    uv_pipe_t listener;
    struct fixture *fixture;
    char host[96]; /* unix:///... */
    const char *version;
    const char *reply; /* to whatever is not /version or /info; NULL: none, ever. Raw, head included. */
    size_t reply_size;
    bool hang_up; /* after the reply */
    bool stall_all;
    bool drain; /* reads and forgets */
    struct list connections;
    unsigned requests, open, most_open; /* without /version and /info */
    char paths[2048];                   /* of the requests, a line each */
    char head[4096];                    /* of the last one, as far as it fits */
    bool closed;
};

#define VERSION_141 "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\",\"Version\":\"20.10.24\"}"

void fake_start(struct fake *fake, struct fixture *f);
void fake_stop(struct fake *fake);
void fake_drop_connections(struct fake *fake);
/* Answers the requests that got no reply so far. */
void fake_answer_stalled(struct fake *fake, const char *reply);
void fake_read_stop(struct fake *fake);
void fake_read_start(struct fake *fake);
/* Sends to those of them, and they stay without an answer. `data` stays until it is written. */
void fake_send_stalled(struct fake *fake, const char *data, size_t size);

/* --- the proxy to the real engine ----------------------------------------------------------------- */

union proxy_end {
    uv_stream_t stream;
    uv_pipe_t pipe;
    uv_tcp_t tcp;
};

/* Listens at a unix socket, or at 127.0.0.1 for an engine at an address tcp://1.2.3.4:PORT. Started again, it is where
 * it was. */
struct proxy {
    union proxy_end listener;
    int port; /* 0: not chosen yet */
    struct fixture *fixture;
    char host[96];
    struct list connections;
    bool closed;
};

void proxy_start(struct proxy *proxy, struct fixture *f);
/* Ends all connections and refuses new ones. */
void proxy_stop(struct proxy *proxy);
