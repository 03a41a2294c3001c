#include "api/result.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json_write.h"
#include "wire/message.h"

static void put_uint(struct json_writer *json, const char *key, uint64_t value)
{
    jw_key(json, key);
    jw_uint(json, value);
}

static void put_text(struct json_writer *json, const char *key, const char *value)
{
    jw_key(json, key);
    jw_text(json, value);
}

static void put_bool(struct json_writer *json, const char *key, bool value)
{
    jw_key(json, key);
    jw_bool(json, value);
}

static void put_double(struct json_writer *json, const char *key, double value)
{
    jw_key(json, key);
    jw_double(json, value);
}

static void put_measured(struct json_writer *json, const char *key, uint64_t value, double scale)
{
    put_double(json, key, value == EXIT_UNMEASURED ? NAN : (double)value * scale);
}

/* Bytes that are not UTF-8 travel as base64, and an encoding beside them says so. */
static void put_output(struct json_writer *json, const char *key, const char *encoding, const uint8_t *data,
                       size_t size)
{
    bool text = utf8_prefix(data, size, NULL) == size;
    jw_key(json, key);
    if (text)
        jw_bytes(json, data, size);
    else
        jw_base64(json, data, size);
    if (!text)
        put_text(json, encoding, "base64");
}

static void write_resources(struct json_writer *json, const struct task_resources *resources)
{
    jw_key(json, "resourcesUsed");
    jw_open(json, '{');
    put_measured(json, "cpuTime", resources->cpu_us, 0.001);
    jw_key(json, "maxMemory");
    if (resources->memory_peak_bytes == EXIT_UNMEASURED)
        jw_null(json);
    else
        jw_uint(json, resources->memory_peak_bytes);
    put_text(json, "maxMemorySource", resources->memory_source);
    jw_key(json, "diskIO");
    if (resources->disk_bytes == EXIT_UNMEASURED)
        jw_null(json);
    else
        jw_uint(json, resources->disk_bytes);
    jw_key(json, "networkIO");
    if (resources->network_bytes == EXIT_UNMEASURED)
        jw_null(json);
    else
        jw_uint(json, resources->network_bytes);
    put_measured(json, "fileHandles", resources->file_handles, 1);
    jw_close(json, '}');
}

static void write_metadata(struct json_writer *json, const struct task_result *result)
{
    bool reached = result->container_name[0] != '\0';
    jw_key(json, "metadata");
    jw_open(json, '{');
    put_text(json, "taskId", result->task_id);
    put_text(json, "agentType", result->agent_type);
    put_text(json, "containerId", reached ? result->container_id : NULL);
    put_text(json, "containerName", reached ? result->container_name : NULL);
    put_text(json, "executionMode", result->pooled ? "pooled" : "fresh");
    put_text(json, "securityLevel", "hardened");
    jw_key(json, "execCount");
    if (reached)
        jw_uint(json, result->exec_count);
    else
        jw_null(json);
    jw_key(json, "containerAge");
    if (reached)
        jw_uint(json, result->container_age_ms);
    else
        jw_null(json);
    put_bool(json, "pooledExecution", result->pooled);
    jw_key(json, "sessionId");
    jw_null(json);
    jw_close(json, '}');
}

static void put_digest(struct json_writer *json, const uint8_t *sha256)
{
    char text[2 * SHA256_BYTES + 1];
    for (size_t i = 0; i < SHA256_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", sha256[i]);
    put_text(json, "sha256", text);
}

/* By path: {"/workspace/report.txt": {"size": 3, "mode": "0644", "sha256": "...", "content": "..."}} */
static void write_artifacts(struct json_writer *json, const struct task_result *result, bool content)
{
    jw_key(json, "artifacts");
    jw_open(json, '{');
    for (size_t i = 0; i < result->artifact_count; i++) {
        const struct task_artifact *artifact = &result->artifacts[i];
        char mode[16];
        snprintf(mode, sizeof mode, "%04o", artifact->mode & 07777U);
        jw_bytes(json, (const uint8_t *)artifact->path, strlen(artifact->path));
        buffer_append_string(json->out, ":");
        json->comma = false;
        jw_open(json, '{');
        put_uint(json, "size", artifact->size);
        put_text(json, "mode", mode);
        put_uint(json, "modifiedAt", artifact->mtime_s > 0 ? (uint64_t)artifact->mtime_s * 1000 : 0);
        put_digest(json, artifact->sha256);
        if (content)
            put_output(json, "content", "encoding", artifact->data, artifact->size);
        jw_close(json, '}');
    }
    jw_close(json, '}');
    if (result->artifact_error != NULL && result->artifact_error[0] != '\0')
        put_text(json, "artifactsError", result->artifact_error);
}

void result_write(struct buffer *out, const struct task_result *result, bool output)
{
    struct json_writer json = {.out = out};
    const uint8_t *error = result->error;
    size_t error_size = result->error_size;
    jw_open(&json, '{');
    put_bool(&json, "success", result->outcome == TASK_EXITED && result->exit_code == 0);
    if (output && result->output != NULL)
        put_output(&json, "output", "outputEncoding", result->output, result->output_size);
    else if (output)
        put_text(&json, "output", NULL); /* streamed, or not wanted */
    /* What kept a task from running is its error, when it said nothing itself. */
    if (output && error_size == 0 && result->outcome != TASK_EXITED) {
        error = (const uint8_t *)result->message;
        error_size = strlen(result->message);
    }
    if (output && error != NULL)
        put_output(&json, "error", "errorEncoding", error, error_size);
    else if (output)
        put_text(&json, "error", NULL);
    jw_key(&json, "exitCode");
    if (result->exit_code >= 0)
        jw_int(&json, result->exit_code);
    else
        jw_null(&json);
    put_double(&json, "duration", (double)result->total_us / 1000);
    write_resources(&json, &result->resources);
    write_artifacts(&json, result, output);
    write_metadata(&json, result);
    put_text(&json, "outcome", task_outcome_name(result->outcome));
    jw_key(&json, "signal");
    if (result->signal != 0)
        jw_int(&json, result->signal);
    else
        jw_null(&json);
    put_text(&json, "message", result->message[0] != '\0' ? result->message : NULL);
    put_bool(&json, "truncated", result->output_truncated || result->error_truncated);
    put_bool(&json, "hit", result->hit);
    jw_key(&json, "timings");
    jw_open(&json, '{');
    put_double(&json, "queueMs", (double)result->queue_us / 1000);
    put_double(&json, "dispatchMs", (double)result->dispatch_us / 1000);
    put_double(&json, "execMs", (double)result->exec_us / 1000);
    jw_close(&json, '}');
    jw_close(&json, '}');
}

/* --- metrics ----------------------------------------------------------------------------------------------------- */

static void write_type_count(void *user, const struct pool_info *info)
{
    put_uint(user, info->agent_type, info->total);
}

static void write_percentiles(struct json_writer *json, const char *key, const struct percentiles *percentiles)
{
    jw_key(json, key);
    jw_open(json, '{');
    put_uint(json, "count", percentiles->count);
    put_double(json, "p50", percentiles->p50_ms);
    put_double(json, "p95", percentiles->p95_ms);
    put_double(json, "p99", percentiles->p99_ms);
    put_double(json, "max", percentiles->max_ms);
    jw_close(json, '}');
}

void metrics_write(struct buffer *out, const struct executor *executor)
{
    struct executor_metrics metrics;
    struct json_writer json = {.out = out};
    executor_metrics(executor, &metrics);
    jw_open(&json, '{');
    put_uint(&json, "totalContainers", metrics.total_containers);
    put_uint(&json, "activeContainers", metrics.active_containers);
    put_uint(&json, "idleContainers", metrics.idle_containers);
    jw_key(&json, "containersByType");
    jw_open(&json, '{');
    executor_pools(executor, write_type_count, &json);
    jw_close(&json, '}');
    put_double(&json, "poolUtilization", metrics.pool_utilization);
    put_double(&json, "averageExecutionTime", metrics.average_execution_ms);
    put_double(&json, "containerHitRate", metrics.container_hit_rate);
    put_uint(&json, "healthyContainers", metrics.healthy_containers);
    put_uint(&json, "unhealthyContainers", metrics.unhealthy_containers);
    put_uint(&json, "tasks", metrics.tasks_total);
    jw_key(&json, "tasksByOutcome");
    jw_open(&json, '{');
    for (enum task_outcome outcome = TASK_EXITED; outcome <= TASK_REJECTED; outcome++)
        put_uint(&json, task_outcome_name(outcome), metrics.tasks_by_outcome[outcome]);
    jw_close(&json, '}');
    put_uint(&json, "hits", metrics.hits);
    put_uint(&json, "misses", metrics.misses);
    put_uint(&json, "waiting", metrics.waiting);
    put_uint(&json, "containersCreated", metrics.containers_created);
    put_uint(&json, "containersRemoved", metrics.containers_removed);
    put_uint(&json, "createFailures", metrics.create_failures);
    put_uint(&json, "resets", metrics.resets);
    put_uint(&json, "resetsFailed", metrics.resets_failed);
    put_uint(&json, "canaries", metrics.canaries);
    put_uint(&json, "contaminations", metrics.contaminations);
    write_percentiles(&json, "execution", &metrics.execution);
    write_percentiles(&json, "queue", &metrics.queue);
    write_percentiles(&json, "dispatch", &metrics.dispatch);
    write_percentiles(&json, "reset", &metrics.reset);
    write_percentiles(&json, "create", &metrics.create);
    jw_close(&json, '}');
}

/* --- containers and pools ------------------------------------------------------------------------------------------
 */

static void put_date(struct json_writer *json, const char *key, uint64_t milliseconds)
{
    time_t seconds = (time_t)(milliseconds / 1000);
    struct tm parts;
    char text[40], whole[48];
    if (milliseconds == 0 || gmtime_r(&seconds, &parts) == NULL) {
        put_text(json, key, NULL);
        return;
    }
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(whole, sizeof whole, "%s.%03uZ", text, (unsigned)(milliseconds % 1000));
    put_text(json, key, whole);
}

static const char *or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

static void write_container(void *user, const struct container_info *info)
{
    struct json_writer *json = user;
    jw_open(json, '{');
    put_text(json, "containerId", info->id);
    put_text(json, "containerName", info->name);
    put_text(json, "agentType", info->agent_type);
    put_text(json, "state", info->state);
    put_date(json, "createdAt", info->created_at_ms);
    put_date(json, "lastUsed", info->last_used_ms);
    put_uint(json, "execCount", info->exec_count);
    put_bool(json, "isHealthy", info->is_healthy);
    put_bool(json, "isInUse", info->is_in_use);
    put_text(json, "networkId", or_null(info->network_id));
    put_text(json, "volumeId", or_null(info->volume_id));
    jw_key(json, "pid");
    jw_int(json, info->pid);
    put_uint(json, "uid", info->uid);
    put_text(json, "taskId", or_null(info->task_id));
    jw_close(json, '}');
}

void containers_write(struct buffer *out, const struct executor *executor)
{
    struct json_writer json = {.out = out};
    jw_open(&json, '[');
    executor_containers(executor, write_container, &json);
    jw_close(&json, ']');
}

static void write_pool(void *user, const struct pool_info *info)
{
    struct json_writer *json = user;
    jw_open(json, '{');
    put_text(json, "agentType", info->agent_type);
    put_text(json, "image", info->image);
    put_uint(json, "target", info->target);
    put_uint(json, "min", info->min);
    put_uint(json, "max", info->max);
    put_bool(json, "pinned", info->pinned);
    put_bool(json, "paused", info->paused);
    put_bool(json, "draining", info->draining);
    put_text(json, "circuit", info->circuit_open ? "open" : "closed");
    put_uint(json, "expiring", info->expiring);
    put_uint(json, "total", info->total);
    put_uint(json, "creating", info->creating);
    put_uint(json, "idle", info->idle);
    put_uint(json, "busy", info->busy);
    put_uint(json, "resetting", info->resetting);
    put_uint(json, "unhealthy", info->unhealthy);
    put_uint(json, "retiring", info->retiring);
    put_uint(json, "waiting", info->waiting);
    put_uint(json, "tasks", info->tasks);
    put_uint(json, "hits", info->hits);
    put_uint(json, "misses", info->misses);
    put_uint(json, "leases", info->leases);
    put_uint(json, "retries", info->retries);
    put_uint(json, "created", info->created);
    put_uint(json, "removed", info->removed);
    put_uint(json, "resets", info->resets);
    put_uint(json, "resetsFailed", info->resets_failed);
    put_uint(json, "canaries", info->canaries);
    put_uint(json, "contaminations", info->contaminations);
    put_bool(json, "reuseStopped", info->reuse_stopped);
    put_text(json, "lastError", or_null(info->last_error));
    jw_close(json, '}');
}

void pool_write(struct buffer *out, const struct pool_info *info)
{
    struct json_writer json = {.out = out};
    write_pool(&json, info);
}

void pools_write(struct buffer *out, const struct executor *executor)
{
    struct json_writer json = {.out = out};
    jw_open(&json, '[');
    executor_pools(executor, write_pool, &json);
    jw_close(&json, ']');
}

static void write_lease(void *user, const struct lease_info *info)
{
    struct json_writer *json = user;
    jw_open(json, '{');
    put_text(json, "id", info->id);
    put_text(json, "agentType", info->agent_type);
    put_text(json, "state", info->state);
    put_text(json, "containerId", or_null(info->container_id));
    put_text(json, "containerName", or_null(info->container_name));
    put_text(json, "taskId", or_null(info->task_id));
    put_date(json, "createdAt", info->begun_ms);
    put_date(json, "lastUsed", info->used_ms);
    put_date(json, "expiresAt", info->ttl_ms == 0 ? 0 : info->used_ms + info->ttl_ms);
    put_uint(json, "ttlMs", info->ttl_ms);
    put_uint(json, "tasks", info->tasks);
    put_uint(json, "waiting", info->waiting);
    put_bool(json, "hold", info->held);
    put_bool(json, "overdue", info->overdue);
    jw_close(json, '}');
}

void lease_write(struct buffer *out, const struct lease_info *info)
{
    struct json_writer json = {.out = out};
    write_lease(&json, info);
}

void leases_write(struct buffer *out, const struct executor *executor)
{
    struct json_writer json = {.out = out};
    jw_open(&json, '[');
    executor_leases(executor, write_lease, &json);
    jw_close(&json, ']');
}

static void write_id(void *user, const char *id)
{
    jw_text(user, id);
}

void status_write(struct buffer *out, const struct executor *executor, const char *socket)
{
    struct executor_status status;
    struct json_writer json = {.out = out};
    executor_status(executor, &status);
    jw_open(&json, '{');
    put_uint(&json, "pid", (uint64_t)getpid());
    put_text(&json, "version", WARMPOOL_VERSION);
    put_text(&json, "instance", status.instance);
    put_text(&json, "stateDir", status.state_dir);
    put_text(&json, "socket", socket);
    put_uint(&json, "uptimeMs", status.uptime_ms);
    put_bool(&json, "ready", status.ready);
    put_bool(&json, "closing", status.closing);
    put_uint(&json, "warmTarget", status.warm_target);
    put_uint(&json, "warmNow", status.warm_now);
    put_uint(&json, "closingLeft", status.closing_left);
    jw_key(&json, "engine");
    jw_open(&json, '{');
    put_bool(&json, "up", status.engine_up);
    put_text(&json, "name", status.engine_name);
    put_text(&json, "version", status.engine_version);
    put_text(&json, "apiVersion", status.engine_api_version);
    put_text(&json, "host", status.engine_host);
    put_text(&json, "transport", status.transport);
    put_text(&json, "error", or_null(status.engine_error));
    jw_close(&json, '}');
    if (status.pulling != NULL && status.pulling[0] != '\0') {
        jw_key(&json, "pulling");
        jw_open(&json, '{');
        put_text(&json, "image", status.pulling);
        put_uint(&json, "bytes", status.pulled_bytes);
        put_uint(&json, "totalBytes", status.pull_bytes);
        jw_close(&json, '}');
    }
    jw_key(&json, "pools");
    jw_open(&json, '[');
    executor_pools(executor, write_pool, &json);
    jw_close(&json, ']');
    jw_key(&json, "networks");
    jw_open(&json, '[');
    executor_networks(executor, write_id, &json);
    jw_close(&json, ']');
    jw_close(&json, '}');
}

void error_write(struct buffer *out, const char *code, const char *message, const char *hint)
{
    struct json_writer json = {.out = out};
    jw_open(&json, '{');
    jw_key(&json, "error");
    jw_open(&json, '{');
    put_text(&json, "code", code);
    put_text(&json, "message", message);
    put_text(&json, "hint", hint);
    jw_close(&json, '}');
    jw_close(&json, '}');
}
