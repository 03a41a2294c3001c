/* The HTTP API on a unix socket. One loop, one thread: libmicrohttpd's epoll descriptor is polled by libuv. */
#pragma once

#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/log.h"
#include "config/config.h"
#include "executor/executor.h"

struct api_server;

struct api_options {
    uv_loop_t *loop;
    struct executor *executor;
    const struct config *config;
    const struct log *log;
    const char *socket;                       /* path */
    void (*shutdown)(void *user, bool force); /* a client asked the daemon to stop */
    /* A client asked to read the configuration again; `changed` gets the keys as JSON texts with commas between them.
     */
    int (*reload)(void *user, struct buffer *changed, uint32_t *rolled, struct error *err);
    void *user;
};

/* Listens. NULL with ERROR_CONFLICT when another daemon answers there. */
struct api_server *api_server_open(const struct api_options *options, struct error *err);

/* From now on by this configuration. */
void api_server_configure(struct api_server *server, const struct config *config);

/* The executor is closing or gone: what needs it is answered 503 from now on. */
void api_server_detach(struct api_server *server);

/* Ends connections, removes the socket, calls `closed` later. No task may be left. */
void api_server_close(struct api_server *server, void (*closed)(void *user), void *user);
