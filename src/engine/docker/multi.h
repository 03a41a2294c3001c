/* libcurl's multi handle on a libuv loop: its sockets are watched, its timer is kept. */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>
#include <uv.h>

#include "base/log.h"

struct multi {
    CURLM *handle; /* NULL after multi_close() */
    uv_loop_t *loop;
    const struct log *log;
    uv_timer_t timer;
    unsigned handles; /* open ones of libuv */
    void (*step)(void *user);
    void (*closed)(void *user);
    void *user;
};

/* `step` is called from the loop after libcurl did something, and may call anything of libcurl's and of this interface.
 * -1 when memory runs out; nothing needs closing then. The struct stays in its place until `closed`. */
int multi_open(struct multi *multi, uv_loop_t *loop, const struct log *log, void (*step)(void *user), void *user);

/* The easy handles must have been removed. Connections are closed at once, `closed` comes later. */
void multi_close(struct multi *multi, void (*closed)(void *user));
