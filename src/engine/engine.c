#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "engine/engine_priv.h"

#define ENGINE_HOST_DEFAULT "unix:///var/run/docker.sock"

static const struct {
    const char *scheme;
    engine_open_fn *open;
} engine_schemes[] = {
    {"unix://", docker_open},
    {"tcp://", docker_open},
};

int engine_open(struct engine **engine, const struct engine_options *options, engine_opened_fn *opened, void *user,
                struct error *err)
{
    struct engine_options chosen = *options;
    if (chosen.host == NULL)
        chosen.host = getenv("DOCKER_HOST");
    if (chosen.host == NULL || chosen.host[0] == '\0')
        chosen.host = ENGINE_HOST_DEFAULT;
    for (size_t i = 0; i < sizeof(engine_schemes) / sizeof(engine_schemes[0]); i++) {
        if (strncmp(chosen.host, engine_schemes[i].scheme, strlen(engine_schemes[i].scheme)) == 0)
            return engine_schemes[i].open(engine, &chosen, opened, user, err);
    }
    return error_set(err, ERROR_INVALID,
                     "engine host \"%.200s\": unix:///path and tcp://name:port are supported, as in %s or "
                     "tcp://engine.example:2376; what only ssh reaches can be forwarded to a unix socket with ssh -L",
                     chosen.host, ENGINE_HOST_DEFAULT);
}

void engine_close(struct engine *engine, void (*closed)(void *user), void *user)
{
    engine->ops->close(engine, closed, user);
}

void engine_probe(struct engine *engine, engine_opened_fn *done, void *user)
{
    engine->ops->probe(engine, done, user);
}

const struct engine_info *engine_info(const struct engine *engine)
{
    return engine->ops->info(engine);
}

void engine_container_create(struct engine *engine, const struct container_spec *spec, engine_id_fn *done, void *user)
{
    engine->ops->container_create(engine, spec, done, user);
}

void engine_container_start(struct engine *engine, const char *id, engine_done_fn *done, void *user)
{
    engine->ops->container_start(engine, id, done, user);
}

void engine_container_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user)
{
    engine->ops->container_remove(engine, id, done, user);
}

void engine_container_inspect(struct engine *engine, const char *id, engine_inspect_fn *done, void *user)
{
    engine->ops->container_inspect(engine, id, done, user);
}

void engine_container_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user)
{
    engine->ops->container_list(engine, key, value, done, user);
}

struct engine_stream *engine_container_attach(struct engine *engine, const char *id,
                                              const struct engine_stream_handler *handler, void *user)
{
    return engine->ops->container_attach(engine, id, handler, user);
}

size_t engine_stream_write(struct engine_stream *stream, const void *data, size_t size)
{
    return stream->engine->ops->stream_write(stream, data, size);
}

void engine_stream_close(struct engine_stream *stream)
{
    if (stream != NULL)
        stream->engine->ops->stream_close(stream);
}

void engine_container_put(struct engine *engine, const char *id, const char *path, const void *tar, size_t size,
                          engine_done_fn *done, void *user)
{
    engine->ops->container_put(engine, id, path, tar, size, done, user);
}

void engine_events(struct engine *engine, const char *key, const char *value, engine_event_fn *event, void *user)
{
    engine->ops->events(engine, key, value, event, user);
}

void engine_image_inspect(struct engine *engine, const char *reference, engine_image_fn *done, void *user)
{
    engine->ops->image_inspect(engine, reference, done, user);
}

void engine_image_pull(struct engine *engine, const char *reference, const struct registry_auth *auth,
                       engine_pull_fn *progress, engine_done_fn *done, void *user)
{
    engine->ops->image_pull(engine, reference, auth, progress, done, user);
}

void engine_image_import(struct engine *engine, const void *tar, size_t size, const char *reference,
                         const char *const *changes, engine_id_fn *done, void *user)
{
    engine->ops->image_import(engine, tar, size, reference, changes, done, user);
}

void engine_network_create(struct engine *engine, const struct network_spec *spec, engine_id_fn *done, void *user)
{
    engine->ops->network_create(engine, spec, done, user);
}

void engine_network_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user)
{
    engine->ops->network_remove(engine, id, done, user);
}

void engine_network_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user)
{
    engine->ops->network_list(engine, key, value, done, user);
}

void engine_volume_create(struct engine *engine, const char *name, const struct engine_label *labels, size_t count,
                          engine_id_fn *done, void *user)
{
    engine->ops->volume_create(engine, name, labels, count, done, user);
}

void engine_volume_remove(struct engine *engine, const char *name, engine_done_fn *done, void *user)
{
    engine->ops->volume_remove(engine, name, done, user);
}

void engine_volume_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user)
{
    engine->ops->volume_list(engine, key, value, done, user);
}
