/* A growing byte buffer with a consumed front. `failed` is sticky: after a failed allocation further
 * appends do nothing, so that a writer checks once at its end. A zeroed buffer is a valid empty one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *memory; /* owned */
    size_t start, end, capacity;
    bool failed;
    bool wipe; /* set by whoever puts secrets in: bytes that go are overwritten */
};

static inline uint8_t *buffer_data(const struct buffer *buffer)
{
    return buffer->memory + buffer->start;
}

static inline size_t buffer_length(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

/* Makes room for `size` more bytes and returns where they go, or NULL (and `failed`). */
uint8_t *buffer_reserve(struct buffer *buffer, size_t size);

/* Marks `size` bytes, written after buffer_reserve(), as content. */
static inline void buffer_commit(struct buffer *buffer, size_t size)
{
    buffer->end += size;
}

void buffer_append(struct buffer *buffer, const void *data, size_t size);
void buffer_append_string(struct buffer *buffer, const char *text);
void buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drops `size` bytes from the front; an emptied buffer larger than 512 KiB gives its memory back. */
void buffer_consume(struct buffer *buffer, size_t size);

/* Appends a NUL that does not count as content, and returns the text; NULL when out of memory. */
char *buffer_text(struct buffer *buffer);

/* Hands the NUL-terminated memory to the caller (free() it; what is in it is his to wipe) and leaves the buffer empty.
 * NULL when out of memory. */
char *buffer_take(struct buffer *buffer, size_t *length);

/* Frees the memory and zeroes the struct; NULL is allowed. */
void buffer_free(struct buffer *buffer);
