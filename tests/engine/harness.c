#include "harness.h"

#include <signal.h>
#include <unistd.h>

#define COPY(to, from) snprintf((to), sizeof(to), "%s", (from) != NULL ? (from) : "")

/* --- loop and answers ----------------------------------------------------------------------------- */

static void log_sink(void *user, enum log_level level, const char *line)
{
    struct fixture *f = user;
    size_t length = strlen(f->logged);
    snprintf(f->logged + length, sizeof(f->logged) - length, "%s\n", line);
    if (getenv("WARMPOOL_TEST_LOG") != NULL)
        fprintf(stderr, "%s: %s\n", log_level_name(level), line);
}

struct fixture *fixture_new(void)
{
    signal(SIGPIPE, SIG_IGN); /* the servers of the test write to whoever has gone */
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->log = (struct log){.level = LOG_LEVEL_DEBUG, .sink = log_sink, .user = f};
    snprintf(f->label, sizeof(f->label), "run-%d", (int)getpid());
    snprintf(f->directory, sizeof(f->directory), "/tmp/warmpool-engine-test.XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    return f;
}

void fixture_free(struct fixture *f)
{
    fixture_close(f);
    wait_ms(f, 0);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    rmdir(f->directory);
    free(f);
}

void fixture_open(struct fixture *f, const char *host, uint32_t timeout_ms, unsigned max_parallel,
                  struct result *opened)
{
    struct engine_options options = {
        .loop = &f->loop, .log = &f->log, .host = host, .timeout_ms = timeout_ms, .max_parallel = max_parallel};
    struct error error = ERROR_INIT;
    int r;
    f->closed = false;
    CALL(f, r = engine_open(&f->engine, &options, on_done, opened, &error));
    if (r < 0)
        fail_msg("%s", error.message);
    wait_answer(opened);
}

static void on_closed(void *user)
{
    struct fixture *f = user;
    assert_false(f->calling);
    f->closed = true;
}

void fixture_close(struct fixture *f)
{
    if (f->engine == NULL)
        return;
    CALL(f, engine_close(f->engine, on_closed, f));
    f->engine = NULL;
    wait_until(f, &f->closed);
}

struct result result_of(struct fixture *f)
{
    return (struct result){.fixture = f};
}

static void on_tick(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void on_late(uv_timer_t *timer)
{
    fail_msg("no answer within %d s", ANSWER_WAIT_S);
}

static void on_timer_closed(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

/* Runs the loop until `flag`, or until `result` has an answer. */
static void run_until(struct fixture *f, const bool *flag, const struct result *result)
{
    bool gone = false;
    uv_timer_t late;
    uv_timer_init(&f->loop, &late);
    uv_timer_start(&late, on_late, ANSWER_WAIT_S * 1000, 0);
    late.data = &gone;
    while (!(flag != NULL && *flag) && !(result != NULL && result->answers > 0))
        uv_run(&f->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&late, on_timer_closed);
    while (!gone)
        uv_run(&f->loop, UV_RUN_NOWAIT);
}

void wait_answer(struct result *result)
{
    run_until(result->fixture, NULL, result);
}

void wait_until(struct fixture *f, const bool *flag)
{
    run_until(f, flag, NULL);
}

void wait_ms(struct fixture *f, uint64_t milliseconds)
{
    bool flag = false, gone = false;
    uv_timer_t timer;
    uv_update_time(&f->loop);
    uv_timer_init(&f->loop, &timer);
    timer.data = &flag;
    uv_timer_start(&timer, on_tick, milliseconds, 0);
    while (!flag)
        uv_run(&f->loop, UV_RUN_ONCE);
    timer.data = &gone;
    uv_close((uv_handle_t *)&timer, on_timer_closed);
    while (!gone)
        uv_run(&f->loop, UV_RUN_NOWAIT);
}

void expect_ok(struct result *result)
{
    wait_answer(result);
    if (result->error.code != ERROR_NONE)
        fail_msg("unexpected error: %s", result->error.message);
    assert_int_equal(result->answers, 1);
}

void expect_error(struct result *result, enum error_code code, const char *words)
{
    wait_answer(result);
    assert_int_equal(result->answers, 1);
    if (result->error.code != code || strstr(result->error.message, words) == NULL)
        fail_msg("expected %s with \"%s\", got %s: %s", error_code_name(code), words,
                 error_code_name(result->error.code), result->error.message);
    for (const char *c = result->error.message; *c != '\0'; c++)
        assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
}

static void answered(struct result *result, const struct error *error)
{
    struct fixture *f = result->fixture;
    if (f->calling)
        fail_msg("an answer from inside the call");
    if (f->closed)
        fail_msg("an answer after closed");
    result->answers++;
    result->order = f->answers++;
    if (error != NULL) {
        assert_int_not_equal(error->code, ERROR_NONE);
        result->error = *error;
    }
}

void on_done(void *user, const struct error *error)
{
    answered(user, error);
}

void on_id(void *user, const char *id, const struct error *error)
{
    struct result *result = user;
    answered(result, error);
    if (error == NULL)
        COPY(result->id, id);
}

void on_inspect(void *user, const struct container_status *status, const struct error *error)
{
    struct result *result = user;
    answered(result, error);
    if (error != NULL)
        return;
    COPY(result->id, status->id);
    COPY(result->name, status->name);
    COPY(result->image, status->image);
    COPY(result->state, status->state);
    COPY(result->network_id, status->network_id);
    COPY(result->words, status->error);
    result->pid = status->pid;
    result->running = status->running;
    result->oom_killed = status->oom_killed;
    result->exit_code = status->exit_code;
}

/* Keeps the first row, and how many there are. */
void on_list(void *user, const struct engine_object *objects, size_t count, const struct error *error)
{
    struct result *result = user;
    answered(result, error);
    result->count = count;
    for (size_t i = 0; error == NULL && i < count; i++) {
        assert_string_equal(objects[i].label(&objects[i], LABEL), result->fixture->label);
        assert_null(objects[i].label(&objects[i], "no.such.label"));
        if (i > 0)
            continue;
        COPY(result->id, objects[i].id);
        COPY(result->name, objects[i].name);
        COPY(result->state, objects[i].state);
    }
}

void on_image(void *user, const struct image_status *status, const struct error *error)
{
    struct result *result = user;
    answered(result, error);
    if (error != NULL)
        return;
    COPY(result->id, status->id);
    COPY(result->workdir, status->workdir);
    result->count = status->size_bytes;
    result->volume_count = status->volume_count;
    for (const char *const *env = status->env; *env != NULL; env++)
        snprintf(result->env + strlen(result->env), sizeof(result->env) - strlen(result->env), "%s\n", *env);
}

/* --- the fake engine ------------------------------------------------------------------------------ */

struct fake_connection {
    struct list link;
    uv_pipe_t pipe;
    struct fake *fake;
    struct buffer in;
    bool counted;
};

struct fake_write {
    uv_write_t request;
    bool hang_up;
};

static void fake_connection_closed(uv_handle_t *handle)
{
    struct fake_connection *connection = handle->data;
    buffer_free(&connection->in);
    free(connection);
}

static void fake_connection_close(struct fake_connection *connection)
{
    if (uv_is_closing((uv_handle_t *)&connection->pipe))
        return;
    if (connection->counted)
        connection->fake->open--;
    list_remove(&connection->link);
    uv_close((uv_handle_t *)&connection->pipe, fake_connection_closed);
}

static void fake_written(uv_write_t *request, int status)
{
    struct fake_write *written = (struct fake_write *)(void *)request;
    struct fake_connection *connection = request->handle->data;
    if (written->hang_up || status < 0)
        fake_connection_close(connection);
    free(written);
}

static void fake_write(struct fake_connection *connection, const char *data, size_t size, bool hang_up)
{
    struct fake_write *written = calloc(1, sizeof(*written));
    assert_non_null(written);
    written->hang_up = hang_up;
    uv_buf_t piece = uv_buf_init((char *)(uintptr_t)data, (unsigned)size);
    assert_int_equal(uv_write(&written->request, (uv_stream_t *)&connection->pipe, &piece, 1, fake_written), 0);
}

static void fake_answer_json(struct fake_connection *connection, const char *json)
{
    static char text[4096]; /* is written before the loop turns: a short text into an empty socket */
    snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(json), json);
    fake_write(connection, text, strlen(text), false);
}

static void fake_request(struct fake_connection *connection, const char *path)
{
    struct fake *fake = connection->fake;
    if (fake->stall_all)
        return;
    if (strcmp(path, "/version") == 0) {
        fake_answer_json(connection, fake->version);
        return;
    }
    if (strstr(path, "/info") != NULL) {
        fake_answer_json(connection, "{\"CgroupVersion\":\"2\"}");
        return;
    }
    fake->requests++;
    snprintf(fake->paths + strlen(fake->paths), sizeof(fake->paths) - strlen(fake->paths), "%s\n", path);
    if (fake->reply != NULL) {
        fake_write(connection, fake->reply, fake->reply_size > 0 ? fake->reply_size : strlen(fake->reply),
                   fake->hang_up);
        return;
    }
    connection->counted = true;
    if (++fake->open > fake->most_open)
        fake->most_open = fake->open;
}

/* One request at a time; bodies are small and come with their head. */
static void fake_parse(struct fake_connection *connection)
{
    buffer_append(&connection->in, "", 1);
    char *text = (char *)buffer_data(&connection->in), path[512] = "";
    char *end = strstr(text, "\r\n\r\n");
    connection->in.end--;
    if (end == NULL)
        return;
    assert_int_equal(sscanf(text, "%*s %511s", path), 1);
    snprintf(connection->fake->head, sizeof(connection->fake->head), "%s", text);
    buffer_consume(&connection->in, buffer_length(&connection->in));
    fake_request(connection, path);
}

static void fake_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    static char memory[65536];
    *out = uv_buf_init(memory, sizeof(memory));
}

static void fake_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *piece)
{
    struct fake_connection *connection = stream->data;
    if (size < 0) {
        fake_connection_close(connection);
        return;
    }
    if (connection->fake->drain)
        return;
    buffer_append(&connection->in, piece->base, (size_t)size);
    fake_parse(connection);
}

static void fake_connected(uv_stream_t *listener, int status)
{
    struct fake *fake = listener->data;
    struct fake_connection *connection = calloc(1, sizeof(*connection));
    assert_non_null(connection);
    connection->fake = fake;
    connection->pipe.data = connection;
    list_push_back(&fake->connections, &connection->link);
    uv_pipe_init(listener->loop, &connection->pipe, 0);
    connection->pipe.data = connection;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&connection->pipe), 0);
    uv_read_start((uv_stream_t *)&connection->pipe, fake_allocate, fake_read);
}

static void listen_at(uv_pipe_t *listener, struct fixture *f, char *host, size_t size, const char *name,
                      uv_connection_cb connected)
{
    snprintf(host, size, "unix://%s/%s", f->directory, name);
    uv_pipe_init(&f->loop, listener, 0);
    assert_int_equal(uv_pipe_bind(listener, host + strlen("unix://")), 0);
    assert_int_equal(uv_listen((uv_stream_t *)listener, 64, connected), 0);
}

void fake_start(struct fake *fake, struct fixture *f)
{
    const char *version = fake->version, *reply = fake->reply;
    size_t reply_size = fake->reply_size;
    bool hang_up = fake->hang_up, stall_all = fake->stall_all;
    *fake = (struct fake){.fixture = f,
                          .version = version != NULL ? version : VERSION_141,
                          .reply = reply,
                          .reply_size = reply_size,
                          .hang_up = hang_up,
                          .stall_all = stall_all};
    list_init(&fake->connections);
    listen_at(&fake->listener, f, fake->host, sizeof(fake->host), "fake.sock", fake_connected);
    fake->listener.data = fake;
}

void fake_drop_connections(struct fake *fake)
{
    list_for_each_safe (node, &fake->connections) {
        fake_connection_close(list_entry(node, struct fake_connection, link));
    }
}

void fake_answer_stalled(struct fake *fake, const char *reply)
{
    list_for_each_safe (node, &fake->connections) {
        struct fake_connection *connection = list_entry(node, struct fake_connection, link);
        if (!connection->counted)
            continue;
        connection->counted = false;
        fake->open--;
        fake_write(connection, reply, strlen(reply), false);
    }
}

void fake_send_stalled(struct fake *fake, const char *data, size_t size)
{
    list_for_each_safe (node, &fake->connections) {
        struct fake_connection *connection = list_entry(node, struct fake_connection, link);
        if (connection->counted)
            fake_write(connection, data, size, false);
    }
}

void fake_read_stop(struct fake *fake)
{
    list_for_each (node, &fake->connections)
        uv_read_stop((uv_stream_t *)&list_entry(node, struct fake_connection, link)->pipe);
}

void fake_read_start(struct fake *fake)
{
    fake->drain = true;
    list_for_each (node, &fake->connections)
        uv_read_start((uv_stream_t *)&list_entry(node, struct fake_connection, link)->pipe, fake_allocate, fake_read);
}

static void fake_closed(uv_handle_t *handle)
{
    ((struct fake *)handle->data)->closed = true;
}

void fake_stop(struct fake *fake)
{
    fake_drop_connections(fake);
    uv_close((uv_handle_t *)&fake->listener, fake_closed);
    wait_until(fake->fixture, &fake->closed);
}

/* --- the proxy ------------------------------------------------------------------------------------ */

struct proxy_connection {
    struct list link;
    struct proxy *proxy;
    union proxy_end ends[2]; /* the client, the engine */
    unsigned closed;
};

struct proxy_write {
    uv_write_t request;
    char *data;
};

static void proxy_end_closed(uv_handle_t *handle)
{
    struct proxy_connection *connection = handle->data;
    if (++connection->closed == 2)
        free(connection);
}

static void proxy_connection_close(struct proxy_connection *connection)
{
    if (uv_is_closing((uv_handle_t *)&connection->ends[0]))
        return;
    list_remove(&connection->link);
    uv_close((uv_handle_t *)&connection->ends[0], proxy_end_closed);
    uv_close((uv_handle_t *)&connection->ends[1], proxy_end_closed);
}

static void proxy_written(uv_write_t *request, int status)
{
    struct proxy_write *written = (struct proxy_write *)(void *)request;
    free(written->data);
    free(written);
}

static void proxy_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    *out = uv_buf_init(malloc(suggested), (unsigned)suggested);
}

static void proxy_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *piece)
{
    struct proxy_connection *connection = stream->data;
    union proxy_end *other = stream == &connection->ends[0].stream ? &connection->ends[1] : &connection->ends[0];
    if (size <= 0) {
        free(piece->base);
        if (size < 0)
            proxy_connection_close(connection);
        return;
    }
    struct proxy_write *written = calloc(1, sizeof(*written));
    assert_non_null(written);
    written->data = piece->base;
    uv_buf_t out = uv_buf_init(piece->base, (unsigned)size);
    if (uv_write(&written->request, &other->stream, &out, 1, proxy_written) < 0)
        proxy_written(&written->request, -1);
}

static void proxy_reached(uv_connect_t *request, int status)
{
    struct proxy_connection *connection = request->handle->data;
    free(request);
    if (status == UV_ECANCELED)
        return;
    assert_int_equal(status, 0);
    uv_read_start(&connection->ends[0].stream, proxy_allocate, proxy_read);
    uv_read_start(&connection->ends[1].stream, proxy_allocate, proxy_read);
}

static const char *engine_host(void)
{
    const char *host = getenv("DOCKER_HOST");
    return host != NULL ? host : "unix:///var/run/docker.sock";
}

static bool engine_is_local(void)
{
    return strncmp(engine_host(), "unix://", 7) == 0;
}

static void proxy_end_init(uv_loop_t *loop, union proxy_end *end)
{
    if (engine_is_local())
        uv_pipe_init(loop, &end->pipe, 0);
    else
        uv_tcp_init(loop, &end->tcp);
}

static void proxy_reach(uv_connect_t *request, union proxy_end *end)
{
    char address[64] = "";
    int port = 0;
    struct sockaddr_in to;
    if (engine_is_local()) {
        uv_pipe_connect(request, &end->pipe, engine_host() + strlen("unix://"), proxy_reached);
        return;
    }
    assert_int_equal(sscanf(engine_host(), "tcp://%63[0-9.]:%d", address, &port), 2);
    assert_int_equal(uv_ip4_addr(address, port, &to), 0);
    assert_int_equal(uv_tcp_connect(request, &end->tcp, (struct sockaddr *)&to, proxy_reached), 0);
}

static void proxy_connected(uv_stream_t *listener, int status)
{
    struct proxy *proxy = listener->data;
    struct proxy_connection *connection = calloc(1, sizeof(*connection));
    uv_connect_t *request = calloc(1, sizeof(*request));
    assert_non_null(connection);
    assert_non_null(request);
    connection->proxy = proxy;
    for (int i = 0; i < 2; i++) {
        proxy_end_init(listener->loop, &connection->ends[i]);
        connection->ends[i].stream.data = connection;
    }
    list_push_back(&proxy->connections, &connection->link);
    assert_int_equal(uv_accept(listener, &connection->ends[0].stream), 0);
    proxy_reach(request, &connection->ends[1]);
}

static void proxy_listen_tcp(struct proxy *proxy)
{
    struct sockaddr_in at;
    int size = sizeof(at);
    uv_tcp_init(&proxy->fixture->loop, &proxy->listener.tcp);
    assert_int_equal(uv_ip4_addr("127.0.0.1", proxy->port, &at), 0);
    assert_int_equal(uv_tcp_bind(&proxy->listener.tcp, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen(&proxy->listener.stream, 64, proxy_connected), 0);
    assert_int_equal(uv_tcp_getsockname(&proxy->listener.tcp, (struct sockaddr *)&at, &size), 0);
    proxy->port = ntohs(at.sin_port);
    snprintf(proxy->host, sizeof(proxy->host), "tcp://127.0.0.1:%d", proxy->port);
}

void proxy_start(struct proxy *proxy, struct fixture *f)
{
    *proxy = (struct proxy){.fixture = f, .port = proxy->port};
    list_init(&proxy->connections);
    if (engine_is_local())
        listen_at(&proxy->listener.pipe, f, proxy->host, sizeof(proxy->host), "proxy.sock", proxy_connected);
    else
        proxy_listen_tcp(proxy);
    proxy->listener.stream.data = proxy;
}

static void proxy_closed(uv_handle_t *handle)
{
    ((struct proxy *)handle->data)->closed = true;
}

void proxy_stop(struct proxy *proxy)
{
    list_for_each_safe (node, &proxy->connections) {
        proxy_connection_close(list_entry(node, struct proxy_connection, link));
    }
    uv_close((uv_handle_t *)&proxy->listener, proxy_closed);
    wait_until(proxy->fixture, &proxy->closed);
}
