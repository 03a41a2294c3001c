/* What comes from the engine and what goes into its paths. Answers are treated as hostile: every member's type is
 * checked, texts for people lose their control characters. */
#include <ctype.h>
#include <string.h>

#include "engine/docker/docker.h"

#define NAME_MAX_BYTES      255
#define REFERENCE_MAX_BYTES 512
#define WORDS_MAX           (ERROR_MESSAGE_MAX - 160) /* leaves room for what was tried */

/* Bytes of the UTF-8 character at `text`, 0 when it is none. */
static size_t utf8_length(const unsigned char *text, size_t left)
{
    unsigned char lead = text[0];
    size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    /* Overlong forms, surrogates, beyond U+10FFFF. */
    if ((lead == 0xe0 && text[1] < 0xa0) || (lead == 0xed && text[1] > 0x9f) || (lead == 0xf0 && text[1] < 0x90) ||
        (lead == 0xf4 && text[1] > 0x8f))
        return 0;
    return length;
}

void text_clean(char *out, size_t size, const char *text, size_t length)
{
    size_t used = 0;
    for (size_t i = 0; i < length;) {
        const unsigned char *at = (const unsigned char *)text + i;
        size_t bytes = utf8_length(at, length - i);
        bool control = *at < 0x20 || *at == 0x7f || (bytes == 2 && *at == 0xc2 && at[1] < 0xa0);
        i += bytes > 0 ? bytes : 1;
        if (control && (used == 0 || out[used - 1] == ' '))
            continue;
        bool plain = bytes > 0 && !control;
        if (used + (plain ? bytes : 1) >= size)
            break;
        if (plain) {
            memcpy(out + used, at, bytes);
            used += bytes;
        } else {
            out[used++] = control ? ' ' : '?';
        }
    }
    while (used > 0 && out[used - 1] == ' ')
        used--;
    out[used] = '\0';
}

static bool contains(const char *text, const char *part)
{
    return strcasestr(text, part) != NULL;
}

/* Docker says "forbidden" or even "internal error" where a thing exists already or is in use, Podman "internal error"
 * for an image that it does not have. */
static enum error_code reply_code(int status, const char *message)
{
    if (status == 404 || contains(message, "image not known"))
        return ERROR_NOT_FOUND;
    if (status == 409 || contains(message, "already exists") || contains(message, "is in use") ||
        contains(message, "already in use") || contains(message, "active endpoints") || contains(message, "overlaps") ||
        contains(message, "already used") || contains(message, "being used"))
        return ERROR_CONFLICT;
    return ERROR_ENGINE;
}

void reply_error(struct error *error, int status, const char *body, size_t size)
{
    char message[WORDS_MAX];
    json_t *json = json_loadb(body, size, 0, NULL);
    const char *text = json_string_value(json_object_get(json, "message"));
    if (text != NULL)
        text_clean(message, sizeof(message), text, strlen(text));
    else
        text_clean(message, sizeof(message), body, size > 200 ? 200 : size);
    json_decref(json);
    if (message[0] != '\0')
        error_set(error, reply_code(status, message), "%s", message);
    else
        error_set(error, reply_code(status, ""), "the engine answered with HTTP status %d", status);
}

void reply_malformed(struct error *error, const char *what)
{
    error_set(error, ERROR_PROTOCOL, "the engine's answer is not understood: %s", what);
}

int reply_json(json_t **json, const char *body, size_t size, struct error *err)
{
    *json = NULL;
    size_t blank = 0;
    while (blank < size && isspace((unsigned char)body[blank]))
        blank++;
    if (blank == size)
        return 0;
    json_error_t bad;
    *json = json_loadb(body, size, 0, &bad);
    if (*json != NULL)
        return 0;
    reply_malformed(err, "not JSON");
    return -1;
}

int reply_progress(json_t **json, const char *body, size_t size, struct error *err)
{
    *json = NULL;
    while (size > 0) {
        if (isspace((unsigned char)*body)) {
            body++;
            size--;
            continue;
        }
        json_error_t bad;
        json_t *value = json_loadb(body, size, JSON_DISABLE_EOF_CHECK, &bad);
        if (value == NULL || bad.position <= 0 || (size_t)bad.position > size) {
            json_decref(value);
            json_decref(*json);
            *json = NULL;
            reply_malformed(err, "its progress is not JSON");
            return -1;
        }
        body += bad.position;
        size -= (size_t)bad.position;
        json_decref(*json);
        *json = value;
        const char *message = json_string_value(json_object_get(value, "error"));
        if (message == NULL) /* API 1.48 calls "error" obsolete */
            message = json_string_value(json_object_get(json_object_get(value, "errorDetail"), "message"));
        if (message != NULL) {
            char clean[WORDS_MAX];
            text_clean(clean, sizeof(clean), message, strlen(message));
            error_set(err, ERROR_ENGINE, "%s", clean);
            json_decref(*json);
            *json = NULL;
            return -1;
        }
    }
    return 0;
}

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

const char *member_string(const json_t *object, const char *key, bool *bad)
{
    const json_t *value = member(object, key);
    if (value == NULL)
        return "";
    if (!json_is_string(value)) {
        *bad = true;
        return "";
    }
    return json_string_value(value);
}

int64_t member_integer(const json_t *object, const char *key, bool *bad)
{
    const json_t *value = member(object, key);
    if (value != NULL && !json_is_integer(value))
        *bad = true;
    return json_integer_value(value);
}

bool member_bool(const json_t *object, const char *key, bool *bad)
{
    const json_t *value = member(object, key);
    if (value != NULL && !json_is_boolean(value))
        *bad = true;
    return json_is_true(value);
}

const json_t *member_object(const json_t *object, const char *key, bool *bad)
{
    const json_t *value = member(object, key);
    if (value == NULL || json_is_object(value))
        return value;
    *bad = true;
    return NULL;
}

const json_t *member_array(const json_t *object, const char *key, bool *bad)
{
    const json_t *value = member(object, key);
    if (value == NULL || json_is_array(value))
        return value;
    *bad = true;
    return NULL;
}

bool name_valid(const char *name)
{
    size_t length = name != NULL ? strlen(name) : 0;
    if (length == 0 || length > NAME_MAX_BYTES || !isalnum((unsigned char)name[0]))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)name[i]) && strchr("_.-", name[i]) == NULL)
            return false;
    }
    return true;
}

bool reference_valid(const char *reference)
{
    size_t length = reference != NULL ? strlen(reference) : 0;
    if (length == 0 || length > REFERENCE_MAX_BYTES || !isalnum((unsigned char)reference[0]))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)reference[i]) && strchr("_.-/:@", reference[i]) == NULL)
            return false;
    }
    return strstr(reference, "..") == NULL && strstr(reference, "//") == NULL && strstr(reference, "/.") == NULL &&
           strchr("/:@", reference[length - 1]) == NULL;
}

void path_append_escaped(struct buffer *path, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x80 && (isalnum(c) || strchr("-._~", c) != NULL))
            buffer_append(path, &c, 1);
        else
            buffer_printf(path, "%%%02X", c);
    }
}

int path_append_filters(struct buffer *path, char separator, const char *key, const char *value, const char *type)
{
    struct buffer label = {0};
    buffer_printf(&label, "%s%s%s", key, value != NULL ? "=" : "", value != NULL ? value : "");
    const char *text = buffer_text(&label);
    json_t *filters = NULL;
    if (text != NULL && type != NULL)
        filters = json_pack("{s:[s],s:[s]}", "label", text, "type", type);
    else if (text != NULL)
        filters = json_pack("{s:[s]}", "label", text);
    char *json = filters != NULL ? json_dumps(filters, JSON_COMPACT) : NULL;
    if (json != NULL) {
        buffer_printf(path, "%cfilters=", separator);
        path_append_escaped(path, json);
    }
    int r = json != NULL ? 0 : -1;
    free(json);
    json_decref(filters);
    buffer_free(&label);
    return r;
}

/* --- answers that several requests share ---------------------------------------------------------- */

void deliver_done(const struct answer *answer, const json_t *json, const struct error *error)
{
    answer->done(answer->user, error);
}

void deliver_gone(const struct answer *answer, const json_t *json, const struct error *error)
{
    answer->done(answer->user, error != NULL && error->code == ERROR_NOT_FOUND ? NULL : error);
}

static const char *row_label(const struct engine_object *object, const char *key)
{
    return json_string_value(json_object_get(json_object_get(object->opaque, "Labels"), key));
}

/* The value at `key`: a text, or the first of an array of texts; without the slash before containers' names. */
static const char *row_text(const json_t *row, const char *key, bool *bad)
{
    const json_t *value = json_object_get(row, key);
    if (json_is_array(value) && json_array_size(value) > 0)
        value = json_array_get(value, 0);
    const char *text = json_string_value(value);
    if (text == NULL) {
        *bad = true;
        return "";
    }
    return text[0] == '/' ? text + 1 : text;
}

void deliver_rows(const struct answer *answer, const json_t *rows, const char *id, const char *name, const char *state,
                  const struct error *error)
{
    if (error != NULL) {
        answer->list(answer->user, NULL, 0, error);
        return;
    }
    struct error trouble = ERROR_INIT;
    bool bad = rows != NULL && !json_is_array(rows);
    size_t count = 0, total = json_array_size(rows);
    struct engine_object *objects = calloc(total + 1, sizeof(*objects));
    for (size_t i = 0; objects != NULL && i < total; i++) {
        const json_t *row = json_array_get(rows, i);
        struct engine_object object = {.label = row_label, .opaque = row};
        object.id = row_text(row, id, &bad);
        object.name = row_text(row, name, &bad);
        object.state = state != NULL ? member_string(row, state, &bad) : "";
        /* An engine that does not know the filter must not make us take others' objects for ours. */
        const char *value = row_label(&object, answer->key);
        if (value != NULL && (answer->value == NULL || strcmp(value, answer->value) == 0))
            objects[count++] = object;
    }
    if (objects == NULL)
        error_set(&trouble, ERROR_NOMEM, "%s: out of memory", answer->what);
    else if (bad)
        error_set(&trouble, ERROR_PROTOCOL, "%s: the engine's answer is not understood: not a list of objects",
                  answer->what);
    if (trouble.code != ERROR_NONE)
        answer->list(answer->user, NULL, 0, &trouble);
    else
        answer->list(answer->user, objects, count, NULL);
    free(objects);
}
