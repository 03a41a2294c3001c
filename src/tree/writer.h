/* A tree stream becomes files below a directory. Pushed: each call takes the payload of one frame. The stream is taken
 * for hostile, and so is what is there already: each record goes through struct tree_check; directories are entered one
 * component at a time, from descriptors, never through a link; a regular file is written under a name of its own and
 * renamed when its sum has proven right, so nothing that is there is written through, and what a broken transfer leaves
 * does not look whole. Nothing is allocated. Knows wire/ and libc only: the runner links it.
 *
 * Where the root goes is what `cp` does: docs/FILES.md. */
#pragma once

#include "wire/file.h"

#define TREE_MAKE_PARENTS 1U /* make missing directories on the way to the destination */
#define TREE_LINKS_INSIDE 2U /* refuse symbolic links that lead out of the tree: file_link_inside() */

struct tree_writer {
    struct tree_check check;
    uint32_t flags;
    int root_parent, root;             /* directories; root: -1 before it is there, or when it is none */
    char root_name[FILE_NAME_MAX + 1]; /* "": the root is root_parent */
    bool root_made;
    int directory; /* the last one that something went into, -1: none */
    char directory_path[FILE_PATH_MAX + 1];
    int file; /* being written, -1: none */
    char file_temporary[32];
    struct file_record file_entry;
    uint64_t file_at, file_end; /* what was sent, what was written */
    uint32_t next_temporary;
    int error;                    /* errno, 0: none */
    bool done;                    /* END came, and all is right */
    char path[FILE_PATH_MAX + 1]; /* of the present entry, or of the one that failed */
    char text[256];               /* why */
};

/* Takes over `base`, the directory that `destination` (relative, "" or "." for `base` itself; no "..") is looked up
 * from. `name`: of the root when the destination is a directory; "": its content goes there. 0, or -1 with `error`,
 * `path` and `text`. The writer has to be closed in either case. */
int tree_writer_open(struct tree_writer *writer, int base, const char *destination, const char *name, uint32_t flags,
                     uint64_t max_entries, uint64_t max_bytes);
/* Whole records. 0, or -1 from the first error on. `done` is true after END. */
int tree_writer_feed(struct tree_writer *writer, const uint8_t *records, size_t size);
/* Notes an error from outside and gives up; the first one stays. Returns -1. */
int tree_writer_fail(struct tree_writer *writer, int error, const char *text);
/* Removes a file that is not complete and closes what is open; may be called twice. */
void tree_writer_close(struct tree_writer *writer);
