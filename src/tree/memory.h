/* A tree stream into memory: the content of regular files, for artifacts. Bounded, no I/O: it may be fed on a loop.
 * Directories and links are passed over. */
#pragma once

#include "wire/file.h"

struct tree_memory_file {
    char *path; /* below the root; "": the root itself */
    uint16_t mode;
    int64_t mtime_s;
    uint64_t size;
    uint8_t *data;                /* NULL when it is empty */
    uint8_t digest[SHA256_BYTES]; /* of the DATA bytes: of the file, when it has no holes */
};

struct tree_memory {
    struct tree_check check;
    uint64_t max_bytes, bytes; /* holes count here: they become zeros */
    struct tree_memory_file *files;
    size_t count, capacity;
    uint64_t at; /* in the last one */
    int error;
    bool done;
    char text[512]; /* why, for people; hostile when the sender gave up */
};

/* A zeroed struct needs nothing but this before it is fed. */
void tree_memory_init(struct tree_memory *memory, uint64_t max_bytes, uint64_t max_entries);
/* The payload of one FILE frame. 0, or -1 from the first error on. `done` is true after END; what is there before is
 * not verified. */
int tree_memory_feed(struct tree_memory *memory, const uint8_t *records, size_t size);
void tree_memory_free(struct tree_memory *memory);
