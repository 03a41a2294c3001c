/* For the tests of file transfer: scratch directories, and tree streams made by hand. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "wire/file.h"

/* A new directory below /tmp; static storage, a few at a time. */
static inline const char *scratch_new(void)
{
    static char paths[4][64];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "/tmp/warmpool-files-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

__attribute__((format(printf, 1, 2))) static inline void shell(const char *format, ...)
{
    char command[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

static inline void scratch_remove(const char *path)
{
    shell("chmod -R u+rwx '%s' 2>/dev/null; rm -rf '%s'", path, path);
}

__attribute__((format(printf, 1, 2))) static inline const char *path_of(const char *format, ...)
{
    static char paths[32][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 32];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof paths[0], format, arguments);
    va_end(arguments);
    return path;
}

static inline void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static inline void assert_file(const char *path, const char *text)
{
    char content[4096] = "";
    int fd = open(path, O_RDONLY | O_NOFOLLOW);
    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    ssize_t got = read(fd, content, sizeof content - 1);
    close(fd);
    assert_true(got >= 0);
    assert_string_equal(content, text);
}

static inline void assert_absent(const char *path)
{
    struct stat status;
    if (lstat(path, &status) == 0)
        fail_msg("%s is there", path);
}

/* --- streams made by hand ------------------------------------------------------------------------- */

struct records {
    struct tree_encoder encoder;
    uint8_t bytes[64 * 1024];
};

static inline void stream_begin(struct records *stream)
{
    tree_encoder_init(&stream->encoder);
    stream->encoder.out = (struct wire_writer){.next = stream->bytes, .end = stream->bytes + sizeof stream->bytes};
}

static inline size_t stream_size(const struct records *stream)
{
    assert_false(stream->encoder.out.overflow);
    return (size_t)(stream->encoder.out.next - stream->bytes);
}

static inline void stream_entry(struct records *stream, enum file_type type, const char *path, const char *link,
                                uint64_t size)
{
    struct file_record record = {
        .type = (uint8_t)type, .mode = 0755, .mtime_s = 1000000000, .size = size, .path = path, .link = link};
    tree_encode_entry(&stream->encoder, &record);
}

static inline void stream_data(struct records *stream, const char *text)
{
    size_t room;
    memcpy(tree_encode_data_begin(&stream->encoder, &room), text, strlen(text));
    tree_encode_data_commit(&stream->encoder, strlen(text));
}

static inline void stream_file(struct records *stream, const char *path, const char *text)
{
    stream_entry(stream, FILE_REGULAR, path, "", strlen(text));
    if (text[0] != '\0')
        stream_data(stream, text);
    tree_encode_sum(&stream->encoder);
}
