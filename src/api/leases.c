/* Leases: taking, looking, renewing, releasing, tasks in them, and single files in and out. A lease that was taken with
 * "hold" ends when the connection closes that took it. */
#include <stdlib.h>
#include <string.h>

#include "api/internal.h"
#include "api/result.h"

#define FILE_FRAME_BYTES 65536U
#define TTL_MAX_MS       31536000000

/* One lease as the API knows it: whose request waits for it, or whose connection holds it. Gone with the lease. */
struct grant {
    struct list link; /* in its connection's leases when it is held */
    struct lease *lease;
    struct exchange *exchange; /* that waits; NULL: it was answered */
    bool held;
};

/* --- connections ------------------------------------------------------------------------------------------- */

void leases_connection(void *user, struct MHD_Connection *connection, void **state,
                       enum MHD_ConnectionNotificationCode code)
{
    (void)user;
    (void)connection;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct list *held = malloc(sizeof *held);
        if (held != NULL)
            list_init(held);
        *state = held;
        return;
    }
    struct list *held = *state;
    *state = NULL;
    while (held != NULL && !list_empty(held)) {
        struct grant *grant = list_entry(held->next, struct grant, link);
        list_remove(&grant->link);
        executor_lease_abandon(grant->lease);
        free(grant);
    }
    free(held);
}

static struct list *held_by(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* --- taking -------------------------------------------------------------------------------------------------- */

static int read_ms(const json_t *value, const char *key, int64_t *out, struct error *err)
{
    uint64_t ms = UINT64_MAX;
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        ms = (uint64_t)json_integer_value(value);
    else if (json_is_string(value) && parse_duration_ms(json_string_value(value), &ms) < 0)
        ms = UINT64_MAX;
    if (ms > TTL_MAX_MS)
        return error_set(err, ERROR_INVALID,
                         "$.%s must be a time, as 30000 (milliseconds) or \"30s\", of at most a year", key);
    *out = (int64_t)ms;
    return 0;
}

static int read_flag(const json_t *value, const char *key, bool *out, struct error *err)
{
    if (!json_is_boolean(value))
        return error_set(err, ERROR_INVALID, "$.%s must be true or false", key);
    *out = json_is_true(value);
    return 0;
}

static int read_member(struct lease_request *request, const char *key, const json_t *value, struct error *err)
{
    if (strcmp(key, "agentType") == 0) {
        request->agent_type = json_string_value(value);
        return request->agent_type != NULL ? 0 : error_set(err, ERROR_INVALID, "$.agentType must be a text");
    }
    if (strcmp(key, "ttlMs") == 0)
        return read_ms(value, key, &request->ttl_ms, err);
    if (strcmp(key, "queueTimeoutMs") == 0)
        return read_ms(value, key, &request->queue_timeout_ms, err);
    if (strcmp(key, "hold") == 0)
        return read_flag(value, key, &request->held, err);
    if (strcmp(key, "fresh") == 0)
        return read_flag(value, key, &request->fresh, err);
    if (strcmp(key, "priority") == 0)
        return api_priority_read(value, &request->priority)
                   ? 0
                   : error_set(err, ERROR_INVALID, "$.priority must be critical, high, normal, low or background");
    return error_set(err, ERROR_INVALID,
                     "$.%.64s is not known; known are agentType ttlMs hold fresh priority queueTimeoutMs", key);
}

/* The body as an object; NULL with the error. An empty body is an empty object. */
static json_t *read_body(const struct exchange *exchange, struct error *err)
{
    size_t size = buffer_length(&exchange->body);
    json_error_t syntax;
    json_t *json = size == 0
                       ? json_object()
                       : json_loadb((const char *)buffer_data(&exchange->body), size, JSON_REJECT_DUPLICATES, &syntax);
    if (json_is_object(json))
        return json;
    error_set(err, ERROR_INVALID, json == NULL ? "the body is not JSON: %s" : "$ must be an object%.0s",
              json == NULL ? syntax.text : "");
    json_decref(json);
    return NULL;
}

static int read_request(struct lease_request *request, json_t *json, struct error *err)
{
    const char *key;
    json_t *value;
    *request = (struct lease_request){.ttl_ms = -1, .queue_timeout_ms = -1, .priority = PRIORITY_NORMAL};
    json_object_foreach (json, key, value) {
        if (read_member(request, key, value, err) < 0)
            return -1;
    }
    return request->agent_type != NULL ? 0 : error_set(err, ERROR_INVALID, "$.agentType is missing");
}

static void on_begun(void *user, struct lease *lease, const struct error *error)
{
    struct grant *grant = user;
    struct exchange *exchange = grant->exchange;
    struct lease_info info;
    grant->exchange = NULL;
    exchange->grant = NULL;
    exchange->ended = true;
    exchange_unwatch(exchange);
    if (error != NULL) {
        exchange->status = error->code == ERROR_TIMEOUT ? MHD_HTTP_SERVICE_UNAVAILABLE : status_of_error(error->code);
        error_write(&exchange->answer, error->code == ERROR_TIMEOUT ? "no_container" : error_code_name(error->code),
                    error->message, "`warmpool status` shows the pool");
        free(grant);
    } else {
        exchange->status = MHD_HTTP_CREATED;
        executor_lease_info(lease, &info);
        lease_write(&exchange->answer, &info);
        struct list *held = held_by(exchange->connection);
        if (grant->held && held != NULL) {
            list_push_back(held, &grant->link);
            MHD_set_connection_option(exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0U);
        }
    }
    exchange_resume(exchange);
    server_run(exchange->server);
}

static void on_ended(void *user, struct lease *lease, const char *reason)
{
    struct grant *grant = user;
    (void)lease;
    (void)reason;
    list_remove(&grant->link);
    free(grant);
}

enum MHD_Result leases_post(struct exchange *exchange)
{
    static const struct lease_handler handler = {.begun = on_begun, .ended = on_ended};
    struct error error = ERROR_INIT;
    struct lease_request request;
    json_t *json = read_body(exchange, &error);
    struct grant *grant = calloc(1, sizeof *grant);
    if (grant == NULL)
        error_set(&error, ERROR_NOMEM, "out of memory");
    else if (json != NULL && read_request(&request, json, &error) == 0)
        grant->lease = executor_lease(exchange->server->executor, &request, &handler, grant, &error);
    if (grant != NULL && grant->lease != NULL)
        grant->held = request.held;
    json_decref(json);
    if (grant == NULL || grant->lease == NULL) {
        free(grant);
        return exchange_error(exchange, status_of_error(error.code),
                              error.code == ERROR_LIMIT ? "queue_full" : error_code_name(error.code), error.message,
                              "");
    }
    list_init(&grant->link);
    grant->exchange = exchange;
    exchange->grant = grant;
    exchange->kind = EXCHANGE_LEASE;
    exchange_watch(exchange);
    exchange_suspend(exchange);
    return MHD_YES;
}

void lease_forgotten(struct exchange *exchange)
{
    struct grant *grant = exchange->grant;
    if (grant == NULL)
        return;
    exchange->grant = NULL;
    executor_lease_abandon(grant->lease);
    free(grant);
}

enum MHD_Result leases_continue(struct exchange *exchange)
{
    if (!exchange->ended)
        return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable", "warmpool is stopping", "");
    if (exchange->status == 0)
        return MHD_NO; /* the client is gone */
    return exchange_answer(exchange, exchange->status);
}

/* --- one that is there ------------------------------------------------------------------------------------------ */

static enum MHD_Result no_lease(struct exchange *exchange, const char *id)
{
    char message[120];
    snprintf(message, sizeof message, "there is no lease \"%.64s\"; it may have ended", id);
    return exchange_error(exchange, MHD_HTTP_NOT_FOUND, "not_found", message,
                          "GET /v1/leases lists those that there are");
}

enum MHD_Result leases_get_all(struct exchange *exchange)
{
    leases_write(&exchange->answer, exchange->server->executor);
    return exchange_answer(exchange, MHD_HTTP_OK);
}

static enum MHD_Result answer_lease(struct exchange *exchange, const struct lease *lease)
{
    struct lease_info info;
    executor_lease_info(lease, &info);
    lease_write(&exchange->answer, &info);
    return exchange_answer(exchange, MHD_HTTP_OK);
}

enum MHD_Result leases_get(struct exchange *exchange, const char *id)
{
    const struct lease *lease = executor_lease_find(exchange->server->executor, id);
    return lease == NULL ? no_lease(exchange, id) : answer_lease(exchange, lease);
}

enum MHD_Result leases_renew(struct exchange *exchange, const char *id)
{
    struct lease *lease = executor_lease_find(exchange->server->executor, id);
    struct error error = ERROR_INIT;
    int64_t ttl_ms = -1;
    if (lease == NULL)
        return no_lease(exchange, id);
    json_t *json = read_body(exchange, &error), *ttl = json_object_get(json, "ttlMs");
    if (json != NULL && json_object_size(json) != (ttl != NULL))
        error_set(&error, ERROR_INVALID, "the body must be {\"ttlMs\": N} or empty");
    else if (ttl != NULL)
        read_ms(ttl, "ttlMs", &ttl_ms, &error);
    json_decref(json);
    if (error.code != ERROR_NONE)
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid", error.message, "");
    executor_lease_renew(lease, ttl_ms);
    return answer_lease(exchange, lease);
}

enum MHD_Result leases_release(struct exchange *exchange, const char *id)
{
    struct lease *lease = executor_lease_find(exchange->server->executor, id);
    if (lease == NULL)
        return no_lease(exchange, id);
    buffer_printf(&exchange->answer, "{\"id\":\"%s\",\"state\":\"released\"}", executor_lease_id(lease));
    executor_lease_release(lease);
    return exchange_answer(exchange, MHD_HTTP_OK);
}

enum MHD_Result leases_run(struct exchange *exchange, const char *id)
{
    return executor_lease_find(exchange->server->executor, id) == NULL ? no_lease(exchange, id)
                                                                       : tasks_post(exchange, id);
}

/* --- files ---------------------------------------------------------------------------------------------------------
 */

struct file_put { /* the body on its way into the container */
    struct tree_encoder encoder;
    size_t at; /* bytes of the body that were sent */
    size_t credit;
    bool begun;
};

static void file_answer(struct exchange *exchange, unsigned status, const char *code, const char *message)
{
    exchange->status = status;
    if (code != NULL)
        error_write(&exchange->answer, code, message, "");
}

/* Which part of the answer a client is told: a path that is not there is its mistake, not ours. */
static void file_failed(struct exchange *exchange, const char *message)
{
    bool missing = strstr(message, "No such file") != NULL || strstr(message, "does not exist") != NULL;
    file_answer(exchange, missing ? MHD_HTTP_NOT_FOUND : MHD_HTTP_UNPROCESSABLE_CONTENT,
                missing ? "not_found" : "unprocessable", message);
}

static void on_file_ended(void *user, struct task *task, const struct task_result *result)
{
    struct exchange *exchange = user;
    (void)task;
    exchange->task = NULL;
    exchange->ended = true;
    exchange_unwatch(exchange);
    bool got = result->artifact_count == 1 && result->artifact_error[0] == '\0';
    if (result->outcome != TASK_EXITED)
        file_failed(exchange, result->message);
    else if (exchange->put == NULL && !got)
        file_failed(exchange, result->artifact_count > 1 ? "it is a directory; copy it with `warmpool cp`"
                                                         : result->artifact_error);
    else if (exchange->put == NULL) {
        buffer_append(&exchange->answer, result->artifacts[0].data, (size_t)result->artifacts[0].size);
        exchange->raw = true;
        exchange->status = MHD_HTTP_OK;
    } else {
        exchange->status = MHD_HTTP_CREATED;
        buffer_printf(&exchange->answer, "{\"bytes\":%zu}", buffer_length(&exchange->body));
    }
    exchange_resume(exchange);
    server_run(exchange->server);
}

/* One frame more of the file, as far as credit goes. */
static bool put_frame(struct exchange *exchange, struct task *task)
{
    struct file_put *put = exchange->put;
    static uint8_t frame[FILE_FRAME_BYTES];
    size_t size = buffer_length(&exchange->body), room;
    if (put->encoder.ended || put->credit < sizeof frame)
        return false;
    put->encoder.out = (struct wire_writer){.next = frame, .end = frame + sizeof frame};
    if (!put->begun)
        tree_encode_entry(&put->encoder, &(struct file_record){.kind = RECORD_ENTRY,
                                                               .type = FILE_REGULAR,
                                                               .mode = 0644,
                                                               .mtime_s = (int64_t)time(NULL),
                                                               .size = size,
                                                               .path = "",
                                                               .link = ""});
    put->begun = true;
    while (put->at < size) {
        uint8_t *data = tree_encode_data_begin(&put->encoder, &room);
        if (room == 0)
            break;
        if (room > size - put->at)
            room = size - put->at;
        memcpy(data, (const uint8_t *)buffer_data(&exchange->body) + put->at, room);
        tree_encode_data_commit(&put->encoder, room);
        put->at += room;
    }
    if (put->at == size && tree_encoder_room(&put->encoder) >= 2 * FILE_RECORD_MAX) {
        tree_encode_sum(&put->encoder);
        tree_encode_end(&put->encoder);
    }
    size_t used = (size_t)(put->encoder.out.next - frame);
    put->credit -= used;
    return executor_task_file(task, frame, used, put->encoder.ended, NULL) == 0;
}

static void on_file_ready(void *user, struct task *task, size_t size)
{
    struct exchange *exchange = user;
    exchange->put->credit += size;
    while (put_frame(exchange, task))
        ;
}

static void on_file_result(void *user, struct task *task, const struct message_file_result *result)
{
    (void)user;
    (void)task;
    (void)result; /* a failure is the task's too */
}

static const struct task_handler file_handler = {
    .ended = on_file_ended, .file_ready = on_file_ready, .file_result = on_file_result};

enum MHD_Result leases_file(struct exchange *exchange, const char *id, bool put)
{
    struct error error = ERROR_INIT;
    const char *path = MHD_lookup_connection_value(exchange->connection, MHD_GET_ARGUMENT_KIND, "path");
    if (executor_lease_find(exchange->server->executor, id) == NULL)
        return no_lease(exchange, id);
    if (path == NULL || path[0] != '/')
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid",
                              "?path= must be an absolute path in the container", "");
    struct task_copy copy = {.destination = path, .name = ""};
    struct task_request request = {.lease = id,
                                   .files_only = true,
                                   .timeout_ms = -1,
                                   .kill_timeout_ms = -1,
                                   .queue_timeout_ms = -1,
                                   .max_output_bytes = -1,
                                   .retries = 0,
                                   .priority = PRIORITY_NORMAL,
                                   .copies_in = &copy,
                                   .copy_in_count = put ? 1 : 0,
                                   .artifacts = &path,
                                   .artifact_count = put ? 0 : 1};
    if (put) {
        exchange->put = calloc(1, sizeof *exchange->put);
        if (exchange->put == NULL)
            return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "out_of_memory", "out of memory", "");
        tree_encoder_init(&exchange->put->encoder);
    }
    exchange->kind = EXCHANGE_LEASE;
    exchange->task = executor_submit(exchange->server->executor, &request, &file_handler, exchange, &error);
    if (exchange->task == NULL)
        return exchange_error(exchange, status_of_error(error.code), error_code_name(error.code), error.message, "");
    exchange_watch(exchange);
    exchange_suspend(exchange);
    return MHD_YES;
}
