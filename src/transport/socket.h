/* The socket transport: a unix socket in a directory that is bind-mounted into one container.
 *
 * The daemon listens; only the peer whose SO_PEERCRED pid is the container's init is heard, one connection at a time,
 * and only while the process of that pid is the one that it was when listening began; everyone else is closed at once,
 * so that connecting in a loop gains a task nothing. Until the init's pid is known nothing is accepted: the runner's
 * connection waits in the backlog. */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "transport/runner_conn.h"

struct socket_listener;

/* A connection of the container's init. The callee owns what is passed: it makes a runner_conn of `ops` and `carrier`
 * and binds it with socket_carrier_bind(), or calls ops->close(carrier). */
typedef void socket_accepted_fn(void *user, const struct carrier_ops *ops, void *carrier);
/* Somebody else connected and was closed; `pid` 0: of a pid namespace that this process does not see into. */
typedef void socket_refused_fn(void *user, int64_t pid);

/* Makes `name` in the directory `dir_fd` (an old socket file is replaced) and listens. NULL with `err`. */
struct socket_listener *socket_listener_new(uv_loop_t *loop, int dir_fd, const char *name, socket_accepted_fn *accepted,
                                            socket_refused_fn *refused, void *user, struct error *err);

/* From now on connections of the process that has `pid` now are accepted, not those of a later one with that pid. */
int socket_listener_start(struct socket_listener *listener, int64_t pid, struct error *err);

/* Closes; memory goes later, on the loop. Returns NULL; NULL is allowed. */
struct socket_listener *socket_listener_free(struct socket_listener *listener);

/* Begins to feed `conn` with what the carrier receives. */
int socket_carrier_bind(void *carrier, struct runner_conn *conn);
