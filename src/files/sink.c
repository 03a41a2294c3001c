#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "files/sink_priv.h"
#include "tree/path.h"
#include "tree/writer.h"

int tree_sink_feed(struct tree_sink *sink, const uint8_t *records, size_t size, struct error *err)
{
    if (sink->error.code == ERROR_NONE && sink->ops->feed(sink, records, size) == 0)
        return 0;
    return error_set(err, sink->error.code, "%s", sink->error.message);
}

bool tree_sink_done(const struct tree_sink *sink)
{
    return sink->done && sink->error.code == ERROR_NONE;
}

const struct tree_check *tree_sink_totals(const struct tree_sink *sink)
{
    return sink->totals;
}

struct tree_sink *tree_sink_free(struct tree_sink *sink)
{
    if (sink != NULL)
        sink->ops->free(sink);
    return NULL;
}

/* --- disk ----------------------------------------------------------------------------------------- */

struct disk_sink {
    struct tree_sink base;
    char *destination; /* as given */
    struct tree_writer writer;
};

static void error_suffix(struct error *err, int errnum)
{
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, " (%s)", strerror(errnum));
}

static int disk_failed(const struct disk_sink *disk, struct error *err)
{
    const struct tree_writer *writer = &disk->writer;
    char path[TREE_QUOTE_MAX], text[TREE_QUOTE_MAX];
    error_set(err, writer->error == EBADMSG ? ERROR_PROTOCOL : ERROR_SYSTEM, "cannot copy to %.150s: %s%s%s",
              disk->destination, tree_quote(path, writer->path), writer->path[0] == '\0' ? "" : ": ",
              tree_quote(text, writer->text));
    if (writer->error != EBADMSG) /* which says nothing to people */
        error_suffix(err, writer->error);
    return -1;
}

static int disk_feed(struct tree_sink *sink, const uint8_t *records, size_t size)
{
    struct disk_sink *disk = (struct disk_sink *)sink;
    if (tree_writer_feed(&disk->writer, records, size) < 0)
        return disk_failed(disk, &sink->error);
    sink->done = disk->writer.done;
    return 0;
}

static void disk_free(struct tree_sink *sink)
{
    struct disk_sink *disk = (struct disk_sink *)sink;
    tree_writer_close(&disk->writer);
    free(disk->destination);
    free(disk);
}

static const struct tree_sink_ops disk_ops = {.feed = disk_feed, .free = disk_free};

/* The user's own path may lead through links: up to here they are followed, from here on none is. */
static int open_base(const char *destination, const char **rest)
{
    struct stat status;
    size_t length, begin = path_last(destination, &length);
    if (stat(destination, &status) == 0 && S_ISDIR(status.st_mode)) {
        *rest = "";
        return open(destination, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    _cleanup_free_ char *parent = begin == 0 ? strdup(".") : strndup(destination, begin);
    *rest = destination + begin;
    return parent == NULL ? -1 : open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

struct tree_sink *tree_sink_disk(const char *destination, const char *name, const struct tree_limits *limits,
                                 struct error *err)
{
    const char *rest;
    int base = open_base(destination, &rest);
    if (base < 0) {
        error_errno(err, errno, "cannot copy to %s", destination);
        return NULL;
    }
    struct disk_sink *disk = calloc(1, sizeof *disk);
    if (disk == NULL || (disk->destination = strdup(destination)) == NULL) {
        close(base);
        free(disk);
        error_set(err, ERROR_NOMEM, "cannot copy to %s: out of memory", destination);
        return NULL;
    }
    disk->base.ops = &disk_ops;
    disk->base.totals = &disk->writer.check;
    if (tree_writer_open(&disk->writer, base, rest, name, TREE_LINKS_INSIDE, limits->max_entries, limits->max_bytes) ==
        0)
        return &disk->base;
    disk_failed(disk, &disk->base.error);
    error_set(err, disk->base.error.code, "%s", disk->base.error.message);
    return tree_sink_free(&disk->base);
}
