/* A request is on one list at a time: `waiting` (in order, until one of max_parallel places is free), `active` (its
 * easy handle is in the multi handle), `ended` (its answer is ready, not told yet).
 *
 * libcurl must not be called from inside its own callbacks, and users may do anything in theirs. So libcurl's callbacks
 * only collect, and http_step(), which runs after libcurl has returned to the loop, tells, ends and starts requests.
 * What users ask for in the meantime is queued and wakes the loop by an idle handle. Nothing is freed but there.
 *
 * Deadlines are counted here, not by libcurl. A request that is under way has timeout_ms from its start; one that waits
 * has timeout_ms from the later of its own beginning and the engine's last answer: a busy engine makes requests wait,
 * a dead one fails them all at once instead of one batch after another. */
#include "engine/docker/http.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/list.h"
#include "engine/docker/multi.h"

#define HTTP_BODY_MAX         (16U * 1024U * 1024U)
#define HTTP_IDLE_CONNECTIONS 4L
#define HTTP_UPLOAD_CHUNK     65536L

struct http {
    uv_loop_t *loop;
    const struct log *log;
    const struct endpoint *endpoint;
    uint32_t timeout_ms;
    unsigned max_parallel, counted; /* counted: active ones that take a place */
    struct multi multi;
    struct list waiting, active, ended;
    uint64_t answered_ms; /* when the engine last answered anything */
    uv_timer_t deadline_timer;
    uv_idle_t wake;
    unsigned handles; /* open ones of libuv, the multi handle as one */
    bool closing, final;
    void (*closed)(void *user);
    void *closed_user;
};

struct http_request {
    struct list link;
    struct http *http;
    struct http_call call; /* its path is not kept, see url */
    char *url;
    CURL *easy;
    struct curl_slist *headers;
    uint64_t since_ms;
    int status;
    struct buffer body;
    bool counted, opened, told_opened, too_large;
    char detail[CURL_ERROR_SIZE];
    struct error error;
};

static uint64_t now_ms(void)
{
    return clock_us() / 1000U;
}

static void request_free(struct http_request *request)
{
    if (request == NULL)
        return;
    if (request->easy != NULL)
        curl_easy_cleanup(request->easy);
    curl_slist_free_all(request->headers);
    buffer_free(&request->body);
    free(request->url);
    free(request);
}

/* Takes the request out of libcurl's hands; its answer, `request->error` or status and body, is told by http_step(). */
static void request_end(struct http_request *request)
{
    struct http *http = request->http;
    if (request->easy != NULL) {
        curl_multi_remove_handle(http->multi.handle, request->easy);
        curl_easy_cleanup(request->easy);
        request->easy = NULL;
    }
    if (request->counted)
        http->counted--;
    request->counted = false;
    list_remove(&request->link);
    list_push_back(&http->ended, &request->link);
}

static void request_fail(struct http_request *request, const struct error *error)
{
    request->error = *error;
    request_end(request);
}

/* --- libcurl's callbacks: they only collect ------------------------------------------------------- */

static size_t on_body(char *data, size_t unit, size_t count, void *user)
{
    struct http_request *request = user;
    size_t size = unit * count;
    if (buffer_length(&request->body) + size > HTTP_BODY_MAX) {
        request->too_large = true;
        return 0;
    }
    buffer_append(&request->body, data, size);
    if (request->call.stall_ms != 0)
        request->since_ms = now_ms();
    return request->body.failed ? 0 : size;
}

static size_t on_header(char *data, size_t unit, size_t count, void *user)
{
    struct http_request *request = user;
    size_t size = unit * count;
    long status = 0;
    if (size <= 2 && curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status >= 200 &&
        status < 300)
        request->opened = true;
    return size;
}

/* --- handles -------------------------------------------------------------------------------------- */

static void http_step(void *user);
static void http_wake(struct http *http);
static void http_finish(struct http *http);

static void on_multi_closed(void *user)
{
    struct http *http = user;
    if (--http->handles == 0)
        http_finish(http);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http *http = handle->data;
    if (--http->handles == 0)
        http_finish(http);
}

/* --- deadlines ------------------------------------------------------------------------------------ */

static uint64_t deadline_of(const struct http_request *request, bool waits)
{
    const struct http *http = request->http;
    uint64_t since = request->since_ms;
    if (waits && since < http->answered_ms)
        since = http->answered_ms;
    if (request->call.stall_ms != 0)
        return request->since_ms + request->call.stall_ms;
    return since + http->timeout_ms;
}

/* An endless answer has a deadline until its head is there. */
static bool request_expires(const struct http_request *request)
{
    return !request->call.no_deadline || request->call.stall_ms != 0 ||
           (request->call.opened != NULL && !request->opened);
}

static void list_expire(struct http *http, struct list *list, uint64_t now, uint64_t *next)
{
    list_for_each_safe (node, list) {
        struct http_request *request = list_entry(node, struct http_request, link);
        if (!request_expires(request))
            continue;
        uint64_t deadline = deadline_of(request, list == &http->waiting);
        if (deadline <= now) {
            struct error error = ERROR_INIT;
            error_set(&error, ERROR_TIMEOUT, "the engine at %s gave no answer within %" PRIu32 " ms",
                      http->endpoint->name, request->call.stall_ms != 0 ? request->call.stall_ms : http->timeout_ms);
            request_fail(request, &error);
        } else if (deadline < *next) {
            *next = deadline;
        }
    }
}

static void on_deadline(uv_timer_t *timer)
{
    struct http *http = timer->data;
    uint64_t now = now_ms(), next = UINT64_MAX;
    list_expire(http, &http->active, now, &next);
    list_expire(http, &http->waiting, now, &next);
    if (next != UINT64_MAX) {
        uv_update_time(http->loop);
        uv_timer_start(&http->deadline_timer, on_deadline, next - now, 0);
    }
    http_step(http);
}

/* All deadlines are equally long, so a timer that runs is never too late for a newer request. */
static void deadline_watch(struct http *http)
{
    if (uv_is_active((uv_handle_t *)&http->deadline_timer))
        return;
    uv_update_time(http->loop);
    uv_timer_start(&http->deadline_timer, on_deadline, http->timeout_ms, 0);
}

/* --- starting and ending -------------------------------------------------------------------------- */

static CURL *request_easy(struct http_request *request)
{
    const struct http *http = request->http;
    const struct http_call *call = &request->call;
    CURL *easy = curl_easy_init();
    if (easy == NULL)
        return NULL;
    int bad = 0;
    bad |= curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
    bad |= endpoint_apply(http->endpoint, easy, request->detail);
    bad |= curl_easy_setopt(easy, CURLOPT_URL, request->url);
    bad |= curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    if (call->opened != NULL) {
        bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
        bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
    }
    if (strcmp(call->method, "POST") == 0 || strcmp(call->method, "PUT") == 0) {
        bad |= curl_easy_setopt(easy, CURLOPT_POST, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_size);
        bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body != NULL ? call->body : "");
        bad |= curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, HTTP_UPLOAD_CHUNK);
    }
    if (strcmp(call->method, "GET") != 0 && strcmp(call->method, "POST") != 0) {
        bad |= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
    }
    bad |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
    if (bad != CURLE_OK) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

static void request_start(struct http_request *request)
{
    struct http *http = request->http;
    request->easy = request_easy(request);
    if (request->easy == NULL || curl_multi_add_handle(http->multi.handle, request->easy) != CURLM_OK) {
        struct error error = ERROR_INIT;
        error_set(&error, ERROR_NOMEM, "out of memory");
        request_fail(request, &error);
        return;
    }
    request->since_ms = now_ms();
    request->counted = !request->call.urgent;
    if (request->counted)
        http->counted++;
    list_remove(&request->link);
    list_push_back(&http->active, &request->link);
    if (request_expires(request))
        deadline_watch(http);
}

static void request_failed(const struct http_request *request, CURLcode code, struct error *error)
{
    if (request->too_large)
        error_set(error, ERROR_PROTOCOL, "the engine's answer is larger than %u MiB", HTTP_BODY_MAX >> 20);
    else if (request->body.failed)
        error_set(error, ERROR_NOMEM, "out of memory");
    else
        endpoint_error(request->http->endpoint, request->easy, code, request->detail, error);
}

static void collect_finished(struct http *http)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(http->multi.handle, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        char *private = NULL;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        struct http_request *request = (struct http_request *)(void *)private;
        long status = 0;
        curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
        if (code == CURLE_OK && (status < 200 || status > 599))
            code = CURLE_WEIRD_SERVER_REPLY;
        if (code != CURLE_OK) {
            request_failed(request, code, &request->error);
        } else {
            request->status = (int)status;
            http->answered_ms = now_ms();
        }
        request_end(request);
    }
}

/* Tells a streaming request what has arrived. Returns false when its owner has had enough. */
static bool request_stream(struct http_request *request, struct error *error)
{
    if (request->call.opened == NULL || !request->opened)
        return true;
    if (!request->told_opened) {
        request->told_opened = true;
        request->call.opened(request->call.user);
    }
    size_t size = buffer_length(&request->body);
    if (size == 0)
        return true;
    int r = request->call.data(request->call.user, (const char *)buffer_data(&request->body), size, error);
    buffer_consume(&request->body, size);
    return r == 0;
}

static void tell_streams(struct http *http)
{
    list_for_each_safe (node, &http->active) {
        struct http_request *request = list_entry(node, struct http_request, link);
        struct error error = ERROR_INIT;
        if (http->closing)
            break;
        if (!request_stream(request, &error))
            request_fail(request, &error);
    }
}

static void tell_ended(struct http *http)
{
    while (!list_empty(&http->ended)) {
        struct http_request *request = list_entry(http->ended.next, struct http_request, link);
        list_remove(&request->link);
        struct error error = request->error;
        if (!http->closing)
            request_stream(request, &error);
        size_t size = buffer_length(&request->body);
        const char *body = size > 0 ? (const char *)buffer_data(&request->body) : "";
        if (error.code != ERROR_NONE)
            request->call.done(request->call.user, 0, "", 0, &error);
        else
            request->call.done(request->call.user, request->status, body, size, NULL);
        request_free(request);
    }
}

static void list_cancel(struct list *list)
{
    struct error error = ERROR_INIT;
    error_set(&error, ERROR_CANCELLED, "the connection to the engine was closed");
    while (!list_empty(list))
        request_fail(list_entry(list->next, struct http_request, link), &error);
}

static void start_waiting(struct http *http)
{
    list_for_each_safe (node, &http->waiting) {
        struct http_request *request = list_entry(node, struct http_request, link);
        if (request->call.urgent || http->counted < http->max_parallel)
            request_start(request);
    }
    if (!list_empty(&http->waiting))
        deadline_watch(http);
    if (!list_empty(&http->ended))
        http_wake(http);
}

/* Users are told only here. They may call http_send() and http_close(), which queue and wake. */
static void http_step(void *user)
{
    struct http *http = user;
    if (http->final)
        return;
    if (!http->closing) {
        collect_finished(http);
        tell_streams(http);
        tell_ended(http);
    }
    if (!http->closing) {
        start_waiting(http);
        return;
    }
    list_cancel(&http->waiting);
    list_cancel(&http->active);
    tell_ended(http);
    if (!list_empty(&http->waiting)) {
        http_wake(http);
        return;
    }
    http->final = true;
    multi_close(&http->multi, on_multi_closed);
    uv_close((uv_handle_t *)&http->deadline_timer, on_handle_closed);
    uv_close((uv_handle_t *)&http->wake, on_handle_closed);
}

static void on_wake(uv_idle_t *idle)
{
    uv_idle_stop(idle);
    http_step(idle->data);
}

static void http_wake(struct http *http)
{
    if (!http->final)
        uv_idle_start(&http->wake, on_wake);
}

/* The last handle is closed. Whoever asked for something since gets its answer too. */
static void http_finish(struct http *http)
{
    do {
        list_cancel(&http->waiting);
        tell_ended(http);
    } while (!list_empty(&http->waiting));
    void (*closed)(void *user) = http->closed;
    void *user = http->closed_user;
    free(http);
    curl_global_cleanup();
    if (closed != NULL)
        closed(user);
}

/* --- interface ------------------------------------------------------------------------------------ */

struct http *http_open(const struct http_options *options, struct error *err)
{
    /* Counted by libcurl; without it curl_easy_init() would load everything there is. */
    if (curl_global_init(options->endpoint->tls ? CURL_GLOBAL_SSL : CURL_GLOBAL_NOTHING) != CURLE_OK)
        goto failed;
    struct http *http = calloc(1, sizeof(*http));
    if (http == NULL || multi_open(&http->multi, options->loop, options->log, http_step, http) < 0) {
        free(http);
        curl_global_cleanup();
        goto failed;
    }
    http->loop = options->loop;
    http->log = options->log;
    http->endpoint = options->endpoint;
    http->timeout_ms = options->timeout_ms;
    http->max_parallel = options->max_parallel;
    list_init(&http->waiting);
    list_init(&http->active);
    list_init(&http->ended);
    curl_multi_setopt(http->multi.handle, CURLMOPT_MAXCONNECTS, HTTP_IDLE_CONNECTIONS);
    uv_timer_init(http->loop, &http->deadline_timer);
    uv_idle_init(http->loop, &http->wake);
    http->deadline_timer.data = http->wake.data = http;
    http->handles = 3;
    return http;
failed:
    error_set(err, ERROR_NOMEM, "cannot set up the HTTP client: out of memory");
    return NULL;
}

void http_close(struct http *http, void (*closed)(void *user), void *user)
{
    if (http->closing)
        return;
    http->closing = true;
    http->closed = closed;
    http->closed_user = user;
    http_wake(http);
}

int http_send(struct http *http, const struct http_call *call)
{
    struct http_request *request = calloc(1, sizeof(*request));
    if (request == NULL)
        return -1;
    request->http = http;
    request->call = *call;
    request->call.path = request->call.header = NULL;
    request->since_ms = now_ms();
    list_init(&request->link);
    struct buffer url = {0};
    buffer_append_string(&url, http->endpoint->url);
    buffer_append_string(&url, call->path);
    request->url = buffer_take(&url, NULL);
    buffer_free(&url);
    struct buffer type = {0};
    buffer_printf(&type, "Content-Type:%s%s", call->content_type != NULL ? " " : "",
                  call->content_type != NULL ? call->content_type : "");
    const char *type_text = buffer_text(&type);
    if (type_text != NULL)
        request->headers = curl_slist_append(NULL, type_text);
    buffer_free(&type);
    /* Without this libcurl holds a large body back until the engine says 100. */
    struct curl_slist *longer = request->headers != NULL ? curl_slist_append(request->headers, "Expect:") : NULL;
    if (longer != NULL && call->header != NULL)
        longer = curl_slist_append(longer, call->header);
    if (request->url == NULL || longer == NULL) {
        request_free(request);
        return -1;
    }
    list_push_back(&http->waiting, &request->link);
    http_wake(http);
    return 0;
}
