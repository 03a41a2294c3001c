/* The framing that daemon and runner (and daemon and API client) share. Every byte is treated as hostile.
 *
 * A connection is a stream of frames, each a 16-byte little-endian header and a payload:
 *
 *     0  u16  magic 0x5057 ("WP")
 *     2  u8   type
 *     3  u8   flags
 *     4  u32  payload length, at most frame_payload_max(type)
 *     8  u32  task: the number of the task the frame speaks of, 0 if none
 *    12  u32  check: FNV-1a over the first 12 bytes
 *
 * The first frame on a connection is the daemon's SYNC with 16 random bytes, which the runner's HELLO
 * repeats: what was left over from an earlier connection can never pass for an answer on this one.
 *
 * Over the engine's attach stream neither end learns that the other has lost the stream, and half a frame may be left
 * in it. So there each SYNC follows the container's token, 16 bytes that only daemon and runner know: wherever the
 * runner meets them, whatever came before is forgotten. The daemon in turn skips everything up to the HELLO with its
 * marker. Nor does the end of one stream come before the beginning of the next: the engine may still be passing on what
 * it got over the lost one. So each frame to the runner is followed there by FRAME_TAIL_BYTES: the beginning of the
 * conversation's marker, and a byte 0. A frame of another conversation is passed over.
 *
 * Nothing of a task gets lost with a connection: SYNC says how much of its output has arrived, HELLO how much of its
 * stdin, and both ends send again from there.
 * The protocol version is in SYNC and HELLO. Decoding is stateless and copies nothing.
 * This file and message.* know nothing but libc: the runner links them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION       4U
#define FRAME_MAGIC        0x5057U
#define FRAME_HEADER_BYTES 16U
#define FRAME_TAIL_MARKER  4U
#define FRAME_TAIL_BYTES   (FRAME_TAIL_MARKER + 1U)
#define FRAME_DATA_MAX     (64U * 1024U)         /* payload of STDIN, STDOUT, STDERR */
#define FRAME_RUN_MAX      (4U * 1024U * 1024U)  /* payload of RUN: argv, environment, secrets */
#define FRAME_RESULT_MAX   (96U * 1024U * 1024U) /* payload of RESULT, daemon to API client only */

enum frame_type {
    /* daemon to runner (STDIN, CREDIT, SIGNAL, CANCEL, WINCH: also API client to daemon) */
    FRAME_SYNC = 1, /* message_sync */
    FRAME_RUN,      /* message_run; header task = new task's number, never 0 */
    FRAME_STDIN,    /* bytes; FRAME_FLAG_EOF: no more follow (payload may be empty) */
    FRAME_CREDIT,   /* message_credit; both ways */
    FRAME_SIGNAL,   /* u32 signal number, to the task's process group */
    FRAME_CANCEL,   /* u32 grace_ms: SIGTERM, grace, SIGKILL of everything */
    FRAME_RESET,    /* empty: clean up; answered by RECEIPT */
    FRAME_PING,     /* u64 nonce; answered by PONG */
    FRAME_ACK,      /* empty: the EXIT of header.task has arrived and may be forgotten; task 0: the daemon lives */
    FRAME_WINCH,    /* message_winch: the terminal's size */
    FRAME_PUT,      /* message_put (file.h): a tree comes for the container */
    FRAME_GET,      /* message_get: a tree is wanted */
    FRAME_FILE,     /* records of a tree stream; both ways; FRAME_FLAG_EOF: its last */

    /* runner to daemon (STDOUT, STDERR: also daemon to API client) */
    FRAME_HELLO = 64, /* message_hello */
    FRAME_STDOUT,     /* bytes; FRAME_FLAG_EOF: the stream ended */
    FRAME_STDERR,
    FRAME_EXIT,        /* message_exit */
    FRAME_RECEIPT,     /* struct receipt */
    FRAME_PONG,        /* message_pong */
    FRAME_LOG,         /* u8 level (enum log_level), then text */
    FRAME_FILE_RESULT, /* message_file_result: answers PUT */

    /* daemon to API client only */
    FRAME_RESULT = 128, /* message_result */
};

#define FRAME_FLAG_EOF 1U

struct frame {
    uint8_t type;
    uint8_t flags;
    uint32_t task;
    uint32_t length;        /* of payload, bytes */
    const uint8_t *payload; /* into the caller's buffer */
};

/* Reads one frame from `data`. Returns the bytes it takes (header and payload) and fills `frame`; 0 when more bytes
 * are needed; -1 when the bytes are no frame (wrong magic, type, check or length): the connection is beyond repair.
 * A wrong header is refused as soon as its 16 bytes are there, before any payload is waited for. */
ptrdiff_t frame_decode(const uint8_t *data, size_t size, struct frame *frame);

/* Bytes that a frame whose header starts at `data` takes in all, 0 when fewer than 16 bytes are there, -1 when wrong.
 */
ptrdiff_t frame_size(const uint8_t *data, size_t size);

/* Writes the 16 header bytes. */
void frame_encode_header(uint8_t header[FRAME_HEADER_BYTES], uint8_t type, uint8_t flags, uint32_t task,
                         uint32_t length);

/* The largest payload a type may carry; 0 for types that carry none or do not exist. */
uint32_t frame_payload_max(uint8_t type);

bool frame_type_known(uint8_t type);

/* "RUN", "EXIT", ... or "?"; static storage. */
const char *frame_type_name(uint8_t type);
