/* The composition root: opening, closing, the loop's timers, and what can be asked of the whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "executor/internal.h"

#define ENGINE_RETRY_US 1000000U
#define POOLS_MAX       1024U /* types that clients may name */

/* --- randomness: read in blocks, since a task takes a few bytes ------------------------------------------ */

void executor_random_bytes(struct executor *executor, void *out, size_t size)
{
    if (executor->random_left < size) {
        ssize_t got = getrandom(executor->random_bytes, sizeof executor->random_bytes, 0);
        executor->random_left = got > 0 ? (uint32_t)got : 0;
    }
    executor->random_left -= (uint32_t)size;
    memcpy(out, executor->random_bytes + executor->random_left, size);
}

uint32_t executor_random(struct executor *executor)
{
    uint32_t value;
    executor_random_bytes(executor, &value, sizeof value);
    return value;
}

/* --- events ----------------------------------------------------------------------------------------------- */

void executor_event(struct executor *executor, const struct event *event)
{
    event_emit(&executor->events, event, clock_wall_ms());
}

struct event_log *executor_events(struct executor *executor)
{
    return &executor->events;
}

/* --- pools ------------------------------------------------------------------------------------------------ */

struct agent_pool *executor_pool_find(const struct executor *executor, const char *agent_type)
{
    struct hash_node *node = hash_find(&executor->pools_by_type, agent_type);
    return node == NULL ? NULL : hash_entry(node, struct agent_pool, by_type);
}

/* Runtimes that put a kernel of their own between a container and this host pass no unix socket through. */
static enum transport_choice transport_of(const struct executor *executor, const struct profile *profile)
{
    static const char *const sandboxes[] = {"runsc", "gvisor", "kata"};
    if (executor->config->transport != TRANSPORT_AUTO || profile->runtime[0] == '\0')
        return executor->transport;
    for (size_t i = 0; i < sizeof sandboxes / sizeof sandboxes[0]; i++)
        if (strstr(profile->runtime, sandboxes[i]) != NULL)
            return TRANSPORT_USE_ATTACH;
    return executor->transport;
}

void agent_pool_limits(const struct executor *executor, const struct profile *profile, struct pool_limits *limits)
{
    *limits = (struct pool_limits){.size = profile->pool_size,
                                   .min = profile->min_pool_size,
                                   .max = profile->max_pool_size,
                                   .max_queue = profile->max_queue,
                                   .max_tasks_per_container = profile->max_tasks_per_container,
                                   .memory_bytes = profile->memory_bytes,
                                   /* No reset finds what a task wrote into the image. */
                                   .reuse = profile->enable_container_reuse && profile->read_only_root,
                                   .on_demand = executor->mode == EXECUTOR_FRESH};
}

void agent_pool_describe(struct agent_pool *owner)
{
    const char *runtime = owner->profile->runtime;
    owner->transport = transport_of(owner->executor, owner->profile);
    owner->gvisor = strstr(runtime, "runsc") != NULL || strstr(runtime, "gvisor") != NULL;
}

static struct agent_pool *pool_make(struct executor *executor, const char *agent_type, struct error *err)
{
    if (executor->pools_by_type.count >= POOLS_MAX) {
        error_set(err, ERROR_LIMIT, "there are %u agent types already", POOLS_MAX);
        return NULL;
    }
    struct profile *profile = config_profile(executor->config, agent_type, err);
    if (profile == NULL)
        return NULL;
    struct agent_pool *owner = calloc(1, sizeof *owner);
    if (owner == NULL || !hash_add(&executor->pools_by_type, &owner->by_type, profile->agent_type)) {
        free(owner);
        profile_free(profile);
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    struct pool_limits limits;
    agent_pool_limits(executor, profile, &limits);
    owner->image = image_of(executor, profile);
    if (owner->image == NULL) {
        hash_remove(&executor->pools_by_type, &owner->by_type);
        free(owner);
        profile_free(profile);
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    pool_init(&owner->pool, &executor->set, &limits, clock_us());
    owner->executor = executor;
    owner->profile = profile;
    agent_pool_describe(owner);
    agent_pool_scaled(owner, "the pool was made");
    list_init(&owner->free_slots);
    list_init(&owner->warm_waits);
    list_init(&owner->drain_waits);
    uv_timer_init(executor->loop, &owner->queue_timer);
    owner->queue_timer.data = owner;
    list_push_back(&executor->pools, &owner->link);
    executor_kick(executor);
    return owner;
}

struct agent_pool *executor_pool_get(struct executor *executor, const char *agent_type, struct error *err)
{
    struct agent_pool *owner = executor_pool_find(executor, agent_type);
    return owner != NULL ? owner : pool_make(executor, agent_type, err);
}

void executor_each_worker(const struct executor *executor, void (*fn)(struct worker *worker, void *user), void *user)
{
    list_for_each (node, &executor->pools) {
        struct agent_pool *owner = list_entry(node, struct agent_pool, link);
        for (unsigned state = 0; state < CONTAINER_GONE; state++) {
            list_for_each_safe (inner, &owner->pool.containers[state]) {
                fn(worker_of(list_entry(inner, struct container, link)), user);
            }
        }
        list_for_each_safe (inner, &owner->pool.idle_unused) {
            fn(worker_of(list_entry(inner, struct container, link)), user);
        }
    }
}

struct search {
    const char *text;
    size_t length;
    bool prefix;
    struct worker *found;
    unsigned count;
};

static void search_worker(struct worker *worker, void *user)
{
    struct search *search = user;
    bool match = strcmp(worker->name, search->text) == 0 || strcmp(worker->id, search->text) == 0 ||
                 (search->prefix && strncmp(worker->id, search->text, search->length) == 0);
    if (!match)
        return;
    search->found = worker;
    search->count++;
}

struct worker *executor_worker_find(struct executor *executor, const char *id)
{
    struct search search = {.text = id};
    executor_each_worker(executor, search_worker, &search);
    return search.found;
}

/* --- the engine -------------------------------------------------------------------------------------------- */

void executor_engine_failed(struct executor *executor, const struct error *error)
{
    if (error->code == ERROR_CANCELLED || executor->engine_closing)
        return;
    if (executor->engine_up || executor->engine_error.code == ERROR_NONE) {
        log_error(executor->log, "the engine does not answer: %s", error->message);
        executor_event(executor, &(struct event){.type = EVENT_ENGINE_DOWN, .text = error->message});
    }
    executor->engine_up = false;
    executor->engine_error = *error;
    executor->engine_retry_us = clock_us() + ENGINE_RETRY_US;
    executor_kick(executor);
}

void executor_engine_answers(struct executor *executor)
{
    if (!executor->engine_up)
        executor_event(executor, &(struct event){.type = EVENT_ENGINE_UP});
    executor->engine_up = true;
    executor->engine_error = (struct error)ERROR_INIT;
}

static void on_engine_event(void *user, const struct engine_event *event, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL) {
        executor_engine_failed(executor, error);
        return;
    }
    if (event == NULL) { /* the stream is open (again): what happened before it was is looked up */
        if (!executor->engine_up && executor->engine_opened)
            executor->engine_retry_us = clock_us();
        else if (executor->swept)
            sweep_reconcile(executor);
        return;
    }
    if (strcmp(event->type, "container") != 0)
        return;
    if (strcmp(event->action, "die") != 0 && strcmp(event->action, "destroy") != 0)
        return;
    struct worker *worker = executor_worker_find(executor, event->id);
    if (worker != NULL)
        worker_check(worker);
}

int executor_engine_check(const struct executor *executor, struct error *err)
{
    const struct engine_info *info = engine_info(executor->engine);
    enum config_engine wanted = executor->config->engine;
    bool podman = strcmp(info->name, "podman") == 0;
    if (wanted == ENGINE_AUTO || (wanted == ENGINE_PODMAN) == podman)
        return 0;
    return error_set(err, ERROR_CONFLICT,
                     "engine: %s is wanted, but %s %s answers at %s; change dockerHost, or set engine to %s or auto",
                     podman ? "docker" : "podman", info->name, info->version, info->host, info->name);
}

static void on_engine_opened(void *user, const struct error *error)
{
    struct executor *executor = user;
    struct error mismatch = ERROR_INIT;
    executor->engine_opened = true;
    if (error == NULL && executor_engine_check(executor, &mismatch) < 0)
        error = &mismatch;
    if (error != NULL) {
        executor_engine_failed(executor, error);
        return;
    }
    executor_engine_answers(executor);
    const struct engine_info *info = engine_info(executor->engine);
    log_info(executor->log, "engine %s %s, API %s, at %s", info->name, info->version, info->api_version, info->host);
    if (!info->local && executor->transport == TRANSPORT_UNDECIDED) {
        executor->transport = TRANSPORT_USE_ATTACH;
        list_for_each (node, &executor->pools) {
            list_entry(node, struct agent_pool, link)->transport = TRANSPORT_USE_ATTACH;
        }
    }
    if (!executor->closing)
        sweep_begin(executor);
    executor_kick(executor);
}

/* --- timers --------------------------------------------------------------------------------------------------- */

static void closing_step(struct executor *executor);

static void tell_soon(struct executor *executor)
{
    while (!list_empty(&executor->soon)) {
        struct job *job = list_entry(executor->soon.next, struct job, soon);
        list_remove(&job->soon);
        if (job->started_due) {
            job->started_due = false;
            if (!job->abandoned)
                job->handler.started(job->user, &job->task);
        }
        if (job->outcome != TASK_UNKNOWN) {
            char message[ERROR_MESSAGE_MAX];
            memcpy(message, job->message, sizeof message);
            job_stop(job, job->outcome, "%s", message);
        } else if (job->files_only_due) {
            job_files_done(job);
        } else {
            transfer_soon(job);
        }
    }
}

static void on_soon(uv_timer_t *timer)
{
    struct executor *executor = timer->data;
    tell_soon(executor);
    lease_soon(executor);
    maintain_plan(executor, clock_us());
    if (executor->closing)
        closing_step(executor);
}

void executor_kick(struct executor *executor)
{
    if (!uv_is_active((uv_handle_t *)&executor->soon_timer) && !uv_is_closing((uv_handle_t *)&executor->soon_timer))
        uv_timer_start(&executor->soon_timer, on_soon, 0, 0);
}

static void on_tick(uv_timer_t *timer)
{
    struct executor *executor = timer->data;
    maintain_tick(executor, clock_us());
    if (executor->closing)
        closing_step(executor);
}

/* --- open ------------------------------------------------------------------------------------------------------ */

static int check_warmup_types(const struct executor *executor, struct error *err)
{
    for (char **type = executor->config->warmup_agent_types; *type != NULL; type++) {
        struct profile *profile = config_profile(executor->config, *type, err);
        if (profile == NULL)
            return error_prefix(err, "warmupAgentTypes");
        profile_free(profile);
    }
    return 0;
}

void executor_warm_types(struct executor *executor)
{
    for (char **type = executor->config->warmup_agent_types; *type != NULL; type++) {
        struct error error = ERROR_INIT;
        struct agent_pool *owner = executor_pool_get(executor, *type, &error);
        if (owner == NULL)
            log_error(executor->log, "no pool of %s: %s", *type, error.message);
        else
            owner->warmup = true;
    }
}

void executor_transport_chosen(struct agent_pool *owner, enum transport_choice choice, const char *why)
{
    struct executor *executor = owner->executor;
    log_info(executor->log, "transport: %s (%s)", choice == TRANSPORT_USE_ATTACH ? "attach" : "socket", why);
    owner->transport = choice;
    if (executor->transport != TRANSPORT_UNDECIDED || owner->profile->runtime[0] != '\0')
        return;
    executor->transport = choice;
    list_for_each (node, &executor->pools) {
        struct agent_pool *other = list_entry(node, struct agent_pool, link);
        if (other->transport == TRANSPORT_UNDECIDED && other->profile->runtime[0] == '\0')
            other->transport = choice;
    }
}

static void free_pools(struct executor *executor)
{
    list_for_each_safe (node, &executor->pools) {
        struct agent_pool *owner = list_entry(node, struct agent_pool, link);
        list_remove(&owner->link);
        profile_free(owner->profile);
        free(owner);
    }
    hash_free(&executor->pools_by_type);
}

static void executor_free(struct executor *executor)
{
    free_pools(executor);
    hash_free(&executor->jobs_by_id);
    hash_free(&executor->leases_by_id);
    images_free(executor);
    runner_volume_free(&executor->volume);
    slot_space_free(&executor->slots);
    state_dir_close(&executor->state);
    free(executor);
}

int executor_open(struct executor **out, const struct executor_options *options, struct error *err)
{
    struct executor *executor = calloc(1, sizeof *executor);
    if (executor == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    executor->loop = options->loop;
    executor->config = options->config;
    executor->log = options->log;
    executor->mode = options->mode;
    executor->opened_us = clock_us();
    event_log_init(&executor->events, executor_random(executor));
    executor->transport = options->config->transport == TRANSPORT_SOCKET   ? TRANSPORT_USE_SOCKET
                          : options->config->transport == TRANSPORT_ATTACH ? TRANSPORT_USE_ATTACH
                                                                           : TRANSPORT_UNDECIDED;
    executor->state = (struct state_dir){.fd = -1, .lock_fd = -1, .containers_fd = -1};
    pool_set_init(&executor->set, options->config->max_total_containers, options->config->max_concurrent_creates);
    executor->set.memory_budget = options->config->memory_budget_bytes;
    list_init(&executor->pools);
    list_init(&executor->soon);
    list_init(&executor->leases);
    list_init(&executor->leases_soon);
    list_init(&executor->images);
    list_init(&executor->volume.waiting);
    if (check_warmup_types(executor, err) < 0)
        goto failed;
    if (state_dir_open(&executor->state, options->config->state_dir, options->config->instance, err) < 0)
        goto failed;
    if (slot_space_init(&executor->slots, options->config, executor_random(executor), err) < 0)
        goto failed;
    struct engine_options engine_options = {.loop = options->loop,
                                            .log = options->log,
                                            .host = options->config->docker_host,
                                            .cert_path = options->config->docker_cert_path};
    if (engine_open(&executor->engine, &engine_options, on_engine_opened, executor, err) < 0)
        goto failed;
    uv_timer_init(executor->loop, &executor->soon_timer);
    uv_timer_init(executor->loop, &executor->tick_timer);
    executor->soon_timer.data = executor;
    executor->tick_timer.data = executor;
    if (executor->mode == EXECUTOR_POOLED)
        executor_warm_types(executor);
    engine_events(executor->engine, LABEL_INSTANCE, executor->state.instance, on_engine_event, executor);
    uv_timer_start(&executor->tick_timer, on_tick, TICK_MS, TICK_MS);
    *out = executor;
    return 0;
failed:
    executor_free(executor);
    return -1;
}

/* --- close ----------------------------------------------------------------------------------------------------- */

static void end_task_of(struct worker *worker, void *user)
{
    bool *any = user;
    if (worker->container.state == CONTAINER_BUSY)
        *any = true;
}

static bool tasks_left(const struct executor *executor)
{
    bool running = executor->jobs > 0 || !list_empty(&executor->leases);
    executor_each_worker(executor, end_task_of, &running);
    return running;
}

static void cancel_running(struct worker *worker, void *user)
{
    (void)user;
    if (worker->container.state != CONTAINER_BUSY)
        return;
    if (worker->container.task != NULL)
        job_end(job_of(worker->container.task), TASK_CANCELLED, "warmpool is stopping");
    worker_retire(worker, "stopping");
}

static void retire_unless_busy(struct worker *worker, void *user)
{
    (void)user;
    if (worker->container.state != CONTAINER_BUSY)
        worker_retire(worker, "stopping");
}

static void on_engine_closed(void *user)
{
    struct executor *executor = user;
    void (*closed)(void *) = executor->closed;
    void *closed_user = executor->closed_user;
    executor_free(executor);
    if (closed != NULL)
        closed(closed_user);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct executor *executor = handle->data;
    if (--executor->handles == 0)
        engine_close(executor->engine, on_engine_closed, executor);
}

static void on_pool_handle_closed(uv_handle_t *handle)
{
    struct agent_pool *owner = handle->data;
    struct executor *executor = owner->executor;
    if (--executor->handles == 0)
        engine_close(executor->engine, on_engine_closed, executor);
}

static void close_handles(struct executor *executor)
{
    executor->engine_closing = true;
    list_for_each (node, &executor->pools) {
        struct agent_pool *owner = list_entry(node, struct agent_pool, link);
        executor->handles++;
        uv_close((uv_handle_t *)&owner->queue_timer, on_pool_handle_closed);
    }
    executor->handles += 2;
    uv_close((uv_handle_t *)&executor->soon_timer, on_handle_closed);
    uv_close((uv_handle_t *)&executor->tick_timer, on_handle_closed);
}

static void drop_free_slots(struct executor *executor)
{
    list_for_each (node, &executor->pools) {
        struct agent_pool *owner = list_entry(node, struct agent_pool, link);
        list_for_each_safe (inner, &owner->free_slots) {
            struct slot *slot = list_entry(inner, struct slot, link);
            list_remove(&slot->link);
            owner->free_slot_count--;
            slot_put(owner, slot); /* closing: drops it */
        }
    }
}

/* One step further, whenever something has ended: tasks, then containers, then networks, then handles and the engine.
 */
static void closing_step(struct executor *executor)
{
    if (executor->engine_closing)
        return;
    if (!executor->draining) {
        struct error error = ERROR_INIT;
        error_set(&error, ERROR_UNAVAILABLE, "warmpool is stopping");
        list_for_each (node, &executor->pools) {
            struct agent_pool *owner = list_entry(node, struct agent_pool, link);
            owner->pool.stopped = true;
            agent_pool_reject_waiting(owner, TASK_CANCELLED, &error);
        }
        executor_each_worker(executor, cancel_running, NULL);
    } else if (tasks_left(executor)) {
        return;
    }
    list_for_each (node, &executor->pools) {
        list_entry(node, struct agent_pool, link)->pool.stopped = true;
    }
    executor_each_worker(executor, retire_unless_busy, NULL);
    if (executor->set.containers > 0 || executor->jobs > 0 || !list_empty(&executor->leases))
        return;
    drop_free_slots(executor);
    runner_volume_remove(executor);
    if (executor->networks_left > 0 || executor->handles > 0 || executor->sweeping)
        return;
    close_handles(executor);
}

void executor_close(struct executor *executor, bool drain, void (*closed)(void *user), void *user)
{
    if (!executor->closing) {
        executor->closing = true;
        executor->draining = drain;
        executor->closed = closed;
        executor->closed_user = user;
        list_for_each (node, &executor->pools) {
            struct pool *pool = &list_entry(node, struct agent_pool, link)->pool;
            pool->pinned = false;
            pool->target = 0; /* from now on containers are made for waiting tasks only */
            list_entry(node, struct agent_pool, link)->target_told = 0;
        }
        log_info(executor->log, "stopping%s", drain ? " when running tasks have ended" : "");
    }
    if (!drain)
        executor->draining = false;
    executor_kick(executor);
}

/* --- what can be asked ------------------------------------------------------------------------------------------- */

void executor_status(const struct executor *executor, struct executor_status *status)
{
    const struct engine_info *info = engine_info(executor->engine);
    *status = (struct executor_status){.instance = executor->state.instance,
                                       .state_dir = executor->state.path,
                                       .engine_name = info->name,
                                       .engine_version = info->version,
                                       .engine_api_version = info->api_version,
                                       .engine_host = info->host,
                                       .transport = executor->transport == TRANSPORT_USE_ATTACH   ? "attach"
                                                    : executor->transport == TRANSPORT_USE_SOCKET ? "socket"
                                                                                                  : "undecided",
                                       .pulling = "",
                                       .engine_up = executor->engine_up,
                                       .closing = executor->closing,
                                       .ready = executor->engine_up && !executor->closing,
                                       .closing_left = executor->set.containers + executor->networks_left,
                                       .uptime_ms = (clock_us() - executor->opened_us) / 1000};
    list_for_each (node, &executor->images) {
        const struct image *image = list_entry(node, struct image, link);
        if (image->state != IMAGE_PULLING)
            continue;
        status->pulling = image->reference;
        status->pulled_bytes = image->bytes;
        status->pull_bytes = image->total_bytes;
        break;
    }
    if (!executor->engine_up)
        snprintf(status->engine_error, sizeof status->engine_error, "%s",
                 executor->engine_error.code != ERROR_NONE ? executor->engine_error.message : "not connected yet");
    list_for_each (node, &executor->pools) {
        const struct agent_pool *owner = list_entry(node, struct agent_pool, link);
        uint32_t now = pool_serving(&owner->pool), target = owner->pool.target;
        status->warm_target += target;
        status->warm_now += now < target ? now : target;
        uint32_t initial = owner->pool.limits.size < target ? owner->pool.limits.size : target;
        if (owner->warmup && now < initial)
            status->ready = false;
    }
}

struct container_visit {
    container_info_fn *fn;
    void *user;
};

static void visit_container(struct worker *worker, void *user)
{
    const struct container_visit *visit = user;
    const struct container *container = &worker->container;
    bool serves = container->state == CONTAINER_IDLE || container->state == CONTAINER_BUSY ||
                  container->state == CONTAINER_RESETTING;
    struct container_info info = {
        .id = worker->id,
        .name = worker->name,
        .agent_type = worker->owner->profile->agent_type,
        .state = container_state_name(container->state),
        .created_at_ms = worker->created_wall_ms,
        .last_used_ms = worker->last_used_wall_ms,
        .exec_count = container->exec_count,
        .is_healthy = serves,
        .is_in_use = container->state == CONTAINER_BUSY,
        .network_id = worker->network_id,
        .volume_id = "",
        .pid = worker->pid,
        .uid = worker->slot != NULL && worker_has_own_user(worker->owner->profile) ? worker->slot->uid : 0,
        .task_id = container->task != NULL ? executor_task_id(container->task) : ""};
    visit->fn(visit->user, &info);
}

void executor_containers(const struct executor *executor, container_info_fn *fn, void *user)
{
    struct container_visit visit = {.fn = fn, .user = user};
    executor_each_worker(executor, visit_container, &visit);
}

struct network_visit {
    void (*fn)(void *user, const char *id);
    void *user;
};

static void visit_network(struct worker *worker, void *user)
{
    const struct network_visit *visit = user;
    if (worker->slot != NULL && worker->slot->network_id[0] != '\0')
        visit->fn(visit->user, worker->slot->network_id);
}

void executor_networks(const struct executor *executor, void (*fn)(void *user, const char *id), void *user)
{
    struct network_visit visit = {.fn = fn, .user = user};
    executor_each_worker(executor, visit_network, &visit);
    list_for_each (node, &executor->pools) {
        const struct agent_pool *owner = list_entry(node, struct agent_pool, link);
        list_for_each (inner, &owner->free_slots) {
            const struct slot *slot = list_entry(inner, struct slot, link);
            if (slot->network_id[0] != '\0')
                fn(user, slot->network_id);
        }
    }
}

int executor_refresh(struct executor *executor, const char *container, struct error *err)
{
    struct search search = {.text = container, .length = strlen(container), .prefix = strlen(container) >= 4};
    executor_each_worker(executor, search_worker, &search);
    if (search.count == 0)
        return error_set(err, ERROR_NOT_FOUND, "there is no container \"%.80s\"", container);
    if (search.count > 1)
        return error_set(err, ERROR_CONFLICT, "\"%.80s\" names %u containers; give more of the id", container,
                         search.count);
    container_expire(&search.found->container);
    executor_kick(executor);
    return 0;
}

static void percentiles_of(struct percentiles *out, const struct histogram *histogram)
{
    out->count = histogram->count;
    out->p50_ms = histogram_quantile_us(histogram, 0.50) / 1000;
    out->p95_ms = histogram_quantile_us(histogram, 0.95) / 1000;
    out->p99_ms = histogram_quantile_us(histogram, 0.99) / 1000;
    out->max_ms = histogram->count == 0 ? NAN : (double)histogram->max_us / 1000;
}

void executor_metrics(const struct executor *executor, struct executor_metrics *metrics)
{
    *metrics = (struct executor_metrics){0};
    uint64_t hits = 0, tasks = 0;
    list_for_each (node, &executor->pools) {
        struct pool_info info;
        agent_pool_info(&info, list_entry(node, struct agent_pool, link));
        metrics->total_containers += info.total;
        metrics->active_containers += info.busy;
        metrics->idle_containers += info.idle;
        metrics->healthy_containers += info.healthy;
        metrics->unhealthy_containers += info.unhealthy;
        metrics->waiting += info.waiting;
        metrics->containers_created += info.created;
        metrics->containers_removed += info.removed;
        metrics->resets += info.resets;
        metrics->resets_failed += info.resets_failed;
        metrics->canaries += info.canaries;
        metrics->contaminations += info.contaminations;
        metrics->misses += info.misses;
        metrics->create_failures += list_entry(node, struct agent_pool, link)->pool.counters.create_failures;
        hits += info.hits;
        tasks += info.tasks;
    }
    metrics->hits = hits;
    metrics->pool_utilization =
        metrics->total_containers == 0 ? NAN : 100.0 * metrics->active_containers / metrics->total_containers;
    metrics->container_hit_rate = tasks == 0 ? NAN : 100.0 * (double)hits / (double)tasks;
    metrics->average_execution_ms = histogram_mean_us(&executor->execution) / 1000;
    for (unsigned i = 0; i <= TASK_REJECTED; i++) {
        metrics->tasks_by_outcome[i] = executor->outcomes[i];
        metrics->tasks_total += executor->outcomes[i];
    }
    percentiles_of(&metrics->execution, &executor->execution);
    percentiles_of(&metrics->queue, &executor->queue);
    percentiles_of(&metrics->dispatch, &executor->dispatch);
    percentiles_of(&metrics->reset, &executor->reset);
    percentiles_of(&metrics->create, &executor->create);
}
