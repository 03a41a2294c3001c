#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_KEEP_BYTES (512U * 1024U)

static void wipe(const struct buffer *buffer, size_t from, size_t to)
{
    if (buffer->wipe && from < to)
        explicit_bzero(buffer->memory + from, to - from);
}

uint8_t *buffer_reserve(struct buffer *buffer, size_t size)
{
    if (buffer->failed)
        return NULL;
    if (buffer->memory != NULL && buffer->capacity - buffer->end >= size)
        return buffer->memory + buffer->end;
    size_t length = buffer_length(buffer);
    if (size > SIZE_MAX / 4 - length) {
        buffer->failed = true;
        return NULL;
    }
    /* Sliding pays only when it frees at least as much as it moves: appends stay amortised O(1). */
    if (buffer->memory != NULL && buffer->start >= length && buffer->capacity - length >= size) {
        memmove(buffer->memory, buffer->memory + buffer->start, length);
        wipe(buffer, buffer->start, buffer->end); /* it is at least as far up as it was long */
        buffer->start = 0;
        buffer->end = length;
        return buffer->memory + length;
    }
    size_t capacity = buffer->capacity < 256 ? 256 : buffer->capacity;
    while (capacity < length + size)
        capacity *= 2;
    uint8_t *memory = malloc(capacity);
    if (memory == NULL) {
        buffer->failed = true;
        return NULL;
    }
    if (length > 0)
        memcpy(memory, buffer->memory + buffer->start, length);
    wipe(buffer, buffer->start, buffer->end);
    free(buffer->memory);
    buffer->memory = memory;
    buffer->start = 0;
    buffer->end = length;
    buffer->capacity = capacity;
    return memory + length;
}

void buffer_append(struct buffer *buffer, const void *data, size_t size)
{
    if (size == 0)
        return;
    uint8_t *room = buffer_reserve(buffer, size);
    if (room == NULL)
        return;
    memcpy(room, data, size);
    buffer->end += size;
}

void buffer_append_string(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int needed = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (needed < 0) {
        buffer->failed = true;
        return;
    }
    uint8_t *room = buffer_reserve(buffer, (size_t)needed + 1);
    if (room == NULL)
        return;
    va_start(args, format);
    vsnprintf((char *)room, (size_t)needed + 1, format, args);
    va_end(args);
    buffer->end += (size_t)needed;
}

void buffer_consume(struct buffer *buffer, size_t size)
{
    wipe(buffer, buffer->start, buffer->start + size);
    buffer->start += size;
    if (buffer->start < buffer->end)
        return;
    buffer->start = buffer->end = 0;
    if (buffer->capacity > BUFFER_KEEP_BYTES) {
        free(buffer->memory);
        buffer->memory = NULL;
        buffer->capacity = 0;
    }
}

char *buffer_text(struct buffer *buffer)
{
    uint8_t *room = buffer_reserve(buffer, 1);
    if (room == NULL)
        return NULL;
    *room = '\0';
    return (char *)buffer_data(buffer);
}

char *buffer_take(struct buffer *buffer, size_t *length)
{
    char *text = buffer_text(buffer);
    if (text == NULL)
        return NULL;
    size_t size = buffer_length(buffer);
    if (buffer->start > 0)
        memmove(buffer->memory, text, size + 1);
    if (length != NULL)
        *length = size;
    text = (char *)buffer->memory;
    *buffer = (struct buffer){0};
    return text;
}

void buffer_free(struct buffer *buffer)
{
    if (buffer == NULL)
        return;
    wipe(buffer, buffer->start, buffer->end);
    free(buffer->memory);
    *buffer = (struct buffer){0};
}
