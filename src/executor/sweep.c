/* Strays: what the engine still has of this instance. Everything that an instance makes carries its label, so a list by
 * label is all that has to be known. */
#include <string.h>

#include "executor/internal.h"

static void sweep_networks(struct executor *executor);
static void sweep_volumes(struct executor *executor);

static void sweep_done(struct executor *executor)
{
    executor->sweeping = false;
    executor->swept = true;
    if (executor->config->preload_common_images && executor->mode == EXECUTOR_POOLED && !executor->closing)
        images_preload(executor);
    executor_kick(executor);
}

static void sweep_failed(struct executor *executor, const struct error *error)
{
    executor->sweeping = false;
    log_warn(executor->log, "looking for strays of a former run: %s", error->message);
    executor_engine_failed(executor, error);
}

static void on_volume_swept(void *user, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL)
        log_warn(executor->log, "a volume of a former run could not be removed: %s", error->message);
    if (--executor->sweep_pending == 0)
        sweep_done(executor);
}

static void on_volumes(void *user, const struct engine_object *objects, size_t count, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL) {
        sweep_failed(executor, error);
        return;
    }
    if (count == 0) {
        sweep_done(executor);
        return;
    }
    log_info(executor->log, "removing %zu volumes of a former run", count);
    executor->sweep_pending = (unsigned)count;
    for (size_t i = 0; i < count; i++)
        engine_volume_remove(executor->engine, objects[i].id, on_volume_swept, executor);
}

static void sweep_volumes(struct executor *executor)
{
    engine_volume_list(executor->engine, LABEL_INSTANCE, executor->state.instance, on_volumes, executor);
}

static void on_network_swept(void *user, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL)
        log_warn(executor->log, "a network of a former run could not be removed: %s", error->message);
    if (--executor->sweep_pending == 0)
        sweep_volumes(executor);
}

static void on_networks(void *user, const struct engine_object *objects, size_t count, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL) {
        sweep_failed(executor, error);
        return;
    }
    if (count == 0) {
        sweep_volumes(executor);
        return;
    }
    log_info(executor->log, "removing %zu networks of a former run", count);
    executor->sweep_pending = (unsigned)count;
    for (size_t i = 0; i < count; i++)
        engine_network_remove(executor->engine, objects[i].id, on_network_swept, executor);
}

static void sweep_networks(struct executor *executor)
{
    engine_network_list(executor->engine, LABEL_INSTANCE, executor->state.instance, on_networks, executor);
}

static void on_container_swept(void *user, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL)
        log_warn(executor->log, "a container of a former run could not be removed: %s", error->message);
    if (--executor->sweep_pending == 0)
        sweep_networks(executor);
}

static void on_containers(void *user, const struct engine_object *objects, size_t count, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL) {
        sweep_failed(executor, error);
        return;
    }
    if (count == 0) {
        sweep_networks(executor);
        return;
    }
    log_info(executor->log, "removing %zu containers of a former run", count);
    executor->sweep_pending = (unsigned)count;
    for (size_t i = 0; i < count; i++)
        engine_container_remove(executor->engine, objects[i].id, on_container_swept, executor);
}

void sweep_begin(struct executor *executor)
{
    if (!executor->config->auto_cleanup) {
        sweep_done(executor);
        return;
    }
    executor->sweeping = true;
    engine_container_list(executor->engine, LABEL_INSTANCE, executor->state.instance, on_containers, executor);
}

/* --- after a time without events ---------------------------------------------------------------------- */

struct living {
    const struct engine_object *objects;
    size_t count;
};

static void check_if_absent(struct worker *worker, void *user)
{
    const struct living *living = user;
    if (worker->container.state == CONTAINER_CREATING || worker->container.state >= CONTAINER_RETIRING)
        return;
    for (size_t i = 0; i < living->count; i++)
        if (strcmp(living->objects[i].id, worker->id) == 0 && strcmp(living->objects[i].state, "running") == 0)
            return;
    worker_check(worker);
}

static void on_living(void *user, const struct engine_object *objects, size_t count, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL) {
        executor_engine_failed(executor, error);
        return;
    }
    struct living living = {.objects = objects, .count = count};
    executor_each_worker(executor, check_if_absent, &living);
}

void sweep_reconcile(struct executor *executor)
{
    engine_container_list(executor->engine, LABEL_INSTANCE, executor->state.instance, on_living, executor);
}
