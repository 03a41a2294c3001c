/* Networks and volumes. */
#include <string.h>

#include "engine/docker/docker.h"
#include "engine/spec.h"

/* The id of a network, {"Id"}, or of a volume, {"Name"}. */
static void deliver_key(const struct answer *answer, const json_t *json, const char *key, const struct error *error)
{
    struct error trouble = ERROR_INIT;
    bool bad = false;
    const char *id = member_string(json, key, &bad);
    if (error == NULL && (bad || !name_valid(id))) {
        error_set(&trouble, ERROR_PROTOCOL, "%s: the engine's answer is not understood: no %s in it", answer->what,
                  key);
        error = &trouble;
    }
    answer->id(answer->user, error == NULL ? id : NULL, error);
}

/* For Podman a container is in a network by name only: whether one is in use it does not know by the id, and inspect
 * says the name. So there the name is the id, which is always allowed. */
static void deliver_network(const struct answer *answer, const json_t *json, const struct error *error)
{
    if (error == NULL && answer->podman)
        answer->id(answer->user, answer->key, NULL);
    else
        deliver_key(answer, json, "Id", error);
}

static void deliver_volume(const struct answer *answer, const json_t *json, const struct error *error)
{
    deliver_key(answer, json, "Name", error);
}

static void deliver_networks(const struct answer *answer, const json_t *json, const struct error *error)
{
    deliver_rows(answer, json, answer->podman ? "Name" : "Id", "Name", NULL, error);
}

static void deliver_volumes(const struct answer *answer, const json_t *json, const struct error *error)
{
    deliver_rows(answer, json_object_get(json, "Volumes"), "Name", "Name", NULL, error);
}

static void list_send(struct engine *engine, const struct answer *answer, const char *path, const char *what)
{
    struct call *call = call_new(docker_of(engine), answer, "GET", "list %s", what);
    if (call == NULL)
        return;
    buffer_append_string(&call->path, path);
    if (path_append_filters(&call->path, '?', answer->key, answer->value, NULL) < 0)
        error_set(&call->error, ERROR_INVALID, "the label is not UTF-8");
    call_send(call);
}

static void remove_send(struct engine *engine, const struct answer *answer, const char *kind, const char *id)
{
    struct call *call = call_new(docker_of(engine), answer, "DELETE", "remove %s %.64s", kind, id != NULL ? id : "");
    if (call == NULL)
        return;
    if (!name_valid(id))
        error_set(&call->error, ERROR_INVALID, "not the name or id of a %s", kind);
    else
        buffer_printf(&call->path, "/%ss/%s", kind, id);
    call_send(call);
}

void docker_network_create(struct engine *engine, const struct network_spec *spec, engine_id_fn *done, void *user)
{
    const char *name = spec->name != NULL ? spec->name : "";
    struct answer answer = {.deliver = deliver_network, .id = done, .user = user, .key = name};
    struct call *call = call_new(docker_of(engine), &answer, "POST", "create network %.64s", name);
    if (call == NULL)
        return;
    buffer_append_string(&call->path, "/networks/create");
    if (!name_valid(name))
        error_set(&call->error, ERROR_INVALID, "not a name for a network: letters, digits and _.- are allowed");
    else
        call->json = spec_network(spec, &call->error);
    call_send(call);
}

void docker_network_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_gone, .done = done, .user = user};
    remove_send(engine, &answer, "network", id);
}

void docker_network_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_networks, .list = done, .user = user, .key = key, .value = value};
    list_send(engine, &answer, "/networks", "networks");
}

void docker_volume_create(struct engine *engine, const char *name, const struct engine_label *labels, size_t count,
                          engine_id_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_volume, .id = done, .user = user};
    if (name == NULL)
        name = "";
    struct call *call = call_new(docker_of(engine), &answer, "POST", "create volume %.64s", name);
    if (call == NULL)
        return;
    buffer_append_string(&call->path, "/volumes/create");
    if (!name_valid(name))
        error_set(&call->error, ERROR_INVALID, "not a name for a volume: letters, digits and _.- are allowed");
    else
        call->json = spec_volume(name, labels, count, &call->error);
    call_send(call);
}

void docker_volume_remove(struct engine *engine, const char *name, engine_done_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_gone, .done = done, .user = user};
    remove_send(engine, &answer, "volume", name);
}

void docker_volume_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_volumes, .list = done, .user = user, .key = key, .value = value};
    list_send(engine, &answer, "/volumes", "volumes");
}
