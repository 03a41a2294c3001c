/* The Docker Engine API: the way of a request from its arguments to its answer, and the life of the engine object.
 * Requests wait on `waiting` until version.c has agreed on a version; those whose arguments are wrong pass by there
 * too, since answers come from the loop. */
#include "engine/docker/docker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/docker/podman.h"
#include "engine/spec.h"

#define DOCKER_TIMEOUT_MS   60000U
#define DOCKER_MAX_PARALLEL 16U
#define PODMAN_REMOVE_TRIES 5U

struct probe {
    struct list link;
    engine_opened_fn *done;
    void *user;
};

/* --- calls ---------------------------------------------------------------------------------------- */

static void call_free(struct call *call)
{
    if (call == NULL)
        return;
    list_remove(&call->link);
    buffer_free(&call->path);
    json_decref(call->json);
    free(call->body);
    if (call->header != NULL)
        explicit_bzero(call->header, strlen(call->header));
    free(call->header);
    free(call->what);
    free(call->key);
    free(call->value);
    free(call);
}

static void answer_nomem(const struct answer *answer)
{
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_NOMEM, "out of memory");
    answer->deliver(answer, NULL, &error);
}

struct call *call_new(struct docker *docker, const struct answer *answer, const char *method, const char *what, ...)
{
    struct call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        answer_nomem(answer);
        return NULL;
    }
    list_init(&call->link);
    call->docker = docker;
    call->answer = *answer;
    call->method = method;
    char raw[200], clean[200];
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(raw, sizeof(raw), what, arguments);
    va_end(arguments);
    text_clean(clean, sizeof(clean), raw, strlen(raw));
    call->what = strdup(clean);
    call->key = answer->key != NULL ? strdup(answer->key) : NULL;
    call->value = answer->value != NULL ? strdup(answer->value) : NULL;
    if (call->what == NULL || (call->key == NULL) != (answer->key == NULL) ||
        (call->value == NULL) != (answer->value == NULL)) {
        call_free(call);
        answer_nomem(answer);
        return NULL;
    }
    call->answer.what = call->what;
    call->answer.key = call->key;
    call->answer.value = call->value;
    return call;
}

/* Consumes the call. `json` is borrowed; `error` gains what was tried. */
static void call_answer(struct call *call, const json_t *json, const struct error *error)
{
    call->answer.podman = docker_is_podman(call->docker);
    if (error != NULL) {
        struct error full = *error;
        error_prefix(&full, "%s", call->what);
        call->answer.deliver(&call->answer, NULL, &full);
    } else {
        call->answer.deliver(&call->answer, json, NULL);
    }
    call_free(call);
}

/* Podman does not remove a container that ends by itself in that moment; it says so, and then does. */
static bool removal_raced(struct call *call, const struct error *error)
{
    return docker_is_podman(call->docker) && error->code == ERROR_ENGINE && strcmp(call->method, "DELETE") == 0 &&
           strstr(error->message, "container state improper") != NULL && ++call->tries < PODMAN_REMOVE_TRIES;
}

static void on_call_done(void *user, int status, const char *body, size_t size, const struct error *error)
{
    struct call *call = user;
    struct docker *docker = call->docker;
    struct error trouble = ERROR_INIT;
    json_t *json = NULL;
    if (call->error.code != ERROR_NONE) {
        trouble = call->error;
    } else if (error != NULL) {
        trouble = *error;
        if (error->code == ERROR_UNAVAILABLE)
            docker_doubt_version(docker);
    } else if (status == 304) {
        /* Is so already. */
    } else if (status < 200 || status > 299) {
        reply_error(&trouble, status, body, size);
        if (!docker->closing && removal_raced(call, &trouble)) {
            call_send(call);
            return;
        }
    } else if (call->progress) {
        reply_progress(&json, body, size, &trouble);
    } else {
        reply_json(&json, body, size, &trouble);
    }
    call_answer(call, json, trouble.code != ERROR_NONE ? &trouble : NULL);
    json_decref(json);
}

static int set_nomem(struct error *error)
{
    return error_set(error, ERROR_NOMEM, "out of memory");
}

static void on_stream_opened(void *user)
{
}

static int on_stream_data(void *user, const char *data, size_t size, struct error *err)
{
    struct call *call = user;
    return call->stream(call->answer.user, data, size, err);
}

/* A container as this engine wants it. */
static int container_complete(struct call *call, struct error *err)
{
    struct docker *docker = call->docker;
    if (!docker->info.cgroup_v1)
        spec_drop_swappiness(call->json);
    if (!docker_is_podman(docker))
        return 0;
    const char *path = buffer_text(&call->path), *name = path != NULL ? strstr(path, "?name=") : NULL;
    json_t *json = podman_container(call->json, name != NULL ? name + strlen("?name=") : "", err);
    if (json == NULL)
        return -1;
    json_decref(call->json);
    call->json = json;
    return 0;
}

/* Fills in what could not be known before a version was agreed on. */
static int call_complete(struct call *call, struct buffer *path, struct error *err)
{
    if (call->creates && container_complete(call, err) < 0)
        return -1;
    if (call->creates && docker_is_podman(call->docker)) {
        buffer_append_string(path, PODMAN_CREATE);
    } else {
        buffer_printf(path, "/v%s", call->docker->api_version);
        buffer_append(path, buffer_data(&call->path), buffer_length(&call->path));
    }
    if (call->json != NULL) {
        call->body = json_dumps(call->json, JSON_COMPACT);
        json_decref(call->json);
        call->json = NULL;
        if (call->body == NULL)
            return set_nomem(err);
    }
    return !call->path.failed && buffer_text(path) != NULL ? 0 : set_nomem(err);
}

/* From the loop only, since it may answer. Consumes the call. */
static void call_dispatch(struct call *call)
{
    _cleanup_buffer_ struct buffer path = {0};
    struct error error = ERROR_INIT;
    int r = call_complete(call, &path, &error);
    if (r == 0) {
        struct http_call request = {
            .method = call->method,
            .path = (const char *)buffer_data(&path),
            .no_deadline = call->upload != NULL,
            .done = on_call_done,
            .user = call,
        };
        if (call->upload != NULL) {
            request.content_type = "application/x-tar";
            request.body = call->upload;
            request.body_size = call->upload_size;
        } else if (call->body != NULL) {
            request.content_type = "application/json";
            request.body = call->body;
            request.body_size = strlen(call->body);
        }
        request.header = call->header;
        if (call->stream != NULL) {
            request.no_deadline = true;
            request.urgent = true; /* what takes minutes takes nobody's place */
            request.stall_ms = call->docker->timeout_ms < UINT32_MAX / 2 ? 2 * call->docker->timeout_ms : UINT32_MAX;
            request.opened = on_stream_opened;
            request.data = on_stream_data;
        }
        if (http_send(call->docker->http, &request) < 0)
            r = set_nomem(&error);
    }
    if (r < 0)
        call_answer(call, NULL, &error);
}

void call_send(struct call *call)
{
    struct docker *docker = call->docker;
    list_push_back(&docker->waiting, &call->link);
    docker_wake(docker);
}

/* Takes the calls that are there now; whoever is answered may send others. */
static void waiting_take(struct docker *docker, struct list *calls)
{
    list_init(calls);
    while (!list_empty(&docker->waiting)) {
        struct list *node = docker->waiting.next;
        list_remove(node);
        list_push_back(calls, node);
    }
}

static void waiting_fail(struct docker *docker, const struct error *error)
{
    struct list calls;
    waiting_take(docker, &calls);
    while (!list_empty(&calls)) {
        struct call *call = list_entry(calls.next, struct call, link);
        list_remove(&call->link);
        call_answer(call, NULL, call->error.code != ERROR_NONE && !docker->closing ? &call->error : error);
    }
}

static void waiting_flush(struct docker *docker)
{
    struct list calls;
    waiting_take(docker, &calls);
    while (!list_empty(&calls)) {
        struct call *call = list_entry(calls.next, struct call, link);
        list_remove(&call->link);
        if (docker->closing || (call->error.code == ERROR_NONE && docker->version_state != VERSION_AGREED))
            list_push_back(&docker->waiting, &call->link);
        else if (call->error.code != ERROR_NONE)
            call_answer(call, NULL, &call->error);
        else
            call_dispatch(call);
    }
    if (!list_empty(&docker->waiting))
        docker_want_version(docker);
}

/* --- probes --------------------------------------------------------------------------------------- */

void docker_version_settled(struct docker *docker, const struct error *error)
{
    docker->version_state = error == NULL ? VERSION_AGREED : VERSION_UNKNOWN;
    struct list probes;
    list_init(&probes);
    while (!list_empty(&docker->probes)) {
        struct list *node = docker->probes.next;
        list_remove(node);
        list_push_back(&probes, node);
    }
    if (error != NULL)
        waiting_fail(docker, error);
    while (!list_empty(&probes)) {
        struct probe *probe = list_entry(probes.next, struct probe, link);
        list_remove(&probe->link);
        probe->done(probe->user, error);
        free(probe);
    }
    if (docker->events != NULL)
        events_version_settled(docker->events, error);
    streams_version_settled(docker, error);
    docker_wake(docker);
}

static void docker_probe(struct engine *engine, engine_opened_fn *done, void *user)
{
    struct docker *docker = docker_of(engine);
    struct probe *probe = calloc(1, sizeof(*probe));
    if (probe == NULL) {
        struct error error = ERROR_INIT;
        set_nomem(&error);
        done(user, &error);
        return;
    }
    probe->done = done;
    probe->user = user;
    list_push_back(&docker->probes, &probe->link);
    docker_doubt_version(docker);
    docker_want_version(docker);
    docker_wake(docker);
}

/* --- opening and closing -------------------------------------------------------------------------- */

static void docker_cancel(struct docker *docker)
{
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_CANCELLED, "the connection to the engine was closed");
    while (!list_empty(&docker->waiting) || !list_empty(&docker->probes)) {
        waiting_fail(docker, &error);
        if (list_empty(&docker->probes))
            continue;
        struct probe *probe = list_entry(docker->probes.next, struct probe, link);
        list_remove(&probe->link);
        probe->done(probe->user, &error);
        free(probe);
    }
}

void docker_release(struct docker *docker)
{
    if (--docker->users > 0)
        return;
    docker_cancel(docker); /* what was asked for since */
    events_free(docker->events);
    void (*closed)(void *user) = docker->closed;
    void *user = docker->closed_user;
    endpoint_free(&docker->endpoint);
    free(docker->chunk);
    free(docker);
    if (closed != NULL)
        closed(user);
}

static void on_http_closed(void *user)
{
    docker_release(user);
}

static void on_wake_closed(uv_handle_t *handle)
{
    docker_release(handle->data);
}

static void on_wake(uv_idle_t *idle)
{
    struct docker *docker = idle->data;
    uv_idle_stop(idle);
    if (docker->closing) {
        docker_cancel(docker);
        streams_cancel(docker);
        uv_close((uv_handle_t *)idle, on_wake_closed);
        return;
    }
    if (docker->ask_failed) {
        struct error error = ERROR_INIT;
        docker->ask_failed = false;
        set_nomem(&error);
        docker_version_settled(docker, &error);
    }
    waiting_flush(docker);
}

void docker_wake(struct docker *docker)
{
    if (!uv_is_closing((uv_handle_t *)&docker->wake))
        uv_idle_start(&docker->wake, on_wake);
}

static void docker_close(struct engine *engine, void (*closed)(void *user), void *user)
{
    struct docker *docker = docker_of(engine);
    if (docker->closing)
        return;
    docker->closing = true;
    docker->closed = closed;
    docker->closed_user = user;
    if (docker->events != NULL)
        events_close(docker->events);
    http_close(docker->http, on_http_closed, docker);
    docker_wake(docker);
}

static const struct engine_info *docker_info(const struct engine *engine)
{
    return &((const struct docker *)(const void *)engine)->info;
}

static const struct engine_ops docker_ops = {
    .close = docker_close,
    .probe = docker_probe,
    .info = docker_info,
    .container_create = docker_container_create,
    .container_start = docker_container_start,
    .container_remove = docker_container_remove,
    .container_inspect = docker_container_inspect,
    .container_list = docker_container_list,
    .container_attach = docker_container_attach,
    .stream_write = docker_stream_write,
    .stream_close = docker_stream_close,
    .container_put = docker_container_put,
    .events = docker_events,
    .image_inspect = docker_image_inspect,
    .image_pull = docker_image_pull,
    .image_import = docker_image_import,
    .network_create = docker_network_create,
    .network_remove = docker_network_remove,
    .network_list = docker_network_list,
    .volume_create = docker_volume_create,
    .volume_remove = docker_volume_remove,
    .volume_list = docker_volume_list,
};

static struct docker *docker_new(const struct engine_options *options, struct error *err)
{
    struct docker *docker = calloc(1, sizeof(*docker));
    if (docker == NULL) {
        set_nomem(err);
        return NULL;
    }
    docker->base.ops = &docker_ops;
    docker->loop = options->loop;
    docker->log = options->log;
    docker->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : DOCKER_TIMEOUT_MS;
    list_init(&docker->waiting);
    list_init(&docker->probes);
    list_init(&docker->streams);
    struct http_options http = {
        .loop = options->loop,
        .log = options->log,
        .endpoint = &docker->endpoint,
        .timeout_ms = docker->timeout_ms,
        .max_parallel = options->max_parallel > 0 ? options->max_parallel : DOCKER_MAX_PARALLEL,
    };
    if (endpoint_parse(&docker->endpoint, options->host, options->cert_path, err) == 0)
        docker->http = http_open(&http, err);
    if (docker->http == NULL) {
        endpoint_free(&docker->endpoint);
        free(docker);
        return NULL;
    }
    docker->info = (struct engine_info){
        .name = "docker",
        .version = docker->version,
        .api_version = docker->api_version,
        .local = docker->endpoint.socket_path != NULL,
        .architecture = docker->architecture,
        .host = docker->endpoint.name,
    };
    uv_idle_init(docker->loop, &docker->wake);
    docker->wake.data = docker;
    docker->users = 2;
    return docker;
}

int docker_open(struct engine **engine, const struct engine_options *options, engine_opened_fn *opened, void *user,
                struct error *err)
{
    struct docker *docker = docker_new(options, err);
    if (docker == NULL)
        return -1;
    if (docker->endpoint.socket_path == NULL && !docker->endpoint.tls)
        log_warn(docker->log,
                 "engine: %s is plain TCP: whoever reaches that port is root on the engine's host; use TLS "
                 "(dockerCertPath)",
                 docker->endpoint.name);
    *engine = &docker->base;
    docker_probe(&docker->base, opened, user);
    return 0;
}
