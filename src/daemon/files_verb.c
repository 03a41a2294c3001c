/* `warmpoold pack SRC` and `warmpoold unpack DST`: a tree of this machine, or a tar on stdin or stdout ("-"), as FILE
 * frames on stdout or from stdin. The command line tool, which is static, runs them as child processes. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "daemon/verbs.h"
#include "files/files.h"

struct files_arguments {
    const char *path, *name;
    struct tree_limits limits;
};

static int complain(const struct error *error)
{
    fprintf(stderr, "warmpool: %s\n", error->message);
    return 1;
}

static int read_number(const char *text, uint64_t *value)
{
    char *end;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno != 0 || *end != '\0' ? -1 : 0;
}

/* 0, or the exit code. */
static int read_arguments(struct files_arguments *arguments, int argc, char *argv[], const char *usage)
{
    *arguments = (struct files_arguments){0};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        int wrong = 0;
        if (strcmp(argv[i], "--name") == 0 && value != NULL)
            arguments->name = argv[++i];
        else if (strcmp(argv[i], "--max-bytes") == 0)
            wrong = read_number(argv[++i], &arguments->limits.max_bytes);
        else if (strcmp(argv[i], "--max-entries") == 0)
            wrong = read_number(argv[++i], &arguments->limits.max_entries);
        else if ((argv[i][0] != '-' || strcmp(argv[i], "-") == 0) && arguments->path == NULL)
            arguments->path = argv[i];
        else
            wrong = -1;
        if (wrong < 0) {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (arguments->path != NULL && arguments->path[0] != '\0' &&
        (arguments->name == NULL || arguments->name[0] == '\0' || file_name_valid(arguments->name)))
        return 0;
    fputs(usage, stderr);
    return 2;
}

static int write_all(const uint8_t *data, size_t size, struct error *err)
{
    while (size > 0) {
        ssize_t written = write(STDOUT_FILENO, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return error_errno(err, errno, "cannot write to stdout");
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

/* Whatever happens, the stream gets its last record, so that nobody waits for it. */
static int pack(const char *path, struct error *err)
{
    static uint8_t frame[FRAME_HEADER_BYTES + FRAME_DATA_MAX];
    uint8_t *payload = frame + FRAME_HEADER_BYTES;
    struct tree_source *source =
        strcmp(path, "-") == 0 ? tree_source_tar(STDIN_FILENO, err) : tree_source_disk(path, err);
    if (source == NULL) {
        struct tree_encoder encoder;
        tree_encoder_init(&encoder);
        encoder.out = (struct wire_writer){.next = payload, .end = payload + FRAME_DATA_MAX};
        tree_encode_fail(&encoder, EIO, "", err->message);
        size_t size = (size_t)(encoder.out.next - payload);
        frame_encode_header(frame, FRAME_FILE, FRAME_FLAG_EOF, 0, (uint32_t)size);
        write_all(frame, FRAME_HEADER_BYTES + size, NULL);
        return -1;
    }
    bool ended = false;
    int result = 0;
    while (!ended && result == 0) {
        size_t size = tree_source_read(source, payload, FRAME_DATA_MAX, &ended);
        frame_encode_header(frame, FRAME_FILE, ended ? FRAME_FLAG_EOF : 0, 0, (uint32_t)size);
        result = write_all(frame, FRAME_HEADER_BYTES + size, err);
    }
    if (result == 0)
        result = tree_source_result(source, err);
    tree_source_free(source);
    return result;
}

int verb_pack(int argc, char *argv[])
{
    struct files_arguments arguments;
    struct error error = ERROR_INIT;
    int code = read_arguments(&arguments, argc, argv, "usage: warmpoold pack SRC|-   (frames to stdout)\n");
    if (code != 0)
        return code;
    signal(SIGXFSZ, SIG_IGN);
    return pack(arguments.path, &error) < 0 ? complain(&error) : 0;
}

/* 1: a frame, 0: the input is over. */
static int next_frame(struct buffer *in, struct frame *frame, size_t *taken, struct error *err)
{
    for (;;) {
        ptrdiff_t whole = frame_decode(buffer_data(in), buffer_length(in), frame);
        if (whole < 0)
            return error_set(err, ERROR_PROTOCOL, "what came is no frame");
        if (whole > 0) {
            *taken = (size_t)whole;
            return 1;
        }
        uint8_t *room = buffer_reserve(in, FRAME_DATA_MAX);
        if (room == NULL)
            return error_set(err, ERROR_NOMEM, "out of memory");
        ssize_t got = read(STDIN_FILENO, room, FRAME_DATA_MAX);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, errno, "cannot read stdin");
        if (got == 0)
            return 0;
        buffer_commit(in, (size_t)got);
    }
}

static int unpack(struct tree_sink *sink, struct error *err)
{
    _cleanup_buffer_ struct buffer in = {0};
    while (!tree_sink_done(sink)) {
        struct frame frame;
        size_t taken = 0;
        int result = next_frame(&in, &frame, &taken, err);
        if (result < 0)
            return -1;
        if (result == 0)
            return error_set(err, ERROR_PROTOCOL, "the files did not all arrive: the connection ended in between");
        if (frame.type != FRAME_FILE)
            return error_set(err, ERROR_PROTOCOL, "a frame came that has nothing to do with files");
        if (tree_sink_feed(sink, frame.payload, frame.length, err) < 0)
            return -1;
        buffer_consume(&in, taken);
    }
    return 0;
}

int verb_unpack(int argc, char *argv[])
{
    struct files_arguments arguments;
    struct error error = ERROR_INIT;
    int code = read_arguments(&arguments, argc, argv,
                              "usage: warmpoold unpack DST|- [--name NAME] [--max-bytes N] [--max-entries N]   (frames "
                              "from stdin)\n");
    if (code != 0)
        return code;
    signal(SIGXFSZ, SIG_IGN);
    const char *name = arguments.name == NULL ? "" : arguments.name;
    struct tree_sink *sink = strcmp(arguments.path, "-") == 0
                                 ? tree_sink_tar(STDOUT_FILENO, name, &arguments.limits, &error)
                                 : tree_sink_disk(arguments.path, name, &arguments.limits, &error);
    int result = sink == NULL ? -1 : unpack(sink, &error);
    uint64_t skipped = sink == NULL ? 0 : tree_sink_totals(sink)->skipped;
    tree_sink_free(sink);
    if (result < 0)
        return complain(&error);
    if (skipped > 0)
        fprintf(stderr, "warmpool: %llu left out that are no files, directories or links\n",
                (unsigned long long)skipped);
    return 0;
}
