/* `warmpool up`: the daemon in the background, then progress until its pools are warm. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/cli.h"

#define POLL_NS    20000000L
#define PASSED_MAX 140
#define TIMEOUT_MS 120000U

struct up {
    struct cli *cli;
    const char *config, *timeout;
    bool foreground;
    char *argv[PASSED_MAX + 8]; /* of warmpoold */
    int argc;
    char log_path[512];
    char last[256]; /* progress that was shown */
    bool pulling;   /* an image, now */
};

static int add_set(void *user, const char *value)
{
    struct up *up = user;
    if (strchr(value, '=') == NULL || up->argc + 2 >= PASSED_MAX)
        return -1;
    up->argv[up->argc++] = "--set";
    up->argv[up->argc++] = (char *)(uintptr_t)value;
    return 0;
}

/* Beside this program, beside the name it was called by, or on PATH. */
int daemon_exec(const struct cli *cli, char *argv[])
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
    path[length > 0 ? length : 0] = '\0';
    const char *places[] = {path, cli->program};
    for (size_t i = 0; i < 2; i++) {
        char file[4200];
        snprintf(file, sizeof file, "%s", places[i]);
        char *slash = strrchr(file, '/');
        if (slash == NULL)
            continue;
        strcpy(slash, "/warmpoold");
        argv[0] = file;
        execv(file, argv);
    }
    argv[0] = "warmpoold";
    execvp("warmpoold", argv);
    return failed("warmpoold cannot be started: %s; it belongs beside warmpool or on PATH", strerror(errno));
}

static void log_path(struct up *up)
{
    snprintf(up->log_path, sizeof up->log_path, "%s", up->cli->socket);
    char *slash = strrchr(up->log_path, '/');
    for (char *at = strchr(up->log_path + 1, '/'); at != NULL && slash != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(up->log_path, 0755);
        *at = '/';
        if (at == slash)
            break;
    }
    size_t size = strlen(up->log_path);
    if (size > 5 && strcmp(up->log_path + size - 5, ".sock") == 0)
        up->log_path[size - 5] = '\0';
    strncat(up->log_path, ".log", sizeof up->log_path - strlen(up->log_path) - 1);
}

static pid_t start(struct up *up)
{
    int log = open(up->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log < 0) {
        failed("the log file %s cannot be written: %s", up->log_path, strerror(errno));
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        setsid();
        dup2(null, 0);
        dup2(null, 1);
        dup2(log, 2);
        if (chdir("/") < 0)
            _exit(EXIT_FAILED);
        _exit(daemon_exec(up->cli, up->argv));
    }
    close(log);
    if (pid < 0)
        failed("a process cannot be started: %s", strerror(errno));
    return pid;
}

static void show_tail(const char *path)
{
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t got = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, size > 3000 ? size - 3000 : 0);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    fputs(text, stderr);
}

static void progress(struct up *up, const char *text)
{
    bool terminal = isatty(2);
    if (strcmp(up->last, text) == 0)
        return;
    snprintf(up->last, sizeof up->last, "%s", text);
    fprintf(stderr, terminal ? "\r\033[K%s" : "%s\n", text);
}

static void progress_end(const struct up *up)
{
    if (isatty(2) && up->last[0] != '\0')
        fputs("\n", stderr);
}

static long number(const json_t *json, const char *key)
{
    return (long)json_integer_value(json_object_get(json, key));
}

static const char *pool_error(const json_t *status)
{
    size_t index;
    json_t *pool;
    json_array_foreach (json_object_get(status, "pools"), index, pool) {
        const char *error = json_string_value(json_object_get(pool, "lastError"));
        if (error != NULL)
            return error;
    }
    return NULL;
}

/* 1 when ready, 0 when not yet. `error` gets what the daemon complains of. */
static int look(struct up *up, char *error, size_t size)
{
    struct reply reply;
    int ready = 0;
    error[0] = '\0';
    up->pulling = false;
    if (client_call(up->cli, "GET", "/v1/status", NULL, &reply, false) < 0)
        return 0;
    json_t *status = json_loadb((const char *)buffer_data(&reply.body), buffer_length(&reply.body), 0, NULL);
    const json_t *engine = json_object_get(status, "engine");
    const char *engine_error = json_string_value(json_object_get(engine, "error"));
    const char *trouble = engine_error != NULL ? engine_error : pool_error(status);
    char text[256];
    snprintf(text, sizeof text, "warming: %ld of %ld containers", number(status, "warmNow"),
             number(status, "warmTarget"));
    const json_t *pulling = json_object_get(status, "pulling");
    if (pulling != NULL) {
        const char *image = json_string_value(json_object_get(pulling, "image"));
        snprintf(text, sizeof text, "pulling %.120s: %ld of %ld MB", image != NULL ? image : "?",
                 number(pulling, "bytes") / 1000000, number(pulling, "totalBytes") / 1000000);
        up->pulling = true;
    }
    if (trouble != NULL) {
        snprintf(error, size, "%s", trouble);
        snprintf(text, sizeof text, "waiting: %.200s", trouble);
    }
    ready = json_is_true(json_object_get(status, "ready"));
    if (!ready)
        progress(up, text);
    else if (up->last[0] != '\0' || !isatty(2))
        progress(up, text);
    json_decref(status);
    buffer_free(&reply.body);
    return ready;
}

static unsigned long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
}

static int wait_until_ready(struct up *up, pid_t pid, unsigned long timeout_ms)
{
    unsigned long begun = now_ms();
    char error[512];
    int code;
    while (look(up, error, sizeof error) == 0) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            progress_end(up);
            show_tail(up->log_path);
            return failed("the daemon ended; its log is %s", up->log_path);
        }
        if (up->pulling) /* a stalled one fails by itself */
            begun = now_ms();
        if (now_ms() - begun > timeout_ms) {
            progress_end(up);
            return failed("the pools are not warm after %lu s%s%s; the daemon runs on, its log is %s",
                          timeout_ms / 1000, error[0] != '\0' ? ": " : "", error, up->log_path);
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    progress_end(up);
    fprintf(stderr, "ready after %.1f s; socket %s, log %s\n", (double)(now_ms() - begun) / 1000, up->cli->socket,
            up->log_path);
    code = 0;
    return code;
}

int verb_up(struct cli *cli)
{
    struct up up = {.cli = cli, .argv = {"warmpoold", "serve"}, .argc = 2};
    const struct option_spec specs[] = {{.name = "--config", .text = &up.config},
                                        {.name = "--timeout", .text = &up.timeout},
                                        {.name = "--foreground", .flag = &up.foreground},
                                        {.name = "--set", .each = add_set, .user = &up}};
    unsigned long timeout_ms = TIMEOUT_MS;
    int rest;
    int read = options_read(cli, specs, sizeof specs / sizeof specs[0], &rest);
    if (read != 0)
        return read < 0 ? EXIT_FAILED : 0;
    if (cli->argc > 1)
        return misused(cli, "unexpected \"%s\"", cli->argv[1]);
    if (up.timeout != NULL && options_time(up.timeout, &timeout_ms) < 0)
        return misused(cli, "--timeout %s: must be a time, as 30s or 2m", up.timeout);
    up.argv[up.argc++] = "--socket";
    up.argv[up.argc++] = cli->socket;
    char *config = up.config == NULL ? NULL : realpath(up.config, NULL);
    if (up.config != NULL) {
        up.argv[up.argc++] = "--config";
        up.argv[up.argc++] = config != NULL ? config : (char *)(uintptr_t)up.config;
    }
    int fd = client_connect(cli, false);
    if (fd >= 0) {
        close(fd);
        free(config);
        fprintf(stderr, "a daemon answers at %s already\n", cli->socket);
        return 0;
    }
    if (up.foreground)
        return daemon_exec(cli, up.argv);
    log_path(&up);
    pid_t pid = start(&up);
    free(config);
    return pid < 0 ? EXIT_FAILED : wait_until_ready(&up, pid, timeout_ms);
}

int verb_delegate(struct cli *cli)
{
    char *argv[70];
    int argc = 1;
    if (cli->argc > 64)
        return misused(cli, "too many arguments");
    for (int i = 0; i < cli->argc; i++)
        argv[argc++] = cli->argv[i];
    argv[argc] = NULL;
    return daemon_exec(cli, argv);
}
