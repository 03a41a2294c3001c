/* The task's output. What is read goes into a ring first and from there into frames, so that after a broken connection
 * it can be sent again: the daemon never allows more than a ring holds beyond what has arrived. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runner/runner.h"

#define READS_PER_TURN 8U
#define DIRECT_MIN     4096U          /* less is cheaper to copy */
#define PIPE_BYTES     (256U * 1024U) /* of a stream that fills a pipe of the usual size */
#define RING_KEPT      (16U * 1024U)  /* so much stays resident: most tasks write less, and need no page fault then */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t ring_room(const struct stream *stream)
{
    uint64_t waiting = stream->total - stream->sent;
    return waiting >= RING_BYTES ? 0 : RING_BYTES - (size_t)waiting;
}

bool stream_readable(const struct stream *stream)
{
    return stream->fd >= 0 && stream->left != 0 && stream->granted > stream->total && ring_room(stream) > 0;
}

void stream_read(struct stream *stream)
{
    for (unsigned i = 0; i < READS_PER_TURN && stream_readable(stream); i++) {
        size_t at = (size_t)(stream->total % RING_BYTES);
        size_t most = smaller(smaller(ring_room(stream), RING_BYTES - at), FRAME_DATA_MAX);
        if (stream->granted - stream->total < most)
            most = (size_t)(stream->granted - stream->total);
        if (stream->left > 0)
            most = smaller(most, (size_t)stream->left);
        ssize_t got = read(stream->fd, stream->ring + at, most);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN) {
            if (stream->left == LEFT_TO_EMPTY)
                stream->left = 0;
            return;
        }
        if (got <= 0) { /* EIO: the last one has let go of the terminal */
            close(stream->fd);
            stream->fd = -1;
            return;
        }
        stream->total += (uint64_t)got;
        if (at + (size_t)got > stream->touched)
            stream->touched = at + (size_t)got;
        if ((size_t)got == FRAME_DATA_MAX && !stream->wide) { /* fewer turns for much output; a terminal just refuses */
            stream->wide = true;
            fcntl(stream->fd, F_SETPIPE_SZ, PIPE_BYTES);
        }
        if (stream->left > 0)
            stream->left -= got;
        if ((size_t)got < most && stream->left != LEFT_TO_EMPTY)
            return;
    }
}

/* Straight out of the ring while nothing waits before it; what the link does not take at once goes into the buffer. */
static bool send_direct(struct runner *runner, struct stream *stream, size_t at, size_t piece)
{
    uint8_t header[FRAME_HEADER_BYTES];
    if (runner->output_end > runner->output_start)
        return false;
    frame_encode_header(header, stream->type, 0, runner->task.number, (uint32_t)piece);
    size_t sent = link_send(runner, header, stream->ring + at, piece);
    if (sent < sizeof header)
        conn_put(runner, header + sent, sizeof header - sent);
    size_t of_piece = sent > sizeof header ? sent - sizeof header : 0;
    conn_put(runner, stream->ring + at + of_piece, piece - of_piece);
    return true;
}

void stream_send(struct runner *runner, struct stream *stream)
{
    while (runner->synced && stream->sent < stream->total) {
        size_t at = (size_t)(stream->sent % RING_BYTES);
        size_t piece = smaller(smaller((size_t)(stream->total - stream->sent), RING_BYTES - at), FRAME_DATA_MAX);
        piece = smaller(piece, conn_room(runner));
        if (piece > DIRECT_MIN && send_direct(runner, stream, at, piece)) {
            stream->sent += piece;
            if (runner->output_end > runner->output_start)
                return;
            continue;
        }
        uint8_t *room = piece == 0 ? NULL : conn_reserve(runner, piece);
        if (room == NULL)
            return;
        memcpy(room, stream->ring + at, piece);
        conn_commit(runner, stream->type, 0, runner->task.number, piece);
        stream->sent += piece;
        link_flush(runner);
    }
}

bool stream_sent(const struct stream *stream)
{
    return stream->sent == stream->total;
}

void stream_resume(struct stream *stream, uint64_t received, uint64_t granted)
{
    uint64_t oldest = stream->total > RING_BYTES ? stream->total - RING_BYTES : 0;
    if (received > stream->total)
        received = stream->total;
    stream->sent = received < oldest ? oldest : received;
    stream->granted = granted < stream->total ? stream->total : granted;
}

void stream_clear(struct stream *stream)
{
    if (stream->touched > RING_KEPT)
        madvise(stream->ring + RING_KEPT, RING_BYTES - RING_KEPT, MADV_DONTNEED);
    if (stream->ring != NULL)
        forget_bytes(stream->ring, smaller(stream->touched, RING_KEPT));
    stream->touched = 0;
    stream->total = stream->sent = stream->granted = 0;
}
