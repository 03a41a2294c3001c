/* HTTP requests to one engine, over libcurl's multi interface on a libuv loop.
 *
 * Every request is answered exactly once, from the loop and never inside a call of this interface: with the engine's
 * status and body, or with an error. The request's own texts are copied. Connections are kept and reused. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/log.h"
#include "engine/docker/endpoint.h"

struct http;

struct http_options {
    uv_loop_t *loop;
    const struct log *log;
    const struct endpoint *endpoint; /* outlives this */
    uint32_t timeout_ms;             /* for requests with a deadline; not 0 */
    unsigned max_parallel;           /* not 0 */
};

/* `error` NULL: the engine answered, with `status` (200..599). `body` is not NUL-terminated and valid until return. */
typedef void http_done_fn(void *user, int status, const char *body, size_t size, const struct error *error);

struct http_call {
    const char *method; /* "GET", "POST", "DELETE"; static */
    const char *path;   /* from the slash on, with query, percent-encoded */
    const char *content_type;
    const char *header; /* one more, "Name: value"; copied; NULL: none */
    const void *body;   /* not copied: must stay until `done`; NULL: none */
    size_t body_size;
    bool no_deadline;
    bool urgent; /* does not wait for a place among max_parallel, and takes none */
    /* For an endless answer: called when its head has arrived with a status of 2xx, then with its pieces instead of
     * collecting them. `data` returns -1 with `err` set to end the request with that error. NULL: none. */
    void (*opened)(void *user);
    int (*data)(void *user, const char *data, size_t size, struct error *err);
    uint32_t stall_ms; /* with `data`: nothing came for so long, and it ends with ERROR_TIMEOUT; 0: never */
    http_done_fn *done;
    void *user;
};

/* NULL and `err` when memory runs out. */
struct http *http_open(const struct http_options *options, struct error *err);

/* Outstanding requests are answered ERROR_CANCELLED, then `closed` is called and the memory is gone. */
void http_close(struct http *http, void (*closed)(void *user), void *user);

/* -1, and no answer will come, only when memory runs out. */
int http_send(struct http *http, const struct http_call *call);
