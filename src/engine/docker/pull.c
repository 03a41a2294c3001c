/* Pulls: the answer is a stream of JSON objects, a line each, that tells of layers by their ids. An error comes as a
 * line too, after a status of 200. Every byte of it may be a registry's: bounded, cleaned, never trusted. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/docker/docker.h"

#define PULL_LINE_MAX   (1024U * 1024U)
#define PULL_LAYERS_MAX 1000U
#define PULL_TELL_US    100000U /* between two words of progress */

struct layer {
    char id[40];
    uint64_t bytes, total;
    bool done;
};

struct pull {
    engine_pull_fn *progress;
    void *user;
    struct buffer line;
    struct layer *layers;
    size_t count;
    char words[64];
    uint64_t told_us;
};

void pull_free(struct pull *pull)
{
    if (pull == NULL)
        return;
    buffer_free(&pull->line);
    free(pull->layers);
    free(pull);
}

/* --- progress ------------------------------------------------------------------------------------------- */

static struct layer *layer_of(struct pull *pull, const char *id)
{
    for (size_t i = 0; i < pull->count; i++)
        if (strcmp(pull->layers[i].id, id) == 0)
            return &pull->layers[i];
    if (pull->count == PULL_LAYERS_MAX || strlen(id) >= sizeof pull->layers->id)
        return NULL;
    struct layer *grown = realloc(pull->layers, (pull->count + 1) * sizeof *grown);
    if (grown == NULL)
        return NULL;
    pull->layers = grown;
    struct layer *layer = &grown[pull->count++];
    *layer = (struct layer){0};
    snprintf(layer->id, sizeof layer->id, "%s", id);
    return layer;
}

static void tell(struct pull *pull)
{
    struct pull_progress progress = {.words = pull->words, .layers = (unsigned)pull->count};
    pull->told_us = clock_us();
    for (size_t i = 0; i < pull->count; i++) {
        progress.bytes += pull->layers[i].bytes;
        progress.total_bytes += pull->layers[i].total;
        progress.layers_done += pull->layers[i].done;
    }
    if (pull->progress != NULL)
        pull->progress(pull->user, &progress);
}

/* Bytes count while they are downloaded; extracting counts the same ones again. */
static void note_layer(struct pull *pull, const json_t *json, const char *id, const char *status)
{
    bool bad = false;
    const json_t *detail = member_object(json, "progressDetail", &bad);
    int64_t current = member_integer(detail, "current", &bad), total = member_integer(detail, "total", &bad);
    bool done = strcmp(status, "Pull complete") == 0 || strcmp(status, "Already exists") == 0;
    bool downloaded = done || strcmp(status, "Download complete") == 0 || strcmp(status, "Extracting") == 0;
    if (strncmp(status, "Pulling from", 12) == 0) /* there the id is the tag */
        return;
    struct layer *layer = layer_of(pull, id);
    if (layer == NULL || bad)
        return;
    if (strcmp(status, "Downloading") == 0 && current >= 0 && total >= current) {
        layer->bytes = (uint64_t)current;
        layer->total = (uint64_t)total;
    }
    if (downloaded)
        layer->bytes = layer->total;
    layer->done |= done;
}

/* --- errors --------------------------------------------------------------------------------------------- */

static bool says(const char *message, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcasestr(message, *words) != NULL)
            return true;
    return false;
}

static void pull_error(struct error *err, const char *message)
{
    static const char *const unreachable[] = {"connection refused", "i/o timeout",
                                              "no such host",       "EOF",
                                              "no route to host",   "network is unreachable",
                                              "TLS handshake",      "connection reset",
                                              "server misbehaving", "deadline exceeded",
                                              "Client.Timeout",     NULL};
    static const char *const denied[] = {
        "unauthorized", "no basic auth", "denied", "incorrect username or password", "authentication required", NULL};
    static const char *const missing[] = {"manifest unknown", "not found", "does not exist", "name unknown", NULL};
    char clean[300];
    text_clean(clean, sizeof clean, message, strlen(message));
    if (strstr(clean, "server gave HTTP response to HTTPS client") != NULL)
        error_set(
            err, ERROR_UNAVAILABLE,
            "%s (the registry speaks plain HTTP: let it speak TLS, or put it into the engine's insecure-registries)",
            clean);
    else if (says(clean, denied))
        error_set(err, ERROR_DENIED, "%s (registryAuth has to name a login that may pull it)", clean);
    else if (strstr(clean, "no matching manifest") != NULL)
        error_set(err, ERROR_ENGINE, "%s: the registry has it for other architectures only", clean);
    else if (says(clean, missing))
        error_set(err, ERROR_NOT_FOUND, "%s", clean);
    else if (says(clean, unreachable))
        error_set(err, ERROR_UNAVAILABLE, "the registry cannot be reached: %s", clean);
    else
        error_set(err, ERROR_ENGINE, "%s", clean);
}

/* --- the stream ------------------------------------------------------------------------------------------ */

static int pull_line(struct pull *pull, const char *line, size_t size, struct error *err)
{
    json_t *json;
    bool bad = false;
    if (reply_json(&json, line, size, err) < 0)
        return -1;
    if (json == NULL)
        return 0;
    const char *message = member_string(json, "error", &bad);
    const char *status = member_string(json, "status", &bad), *id = member_string(json, "id", &bad);
    int result = 0;
    if (!json_is_object(json) || bad) {
        reply_malformed(err, "not the progress of a pull");
        result = -1;
    } else if (message[0] != '\0') {
        pull_error(err, message);
        result = -1;
    } else {
        text_clean(pull->words, sizeof pull->words, status, strlen(status));
        if (id[0] != '\0')
            note_layer(pull, json, id, status);
        if (clock_us() - pull->told_us >= PULL_TELL_US)
            tell(pull);
    }
    json_decref(json);
    return result;
}

void pull_opened(void *user)
{
    (void)user;
}

int pull_data(void *user, const char *data, size_t size, struct error *err)
{
    struct pull *pull = ((struct call *)user)->pull;
    while (size > 0) {
        const char *newline = memchr(data, '\n', size);
        size_t piece = newline != NULL ? (size_t)(newline - data) : size;
        if (buffer_length(&pull->line) + piece > PULL_LINE_MAX) {
            reply_malformed(err, "a line of more than 1 MiB");
            return -1;
        }
        buffer_append(&pull->line, data, piece);
        if (pull->line.failed)
            return error_set(err, ERROR_NOMEM, "out of memory");
        if (newline == NULL)
            return 0;
        size_t length = buffer_length(&pull->line);
        if (length > 0 && pull_line(pull, (const char *)buffer_data(&pull->line), length, err) < 0)
            return -1;
        buffer_consume(&pull->line, length);
        data += piece + 1;
        size -= piece + 1;
    }
    return 0;
}

/* --- the request ------------------------------------------------------------------------------------------ */

/* base64url with padding, as the engine decodes it. */
static void append_base64url(struct buffer *out, const char *text, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const unsigned char *in = (const unsigned char *)text;
    for (size_t i = 0; i < size; i += 3) {
        unsigned left = size - i < 3 ? (unsigned)(size - i) : 3;
        unsigned bits = (unsigned)in[i] << 16 | (left > 1 ? (unsigned)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63], left > 1 ? digits[bits >> 6 & 63] : '=',
                        left > 2 ? digits[bits & 63] : '='};
        buffer_append(out, four, sizeof four);
    }
}

static void put(json_t *json, const char *key, const char *value)
{
    if (value != NULL)
        json_object_set_new(json, key, json_string(value));
}

/* Without a login an empty object goes, which every engine takes. NULL when memory runs out. */
static char *auth_header(const struct registry_auth *auth)
{
    json_t *json = json_object();
    if (auth != NULL) {
        put(json, "username", auth->username);
        put(json, "password", auth->password);
        put(json, "identitytoken", auth->identity_token);
        put(json, "serveraddress", auth->server);
    }
    char *text = json_dumps(json, JSON_COMPACT);
    struct buffer header = {0};
    buffer_append_string(&header, "X-Registry-Auth: ");
    if (text != NULL)
        append_base64url(&header, text, strlen(text));
    json_decref(json);
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    bool made = text != NULL;
    free(text);
    char *result = made ? buffer_take(&header, NULL) : NULL;
    buffer_free(&header);
    return result;
}

/* "host:5000/name:tag", "name@sha256:...": name and tag are two parameters; a digest stands for the tag, and goes
 * before one. */
static void append_image(struct buffer *path, const char *reference)
{
    const char *at = strchr(reference, '@'), *slash = strrchr(reference, '/');
    const char *colon = strchr(slash != NULL ? slash : reference, ':');
    const char *end = colon != NULL && (at == NULL || colon < at) ? colon : at; /* of the name */
    buffer_append_string(path, "?fromImage=");
    buffer_append(path, reference, end != NULL ? (size_t)(end - reference) : strlen(reference));
    buffer_append_string(path, "&tag=");
    buffer_append_string(path, at != NULL ? at + 1 : end != NULL ? end + 1 : "latest");
}

static void deliver_pulled(const struct answer *answer, const json_t *json, const struct error *error)
{
    (void)json;
    answer->done(answer->user, error);
}

void docker_image_pull(struct engine *engine, const char *reference, const struct registry_auth *auth,
                       engine_pull_fn *progress, engine_done_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_pulled, .done = done, .user = user};
    struct call *call =
        call_new(docker_of(engine), &answer, "POST", "pull image %.128s", reference != NULL ? reference : "");
    if (call == NULL)
        return;
    call->header = auth_header(auth);
    call->pull = calloc(1, sizeof *call->pull);
    if (call->header == NULL || call->pull == NULL) {
        error_set(&call->error, ERROR_NOMEM, "out of memory");
    } else if (!reference_valid(reference)) {
        error_set(&call->error, ERROR_INVALID, "not an image reference, such as registry:5000/name:tag");
    } else {
        call->pull->progress = progress;
        call->pull->user = user;
        buffer_append_string(&call->path, "/images/create");
        append_image(&call->path, reference);
    }
    call_send(call);
}
