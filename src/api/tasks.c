/* POST /v1/tasks in its three forms: one JSON answer, a stream of NDJSON events, or frames (upgrade.c). */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/internal.h"
#include "api/result.h"
#include "base/json_write.h"

#define STREAM_BLOCK 65536U

/* --- the plain form --------------------------------------------------------------------------------------------- */

/* A task that never ran is the server's failure, not a result; one that could not be executed is a result. */
static bool never_ran(const struct task_result *result)
{
    return result->outcome == TASK_REJECTED && result->exit_code < 0;
}

static void keep_answer(struct exchange *exchange, const struct task_result *result)
{
    exchange->status = MHD_HTTP_OK;
    if (never_ran(result)) {
        exchange->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        error_write(&exchange->answer, "no_container", result->message,
                    "`warmpool status` shows the pool; `warmpool doctor` checks the engine and the image");
        return;
    }
    result_write(&exchange->answer, result, true);
}

static void on_ended(void *user, struct task *task, const struct task_result *result)
{
    struct exchange *exchange = user;
    (void)task;
    exchange->task = NULL;
    exchange->ended = true;
    exchange_unwatch(exchange);
    keep_answer(exchange, result);
    struct api_server *server = exchange->server;
    exchange_resume(exchange);
    server_run(server); /* the answer leaves; the exchange may be gone */
    server_remember(server, result);
}

static const struct task_handler plain_handler = {.ended = on_ended};

/* --- the stream --------------------------------------------------------------------------------------------------- */

static void stream_wake(struct exchange *exchange)
{
    exchange_resume(exchange);
    server_run(exchange->server);
}

static void put_event(struct exchange *exchange, int stream, const uint8_t *data, size_t size, bool text)
{
    struct json_writer json = {.out = &exchange->answer};
    jw_open(&json, '{');
    jw_key(&json, "type");
    jw_text(&json, stream == 1 ? "stdout" : "stderr");
    jw_key(&json, "data");
    if (text)
        jw_bytes(&json, data, size);
    else
        jw_base64(&json, data, size);
    if (!text) {
        jw_key(&json, "encoding");
        jw_text(&json, "base64");
    }
    jw_close(&json, '}');
    buffer_append_string(&exchange->answer, "\n");
}

/* A UTF-8 sequence that is cut in two by the end of a piece waits for the next one. */
static void put_output(struct exchange *exchange, int stream, const uint8_t *data, size_t size, bool last)
{
    struct buffer *tail = &exchange->tail[stream == 2];
    if (buffer_length(tail) > 0) {
        buffer_append(tail, data, size);
        data = buffer_data(tail);
        size = buffer_length(tail);
    }
    bool incomplete;
    size_t valid = utf8_prefix(data, size, &incomplete);
    uint8_t kept[4];
    size_t keep = 0;
    if (incomplete && !last && size - valid < sizeof kept) {
        keep = size - valid;
        memcpy(kept, data + valid, keep);
        size = valid;
    }
    if (size > 0)
        put_event(exchange, stream, data, size, valid == size);
    buffer_consume(tail, buffer_length(tail));
    buffer_append(tail, kept, keep);
}

static void on_stream_output(void *user, struct task *task, int stream, const uint8_t *data, size_t size)
{
    struct exchange *exchange = user;
    (void)task;
    exchange->pending[stream == 2] += size;
    put_output(exchange, stream, data, size, false);
    stream_wake(exchange);
}

static void on_stream_ended(void *user, struct task *task, const struct task_result *result)
{
    struct exchange *exchange = user;
    (void)task;
    exchange->task = NULL;
    exchange->ended = true;
    exchange_unwatch(exchange);
    for (int stream = 1; stream <= 2; stream++)
        if (buffer_length(&exchange->tail[stream == 2]) > 0)
            put_output(exchange, stream, (const uint8_t *)"", 0, true);
    buffer_append_string(&exchange->answer, "{\"type\":\"result\",\"result\":");
    result_write(&exchange->answer, result, true);
    buffer_append_string(&exchange->answer, "}\n");
    server_remember(exchange->server, result);
    stream_wake(exchange);
}

static const struct task_handler stream_handler = {.output = on_stream_output, .ended = on_stream_ended};

/* The client has taken it all: the task may go on writing. */
static void give_back(struct exchange *exchange)
{
    for (int stream = 1; stream <= 2; stream++) {
        size_t size = exchange->pending[stream == 2];
        exchange->pending[stream == 2] = 0;
        if (size > 0 && exchange->task != NULL)
            executor_task_consumed(exchange->task, stream, size);
    }
}

static ssize_t stream_read(void *user, uint64_t position, char *out, size_t most)
{
    struct exchange *exchange = user;
    (void)position;
    size_t size = buffer_length(&exchange->answer);
    if (exchange->answer.failed || (size == 0 && !exchange->ended && exchange->server->closing))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (size == 0) {
        give_back(exchange);
        if (exchange->ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        exchange_suspend(exchange);
        return 0;
    }
    if (size > most)
        size = most;
    memcpy(out, buffer_data(&exchange->answer), size);
    buffer_consume(&exchange->answer, size);
    return (ssize_t)size;
}

static enum MHD_Result stream_begin(struct exchange *exchange)
{
    struct json_writer json = {.out = &exchange->answer};
    jw_open(&json, '{');
    jw_key(&json, "type");
    jw_text(&json, "started");
    jw_key(&json, "taskId");
    jw_text(&json, exchange->task_id);
    jw_close(&json, '}');
    buffer_append_string(&exchange->answer, "\n");
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, exchange, NULL);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/x-ndjson");
    MHD_add_response_header(response, "X-Task-Id", exchange->task_id);
    enum MHD_Result result = MHD_queue_response(exchange->connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    exchange->answered = true;
    exchange_watch(exchange);
    return result;
}

/* --- begin ----------------------------------------------------------------------------------------------------------
 */

static enum exchange_kind wanted_kind(struct exchange *exchange)
{
    const char *upgrade = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_UPGRADE);
    const char *accept = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    if (upgrade != NULL && strcasecmp(upgrade, "warmpool") == 0)
        return EXCHANGE_UPGRADE;
    if (accept != NULL && strstr(accept, "application/x-ndjson") != NULL)
        return EXCHANGE_STREAM;
    return EXCHANGE_TASK;
}

/* Output comes with the result or, where there is a stream, through that; the agent type's profile decides for requests
 * that do not say. What a profile keeps from the stream is in the result. */
static void choose_output(const struct exchange *exchange, struct api_request *request)
{
    const struct profile *profile = config_profile_of(exchange->server->config, request->task.agent_type);
    struct task_request *task = &request->task;
    bool held_back = false;
    if (exchange->kind == EXCHANGE_TASK) {
        held_back = true;
        task->stream = false;
    } else if (!request->stream_given) {
        held_back = !profile->stream_output;
        task->stream = profile->stream_output;
    }
    if (!request->capture_given)
        task->capture = held_back && profile->capture_output;
}

static enum MHD_Result submit(struct exchange *exchange, struct api_request *request)
{
    const struct task_handler *handler = &plain_handler;
    struct task_request *task = &request->task;
    choose_output(exchange, request);
    if (exchange->kind != EXCHANGE_TASK)
        handler = exchange->kind == EXCHANGE_STREAM ? &stream_handler : &upgrade_handler;
    if (exchange->kind != EXCHANGE_UPGRADE)
        task->stdin_stream = false;
    if (exchange->kind != EXCHANGE_UPGRADE && task->copy_in_count + task->copy_out_count > 0)
        return exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid",
                              "$.copyIn and $.copyOut need a connection that carries files",
                              "send `Upgrade: warmpool` (as `warmpool run --copy-in` does), or ask for artifacts");
    struct error error = ERROR_INIT;
    exchange->task = executor_submit(exchange->server->executor, task, handler, exchange, &error);
    if (exchange->task == NULL)
        return exchange_error(exchange, status_of_error(error.code),
                              error.code == ERROR_LIMIT ? "queue_full" : error_code_name(error.code), error.message,
                              "");
    snprintf(exchange->task_id, sizeof exchange->task_id, "%s", executor_task_id(exchange->task));
    if (exchange->kind == EXCHANGE_STREAM)
        return stream_begin(exchange);
    if (exchange->kind == EXCHANGE_UPGRADE)
        return upgrade_begin(exchange);
    exchange_watch(exchange);
    exchange_suspend(exchange);
    return MHD_YES;
}

enum MHD_Result tasks_post(struct exchange *exchange, const char *lease)
{
    struct api_request request;
    struct api_failure failure;
    exchange->kind = wanted_kind(exchange);
    const char *body = buffer_length(&exchange->body) > 0 ? (const char *)buffer_data(&exchange->body) : "";
    enum MHD_Result result;
    struct lease_info info = {.agent_type = NULL};
    if (lease != NULL)
        executor_lease_info(executor_lease_find(exchange->server->executor, lease), &info);
    if (api_request_parse(&request, body, buffer_length(&exchange->body), exchange->server->config, info.agent_type,
                          &failure) < 0)
        result = exchange_error(exchange, failure.status,
                                failure.status == 422 ? "unprocessable" : error_code_name(failure.error.code),
                                failure.error.message, failure.hint);
    else {
        request.task.lease = lease;
        result = submit(exchange, &request);
    }
    api_request_free(&request);
    buffer_free(&exchange->body);
    return result;
}

/* Called again after the connection was resumed. */
enum MHD_Result tasks_continue(struct exchange *exchange)
{
    if (!exchange->ended) /* woken for the server's end */
        return exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable", "warmpool is stopping", "");
    if (exchange->status == 0)
        return MHD_NO; /* the client is gone */
    return exchange_answer(exchange, exchange->status);
}
