#include "tree/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tree_memory_init(struct tree_memory *memory, uint64_t max_bytes, uint64_t max_entries)
{
    *memory = (struct tree_memory){.max_bytes = max_bytes};
    tree_check_init(&memory->check, max_entries, max_bytes);
}

void tree_memory_free(struct tree_memory *memory)
{
    for (size_t i = 0; i < memory->count; i++) {
        free(memory->files[i].path);
        free(memory->files[i].data);
    }
    free(memory->files);
    memory->files = NULL;
    memory->count = memory->capacity = 0;
}

static int fail(struct tree_memory *memory, int error, const char *path, const char *text)
{
    memory->error = error;
    snprintf(memory->text, sizeof memory->text, "%.200s%s%s", path, path[0] == '\0' ? "" : ": ", text);
    return -1;
}

static int begin_file(struct tree_memory *memory, const struct file_record *record)
{
    if (record->size > memory->max_bytes - memory->bytes)
        return fail(memory, EFBIG, record->path, "there are more bytes than allowed");
    if (memory->count == memory->capacity) {
        size_t capacity = memory->capacity == 0 ? 8 : memory->capacity * 2;
        struct tree_memory_file *larger = realloc(memory->files, capacity * sizeof *larger);
        if (larger == NULL)
            return fail(memory, ENOMEM, "", "out of memory");
        memory->files = larger;
        memory->capacity = capacity;
    }
    struct tree_memory_file file = {.path = strdup(record->path),
                                    .mode = record->mode & 0777,
                                    .mtime_s = record->mtime_s,
                                    .size = record->size,
                                    .data = record->size == 0 ? NULL : calloc(1, (size_t)record->size)};
    if (file.path == NULL || (record->size > 0 && file.data == NULL)) {
        free(file.path);
        free(file.data);
        return fail(memory, ENOMEM, "", "out of memory");
    }
    memory->files[memory->count++] = file;
    memory->bytes += record->size;
    memory->at = 0;
    return 0;
}

static int take(struct tree_memory *memory, const struct file_record *record)
{
    const char *wrong = tree_check_record(&memory->check, record);
    if (wrong != NULL)
        return fail(memory, EBADMSG, record->path, wrong);
    switch (record->kind) {
    case RECORD_ENTRY:
        return record->type == FILE_REGULAR ? begin_file(memory, record) : 0;
    case RECORD_DATA:
        memcpy(memory->files[memory->count - 1].data + memory->at, record->data, record->data_size);
        memory->at += record->data_size;
        return 0;
    case RECORD_HOLE:
        memory->at += record->size;
        return 0;
    case RECORD_SUM:
        memcpy(memory->files[memory->count - 1].digest, record->data, SHA256_BYTES);
        return 0;
    case RECORD_END:
        memory->done = true;
        return 0;
    case RECORD_FAIL:
        return fail(memory, (int)record->error, record->path, record->link);
    default:
        return 0;
    }
}

int tree_memory_feed(struct tree_memory *memory, const uint8_t *records, size_t size)
{
    while (size > 0 && memory->error == 0) {
        struct file_record record;
        ptrdiff_t taken = file_record_decode(records, size, &record);
        if (taken < 0)
            return fail(memory, EBADMSG, "", "the stream is damaged");
        take(memory, &record);
        records += taken;
        size -= (size_t)taken;
    }
    return memory->error == 0 ? 0 : -1;
}
