/* `warmpoold serve`: configuration, default image, executor, API; then until a signal or a client says stop. Stopping
 * is the same as starting read backwards. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include <jansson.h>

#include "api/server.h"
#include "base/secret.h"
#include "daemon/image.h"
#include "daemon/verbs.h"
#include "engine/engine.h"

#define DEFAULT_IMAGE "warmpool-agent:latest"

#define SIGNALS 3

struct daemon {
    uv_loop_t loop;
    struct daemon_arguments arguments;
    struct config *config;
    struct log log;
    struct engine *image_engine; /* only while the default image is looked for */
    struct executor *executor;
    struct api_server *api;
    uv_signal_t signals[SIGNALS];
    bool stopping, forced, failed;
};

static void on_log(void *user, enum log_level level, const char *line)
{
    struct timespec now;
    struct tm parts;
    char date[40];
    (void)user;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    fprintf(stderr, "%s.%03ldZ %-5s %s\n", date, now.tv_nsec / 1000000, log_level_name(level), line);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* --- stopping -------------------------------------------------------------------------------------------------- */

static void close_signals(struct daemon *daemon)
{
    for (size_t i = 0; i < SIGNALS; i++)
        if (!uv_is_closing((uv_handle_t *)&daemon->signals[i]))
            uv_close((uv_handle_t *)&daemon->signals[i], NULL);
}

static void on_api_closed(void *user)
{
    struct daemon *daemon = user;
    daemon->api = NULL;
    log_info(&daemon->log, "stopped");
}

static void on_executor_closed(void *user)
{
    struct daemon *daemon = user;
    daemon->executor = NULL;
    api_server_detach(daemon->api);
    close_signals(daemon);
    api_server_close(daemon->api, on_api_closed, daemon);
}

static void stop(struct daemon *daemon, bool force)
{
    if (daemon->executor == NULL) {
        close_signals(daemon);
        return;
    }
    if (daemon->stopping && !force)
        return;
    daemon->stopping = true;
    executor_close(daemon->executor, !force, on_executor_closed, daemon);
}

static void on_shutdown(void *user, bool force)
{
    stop(user, force);
}

/* --- another configuration ------------------------------------------------------------------------------------ */

struct changes {
    const struct log *log;
    struct buffer *out;
    size_t count;
};

static void on_change(void *user, const char *agent_type, const char *key, const char *from, const char *to)
{
    struct changes *changes = user;
    const char *of = agent_type != NULL ? agent_type : "", *dot = agent_type != NULL ? "." : "";
    log_info(changes->log, "configuration: %s%s%s: %.200s, was %.200s", of, dot, key, to, from);
    if (changes->out != NULL)
        buffer_printf(changes->out, "%s\"%s%s%s\"", changes->count > 0 ? "," : "", of, dot, key);
    changes->count++;
}

static void on_config_warning(void *user, const char *text)
{
    log_warn((struct log *)user, "%s", text);
}

/* `out`, unless NULL, gets the changed keys as JSON texts. */
static int reload(void *user, struct buffer *out, uint32_t *rolled, struct error *err)
{
    struct daemon *daemon = user;
    struct config *old = daemon->config, *new = arguments_load(&daemon->arguments, err);
    if (new == NULL || daemon->executor == NULL || executor_reload(daemon->executor, new, rolled, err) < 0) {
        config_free(new);
        if (err->code == ERROR_NONE)
            error_set(err, ERROR_UNAVAILABLE, "warmpool is not ready yet");
        log_error(&daemon->log, "the configuration was not changed: %s", err->message);
        if (daemon->executor != NULL)
            executor_reload_failed(daemon->executor, err);
        return -1;
    }
    struct changes changes = {.log = &daemon->log, .out = out};
    config_changes(old, new, on_change, &changes);
    config_warnings(new, on_config_warning, &daemon->log);
    log_info(&daemon->log, "configuration read again: %zu keys changed, %u pools replace their containers",
             changes.count, *rolled);
    daemon->config = new;
    daemon->log.level = new->log_level;
    api_server_configure(daemon->api, new);
    config_free(old);
    return 0;
}

static void on_hangup(uv_signal_t *handle, int number)
{
    struct error error = ERROR_INIT;
    uint32_t rolled;
    (void)number;
    reload(handle->data, NULL, &rolled, &error);
}

/* The first signal lets running tasks end; the second does not. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    log_info(&daemon->log, "%s", strsignal(number));
    stop(daemon, daemon->stopping);
}

/* --- starting ---------------------------------------------------------------------------------------------------- */

static void fail(struct daemon *daemon, const struct error *error)
{
    fprintf(stderr, "warmpoold: %s\n", error->message);
    daemon->failed = true;
    close_signals(daemon);
}

static void on_failed_executor_closed(void *user)
{
    close_signals(user);
}

static void open_service(struct daemon *daemon)
{
    struct error error = ERROR_INIT;
    struct executor_options executor_options = {
        .loop = &daemon->loop, .config = daemon->config, .log = &daemon->log, .mode = EXECUTOR_POOLED};
    if (executor_open(&daemon->executor, &executor_options, &error) < 0) {
        fail(daemon, &error);
        return;
    }
    struct api_options api_options = {.loop = &daemon->loop,
                                      .executor = daemon->executor,
                                      .config = daemon->config,
                                      .log = &daemon->log,
                                      .socket = daemon->config->socket,
                                      .shutdown = on_shutdown,
                                      .reload = reload,
                                      .user = daemon};
    daemon->api = api_server_open(&api_options, &error);
    if (daemon->api == NULL) {
        struct executor *executor = daemon->executor;
        daemon->executor = NULL;
        fprintf(stderr, "warmpoold: %s\n", error.message);
        daemon->failed = true;
        executor_close(executor, false, on_failed_executor_closed, daemon);
        return;
    }
    log_info(&daemon->log, "warmpool %s listens on %s", WARMPOOL_VERSION, daemon->config->socket);
}

/* Pools of an image that has to be built first would only fail and back off: it is made before they are opened. */
static void on_image_engine_closed(void *user)
{
    struct daemon *daemon = user;
    daemon->image_engine = NULL;
    if (!uv_is_closing((uv_handle_t *)&daemon->signals[0]))
        open_service(daemon);
}

static void image_done(struct daemon *daemon)
{
    engine_close(daemon->image_engine, on_image_engine_closed, daemon);
}

static void on_image_built(void *user, const char *id, const struct error *error)
{
    struct daemon *daemon = user;
    (void)id;
    if (error != NULL)
        log_warn(&daemon->log, "the default image could not be built: %s", error->message);
    else
        log_info(&daemon->log, "built the default image %s", DEFAULT_IMAGE);
    image_done(daemon);
}

static void on_image_inspected(void *user, const struct image_status *status, const struct error *error)
{
    struct daemon *daemon = user;
    (void)status;
    if (error != NULL && error->code == ERROR_NOT_FOUND)
        image_build(daemon->image_engine, DEFAULT_IMAGE, on_image_built, daemon);
    else
        image_done(daemon); /* there, or the engine is not: the executor tells that */
}

static void on_image_engine_opened(void *user, const struct error *error)
{
    struct daemon *daemon = user;
    if (error != NULL)
        image_done(daemon);
    else
        engine_image_inspect(daemon->image_engine, DEFAULT_IMAGE, on_image_inspected, daemon);
}

static int start(struct daemon *daemon, struct error *err)
{
    if (strcmp(daemon->config->defaults.image, DEFAULT_IMAGE) != 0) {
        open_service(daemon);
        return 0;
    }
    struct engine_options options = {.loop = &daemon->loop,
                                     .log = &daemon->log,
                                     .host = daemon->config->docker_host,
                                     .cert_path = daemon->config->docker_cert_path};
    return engine_open(&daemon->image_engine, &options, on_image_engine_opened, daemon, err);
}

static void usage(void)
{
    printf("usage: warmpoold serve [--config FILE] [--socket PATH] [--set KEY=VALUE ...]\n\n"
           "Runs the daemon in the foreground; its log goes to stderr. SIGTERM lets running tasks end, a second one "
           "does not;\n"
           "SIGHUP reads the configuration again.\n"
           "`warmpoold config docs` lists the keys.\n");
}

/* Secrets pass through this process: it leaves no core, nobody but root reads its memory, and JSON values are
 * overwritten when they are freed. */
static void guard_secrets(void)
{
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    json_set_alloc_funcs(malloc, secret_free);
}

int verb_serve(int argc, char *argv[])
{
    struct daemon daemon = {.failed = false};
    guard_secrets();
    struct daemon_arguments *arguments = &daemon.arguments;
    if (arguments_read(arguments, argc, argv) < 0)
        return 2;
    if (arguments->help || arguments->rest_count > 0) {
        usage();
        return arguments->help ? 0 : 2;
    }
    daemon.config = arguments_config(arguments);
    if (daemon.config == NULL) {
        arguments_free(arguments);
        return 2;
    }
    daemon.log = (struct log){.level = daemon.config->log_level, .sink = on_log};
    config_warnings(daemon.config, on_config_warning, &daemon.log);
    raise_descriptor_limit();
    uv_loop_init(&daemon.loop);
    const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < SIGNALS; i++) {
        uv_signal_init(&daemon.loop, &daemon.signals[i]);
        daemon.signals[i].data = &daemon;
        uv_signal_start(&daemon.signals[i], numbers[i] == SIGHUP ? on_hangup : on_signal, numbers[i]);
    }
    struct error error = ERROR_INIT;
    if (start(&daemon, &error) < 0)
        fail(&daemon, &error);
    uv_run(&daemon.loop, UV_RUN_DEFAULT);
    uv_loop_close(&daemon.loop);
    config_free(daemon.config);
    arguments_free(arguments);
    return daemon.failed ? 1 : 0;
}
