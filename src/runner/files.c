#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/runner.h"
#include "tree/path.h"

#define FILES_STEP_BYTES (256U * 1024U)

/* --- where ---------------------------------------------------------------------------------------- */

/* The writable mount that an absolute path lies in, the innermost, and what follows its name. -1 with errno. "." and
 * ".." in the mount's own name are no match, ".." after it is refused by whoever goes down. */
static int mount_of(const struct runner *runner, const char *path, const char **rest)
{
    size_t best = 0;
    int found = -1;
    for (uint32_t i = 0; i < runner->mount_count; i++) {
        const char *mount = runner->mounts[i];
        size_t length = strlen(mount);
        while (length > 0 && mount[length - 1] == '/')
            length--;
        bool below = strncmp(path, mount, length) == 0 && (path[length] == '/' || path[length] == '\0');
        if (!below || length < best || strcmp(mount, "/dev/mqueue") == 0)
            continue;
        best = length;
        found = runner->mount_fds[i];
        *rest = path + length;
    }
    if (found < 0) {
        errno = EROFS;
        return -1;
    }
    while (**rest == '/')
        (*rest)++;
    return fcntl(found, F_DUPFD_CLOEXEC, 3);
}

static const char *const not_writable = "only the writable mounts can be copied to and from";

/* --- PUT ------------------------------------------------------------------------------------------ */

static void end_put(struct runner *runner, int error, const char *path, const char *text)
{
    struct files *files = &runner->files;
    struct message_file_result result = {.error = (uint32_t)error, .path = path, .text = text};
    uint8_t payload[MESSAGE_FILE_RESULT_BYTES_MAX];
    if (error == 0) {
        result.entries = files->writer.check.entries;
        result.bytes = files->writer.check.bytes;
        memcpy(result.digest, files->writer.check.digest, sizeof result.digest);
    }
    conn_send(runner, FRAME_FILE_RESULT, files->number, payload, message_file_result_encode(&result, payload));
    files_cancel(runner, 0);
}

bool files_put(struct runner *runner, const struct frame *frame)
{
    struct files *files = &runner->files;
    struct message_put put;
    const char *rest;
    if (message_put_decode(frame->payload, frame->length, &put) < 0 || frame->task == 0)
        return false;
    files_cancel(runner, 0);
    files->touched = true;
    files->number = frame->task;
    files->owed = 0;
    int base = mount_of(runner, put.destination, &rest);
    if (base < 0) {
        end_put(runner, errno, "", not_writable);
        return true;
    }
    runner->dirty = true;
    files->kind = FILES_PUT;
    uint32_t flags = (put.flags & PUT_MAKE_PARENTS) != 0 ? TREE_MAKE_PARENTS : 0;
    if (tree_writer_open(&files->writer, base, rest, put.name, flags, 0, 0) < 0)
        end_put(runner, files->writer.error, "", files->writer.text);
    return true;
}

static void give_credit(struct runner *runner, uint32_t bytes)
{
    struct files *files = &runner->files;
    files->owed += bytes;
    if (files->owed < FILES_CREDIT_BATCH)
        return;
    struct message_credit credit = {.stream = WIRE_FILES, .bytes = files->owed};
    uint8_t payload[MESSAGE_CREDIT_BYTES];
    message_credit_encode(&credit, payload);
    conn_send(runner, FRAME_CREDIT, files->number, payload, sizeof payload);
    files->owed = 0;
}

void files_feed(struct runner *runner, const struct frame *frame)
{
    struct files *files = &runner->files;
    struct tree_writer *writer = &files->writer;
    if (files->kind != FILES_PUT || frame->task != files->number)
        return;
    if (tree_writer_feed(writer, frame->payload, frame->length) == 0 && !writer->done &&
        (frame->flags & FRAME_FLAG_EOF) != 0)
        tree_writer_fail(writer, EBADMSG, "the stream ends too early");
    if (writer->error != 0)
        end_put(runner, writer->error, writer->path, writer->text);
    else if (writer->done)
        end_put(runner, 0, "", "");
    else
        give_credit(runner, frame->length);
}

/* --- GET ------------------------------------------------------------------------------------------ */

static void refuse_get(struct runner *runner, int error, const char *text)
{
    struct tree_encoder encoder;
    uint8_t *room = conn_reserve(runner, FILE_RECORD_MAX);
    if (room == NULL) {
        runner->output_failed = true;
        return;
    }
    tree_encoder_init(&encoder);
    encoder.out = (struct wire_writer){.next = room, .end = room + FILE_RECORD_MAX};
    tree_encode_fail(&encoder, error, "", text);
    conn_commit(runner, FRAME_FILE, FRAME_FLAG_EOF, runner->files.number, (size_t)(encoder.out.next - room));
}

bool files_get(struct runner *runner, const struct frame *frame)
{
    struct files *files = &runner->files;
    struct message_get get;
    const char *rest;
    char name[FILE_NAME_MAX + 1];
    struct stat status;
    if (message_get_decode(frame->payload, frame->length, &get) < 0 || frame->task == 0)
        return false;
    files_cancel(runner, 0);
    files->touched = true;
    files->number = frame->task;
    files->credit = FILES_CREDIT_INITIAL;
    int base = mount_of(runner, get.source, &rest);
    if (base < 0) {
        refuse_get(runner, errno, not_writable);
        return true;
    }
    size_t length, begin = path_last(rest, &length);
    int parent = length > FILE_NAME_MAX ? (errno = ENAMETOOLONG, -1) : path_descend(base, rest, begin, false);
    int error = errno;
    close(base);
    if (parent < 0) {
        refuse_get(runner, error, path_error(error));
        return true;
    }
    memcpy(name, rest + begin, length);
    name[length] = '\0';
    const char *refused = NULL;
    if (strcmp(name, "..") == 0)
        refused = path_error(error = EINVAL);
    else if (length > 0 && fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        refused = (error = errno) == ENOENT ? "it does not exist" : "cannot look at it";
    else if (rest[begin + length] != '\0' && length > 0 && !S_ISDIR(status.st_mode))
        refused = (error = ENOTDIR, "it is not a directory");
    if (refused != NULL) {
        close(parent);
        refuse_get(runner, error, refused);
        return true;
    }
    files->kind = FILES_GET;
    tree_reader_open(&files->reader, parent, name, get.max_bytes, get.max_entries);
    return true;
}

void files_credit(struct runner *runner, uint32_t task, uint32_t bytes)
{
    struct files *files = &runner->files;
    if (files->kind == FILES_GET && task == files->number)
        files->credit += bytes;
}

/* How large a frame may be now; 0: none. */
static size_t frame_room(struct runner *runner)
{
    size_t most = FRAME_DATA_MAX;
    if (runner->files.kind != FILES_GET || runner->fd < 0 || !runner->synced || conn_room(runner) < most)
        return 0;
    if (most > runner->files.credit)
        most = (size_t)runner->files.credit;
    return most < FILE_RECORD_MAX ? 0 : most;
}

bool files_ready(struct runner *runner)
{
    return frame_room(runner) > 0;
}

void files_step(struct runner *runner)
{
    struct files *files = &runner->files;
    size_t most;
    for (size_t sent = 0; sent < FILES_STEP_BYTES && (most = frame_room(runner)) > 0; sent += most) {
        uint8_t *room = conn_reserve(runner, most);
        if (room == NULL)
            return;
        size_t size = tree_reader_read(&files->reader, room, most);
        bool ended = files->reader.encoder.ended;
        conn_commit(runner, FRAME_FILE, ended ? FRAME_FLAG_EOF : 0, files->number, size);
        files->credit -= size;
        if (ended)
            files_cancel(runner, 0);
        link_flush(runner);
    }
}

void files_cancel(struct runner *runner, uint32_t task)
{
    struct files *files = &runner->files;
    if (task != 0 && task != files->number)
        return;
    if (files->kind == FILES_GET)
        tree_reader_close(&files->reader);
    else if (files->kind == FILES_PUT)
        tree_writer_close(&files->writer);
    files->kind = FILES_NONE;
}

void files_wipe(struct runner *runner)
{
    if (runner->files.touched && runner->files.kind == FILES_NONE)
        forget_bytes(&runner->files, sizeof runner->files);
}
