/* Behind engine.h: what an engine's implementation provides. Whoever adds an engine embeds `struct engine` as the
 * first member of its own struct, fills an engine_ops and adds a row to the table of schemes in engine.c. */
#pragma once

#include "engine/engine.h"

struct engine_ops {
    void (*close)(struct engine *engine, void (*closed)(void *user), void *user);
    void (*probe)(struct engine *engine, engine_opened_fn *done, void *user);
    const struct engine_info *(*info)(const struct engine *engine);

    void (*container_create)(struct engine *engine, const struct container_spec *spec, engine_id_fn *done, void *user);
    void (*container_start)(struct engine *engine, const char *id, engine_done_fn *done, void *user);
    void (*container_remove)(struct engine *engine, const char *id, engine_done_fn *done, void *user);
    void (*container_inspect)(struct engine *engine, const char *id, engine_inspect_fn *done, void *user);
    void (*container_list)(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);

    struct engine_stream *(*container_attach)(struct engine *engine, const char *id,
                                              const struct engine_stream_handler *handler, void *user);
    size_t (*stream_write)(struct engine_stream *stream, const void *data, size_t size);
    void (*stream_close)(struct engine_stream *stream);
    void (*container_put)(struct engine *engine, const char *id, const char *path, const void *tar, size_t size,
                          engine_done_fn *done, void *user);

    void (*events)(struct engine *engine, const char *key, const char *value, engine_event_fn *event, void *user);

    void (*image_inspect)(struct engine *engine, const char *reference, engine_image_fn *done, void *user);
    void (*image_pull)(struct engine *engine, const char *reference, const struct registry_auth *auth,
                       engine_pull_fn *progress, engine_done_fn *done, void *user);
    void (*image_import)(struct engine *engine, const void *tar, size_t size, const char *reference,
                         const char *const *changes, engine_id_fn *done, void *user);

    void (*network_create)(struct engine *engine, const struct network_spec *spec, engine_id_fn *done, void *user);
    void (*network_remove)(struct engine *engine, const char *id, engine_done_fn *done, void *user);
    void (*network_list)(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);

    void (*volume_create)(struct engine *engine, const char *name, const struct engine_label *labels, size_t count,
                          engine_id_fn *done, void *user);
    void (*volume_remove)(struct engine *engine, const char *name, engine_done_fn *done, void *user);
    void (*volume_list)(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);
};

struct engine {
    const struct engine_ops *ops;
};

/* An implementation's stream begins with this. */
struct engine_stream {
    struct engine *engine;
};

/* `options->host` is set, and of a scheme that the implementation was listed for. */
typedef int engine_open_fn(struct engine **engine, const struct engine_options *options, engine_opened_fn *opened,
                           void *user, struct error *err);

engine_open_fn docker_open;
