#include <stdio.h>
#include <string.h>

#include "base/json_write.h"
#include "files/files.h"

static size_t put_escaped(char *out, unsigned char byte)
{
    return (size_t)snprintf(out, 5, "\\x%02x", byte);
}

const char *tree_quote(char out[TREE_QUOTE_MAX], const char *text)
{
    size_t used = 0, size = strlen(text);
    const unsigned char *next = (const unsigned char *)text, *end = next + size;
    while (next < end && used + 8 < TREE_QUOTE_MAX) {
        bool control = *next < 0x20 || *next == 0x7f || (*next == 0xc2 && next[1] >= 0x80 && next[1] < 0xa0);
        size_t length = *next < 0x80 ? 1 : *next < 0xe0 ? 2 : *next < 0xf0 ? 3 : 4;
        bool whole = length <= (size_t)(end - next) && utf8_prefix(next, length, NULL) == length;
        if (control || !whole) {
            used += put_escaped(out + used, *next++);
            continue;
        }
        memcpy(out + used, next, length);
        used += length;
        next += length;
    }
    memcpy(out + used, next < end ? "..." : "", next < end ? 4 : 1);
    return out;
}
