/* Pulls: the answer is a stream of JSON objects, a line each, that tells of layers by their ids. What fails before the
 * first line is a status, what fails later is a line. Every byte may be a registry's: bounded, cleaned, never trusted.
 *
 * A pull has succeeded when its last lines say so, and not when the stream just ends: an engine that dies ends it, too.
 * Podman has no such line; there the image must be there afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/docker/docker.h"

#define PULL_LINE_MAX   (1024U * 1024U)
#define PULL_LAYERS_MAX 1000U
#define PULL_WORDS_MAX  300U    /* of an error, so that ours have room beside them */
#define PULL_TELL_US    100000U /* between two words of progress */
#define PULL_SECRET_MIN 3U      /* what is shorter stands in any text */

struct layer {
    char id[24]; /* the engine shortens them to 12 */
    uint64_t bytes, total;
    bool done;
};

struct pull {
    struct docker *docker;
    char *what, *reference;
    char *secrets[3]; /* no text may have them */
    engine_pull_fn *progress;
    engine_done_fn *done;
    void *user;
    struct buffer line; /* one that has not ended yet */
    struct layer *layers;
    size_t count, last;
    const char *words; /* static */
    uint64_t told_us;
    bool said_done;
    struct error error; /* that a line told */
};

static void secret_free(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

static void pull_free(struct pull *pull)
{
    if (pull == NULL)
        return;
    for (size_t i = 0; i < sizeof(pull->secrets) / sizeof(pull->secrets[0]); i++)
        secret_free(pull->secrets[i]);
    buffer_free(&pull->line);
    free(pull->layers);
    free(pull->what);
    free(pull->reference);
    free(pull);
}

/* --- progress ------------------------------------------------------------------------------------- */

enum moment { MOMENT_BEGUN, MOMENT_LOADING, MOMENT_LOADED, MOMENT_DONE };

static const struct {
    const char *words;
    enum moment moment;
} statuses[] = {
    {"Pulling fs layer", MOMENT_BEGUN},    {"Waiting", MOMENT_BEGUN},      {"Downloading", MOMENT_LOADING},
    {"Verifying Checksum", MOMENT_LOADED}, {"Extracting", MOMENT_LOADED},  {"Download complete", MOMENT_LOADED},
    {"Already exists", MOMENT_DONE},       {"Pull complete", MOMENT_DONE},
};

/* NULL: one too many. Lines of the same layer follow one another. */
static struct layer *layer_of(struct pull *pull, const char *id)
{
    for (size_t i = 0; i < pull->count; i++) {
        size_t at = (pull->last + i) % pull->count;
        if (strcmp(pull->layers[at].id, id) == 0) {
            pull->last = at;
            return &pull->layers[at];
        }
    }
    if (pull->count == PULL_LAYERS_MAX || strlen(id) >= sizeof(pull->layers->id))
        return NULL;
    if (pull->layers == NULL && (pull->layers = calloc(PULL_LAYERS_MAX, sizeof(*pull->layers))) == NULL)
        return NULL;
    struct layer *layer = &pull->layers[pull->last = pull->count++];
    snprintf(layer->id, sizeof(layer->id), "%s", id);
    return layer;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void pull_tell(struct pull *pull)
{
    struct pull_progress progress = {.words = pull->words, .layers = (unsigned)pull->count};
    pull->told_us = clock_us();
    for (size_t i = 0; i < pull->count; i++) {
        progress.bytes = sum(progress.bytes, pull->layers[i].bytes);
        progress.total_bytes = sum(progress.total_bytes, pull->layers[i].total);
        progress.layers_done += pull->layers[i].done;
    }
    if (pull->progress != NULL)
        pull->progress(pull->user, &progress);
}

/* Bytes count while they are loaded; extracting counts the same ones again. Retries begin from 0. */
static void layer_note(struct layer *layer, enum moment moment, const json_t *json)
{
    const json_t *detail = json_object_get(json, "progressDetail");
    json_int_t current = json_integer_value(json_object_get(detail, "current"));
    json_int_t total = json_integer_value(json_object_get(detail, "total"));
    if (moment == MOMENT_LOADING && current >= 0) {
        layer->bytes = (uint64_t)current;
        if (total > 0)
            layer->total = (uint64_t)total;
        if (layer->total < layer->bytes)
            layer->total = layer->bytes;
    } else if (moment >= MOMENT_LOADED) {
        layer->bytes = layer->total;
    }
    layer->done = moment == MOMENT_DONE;
}

static void pull_note(struct pull *pull, const char *id, const char *status, const json_t *json)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (strcmp(status, statuses[i].words) != 0)
            continue;
        struct layer *layer = layer_of(pull, id);
        pull->words = statuses[i].words;
        if (layer != NULL)
            layer_note(layer, statuses[i].moment, json);
    }
}

/* --- errors --------------------------------------------------------------------------------------- */

/* Whole, or as much of its beginning as a cut at the end of the text has left. */
static void secret_hide(char *text, const char *secret)
{
    size_t size = secret != NULL ? strlen(secret) : 0;
    for (char *at = text; size >= PULL_SECRET_MIN && *at != '\0'; at++) {
        size_t left = strlen(at), match = left < size ? left : size;
        if (match < PULL_SECRET_MIN || memcmp(at, secret, match) != 0)
            continue;
        memset(at, '*', PULL_SECRET_MIN);
        memmove(at + PULL_SECRET_MIN, at + match, left - match + 1);
        at += PULL_SECRET_MIN - 1;
    }
}

static void pull_hide(const struct pull *pull, char *text)
{
    for (size_t i = 0; i < sizeof(pull->secrets) / sizeof(pull->secrets[0]); i++)
        secret_hide(text, pull->secrets[i]);
}

/* Registries and engines tell their errors in words only. `hint`s follow the words. */
static const struct meaning {
    const char *words;
    enum error_code code;
    const char *hint;
} meanings[] = {
    {"server gave HTTP response to HTTPS client", ERROR_UNAVAILABLE,
     "the registry speaks no TLS: give it a certificate, or put it into the engine's insecure-registries"},
    {"x509:", ERROR_UNAVAILABLE,
     "the engine does not trust the registry's certificate: put its authority into /etc/docker/certs.d"},
    {"no matching manifest", ERROR_ENGINE, "the registry has this image for other architectures than the engine's"},
    {"repository does not exist", ERROR_NOT_FOUND, "or it is not shown without a login: registryAuth"},
    {"toomanyrequests", ERROR_UNAVAILABLE, "the registry wants a pause, or a login: registryAuth"},
    {"no basic auth credentials", ERROR_DENIED, "the registry wants a login: registryAuth"},
    {"unauthorized", ERROR_DENIED, "is the login in registryAuth the right one for this registry?"},
    {"incorrect username or password", ERROR_DENIED, "is the login in registryAuth the right one for this registry?"},
    {"authentication required", ERROR_DENIED, "the registry wants a login: registryAuth"},
    {"denied", ERROR_DENIED, "registryAuth has to name a login that may pull it"},
    {"manifest unknown", ERROR_NOT_FOUND, NULL},
    {"name unknown", ERROR_NOT_FOUND, NULL},
    {"not found", ERROR_NOT_FOUND, NULL},
    {"connection refused", ERROR_UNAVAILABLE, "the registry cannot be reached: is it running?"},
    {"no such host", ERROR_UNAVAILABLE, "the registry cannot be reached: the engine's host does not know its name"},
    {"server misbehaving", ERROR_UNAVAILABLE,
     "the registry cannot be reached: the engine's host does not know its name"},
    {"i/o timeout", ERROR_UNAVAILABLE, "the registry cannot be reached"},
    {"Client.Timeout", ERROR_UNAVAILABLE, "the registry cannot be reached"},
    {"deadline exceeded", ERROR_UNAVAILABLE, "the registry cannot be reached"},
    {"no route to host", ERROR_UNAVAILABLE, "the registry cannot be reached"},
    {"network is unreachable", ERROR_UNAVAILABLE, "the registry cannot be reached"},
    {"TLS handshake", ERROR_UNAVAILABLE, "the engine and the registry do not agree on TLS"},
    {"connection reset", ERROR_UNAVAILABLE, "the registry went away"},
    {"broken pipe", ERROR_UNAVAILABLE, "the registry went away"},
    {"EOF", ERROR_UNAVAILABLE, "the registry went away"},
};

/* The image's own name may have such words in it: those then say nothing. */
static const struct meaning *meaning_of(const struct pull *pull, const char *words)
{
    for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        if (strcasestr(words, meanings[i].words) != NULL && strcasestr(pull->reference, meanings[i].words) == NULL)
            return &meanings[i];
    }
    return NULL;
}

static void pull_explain(const struct pull *pull, enum error_code code, const char *words, struct error *err)
{
    const struct meaning *meaning = meaning_of(pull, words);
    if (meaning == NULL)
        error_set(err, code, "%s", words);
    else if (meaning->hint == NULL)
        error_set(err, meaning->code, "%s", words);
    else
        error_set(err, meaning->code, "%s (%s)", words, meaning->hint);
}

static void pull_refused(struct pull *pull, const char *message)
{
    char clean[PULL_WORDS_MAX];
    char *text = strdup(message);
    if (text == NULL) {
        error_set(&pull->error, ERROR_NOMEM, "out of memory");
        return;
    }
    pull_hide(pull, text);
    text_clean(clean, sizeof(clean), text, strlen(text));
    free(text);
    pull_explain(pull, ERROR_ENGINE, clean[0] != '\0' ? clean : "the engine says no reason", &pull->error);
}

/* --- the stream ----------------------------------------------------------------------------------- */

static void pull_line(struct pull *pull, const char *line, size_t size)
{
    json_t *json;
    bool bad = false;
    if (reply_json(&json, line, size, &pull->error) < 0 || json == NULL)
        return;
    const char *message = member_string(json, "error", &bad);
    if (message[0] == '\0')
        message = member_string(member_object(json, "errorDetail", &bad), "message", &bad);
    const char *status = member_string(json, "status", &bad), *id = member_string(json, "id", &bad);
    if (!json_is_object(json) || bad)
        reply_malformed(&pull->error, "not the progress of a pull");
    else if (message[0] != '\0' || json_object_get(json, "errorDetail") != NULL)
        pull_refused(pull, message);
    else if (id[0] != '\0')
        pull_note(pull, id, status, json);
    else if (strncmp(status, "Status: ", strlen("Status: ")) == 0)
        pull->said_done = true;
    json_decref(json);
    if (clock_us() - pull->told_us >= PULL_TELL_US && pull->words != NULL)
        pull_tell(pull);
}

/* -1 ends the request; why is in pull->error. */
static int on_data(void *user, const char *data, size_t size, struct error *err)
{
    struct pull *pull = user;
    while (size > 0 && pull->error.code == ERROR_NONE && !pull->docker->closing) {
        const char *newline = memchr(data, '\n', size);
        size_t piece = newline != NULL ? (size_t)(newline - data) : size;
        if (buffer_length(&pull->line) + piece > PULL_LINE_MAX) {
            reply_malformed(&pull->error, "a line of more than 1 MiB");
            break;
        }
        buffer_append(&pull->line, data, piece);
        if (pull->line.failed) {
            error_set(&pull->error, ERROR_NOMEM, "out of memory");
            break;
        }
        if (newline == NULL)
            break;
        size_t length = buffer_length(&pull->line);
        pull_line(pull, (const char *)buffer_data(&pull->line), length);
        buffer_consume(&pull->line, length);
        data += piece + 1;
        size -= piece + 1;
    }
    return pull->error.code != ERROR_NONE ? error_set(err, ERROR_ENGINE, "the pull failed") : 0;
}

/* --- the end -------------------------------------------------------------------------------------- */

static void pull_answer(struct pull *pull, const struct error *error)
{
    if (error == NULL) {
        pull->words = "Pull complete";
        pull_tell(pull);
    }
    pull->done(pull->user, error);
    pull_free(pull);
}

static void pull_fail(struct pull *pull, const struct error *error)
{
    struct error full = *error;
    error_prefix(&full, "%s", pull->what);
    pull_answer(pull, &full);
}

static void pull_ended_early(struct pull *pull)
{
    error_set(&pull->error, ERROR_UNAVAILABLE, "the engine ended its answer in the middle of the pull");
    pull_fail(pull, &pull->error);
}

static void on_looked(void *user, const struct image_status *status, const struct error *error)
{
    struct pull *pull = user;
    if (error == NULL)
        pull_answer(pull, NULL);
    else if (error->code == ERROR_NOT_FOUND)
        pull_ended_early(pull);
    else
        pull_answer(pull, error);
}

static void deliver_pulled(const struct answer *answer, const json_t *json, const struct error *error)
{
    struct pull *pull = answer->user;
    size_t left = buffer_length(&pull->line);
    if (error == NULL && left > 0) /* the last line needs no end */
        pull_line(pull, (const char *)buffer_data(&pull->line), left);
    if (pull->error.code != ERROR_NONE) {
        pull_fail(pull, &pull->error);
    } else if (error != NULL) {
        struct error told = *error;
        pull_hide(pull, told.message);
        if (error->code == ERROR_ENGINE || error->code == ERROR_NOT_FOUND || error->code == ERROR_CONFLICT)
            pull_explain(pull, error->code, told.message, &pull->error);
        else
            pull->error = told;
        pull_answer(pull, &pull->error);
    } else if (pull->said_done) {
        pull_answer(pull, NULL);
    } else if (answer->podman && !pull->docker->closing) {
        docker_image_inspect(&pull->docker->base, pull->reference, on_looked, pull);
    } else {
        pull_ended_early(pull);
    }
}

/* --- the request ---------------------------------------------------------------------------------- */

/* base64url with padding, as the engine decodes it. */
static void append_base64url(struct buffer *out, const char *text, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const unsigned char *in = (const unsigned char *)text;
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        unsigned bits = (unsigned)in[i] << 16 | (left > 1 ? (unsigned)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63], left > 1 ? digits[bits >> 6 & 63] : '=',
                        left > 2 ? digits[bits & 63] : '='};
        buffer_append(out, four, sizeof(four));
    }
}

/* JSON is UTF-8: -1 for a value that is not. */
static int auth_put(json_t *json, const char *key, const char *value)
{
    return value == NULL ? 0 : json_object_set_new(json, key, json_string(value));
}

/* Without a login an empty object goes, which every engine takes. */
static char *auth_json(const struct registry_auth *auth)
{
    json_t *json = json_object();
    int r = json == NULL ? -1 : 0;
    if (r == 0 && auth != NULL) {
        r |= auth_put(json, "username", auth->username);
        r |= auth_put(json, "password", auth->password);
        r |= auth_put(json, "identitytoken", auth->identity_token);
        r |= auth_put(json, "serveraddress", auth->server);
    }
    char *text = r == 0 ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return text;
}

static char *auth_header(const struct registry_auth *auth)
{
    char *text = auth_json(auth);
    if (text == NULL)
        return NULL;
    struct buffer header = {0};
    if (buffer_reserve(&header, strlen("X-Registry-Auth: ") + strlen(text) * 2 + 8) != NULL) { /* leaves no copy */
        buffer_append_string(&header, "X-Registry-Auth: ");
        append_base64url(&header, text, strlen(text));
    }
    secret_free(text);
    char *result = buffer_take(&header, NULL);
    buffer_free(&header);
    return result;
}

/* "host:5000/name:tag", "name@sha256:...": name and tag are two parameters; a digest stands for the tag, and goes
 * before one. Without any the engine would pull them all. */
static void append_image(struct buffer *path, const char *reference)
{
    const char *at = strchr(reference, '@'), *slash = strrchr(reference, '/');
    const char *colon = strchr(slash != NULL ? slash : reference, ':');
    const char *end = colon != NULL && (at == NULL || colon < at) ? colon : at; /* of the name */
    buffer_append_string(path, "/images/create?fromImage=");
    buffer_append(path, reference, end != NULL ? (size_t)(end - reference) : strlen(reference));
    buffer_append_string(path, "&tag=");
    buffer_append_string(path, at != NULL ? at + 1 : end != NULL ? end + 1 : "latest");
}

/* NULL when memory runs out. */
static struct pull *pull_new(struct docker *docker, const char *reference, const struct registry_auth *auth)
{
    struct pull *pull = calloc(1, sizeof(*pull));
    if (pull == NULL)
        return NULL;
    const char *password = auth != NULL ? auth->password : NULL, *token = auth != NULL ? auth->identity_token : NULL;
    pull->docker = docker;
    pull->reference = strdup(reference);
    pull->secrets[0] = password != NULL ? strdup(password) : NULL;
    pull->secrets[1] = token != NULL ? strdup(token) : NULL;
    if (pull->reference == NULL || (pull->secrets[0] == NULL) != (password == NULL) ||
        (pull->secrets[1] == NULL) != (token == NULL)) {
        pull_free(pull);
        return NULL;
    }
    return pull;
}

/* What is wrong with a call is answered by its deliver, later, as any answer. */
static void call_fill(struct call *call, struct pull *pull, const struct registry_auth *auth)
{
    call->header = auth_header(auth);
    pull->what = strdup(call->what);
    if (auth != NULL && (auth->username != NULL || auth->identity_token != NULL) && call->header != NULL)
        pull->secrets[2] = strdup(strchr(call->header, ' ') + 1);
    if (pull->what == NULL)
        error_set(&call->error, ERROR_NOMEM, "out of memory");
    else if (!reference_valid(pull->reference))
        error_set(&call->error, ERROR_INVALID, "not an image reference, such as registry:5000/name:tag");
    else if (call->header == NULL)
        error_set(&call->error, ERROR_INVALID, "the registry's user name, password and token must be UTF-8 texts");
    else
        append_image(&call->path, pull->reference);
    call->stream = on_data;
}

void docker_image_pull(struct engine *engine, const char *reference, const struct registry_auth *auth,
                       engine_pull_fn *progress, engine_done_fn *done, void *user)
{
    struct docker *docker = docker_of(engine);
    struct pull *pull = pull_new(docker, reference != NULL ? reference : "", auth);
    if (pull == NULL) {
        struct error error = ERROR_INIT;
        error_set(&error, ERROR_NOMEM, "out of memory");
        done(user, &error);
        return;
    }
    pull->progress = progress;
    pull->done = done;
    pull->user = user;
    struct answer answer = {.deliver = deliver_pulled, .user = pull};
    struct call *call = call_new(docker, &answer, "POST", "pull image %.128s", pull->reference);
    if (call == NULL)
        return;
    call_fill(call, pull, auth);
    call_send(call);
}
