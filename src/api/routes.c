/* What there is to ask for, and which function answers. */
#include <stdlib.h>
#include <string.h>

#include "api/internal.h"
#include "api/result.h"

struct call {
    struct exchange *exchange;
    const char *name; /* the part of the path that stands for an id or a type */
};

typedef enum MHD_Result handler_fn(const struct call *call);

static enum MHD_Result fail(struct exchange *exchange, const struct error *error)
{
    return exchange_error(exchange, status_of_error(error->code), error_code_name(error->code), error->message, "");
}

/* --- tasks -------------------------------------------------------------------------------------------------------- */

static enum MHD_Result post_task(const struct call *call)
{
    return tasks_post(call->exchange, NULL);
}

static enum MHD_Result no_task(struct exchange *exchange)
{
    return exchange_error(exchange, MHD_HTTP_NOT_FOUND, "not_found", "there is no such task",
                          "tasks are known while they wait and run, and the last 256 that ended");
}

static enum MHD_Result get_task(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct task *task = executor_task_find(exchange->server->executor, call->name);
    const char *result = task == NULL ? server_recall(exchange->server, call->name) : NULL;
    if (task == NULL && result == NULL)
        return no_task(exchange);
    if (task != NULL)
        buffer_printf(&exchange->answer, "{\"id\":\"%s\",\"state\":\"%s\",\"agentType\":\"%s\",\"result\":null}",
                      executor_task_id(task), executor_task_state(task), executor_task_agent_type(task));
    else
        buffer_printf(&exchange->answer, "{\"id\":\"%s\",\"state\":\"ended\",\"result\":%s}", call->name, result);
    return exchange_answer(exchange, MHD_HTTP_OK);
}

static enum MHD_Result delete_task(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct task *task = executor_task_find(exchange->server->executor, call->name);
    if (task == NULL && server_recall(exchange->server, call->name) != NULL)
        return exchange_error(exchange, MHD_HTTP_CONFLICT, "conflict", "the task has ended", "");
    if (task == NULL)
        return no_task(exchange);
    executor_task_cancel(task);
    buffer_printf(&exchange->answer, "{\"id\":\"%s\",\"state\":\"cancelling\"}", call->name);
    return exchange_answer(exchange, MHD_HTTP_ACCEPTED);
}

/* --- pools -----------------------------------------------------------------------------------------------------------
 */

static enum MHD_Result get_pools(const struct call *call)
{
    pools_write(&call->exchange->answer, call->exchange->server->executor);
    return exchange_answer(call->exchange, MHD_HTTP_OK);
}

static enum MHD_Result answer_pool(struct exchange *exchange, const char *agent_type)
{
    struct error error = ERROR_INIT;
    struct pool_info info;
    if (executor_pool(exchange->server->executor, agent_type, &info, &error) < 0)
        return fail(exchange, &error);
    pool_write(&exchange->answer, &info);
    return exchange_answer(exchange, MHD_HTTP_OK);
}

static enum MHD_Result get_pool(const struct call *call)
{
    return answer_pool(call->exchange, call->name);
}

/* {"size": N}; null gives -1 where that is allowed. */
static int read_size(struct exchange *exchange, bool null_allowed, json_int_t *size, struct error *err)
{
    const char *body = buffer_length(&exchange->body) > 0 ? (const char *)buffer_data(&exchange->body) : "";
    json_error_t syntax;
    json_t *json = json_loadb(body, buffer_length(&exchange->body), JSON_REJECT_DUPLICATES, &syntax);
    const json_t *value = json_object_get(json, "size");
    int result = 0;
    *size = -1;
    if (json == NULL)
        result = error_set(err, ERROR_INVALID, "the body is not JSON: %s", syntax.text);
    else if (value == NULL || json_object_size(json) != 1)
        result = error_set(err, ERROR_INVALID, "the body must be {\"size\": N}");
    else if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= 100000)
        *size = json_integer_value(value);
    else if (!json_is_null(value) || !null_allowed)
        result = error_set(err, ERROR_INVALID, "$.size must be a whole number%s",
                           null_allowed ? ", or null to release" : "");
    json_decref(json);
    return result;
}

static enum MHD_Result put_pool(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct error error = ERROR_INIT;
    json_int_t size;
    if (read_size(exchange, true, &size, &error) < 0 ||
        executor_scale(exchange->server->executor, call->name, (int)size, &error) < 0)
        return fail(exchange, &error);
    return answer_pool(exchange, call->name);
}

static void on_pool_done(void *user, const struct error *error)
{
    struct exchange *exchange = user;
    exchange->ended = true;
    exchange->status = MHD_HTTP_OK;
    if (error != NULL) {
        exchange->status = status_of_error(error->code);
        error_write(&exchange->answer, error_code_name(error->code), error->message, "");
    }
    exchange_resume(exchange);
    server_run(exchange->server);
}

static enum MHD_Result pool_wait(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    snprintf(exchange->task_id, sizeof exchange->task_id, "%s", call->name); /* the type, until it is answered */
    exchange_suspend(exchange);
    return MHD_YES;
}

static enum MHD_Result warm_pool(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct error error = ERROR_INIT;
    json_int_t size;
    exchange->kind = EXCHANGE_POOL;
    if (read_size(exchange, false, &size, &error) < 0 ||
        executor_warm(exchange->server->executor, call->name, (uint32_t)size, on_pool_done, exchange, &error) < 0)
        return fail(exchange, &error);
    return pool_wait(call);
}

static enum MHD_Result drain_pool(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct error error = ERROR_INIT;
    exchange->kind = EXCHANGE_POOL;
    if (executor_drain(exchange->server->executor, call->name, on_pool_done, exchange, &error) < 0)
        return fail(exchange, &error);
    return pool_wait(call);
}

static enum MHD_Result tell_pool(const struct call *call, int (*tell)(struct executor *, const char *, struct error *))
{
    struct error error = ERROR_INIT;
    if (tell(call->exchange->server->executor, call->name, &error) < 0)
        return fail(call->exchange, &error);
    return answer_pool(call->exchange, call->name);
}

static enum MHD_Result pause_pool(const struct call *call)
{
    return tell_pool(call, executor_pause);
}

static enum MHD_Result resume_pool(const struct call *call)
{
    return tell_pool(call, executor_resume);
}

static enum MHD_Result refresh_pool(const struct call *call)
{
    return tell_pool(call, executor_refresh_pool);
}

static enum MHD_Result pool_continue(struct exchange *exchange)
{
    char type[sizeof exchange->task_id];
    memcpy(type, exchange->task_id, sizeof type);
    exchange->task_id[0] = '\0';
    if (exchange->status == MHD_HTTP_OK && exchange->server->executor != NULL)
        return answer_pool(exchange, type);
    if (exchange->status == MHD_HTTP_OK || !exchange->ended) /* woken for the server's end */
        return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable", "warmpool is stopping", "");
    return exchange_answer(exchange, exchange->status);
}

/* --- leases --------------------------------------------------------------------------------------------- */

static enum MHD_Result get_leases(const struct call *call)
{
    return leases_get_all(call->exchange);
}

static enum MHD_Result post_lease(const struct call *call)
{
    return leases_post(call->exchange);
}

static enum MHD_Result get_lease(const struct call *call)
{
    return leases_get(call->exchange, call->name);
}

static enum MHD_Result put_lease(const struct call *call)
{
    return leases_renew(call->exchange, call->name);
}

static enum MHD_Result delete_lease(const struct call *call)
{
    return leases_release(call->exchange, call->name);
}

static enum MHD_Result post_lease_task(const struct call *call)
{
    return leases_run(call->exchange, call->name);
}

static enum MHD_Result get_lease_file(const struct call *call)
{
    return leases_file(call->exchange, call->name, false);
}

static enum MHD_Result put_lease_file(const struct call *call)
{
    return leases_file(call->exchange, call->name, true);
}

/* --- containers, state
 * ------------------------------------------------------------------------------------------------- */

static enum MHD_Result get_containers(const struct call *call)
{
    containers_write(&call->exchange->answer, call->exchange->server->executor);
    return exchange_answer(call->exchange, MHD_HTTP_OK);
}

static enum MHD_Result refresh_container(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct error error = ERROR_INIT;
    if (executor_refresh(exchange->server->executor, call->name, &error) < 0)
        return fail(exchange, &error);
    buffer_append_string(&exchange->answer, "{\"refreshing\":true}");
    return exchange_answer(exchange, MHD_HTTP_ACCEPTED);
}

static enum MHD_Result get_events(const struct call *call)
{
    return events_get(call->exchange);
}

static enum MHD_Result get_metrics(const struct call *call)
{
    if (!call->exchange->server->config->enable_metrics)
        return exchange_error(call->exchange, MHD_HTTP_NOT_FOUND, "not_found", "metrics are off",
                              "set enableMetrics to true in the configuration and restart the daemon");
    metrics_write(&call->exchange->answer, call->exchange->server->executor);
    return exchange_answer(call->exchange, MHD_HTTP_OK);
}

static enum MHD_Result get_status(const struct call *call)
{
    status_write(&call->exchange->answer, call->exchange->server->executor, call->exchange->server->socket_path);
    return exchange_answer(call->exchange, MHD_HTTP_OK);
}

static enum MHD_Result get_health(const struct call *call)
{
    buffer_append_string(&call->exchange->answer, "{\"ok\":true}");
    return exchange_answer(call->exchange, MHD_HTTP_OK);
}

static enum MHD_Result get_ready(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct executor_status status;
    executor_status(exchange->server->executor, &status);
    if (!status.ready)
        return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "not_ready",
                              status.closing     ? "warmpool is stopping"
                              : status.engine_up ? "the pools are not warm yet"
                                                 : status.engine_error,
                              "");
    buffer_append_string(&exchange->answer, "{\"ready\":true}");
    return exchange_answer(exchange, MHD_HTTP_OK);
}

static enum MHD_Result post_reload(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    struct error error = ERROR_INIT;
    struct buffer changed = {0};
    uint32_t rolled = 0;
    int result = exchange->server->reload(exchange->server->user, &changed, &rolled, &error);
    const char *keys = buffer_text(&changed);
    if (result == 0)
        buffer_printf(&exchange->answer, "{\"changed\":[%s],\"rolled\":%u}", keys != NULL ? keys : "", rolled);
    buffer_free(&changed);
    if (result == 0)
        return exchange_answer(exchange, MHD_HTTP_OK);
    return exchange_error(exchange, status_of_error(error.code), error_code_name(error.code), error.message,
                          "nothing was changed");
}

static enum MHD_Result post_shutdown(const struct call *call)
{
    struct exchange *exchange = call->exchange;
    const char *body = buffer_length(&exchange->body) > 0 ? (const char *)buffer_data(&exchange->body) : "{}";
    size_t size = buffer_length(&exchange->body) > 0 ? buffer_length(&exchange->body) : 2;
    json_t *json = json_loadb(body, size, 0, NULL);
    const json_t *force = json_object_get(json, "force");
    bool sound = json_is_object(json) && (force == NULL || json_is_boolean(force));
    bool forced = json_is_true(force);
    json_decref(json);
    if (!sound)
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid", "the body must be {\"force\": true or false}",
                              "");
    exchange->server->shutdown(exchange->server->user, forced);
    buffer_append_string(&exchange->answer, "{\"stopping\":true}");
    return exchange_answer(exchange, MHD_HTTP_ACCEPTED);
}

/* --- the table
 * ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *method, *path; /* "*" stands for one part of the path */
    handler_fn *handler;
} routes[] = {
    {"POST", "/v1/tasks", post_task},
    {"GET", "/v1/tasks/*", get_task},
    {"DELETE", "/v1/tasks/*", delete_task},
    {"GET", "/v1/pools", get_pools},
    {"GET", "/v1/pools/*", get_pool},
    {"PUT", "/v1/pools/*", put_pool},
    {"POST", "/v1/pools/*/warm", warm_pool},
    {"POST", "/v1/pools/*/pause", pause_pool},
    {"POST", "/v1/pools/*/resume", resume_pool},
    {"POST", "/v1/pools/*/drain", drain_pool},
    {"POST", "/v1/pools/*/refresh", refresh_pool},
    {"GET", "/v1/leases", get_leases},
    {"POST", "/v1/leases", post_lease},
    {"GET", "/v1/leases/*", get_lease},
    {"PUT", "/v1/leases/*", put_lease},
    {"DELETE", "/v1/leases/*", delete_lease},
    {"POST", "/v1/leases/*/tasks", post_lease_task},
    {"GET", "/v1/leases/*/files", get_lease_file},
    {"PUT", "/v1/leases/*/files", put_lease_file},
    {"GET", "/v1/containers", get_containers},
    {"POST", "/v1/containers/*/refresh", refresh_container},
    {"GET", "/v1/events", get_events},
    {"GET", "/v1/metrics", get_metrics},
    {"GET", "/v1/status", get_status},
    {"POST", "/v1/reload", post_reload},
    {"POST", "/v1/shutdown", post_shutdown},
    {"GET", "/healthz", get_health},
    {"GET", "/readyz", get_ready},
};

/* Does `path` have the form of `pattern`? The part for "*" goes into `name`. */
static bool matches(const char *pattern, const char *path, char *name, size_t size)
{
    const char *star = strchr(pattern, '*');
    name[0] = '\0';
    if (star == NULL)
        return strcmp(pattern, path) == 0;
    size_t before = (size_t)(star - pattern);
    if (strncmp(pattern, path, before) != 0)
        return false;
    size_t length = strcspn(path + before, "/");
    if (length == 0 || length >= size || strcmp(path + before + length, star + 1) != 0)
        return false;
    memcpy(name, path + before, length);
    name[length] = '\0';
    return true;
}

static enum MHD_Result wrong_method(struct exchange *exchange, const char *path, const char *allowed)
{
    char message[160];
    snprintf(message, sizeof message, "%.80s allows %s", path, allowed);
    snprintf(exchange->allow, sizeof exchange->allow, "%s", allowed);
    return exchange_error(exchange, MHD_HTTP_METHOD_NOT_ALLOWED, "method_not_allowed", message, "");
}

static enum MHD_Result dispatch(struct exchange *exchange, const char *method, const char *path)
{
    char allowed[64] = "", name[96];
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!matches(routes[i].path, path, name, sizeof name))
            continue;
        if (strcmp(routes[i].method, method) == 0)
            return routes[i].handler(&(struct call){.exchange = exchange, .name = name});
        size_t used = strlen(allowed);
        snprintf(allowed + used, sizeof allowed - used, "%s%s", used > 0 ? ", " : "", routes[i].method);
    }
    if (allowed[0] != '\0')
        return wrong_method(exchange, path, allowed);
    return exchange_error(exchange, MHD_HTTP_NOT_FOUND, "not_found", "there is nothing at this path",
                          "the API is below /v1: tasks, leases, pools, containers, events, metrics, status");
}

enum MHD_Result route(struct exchange *exchange, const char *method, const char *path)
{
    if (strcmp(method, MHD_HTTP_METHOD_HEAD) == 0) /* the body is left out below us */
        method = MHD_HTTP_METHOD_GET;
    if (exchange->answered)
        return MHD_YES;
    if (exchange->kind == EXCHANGE_TASK)
        return tasks_continue(exchange);
    if (exchange->kind == EXCHANGE_POOL)
        return pool_continue(exchange);
    if (exchange->kind == EXCHANGE_LEASE)
        return leases_continue(exchange);
    if (exchange->body.failed)
        return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "out_of_memory", "out of memory", "");
    if (exchange->server->executor == NULL)
        return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable", "warmpool is stopping", "");
    return dispatch(exchange, method, path);
}
