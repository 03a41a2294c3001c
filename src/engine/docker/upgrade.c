#include "engine/docker/upgrade.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/docker/docker.h"

#define HEAD_MAX   16384U
#define REASON_MAX 65536U

/* The value of a header within a head that ends with an empty line; NULL when absent. `*length` is its length. */
static const char *header_value(const char *head, const char *end, const char *name, size_t *length)
{
    size_t name_length = strlen(name);
    for (const char *line = head; line < end;) {
        const char *stop = memchr(line, '\r', (size_t)(end - line));
        if (stop == NULL)
            return NULL;
        if ((size_t)(stop - line) > name_length && line[name_length] == ':' &&
            strncasecmp(line, name, name_length) == 0) {
            const char *value = line + name_length + 1;
            while (value < stop && (*value == ' ' || *value == '\t'))
                value++;
            *length = (size_t)(stop - value);
            return value;
        }
        line = stop + 2; /* the head ends with \r\n\r\n: this is at most its end */
    }
    return NULL;
}

static bool header_has(const char *head, const char *end, const char *name, const char *word)
{
    size_t length;
    const char *value = header_value(head, end, name, &length);
    return value != NULL && length >= strlen(word) && strncasecmp(value, word, strlen(word)) == 0;
}

/* Content-Length, or `other` when there is none that can be understood. */
static size_t header_size(const char *head, const char *end, size_t other)
{
    size_t length, size = 0;
    const char *value = header_value(head, end, "Content-Length", &length);
    if (value == NULL || length == 0 || length > 7)
        return other;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return other;
        size = size * 10 + (size_t)(value[i] - '0');
    }
    return size;
}

/* Moves the content of the chunks to the front of `data`. True once the last one is there, or one is malformed. */
static bool chunks_join(char *data, size_t size, size_t *joined)
{
    const char *from = data, *end = data + size;
    *joined = 0;
    while (from < end) {
        const char *line = memchr(from, '\n', (size_t)(end - from));
        if (line == NULL)
            return false;
        size_t length = 0;
        const char *digit = from;
        for (; digit < line && length <= REASON_MAX; digit++) {
            const char *hex = "0123456789abcdef";
            const char *at = *digit != '\0' ? strchr(hex, *digit | 0x20) : NULL;
            if (at == NULL)
                break;
            length = length * 16 + (size_t)(at - hex);
        }
        if (digit == from || length == 0 || length > REASON_MAX)
            return true;
        from = line + 1;
        size_t there = (size_t)(end - from) < length ? (size_t)(end - from) : length;
        memmove(data + *joined, from, there);
        *joined += there;
        if ((size_t)(end - from) < length + 2)
            return false;
        from += length + 2;
    }
    return false;
}

/* Past the head, with a status that is a refusal. `ended`: no more will come. */
static bool reason_complete(struct upgrade *upgrade, const char *head_end, bool ended, struct error *error)
{
    const char *head = (const char *)buffer_data(&upgrade->in);
    char *body = (char *)(uintptr_t)head_end;
    size_t there = buffer_length(&upgrade->in) - (size_t)(head_end - head), size = there;
    bool complete;
    if (header_has(head, head_end, "Transfer-Encoding", "chunked")) {
        char *copy = malloc(there + 1); /* the next call begins anew */
        if (copy == NULL) {
            error_set(error, ERROR_NOMEM, "out of memory");
            return true;
        }
        memcpy(copy, body, there);
        complete = chunks_join(copy, there, &size);
        if (complete || ended || there > REASON_MAX)
            reply_error(error, upgrade->status, copy, size);
        free(copy);
        return complete || ended || there > REASON_MAX;
    }
    size = header_size(head, head_end, SIZE_MAX);
    complete = there >= size || ended || there > REASON_MAX;
    if (complete)
        reply_error(error, upgrade->status, body, there < size ? there : size);
    return complete;
}

/* "HTTP/1.1 101 ...": the status; 0 when it is something else. */
static int status_of(const char *head, size_t size)
{
    if (size < 13 || strncmp(head, "HTTP/1.", 7) != 0 || head[8] != ' ')
        return 0;
    int status = 0;
    for (size_t i = 9; i < 12; i++) {
        if (head[i] < '0' || head[i] > '9')
            return 0;
        status = status * 10 + head[i] - '0';
    }
    return status >= 100 && status <= 599 ? status : 0;
}

static int upgrade_judge(struct upgrade *upgrade, size_t *rest, struct error *err)
{
    for (;;) {
        char *head = (char *)buffer_data(&upgrade->in);
        size_t size = buffer_length(&upgrade->in);
        char *end = memmem(head, size, "\r\n\r\n", 4);
        bool alien = size >= 5 ? memcmp(head, "HTTP/", 5) != 0 : memcmp(head, "HTTP/", size) != 0;
        if (alien || (end == NULL && size > HEAD_MAX) || (end != NULL && status_of(head, size) == 0)) {
            reply_malformed(err, "not an HTTP answer");
            return -1;
        }
        if (end == NULL)
            return 0;
        end += 4;
        upgrade->status = status_of(head, size);
        size_t length;
        if (upgrade->status == 101 ||
            (upgrade->status == 200 && header_value(head, end, "Content-Length", &length) == NULL &&
             header_value(head, end, "Transfer-Encoding", &length) == NULL)) {
            *rest = size - (size_t)(end - head);
            return 1;
        }
        if (upgrade->status == 200) {
            reply_malformed(err, "a document instead of a stream");
            return -1;
        }
        if (upgrade->status >= 200)
            return reason_complete(upgrade, end, false, err) ? -1 : 0;
        buffer_consume(&upgrade->in, (size_t)(end - head)); /* 100 and the like: another one follows */
        upgrade->status = 0;
        if (buffer_length(&upgrade->in) == 0)
            return 0;
    }
}

int upgrade_feed(struct upgrade *upgrade, const void *data, size_t size, size_t *rest, struct error *err)
{
    buffer_append(&upgrade->in, data, size);
    if (upgrade->in.failed)
        return error_set(err, ERROR_NOMEM, "out of memory");
    return upgrade_judge(upgrade, rest, err);
}

bool upgrade_end(struct upgrade *upgrade, struct error *error)
{
    if (upgrade->status == 0)
        return false;
    char *head = (char *)buffer_data(&upgrade->in);
    char *end = memmem(head, buffer_length(&upgrade->in), "\r\n\r\n", 4);
    return reason_complete(upgrade, end + 4, true, error);
}

void upgrade_free(struct upgrade *upgrade)
{
    buffer_free(&upgrade->in);
}
