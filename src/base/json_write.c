#include "base/json_write.h"

#include <math.h>
#include <string.h>

static void separate(struct json_writer *json)
{
    if (json->comma)
        buffer_append(json->out, ",", 1);
    json->comma = true;
}

void jw_open(struct json_writer *json, char bracket)
{
    separate(json);
    buffer_append(json->out, &bracket, 1);
    json->comma = false;
}

void jw_close(struct json_writer *json, char bracket)
{
    buffer_append(json->out, &bracket, 1);
    json->comma = true;
}

void jw_key(struct json_writer *json, const char *key)
{
    jw_text(json, key);
    buffer_append(json->out, ":", 1);
    json->comma = false;
}

/* Length of the sequence that begins here, 0 when it is none, -1 when it is cut off. */
static int sequence_length(const uint8_t *data, size_t size)
{
    uint8_t first = data[0];
    if (first < 0x80)
        return 1;
    int length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= size)
            return -1;
        uint8_t low = 0x80, high = 0xbf;
        if (i == 1 && first == 0xe0)
            low = 0xa0;
        else if (i == 1 && first == 0xed)
            high = 0x9f;
        else if (i == 1 && first == 0xf0)
            low = 0x90;
        else if (i == 1 && first == 0xf4)
            high = 0x8f;
        if (data[i] < low || data[i] > high)
            return 0;
    }
    return length;
}

size_t utf8_prefix(const uint8_t *data, size_t size, bool *incomplete)
{
    size_t at = 0;
    int length = 1;
    while (at < size) {
        length = sequence_length(data + at, size - at);
        if (length <= 0)
            break;
        at += (size_t)length;
    }
    if (incomplete != NULL)
        *incomplete = at < size && length < 0;
    return at;
}

static void put_escaped(struct buffer *out, uint8_t byte)
{
    switch (byte) {
    case '"':
        buffer_append_string(out, "\\\"");
        break;
    case '\\':
        buffer_append_string(out, "\\\\");
        break;
    case '\n':
        buffer_append_string(out, "\\n");
        break;
    case '\r':
        buffer_append_string(out, "\\r");
        break;
    case '\t':
        buffer_append_string(out, "\\t");
        break;
    default:
        buffer_printf(out, "\\u%04x", byte);
    }
}

void jw_bytes(struct json_writer *json, const uint8_t *data, size_t size)
{
    separate(json);
    buffer_append(json->out, "\"", 1);
    size_t plain = 0, at = 0; /* from `plain` to `at` nothing needs an escape */
    while (at < size) {
        int length = data[at] < 0x80 ? 1 : sequence_length(data + at, size - at);
        bool special = length <= 0 || data[at] < 0x20 || data[at] == '"' || data[at] == '\\' || data[at] == 0x7f;
        if (!special) {
            at += (size_t)length;
            continue;
        }
        buffer_append(json->out, data + plain, at - plain);
        if (length <= 0)
            buffer_append_string(json->out, "\xef\xbf\xbd");
        else
            put_escaped(json->out, data[at]);
        plain = ++at;
    }
    buffer_append(json->out, data + plain, at - plain);
    buffer_append(json->out, "\"", 1);
}

void jw_text(struct json_writer *json, const char *text)
{
    if (text == NULL)
        jw_null(json);
    else
        jw_bytes(json, (const uint8_t *)text, strlen(text));
}

void jw_base64(struct json_writer *json, const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    separate(json);
    buffer_append(json->out, "\"", 1);
    uint8_t *out = buffer_reserve(json->out, (size + 2) / 3 * 4);
    if (out == NULL)
        return;
    for (size_t i = 0; i < size; i += 3) {
        uint32_t three = (uint32_t)data[i] << 16;
        if (i + 1 < size)
            three |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < size)
            three |= data[i + 2];
        *out++ = (uint8_t)digits[three >> 18];
        *out++ = (uint8_t)digits[three >> 12 & 63];
        *out++ = i + 1 < size ? (uint8_t)digits[three >> 6 & 63] : '=';
        *out++ = i + 2 < size ? (uint8_t)digits[three & 63] : '=';
    }
    buffer_commit(json->out, (size + 2) / 3 * 4);
    buffer_append(json->out, "\"", 1);
}

void jw_uint(struct json_writer *json, uint64_t value)
{
    separate(json);
    buffer_printf(json->out, "%llu", (unsigned long long)value);
}

void jw_int(struct json_writer *json, int64_t value)
{
    separate(json);
    buffer_printf(json->out, "%lld", (long long)value);
}

void jw_double(struct json_writer *json, double value)
{
    separate(json);
    if (isfinite(value))
        buffer_printf(json->out, "%.6g", value);
    else
        buffer_append_string(json->out, "null");
}

void jw_bool(struct json_writer *json, bool value)
{
    separate(json);
    buffer_append_string(json->out, value ? "true" : "false");
}

void jw_null(struct json_writer *json)
{
    separate(json);
    buffer_append_string(json->out, "null");
}
