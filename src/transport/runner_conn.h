/* The conversation with one runner, over whatever carries bytes.
 *
 * The carrier (the socket transport or the engine's attach stream) feeds what arrives into
 * runner_conn_feed() and offers a non-blocking write. Requests are appended to an output buffer and leave with
 * runner_conn_flush(), so that several travel in one write. Every byte from the runner is hostile: a frame that the
 * protocol does not allow at this point ends the conversation through `lost`. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/error.h"
#include "wire/file.h"
#include "wire/frame.h"
#include "wire/message.h"

struct runner_conn;

struct carrier_ops {
    /* Writes what it can at once; returns the count, 0 when it would block or is broken (which the reading side then
     * tells). */
    ssize_t (*write)(void *carrier, const void *data, size_t size);
    /* Asks to be told, by runner_conn_flush(), when writing is possible again. */
    void (*want_write)(void *carrier);
    /* Makes it break: runner_conn_broken() follows, later. */
    void (*abort)(void *carrier);
    /* Ends the carrier; it feeds nothing afterwards and frees itself later. */
    void (*close)(void *carrier);
};

/* What the runner says. From runner_conn_feed() only. Payloads are valid during the call. A callback may call anything
 * but runner_conn_free(), which has to wait until the loop is out of it: runner_conn_stop() ends a conversation
 * meanwhile. */
struct runner_handler {
    void (*hello)(void *user, const struct message_hello *hello);
    void (*output)(void *user, uint32_t task, int stream, const uint8_t *data, size_t size, bool eof);
    void (*credit)(void *user, uint32_t task, uint32_t bytes); /* for stdin */
    void (*exited)(void *user, uint32_t task, const struct message_exit *exit);
    /* Of transfers, see wire/file.h: records out of the container; `eof`: the last ones. */
    void (*file)(void *user, uint32_t task, const uint8_t *data, size_t size, bool eof);
    void (*file_credit)(void *user, uint32_t task, uint32_t bytes);
    void (*file_result)(void *user, uint32_t task, const struct message_file_result *result);
    void (*receipt)(void *user, const struct receipt *receipt);
    void (*pong)(void *user, const struct message_pong *pong);
    void (*log)(void *user, int level, const char *text);
    void (*lost)(void *user, const struct error *error); /* once; nothing follows */
};

/* Takes over a connected carrier and sends SYNC: `sync`, but for its version, which is this side's. `token` (of the
 * container, SYNC_TOKEN_BYTES) goes before it where the carrier is the attach stream, NULL else: with it, whatever
 * comes before the HELLO that answers is skipped. NULL when out of memory: the carrier is then still the caller's. */
struct runner_conn *runner_conn_new(const struct carrier_ops *ops, void *carrier, const struct message_sync *sync,
                                    const uint8_t *token, const struct runner_handler *handler, void *user);

/* Closes the carrier if it is open and frees; no callback. Returns NULL; NULL is allowed. */
struct runner_conn *runner_conn_free(struct runner_conn *conn);

/* Ends the conversation and closes the carrier; no callback follows, `lost` included. */
void runner_conn_stop(struct runner_conn *conn);

/* The beginning of a frame that came before, at most RUNNER_PENDING_MAX bytes: whoever reads behind it into the same
 * memory and feeds both together saves a copy of all the rest. */
#define RUNNER_PENDING_MAX (FRAME_HEADER_BYTES + FRAME_DATA_MAX)
size_t runner_conn_take_pending(struct runner_conn *conn, uint8_t out[RUNNER_PENDING_MAX]);
/* Bytes from the carrier. They may be used up during the call only. */
void runner_conn_feed(struct runner_conn *conn, const uint8_t *data, size_t size);
/* The carrier ended by itself. */
void runner_conn_broken(struct runner_conn *conn, const struct error *error);

/* False after HELLO has not come yet, or the conversation was lost. */
bool runner_conn_ready(const struct runner_conn *conn);

/* Each appends one frame; nothing is written before runner_conn_flush(). Silently nothing after `lost`. `lost` is never
 * called from inside these. */
/* `secret`: there are secrets in it, the environment included; nothing of it stays in memory here once it is sent. */
void runner_conn_run(struct runner_conn *conn, uint32_t task, const struct message_run *run, const char *const argv[],
                     const char *const env[], bool secret);
void runner_conn_stdin(struct runner_conn *conn, uint32_t task, const void *data, size_t size, bool eof);
/* -1 when a path is too long; then nothing is sent. */
int runner_conn_put(struct runner_conn *conn, uint32_t task, const struct message_put *put);
int runner_conn_get(struct runner_conn *conn, uint32_t task, const struct message_get *get);
void runner_conn_file(struct runner_conn *conn, uint32_t task, const void *data, size_t size, bool eof);
/* `stream`: WIRE_STDOUT, WIRE_STDERR or WIRE_FILES. */
void runner_conn_credit(struct runner_conn *conn, uint32_t task, int stream, uint32_t bytes);
void runner_conn_signal(struct runner_conn *conn, uint32_t task, uint32_t signal);
void runner_conn_cancel(struct runner_conn *conn, uint32_t task, uint32_t grace_ms);
void runner_conn_ack(struct runner_conn *conn, uint32_t task);
void runner_conn_reset(struct runner_conn *conn);
void runner_conn_winch(struct runner_conn *conn, uint32_t task, uint16_t rows, uint16_t columns);
/* Says no more than that the daemon is there. */
void runner_conn_keepalive(struct runner_conn *conn);
void runner_conn_ping(struct runner_conn *conn, uint64_t nonce);

void runner_conn_flush(struct runner_conn *conn);
/* Bytes that the carrier has taken since the beginning, and those that wait for it. Stays true after the end. */
uint64_t runner_conn_sent(const struct runner_conn *conn);
size_t runner_conn_unsent(const struct runner_conn *conn);
