/* Writing JSON into a buffer: small, allocation-free beside the buffer, commas by itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

struct json_writer {
    struct buffer *out;
    bool comma; /* a value stands before the next one */
};

void jw_open(struct json_writer *json, char bracket);  /* '{' or '[' */
void jw_close(struct json_writer *json, char bracket); /* '}' or ']' */
void jw_key(struct json_writer *json, const char *key);
void jw_text(struct json_writer *json, const char *text); /* UTF-8; NULL gives null; what is not UTF-8 becomes U+FFFD */
void jw_bytes(struct json_writer *json, const uint8_t *data, size_t size); /* as jw_text() */
void jw_base64(struct json_writer *json, const uint8_t *data, size_t size);
void jw_uint(struct json_writer *json, uint64_t value);
void jw_int(struct json_writer *json, int64_t value);
void jw_double(struct json_writer *json, double value); /* NaN and infinities give null */
void jw_bool(struct json_writer *json, bool value);
void jw_null(struct json_writer *json);

/* Bytes at the beginning of `data` that are whole, valid UTF-8 sequences. `incomplete`, unless NULL, says whether what
 * follows is the beginning of a sequence that is cut off by the end. */
size_t utf8_prefix(const uint8_t *data, size_t size, bool *incomplete);
