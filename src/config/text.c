/* The parser takes what YAML does not allow: it stops at a NUL and calls that the end, makes an empty text of an
 * overlong UTF-8 sequence, and does not come back from a line of 100,000 percent signs. So such texts do not reach it.
 */
#include "config/text.h"

#include <stdbool.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 sequence that begins here (Unicode, table 3-7); 0: there is none. */
static size_t sequence_length(const unsigned char *text, size_t left)
{
    unsigned char lead = text[0], low = 0x80, high = 0xbf;
    size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    if (length == 0 || length > left || (length > 1 && (text[1] < low || text[1] > high)))
        return 0;
    for (size_t i = 2; i < length; i++)
        if (text[i] < 0x80 || text[i] > 0xbf)
            return 0;
    return length;
}

static bool is_utf16(const unsigned char *text, size_t size)
{
    return size >= 2 && ((text[0] == 0xff && text[1] == 0xfe) || (text[0] == 0xfe && text[1] == 0xff));
}

int text_check(const char *text, size_t size, const char *name, struct error *err)
{
    const unsigned char *bytes = (const unsigned char *)text;
    int line = 1;
    bool begins = true; /* a line */
    if (is_utf16(bytes, size))
        return error_set(err, ERROR_INVALID, "%s:1: the file is UTF-16; allowed: UTF-8", name);
    for (size_t i = 0; i < size;) {
        unsigned char byte = bytes[i];
        size_t length = sequence_length(bytes + i, size - i);
        if (length == 0)
            return error_set(err, ERROR_INVALID, "%s:%d: the byte 0x%02x is no part of UTF-8; allowed: UTF-8", name,
                             line, byte);
        if ((byte < ' ' && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f)
            return error_set(err, ERROR_INVALID, "%s:%d: %s (0x%02x); allowed in a text: printable characters", name,
                             line, byte == 0 ? "a NUL byte" : "a control character", byte);
        if (byte == '%' && begins)
            return error_set(err, ERROR_INVALID, "%s:%d: a line that begins with %%, a directive; allowed: none", name,
                             line);
        begins = byte == '\n' || (byte == '\r' && (i + 1 == size || bytes[i + 1] != '\n'));
        line += begins;
        i += length;
    }
    return 0;
}
