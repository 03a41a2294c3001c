#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files/sink_priv.h"

#define ANNOUNCED_MAX (1ULL << 40) /* bytes with holes, where no limit is given: a hole costs its sender nothing */

struct tar_sink {
    struct tree_sink base;
    struct tree_check check;
    uint64_t max_announced, announced;
    int fd;
    bool given_up; /* nothing more is written */
    locale_t locale;
    struct archive *archive; /* NULL: closed */
    struct archive_entry *entry;
    char name[FILE_NAME_MAX + 1];
    char path[FILE_NAME_MAX + 1 + FILE_PATH_MAX + 1], link[FILE_NAME_MAX + 1 + FILE_PATH_MAX + 1];
};

static int failed(struct tar_sink *sink, const char *path, const char *text)
{
    char quoted[TREE_QUOTE_MAX], quoted_text[TREE_QUOTE_MAX];
    return error_set(&sink->base.error, ERROR_PROTOCOL, "cannot write the tar: %s%s%s", tree_quote(quoted, path),
                     path[0] == '\0' ? "" : ": ", tree_quote(quoted_text, text));
}

static int archive_failed(struct tar_sink *sink)
{
    const char *text = archive_error_string(sink->archive);
    return failed(sink, "", text == NULL ? "unknown error" : text);
}

static la_ssize_t write_fd(struct archive *archive, void *user, const void *data, size_t size)
{
    struct tar_sink *sink = user;
    ssize_t written;
    if (sink->given_up)
        return -1;
    do {
        written = write(sink->fd, data, size);
    } while (written < 0 && errno == EINTR);
    if (written < 0)
        archive_set_error(archive, errno, "%s", strerror(errno));
    return written;
}

static void name_below(const struct tar_sink *sink, const char *path, char out[FILE_NAME_MAX + 1 + FILE_PATH_MAX + 1])
{
    size_t length = strlen(sink->name);
    memcpy(out, sink->name, length);
    if (length > 0 && path[0] != '\0')
        out[length++] = '/';
    memcpy(out + length, path, strlen(path) + 1);
}

static int put_entry(struct tar_sink *sink, const struct file_record *record)
{
    struct archive_entry *entry = archive_entry_clear(sink->entry);
    name_below(sink, record->path, sink->path);
    if (record->type == FILE_DIRECTORY_DONE || (sink->path[0] == '\0' && record->type == FILE_DIRECTORY))
        return 0;
    if (sink->path[0] == '\0')
        return failed(sink, "", "the content of a directory was expected, a file came");
    if (record->size > sink->max_announced - sink->announced)
        return failed(sink, record->path, "there are more bytes than allowed");
    sink->announced += record->size;
    archive_entry_set_pathname(entry, sink->path);
    archive_entry_set_perm(entry, record->mode & 0777);
    archive_entry_set_mtime(entry, record->mtime_s, record->mtime_ns);
    archive_entry_set_size(entry, (la_int64_t)record->size);
    switch (record->type) {
    case FILE_REGULAR:
        archive_entry_set_filetype(entry, AE_IFREG);
        break;
    case FILE_DIRECTORY:
        archive_entry_set_filetype(entry, AE_IFDIR);
        break;
    case FILE_SYMLINK:
        archive_entry_set_filetype(entry, AE_IFLNK);
        archive_entry_set_symlink(entry, record->link);
        break;
    default:
        name_below(sink, record->link, sink->link);
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_hardlink(entry, sink->link);
        break;
    }
    /* A warning is about how a name is encoded. */
    return archive_write_header(sink->archive, entry) < ARCHIVE_WARN ? archive_failed(sink) : 0;
}

static int put_data(struct tar_sink *sink, const uint8_t *data, size_t size)
{
    return archive_write_data(sink->archive, data, size) == (la_ssize_t)size ? 0 : archive_failed(sink);
}

static int put_hole(struct tar_sink *sink, uint64_t size)
{
    static const uint8_t zeros[65536];
    while (size > 0) {
        size_t piece = size < sizeof zeros ? (size_t)size : sizeof zeros;
        if (put_data(sink, zeros, piece) < 0)
            return -1;
        size -= piece;
    }
    return 0;
}

static int put_end(struct tar_sink *sink)
{
    if (archive_write_close(sink->archive) != ARCHIVE_OK)
        return archive_failed(sink);
    sink->base.done = true;
    return 0;
}

static int put_record(struct tar_sink *sink, const struct file_record *record)
{
    const char *wrong = tree_check_record(&sink->check, record);
    if (wrong != NULL)
        return failed(sink, record->path, wrong);
    switch (record->kind) {
    case RECORD_ENTRY:
        return put_entry(sink, record);
    case RECORD_DATA:
        return put_data(sink, record->data, record->data_size);
    case RECORD_HOLE:
        return put_hole(sink, record->size);
    case RECORD_END:
        return put_end(sink);
    case RECORD_FAIL:
        return failed(sink, record->path, record->link);
    default:
        return 0;
    }
}

static int tar_feed(struct tree_sink *base, const uint8_t *records, size_t size)
{
    struct tar_sink *sink = (struct tar_sink *)base;
    locale_t before = sink->locale == (locale_t)0 ? (locale_t)0 : uselocale(sink->locale);
    int result = 0;
    while (size > 0 && result == 0) {
        struct file_record record;
        ptrdiff_t taken = file_record_decode(records, size, &record);
        result = taken < 0 ? failed(sink, "", "the stream is damaged") : put_record(sink, &record);
        records += taken;
        size -= (size_t)taken;
    }
    if (before != (locale_t)0)
        uselocale(before);
    return result;
}

static void tar_free(struct tree_sink *base)
{
    struct tar_sink *sink = (struct tar_sink *)base;
    sink->given_up = !base->done; /* else freeing would write an end */
    archive_write_free(sink->archive);
    archive_entry_free(sink->entry);
    if (sink->locale != (locale_t)0)
        freelocale(sink->locale);
    free(sink);
}

static const struct tree_sink_ops tar_ops = {.feed = tar_feed, .free = tar_free};

struct tree_sink *tree_sink_tar(int fd, const char *name, const struct tree_limits *limits, struct error *err)
{
    struct tar_sink *sink = calloc(1, sizeof *sink);
    if (sink == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    sink->base.ops = &tar_ops;
    sink->base.totals = &sink->check;
    sink->fd = fd;
    sink->max_announced = limits->max_bytes != 0 ? limits->max_bytes : ANNOUNCED_MAX;
    tree_check_init(&sink->check, limits->max_entries, limits->max_bytes);
    memcpy(sink->name, name, strlen(name) + 1);
    sink->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    sink->archive = archive_write_new();
    sink->entry = archive_entry_new();
    if (sink->archive == NULL || sink->entry == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return tree_sink_free(&sink->base);
    }
    archive_write_add_filter_none(sink->archive);
    archive_write_set_format_pax_restricted(sink->archive);
    archive_write_set_bytes_in_last_block(sink->archive, 1);
    if (archive_write_open(sink->archive, sink, NULL, write_fd, NULL) == ARCHIVE_OK)
        return &sink->base;
    archive_failed(sink);
    error_set(err, sink->base.error.code, "%s", sink->base.error.message);
    return tree_sink_free(&sink->base);
}
