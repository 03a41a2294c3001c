/* Another configuration for a running executor. All that can fail is done first; then everything changes at once.
 * Containers of profiles that changed are replaced by the way any other is that has served long enough: the new one
 * first. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "executor/internal.h"

struct step { /* of one pool */
    struct agent_pool *owner;
    struct profile *profile; /* NULL: its type is no longer known */
    struct image *image;
};

struct plan {
    struct step *steps;
    size_t count;
};

static void plan_free(struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        profile_free(plan->steps[i].profile);
    free(plan->steps);
}

static int plan_pools(struct executor *executor, const struct config *config, struct plan *plan, struct error *err)
{
    plan->steps = calloc(executor->pools_by_type.count + 1, sizeof *plan->steps);
    if (plan->steps == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    list_for_each (node, &executor->pools) {
        struct step *step = &plan->steps[plan->count++];
        step->owner = list_entry(node, struct agent_pool, link);
        step->profile = config_profile(config, step->owner->profile->agent_type, err);
        if (step->profile == NULL && err->code != ERROR_NOT_FOUND)
            return -1;
        step->image = step->profile == NULL ? step->owner->image : image_of(executor, step->profile);
        if (step->image == NULL)
            return error_set(err, ERROR_NOMEM, "out of memory");
        *err = (struct error)ERROR_INIT;
    }
    return 0;
}

static int check_types(const struct config *config, struct error *err)
{
    for (char **type = config->warmup_agent_types; *type != NULL; type++) {
        struct profile *profile = config_profile(config, *type, err);
        if (profile == NULL)
            return error_prefix(err, "warmupAgentTypes");
        profile_free(profile);
    }
    return 0;
}

static void age_anew(struct agent_pool *owner)
{
    struct janitor_config janitor = {.max_age_us = owner->profile->max_container_age_ms * 1000};
    for (unsigned state = CONTAINER_IDLE; state < CONTAINER_RETIRING; state++) {
        struct list *heads[] = {&owner->pool.containers[state],
                                state == CONTAINER_IDLE ? &owner->pool.idle_unused : NULL};
        for (size_t i = 0; i < 2 && heads[i] != NULL; i++) {
            list_for_each (node, heads[i]) {
                struct container *container = list_entry(node, struct container, link);
                container->expires_us = janitor_expiry(&janitor, container->ready_us, executor_random(owner->executor));
            }
        }
    }
}

static void take(struct executor *executor, struct step *step, uint32_t *rolled)
{
    struct agent_pool *owner = step->owner;
    struct profile *old = owner->profile, *new = step->profile;
    if (new == NULL) {
        log_warn(executor->log, "%s is no longer an agent type: its pool is drained", old->agent_type);
        owner->pool.draining = true;
        return;
    }
    bool rolls = profile_rolls(old, new), network = strcmp(old->network_mode, new->network_mode) != 0;
    char *type = new->agent_type; /* the old one is a key of the table of pools */
    new->agent_type = old->agent_type;
    old->agent_type = type;
    owner->profile = new;
    step->profile = old; /* to be freed */
    struct pool_limits limits;
    agent_pool_limits(executor, new, &limits);
    pool_set_limits(&owner->pool, &limits);
    agent_pool_scaled(owner, "the configuration was read again");
    if (old->max_container_age_ms != new->max_container_age_ms)
        age_anew(owner);
    owner->image = step->image;
    if (network)
        agent_pool_drop_networks(owner);
    if (!rolls)
        return;
    agent_pool_describe(owner);
    agent_pool_expire_all(owner);
    agent_pool_create_succeeded(owner); /* what failed before may be mended: no waiting */
    log_info(executor->log, "%s: its containers are replaced, one after the other", new->agent_type);
    (*rolled)++;
}

static void warm_types(struct executor *executor)
{
    list_for_each (node, &executor->pools) {
        list_entry(node, struct agent_pool, link)->warmup = false;
    }
    if (executor->mode == EXECUTOR_POOLED)
        executor_warm_types(executor);
}

static void count_change(void *user, const char *agent_type, const char *key, const char *from, const char *to)
{
    (void)agent_type;
    (void)key;
    (void)from;
    (void)to;
    ++*(int64_t *)user;
}

int executor_reload(struct executor *executor, const struct config *config, uint32_t *rolled, struct error *err)
{
    struct plan plan = {0};
    *rolled = 0;
    if (executor->closing)
        return error_set(err, ERROR_UNAVAILABLE, "warmpool is stopping");
    if (config_reload_check(executor->config, config, err) < 0 || check_types(config, err) < 0 ||
        plan_pools(executor, config, &plan, err) < 0) {
        plan_free(&plan);
        return -1;
    }
    int64_t changed = 0;
    config_changes(executor->config, config, count_change, &changed);
    executor->config = config;
    executor->set.max_containers = config->max_total_containers;
    executor->set.max_creating = config->max_concurrent_creates;
    executor->set.memory_budget = config->memory_budget_bytes;
    for (size_t i = 0; i < plan.count; i++)
        take(executor, &plan.steps[i], rolled);
    plan_free(&plan);
    warm_types(executor);
    executor_event(executor, &(struct event){.type = EVENT_CONFIG_RELOADED, .a = changed, .b = *rolled});
    executor_kick(executor);
    return 0;
}

void executor_reload_failed(struct executor *executor, const struct error *error)
{
    executor_event(executor, &(struct event){.type = EVENT_CONFIG_REJECTED, .text = error->message});
}
