#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "files/source_priv.h"
#include "tree/path.h"
#include "tree/reader.h"

size_t tree_source_read(struct tree_source *source, uint8_t *out, size_t size, bool *ended)
{
    return source->ops->read(source, out, size, ended);
}

int tree_source_result(const struct tree_source *source, struct error *err)
{
    if (source->error.code == ERROR_NONE)
        return 0;
    return error_set(err, source->error.code, "%s", source->error.message);
}

const struct tree_encoder *tree_source_totals(const struct tree_source *source)
{
    return source->totals;
}

struct tree_source *tree_source_free(struct tree_source *source)
{
    if (source != NULL)
        source->ops->free(source);
    return NULL;
}

/* --- disk ----------------------------------------------------------------------------------------- */

struct disk_source {
    struct tree_source base;
    char *path; /* as given */
    struct tree_reader reader;
};

static size_t disk_read(struct tree_source *source, uint8_t *out, size_t size, bool *ended)
{
    struct disk_source *disk = (struct disk_source *)source;
    struct tree_reader *reader = &disk->reader;
    size_t got = tree_reader_read(reader, out, size);
    *ended = reader->encoder.ended;
    if (*ended && reader->error != 0 && source->error.code == ERROR_NONE)
        error_errno(&source->error, reader->error, "cannot copy %s%s%s: %s", disk->path,
                    reader->path[0] == '\0' ? "" : "/", reader->path, reader->text);
    return got;
}

static void disk_free(struct tree_source *source)
{
    struct disk_source *disk = (struct disk_source *)source;
    tree_reader_close(&disk->reader);
    free(disk->path);
    free(disk);
}

static const struct tree_source_ops disk_ops = {.read = disk_read, .free = disk_free};

struct tree_source *tree_source_disk(const char *path, struct error *err)
{
    size_t length, begin = path_last(path, &length);
    const char *name = path + begin;
    bool whole = length == 0 || name[length] != '\0' || strcmp(name, "..") == 0; /* a directory, to be entered */
    if (length > FILE_NAME_MAX) {
        error_errno(err, ENAMETOOLONG, "cannot copy %s", path);
        return NULL;
    }
    _cleanup_free_ char *parent = whole ? strdup(path) : begin == 0 ? strdup(".") : strndup(path, begin);
    struct disk_source *disk = parent == NULL ? NULL : calloc(1, sizeof *disk);
    if (disk == NULL || (disk->path = strdup(path)) == NULL) {
        free(disk);
        error_set(err, ERROR_NOMEM, "cannot copy %s: out of memory", path);
        return NULL;
    }
    int fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (!whole && faccessat(fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)) {
        error_errno(err, errno, "cannot copy %s", path);
        if (fd >= 0)
            close(fd);
        free(disk->path);
        free(disk);
        return NULL;
    }
    disk->base.ops = &disk_ops;
    disk->base.totals = &disk->reader.encoder;
    tree_reader_open(&disk->reader, fd, whole ? "" : name, 0, 0);
    return &disk->base;
}
