/* A directory tree of this machine, or of the container that this runs in, as a tree stream. Pulled: each call fills a
 * buffer with whole records and does no more work than that. No link is followed, nothing is waited for, nothing is
 * allocated; what changes meanwhile either was sent as announced or ends the stream with FAIL. Regular files with
 * several names are sent once for each. Knows wire/ and libc only: the runner links it. */
#pragma once

#include "wire/file.h"

struct tree_reader_level {
    int fd;
    uint16_t path_length; /* of its parent's path */
    int64_t offset;       /* where its entries go on, while something below it is read */
};

struct tree_reader {
    struct tree_encoder encoder;
    uint64_t max_bytes, max_entries, data_bytes;
    int parent;                   /* of the root */
    char name[FILE_NAME_MAX + 1]; /* the root's; "": it is `parent` itself */
    bool begun;
    int error;        /* errno that FAIL was sent with, 0: none; it is about `path` */
    const char *text; /* why; static */
    unsigned depth;   /* levels in use */
    struct tree_reader_level levels[FILE_DEPTH_MAX + 1];
    size_t path_length;
    char path[FILE_PATH_MAX + 1]; /* of what is read now, below the root */
    int file;                     /* -1: none */
    bool sparse;
    uint64_t file_size, file_at, extent_end;
    long entries_at, entries_end;
    _Alignas(8) char entries[8192]; /* of getdents64() */
};

/* Takes over `parent`, a directory. `name` is one component, or "" for `parent` itself. Limits: 0 is none; bytes are
 * those of content, holes left out. */
void tree_reader_open(struct tree_reader *reader, int parent, const char *name, uint64_t max_bytes,
                      uint64_t max_entries);
/* Fills `out` (at least FILE_RECORD_MAX) with whole records: bytes, 0 once END or FAIL has been given. */
size_t tree_reader_read(struct tree_reader *reader, uint8_t *out, size_t size);
/* Closes what is open; may be called twice. */
void tree_reader_close(struct tree_reader *reader);
