#include "cli/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wire/frame.h"

#define DEFAULT_DIRECTORY "/workspace/" /* what a relative path in the container is below */

/* --- options ---------------------------------------------------------------------------------------------- */

static char *remote_path(const char *text)
{
    struct buffer path = {0};
    if (text[0] != '/')
        buffer_append_string(&path, DEFAULT_DIRECTORY);
    buffer_append_string(&path, text);
    return buffer_take(&path, NULL);
}

static int add(struct copy *list, size_t *count, const char *local, size_t local_length, const char *remote,
               size_t remote_length)
{
    if (*count == COPIES_MAX || local_length == 0 || remote_length == 0)
        return -1;
    struct copy *copy = &list[*count];
    char *text = strndup(remote, remote_length);
    copy->local = strndup(local, local_length);
    copy->remote = text == NULL ? NULL : remote_path(text);
    free(text);
    (*count)++;
    return copy->local == NULL || copy->remote == NULL ? -1 : 0;
}

int copy_in_set(struct copies *copies, const char *local, const char *remote)
{
    if (add(copies->in, &copies->in_count, local, strlen(local), remote, strlen(remote)) < 0)
        return -1;
    struct copy *copy = &copies->in[copies->in_count - 1];
    bool tar = strcmp(copy->local, "-") == 0;
    if (tar)
        copy->name[0] = '\0';
    return tar || file_base_name(copy->local, copy->name) ? 0 : -1;
}

int copy_out_set(struct copies *copies, const char *remote, const char *local)
{
    if (add(copies->out, &copies->out_count, local, strlen(local), remote, strlen(remote)) < 0)
        return -1;
    struct copy *copy = &copies->out[copies->out_count - 1];
    copies->to_stdout |= strcmp(copy->local, "-") == 0;
    return file_base_name(copy->remote, copy->name) ? 0 : -1;
}

/* `set` with what stands before the colon and behind it. */
static int take_apart(struct copies *copies, const char *value, const char *colon,
                      int (*set)(struct copies *copies, const char *first, const char *second))
{
    char *first = colon == NULL ? NULL : strndup(value, (size_t)(colon - value));
    int result = first == NULL ? -1 : set(copies, first, colon + 1);
    free(first);
    return result;
}

/* The last colon parts them: a path of this machine may hold others. */
int copy_in_add(void *user, const char *value)
{
    return take_apart(user, value, strrchr(value, ':'), copy_in_set);
}

/* The first colon: a path in the container does not begin with one. */
int copy_out_add(void *user, const char *value)
{
    return take_apart(user, value, strchr(value, ':'), copy_out_set);
}

void copies_free(struct copies *copies)
{
    for (size_t i = 0; i < COPIES_MAX; i++) {
        free(copies->in[i].local);
        free(copies->in[i].remote);
        free(copies->out[i].local);
        free(copies->out[i].remote);
    }
    buffer_free(&copies->frame);
}

void copies_write(const struct copies *copies, struct json_writer *json)
{
    if (copies->in_count > 0) {
        jw_key(json, "copyIn");
        jw_open(json, '[');
        for (size_t i = 0; i < copies->in_count; i++) {
            jw_open(json, '{');
            jw_key(json, "to");
            jw_text(json, copies->in[i].remote);
            jw_key(json, "name");
            jw_text(json, copies->in[i].name);
            jw_close(json, '}');
        }
        jw_close(json, ']');
    }
    if (copies->out_count > 0) {
        jw_key(json, "copyOut");
        jw_open(json, '[');
        for (size_t i = 0; i < copies->out_count; i++)
            jw_text(json, copies->out[i].remote);
        jw_close(json, ']');
    }
}

/* --- children ----------------------------------------------------------------------------------------------- */

static void child(const struct copies *copies, int fd, int becomes, char *argv[])
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(fd, becomes) < 0)
        _exit(EXIT_FAILED);
    daemon_exec(copies->cli, argv);
    _exit(EXIT_FAILED);
}

/* `writes`: it writes to us. */
static int start(struct copies *copies, char *argv[], bool writes)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return failed("making a pipe: %s", strerror(errno));
    copies->child = fork();
    if (copies->child == 0)
        child(copies, writes ? ends[1] : ends[0], writes ? 1 : 0, argv);
    close(writes ? ends[1] : ends[0]);
    copies->fd = writes ? ends[0] : ends[1];
    if (copies->child > 0)
        return 0;
    copies->child = 0;
    close(copies->fd);
    copies->fd = -1;
    return failed("starting a process: %s", strerror(errno));
}

static void finish(struct copies *copies)
{
    int status = 0;
    if (copies->fd >= 0)
        close(copies->fd);
    copies->fd = -1;
    if (copies->child == 0)
        return;
    while (waitpid(copies->child, &status, 0) < 0 && errno == EINTR)
        ;
    copies->child = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        copies->failed = true; /* it has said why */
}

/* --- in ------------------------------------------------------------------------------------------------------- */

bool copies_want_read(const struct copies *copies)
{
    return copies->fd >= 0 && copies->in_at < copies->in_count && copies->credit > 0;
}

int copies_credit(struct copies *copies, uint32_t bytes)
{
    copies->credit += bytes;
    if (copies->child != 0 || copies->in_at >= copies->in_count)
        return 0;
    copies->sent_last = false;
    char *argv[] = {NULL, (char *)(uintptr_t) "pack", copies->in[copies->in_at].local, NULL};
    return start(copies, argv, true);
}

/* Reads until `size` bytes are in the buffer. 1: there; 0: the child has ended. */
static int fill(struct copies *copies, size_t size)
{
    while (buffer_length(&copies->frame) < size) {
        size_t missing = size - buffer_length(&copies->frame);
        uint8_t *room = buffer_reserve(&copies->frame, missing);
        ssize_t got = room == NULL ? -1 : read(copies->fd, room, missing);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        buffer_commit(&copies->frame, (size_t)got);
    }
    return 1;
}

/* The child was killed, or did not begin: without its word the runner would wait for more. 1: not before there is more
 * credit. */
static int send_fail(struct copies *copies, int daemon)
{
    uint8_t frame[FRAME_HEADER_BYTES + FILE_RECORD_MAX], *payload = frame + FRAME_HEADER_BYTES;
    struct tree_encoder encoder;
    tree_encoder_init(&encoder);
    encoder.out = (struct wire_writer){.next = payload, .end = payload + FILE_RECORD_MAX};
    tree_encode_fail(&encoder, EPIPE, "", "it ended before all was read");
    size_t size = (size_t)(encoder.out.next - payload);
    if (size > copies->credit)
        return 1;
    frame_encode_header(frame, FRAME_FILE, FRAME_FLAG_EOF, 0, (uint32_t)size);
    copies->sent_last = true;
    return write_all(daemon, frame, FRAME_HEADER_BYTES + size);
}

static int send_ended(struct copies *copies, int daemon)
{
    int result = copies->sent_last ? 0 : send_fail(copies, daemon);
    if (result == 1)
        return 1;
    close(copies->fd); /* the runner's word on what it sent is still to come */
    copies->fd = -1;
    return result;
}

int copies_send(struct copies *copies, int daemon)
{
    ptrdiff_t whole = fill(copies, FRAME_HEADER_BYTES) == 0
                          ? -1
                          : frame_size(buffer_data(&copies->frame), buffer_length(&copies->frame));
    if (whole < 0)
        return send_ended(copies, daemon);
    uint32_t payload = (uint32_t)whole - FRAME_HEADER_BYTES;
    if (payload > copies->credit)
        return 1;
    if (fill(copies, (size_t)whole) == 0)
        return send_ended(copies, daemon);
    copies->credit -= payload;
    copies->sent_last = (buffer_data(&copies->frame)[3] & FRAME_FLAG_EOF) != 0;
    int result = write_all(daemon, buffer_data(&copies->frame), (size_t)whole);
    buffer_consume(&copies->frame, (size_t)whole);
    return result;
}

void copies_result(struct copies *copies, bool refused)
{
    if (refused && copies->child > 0)
        kill(copies->child, SIGKILL); /* what it would still say is no news */
    buffer_consume(&copies->frame, buffer_length(&copies->frame));
    copies->credit = 0;
    finish(copies);
    copies->in_at++;
}

/* --- out ------------------------------------------------------------------------------------------------------ */

static int begin_out(struct copies *copies)
{
    struct copy *copy = &copies->out[copies->out_at];
    char *argv[] = {NULL, (char *)(uintptr_t) "unpack", copy->local, (char *)(uintptr_t) "--name", copy->name, NULL};
    return start(copies, argv, false);
}

static void finish_out(struct copies *copies)
{
    bool before = copies->failed;
    copies->failed = false;
    finish(copies);
    if (copies->failed)
        failed("%s was not copied", copies->out[copies->out_at].remote);
    copies->failed |= before;
    copies->out_at++;
}

int copies_receive(struct copies *copies, const uint8_t *payload, size_t size, uint8_t flags, uint32_t *credit)
{
    bool last = (flags & FRAME_FLAG_EOF) != 0;
    uint8_t header[FRAME_HEADER_BYTES];
    *credit = 0;
    if (copies->out_at >= copies->out_count)
        return -1;
    if (copies->out_begun == copies->out_at) {
        copies->out_begun++;
        if (begin_out(copies) != 0)
            copies->failed = true;
    }
    frame_encode_header(header, FRAME_FILE, flags, 0, (uint32_t)size);
    if (copies->fd >= 0 &&
        (write_all(copies->fd, header, sizeof header) < 0 || write_all(copies->fd, payload, size) < 0)) {
        close(copies->fd); /* it could not go on, and says why; the rest is let pass */
        copies->fd = -1;
    }
    copies->owed += (uint32_t)size;
    if (copies->owed >= FILES_CREDIT_BATCH || last) {
        *credit = copies->owed;
        copies->owed = 0;
    }
    if (last)
        finish_out(copies);
    return 0;
}

bool copies_end(struct copies *copies)
{
    if (copies->child != 0)
        finish(copies);
    if (copies->out_begun > copies->out_at)
        copies->failed = true;
    return copies->failed;
}
