#include <stdio.h>
#include <string.h>

#include "engine/docker/docker.h"
#include "engine/spec.h"

/* {"Id": "..."} of a create. */
static void deliver_id(const struct answer *answer, const json_t *json, const struct error *error)
{
    struct error trouble = ERROR_INIT;
    bool bad = false;
    const char *id = member_string(json, "Id", &bad);
    if (error == NULL && (bad || !name_valid(id)))
        error_set(&trouble, ERROR_PROTOCOL, "%s: the engine's answer is not understood: no id in it", answer->what);
    if (error == NULL && trouble.code != ERROR_NONE)
        error = &trouble;
    answer->id(answer->user, error == NULL ? id : NULL, error);
}

static struct call *container_call(struct docker *docker, const struct answer *answer, const char *method,
                                   const char *verb, const char *id, const char *suffix)
{
    struct call *call = call_new(docker, answer, method, "%s container %.64s", verb, id != NULL ? id : "(none)");
    if (call == NULL)
        return NULL;
    if (!name_valid(id))
        error_set(&call->error, ERROR_INVALID, "not a container's name or id");
    else
        buffer_printf(&call->path, "/containers/%s%s", id, suffix);
    return call;
}

void docker_container_create(struct engine *engine, const struct container_spec *spec, engine_id_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_id, .id = done, .user = user};
    const char *name = spec->name != NULL ? spec->name : "";
    struct call *call = call_new(docker_of(engine), &answer, "POST", "create container %.64s", name);
    if (call == NULL)
        return;
    if (!name_valid(name)) {
        error_set(&call->error, ERROR_INVALID, "not a name for a container: letters, digits and _.- are allowed");
    } else {
        buffer_printf(&call->path, "/containers/create?name=%s", name);
        call->json = spec_container(spec, &call->error);
        call->creates = true;
    }
    call_send(call);
}

void docker_container_start(struct engine *engine, const char *id, engine_done_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_done, .done = done, .user = user};
    struct call *call = container_call(docker_of(engine), &answer, "POST", "start", id, "/start");
    if (call != NULL)
        call_send(call);
}

void docker_container_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_gone, .done = done, .user = user};
    struct call *call = container_call(docker_of(engine), &answer, "DELETE", "remove", id, "?force=1&v=1");
    if (call != NULL)
        call_send(call);
}

void docker_container_put(struct engine *engine, const char *id, const char *path, const void *tar, size_t size,
                          engine_done_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_done, .done = done, .user = user};
    struct call *call = container_call(docker_of(engine), &answer, "PUT", "copy files into", id, "/archive?path=");
    if (call == NULL)
        return;
    path_append_escaped(&call->path, path);
    call->upload = tar;
    call->upload_size = size;
    call_send(call);
}

static const char *first_network_id(const json_t *json, bool *bad)
{
    const json_t *settings = member_object(json, "NetworkSettings", bad);
    json_t *networks = (json_t *)member_object(settings, "Networks", bad);
    void *first = json_object_iter(networks);
    return first != NULL ? member_string(json_object_iter_value(first), "NetworkID", bad) : "";
}

static void deliver_status(const struct answer *answer, const json_t *json, const struct error *error)
{
    if (error != NULL) {
        answer->inspect(answer->user, NULL, error);
        return;
    }
    bool bad = false;
    const json_t *state = member_object(json, "State", &bad);
    const json_t *config = member_object(json, "Config", &bad);
    struct container_status status = {
        .id = member_string(json, "Id", &bad),
        .name = member_string(json, "Name", &bad),
        .image = member_string(config, "Image", &bad),
        .state = member_string(state, "Status", &bad),
        .pid = member_integer(state, "Pid", &bad),
        .running = member_bool(state, "Running", &bad),
        .oom_killed = member_bool(state, "OOMKilled", &bad),
        .exit_code = (int)member_integer(state, "ExitCode", &bad),
        .network_id = first_network_id(json, &bad),
    };
    char words[ERROR_MESSAGE_MAX];
    const char *trouble_words = member_string(state, "Error", &bad);
    text_clean(words, sizeof(words), trouble_words, strlen(trouble_words));
    status.error = words;
    if (strcmp(status.state, "stopped") == 0)
        status.state = "exited"; /* Podman's word for one that it has not cleared up after yet */
    if (status.name[0] == '/')
        status.name++;
    if (bad || state == NULL || !name_valid(status.id) || status.pid < 0 || status.pid > INT32_MAX) {
        struct error trouble = ERROR_INIT;
        error_set(&trouble, ERROR_PROTOCOL, "%s: the engine's answer is not understood: not a container", answer->what);
        answer->inspect(answer->user, NULL, &trouble);
        return;
    }
    answer->inspect(answer->user, &status, NULL);
}

void docker_container_inspect(struct engine *engine, const char *id, engine_inspect_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_status, .inspect = done, .user = user};
    struct call *call = container_call(docker_of(engine), &answer, "GET", "inspect", id, "/json");
    if (call != NULL)
        call_send(call);
}

static void deliver_containers(const struct answer *answer, const json_t *json, const struct error *error)
{
    deliver_rows(answer, json, "Id", "Names", "State", error);
}

void docker_container_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_containers, .list = done, .user = user, .key = key, .value = value};
    struct call *call = call_new(docker_of(engine), &answer, "GET", "list containers");
    if (call == NULL)
        return;
    buffer_append_string(&call->path, "/containers/json?all=1");
    if (path_append_filters(&call->path, '&', key, value, NULL) < 0)
        error_set(&call->error, ERROR_INVALID, "the label is not UTF-8");
    call_send(call);
}
