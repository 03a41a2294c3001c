/* `warmpoold doctor`: looks at everything that warmpool needs and says the mend where something is wrong. Changes
 * nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/json_write.h"
#include "daemon/verbs.h"
#include "engine/engine.h"

#define INSTANCE_LABEL "io.warmpool.instance"

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

struct doctor {
    uv_loop_t loop;
    struct engine *engine;
    struct config *config;
    struct buffer json_text;
    struct json_writer json;
    bool as_json, running;
    unsigned counts[3];
    char instance[64];
};

static void say(struct doctor *doctor, enum verdict verdict, const char *what, const char *mend, const char *format,
                ...) __attribute__((format(printf, 5, 6)));

static void say(struct doctor *doctor, enum verdict verdict, const char *what, const char *mend, const char *format,
                ...)
{
    static const char *const names[] = {"ok", "warn", "fail"};
    char text[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    doctor->counts[verdict]++;
    if (!doctor->as_json) {
        printf("%-5s %-18s %s\n", names[verdict], what, text);
        if (verdict != VERDICT_OK && mend[0] != '\0')
            printf("      %-18s -> %s\n", "", mend);
        return;
    }
    jw_open(&doctor->json, '{');
    jw_key(&doctor->json, "check");
    jw_text(&doctor->json, what);
    jw_key(&doctor->json, "verdict");
    jw_text(&doctor->json, names[verdict]);
    jw_key(&doctor->json, "text");
    jw_text(&doctor->json, text);
    jw_key(&doctor->json, "mend");
    jw_text(&doctor->json, verdict != VERDICT_OK ? mend : NULL);
    jw_close(&doctor->json, '}');
}

/* First line of a small file, "" when it cannot be read. */
static void read_line(const char *path, char *text, size_t size)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

/* --- the host ------------------------------------------------------------------------------------------------- */

static void check_directory(struct doctor *doctor, const char *what, const char *path)
{
    char existing[512];
    snprintf(existing, sizeof existing, "%s", path);
    while (access(existing, F_OK) < 0 && strrchr(existing, '/') > existing)
        *strrchr(existing, '/') = '\0';
    if (access(existing, W_OK) == 0)
        say(doctor, VERDICT_OK, what, "", "%s can be written", path);
    else
        say(doctor, VERDICT_FAIL, what, "run as root, or choose another place with --set", "%s: %s", existing,
            strerror(errno));
}

/* The memory limit counts swap too, where the kernel does; elsewhere a task may push its memory out to the host's. */
static void check_swap(struct doctor *doctor)
{
    char text[512];
    _cleanup_close_ int fd = open("/proc/swaps", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    const char *second = strchr(text, '\n');
    bool counted = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ||
                   access("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", F_OK) == 0;
    if (second == NULL || second[1] == '\0')
        say(doctor, VERDICT_OK, "swap", "", "none");
    else if (counted)
        say(doctor, VERDICT_OK, "swap", "", "in use, and counted in memory limits");
    else
        say(doctor, VERDICT_WARN, "swap", "boot with swapaccount=1, or swapoff -a",
            "the kernel does not count swap in memory limits");
}

static void check_limits(struct doctor *doctor)
{
    struct rlimit files = {0, 0};
    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max < 4096)
        say(doctor, VERDICT_WARN, "descriptors", "raise the hard limit: ulimit -Hn 65536",
            "at most %llu files may be open", (unsigned long long)files.rlim_max);
    else
        say(doctor, VERDICT_OK, "descriptors", "", "%llu files may be open", (unsigned long long)files.rlim_max);
    char text[256];
    read_line("/proc/sys/kernel/pid_max", text, sizeof text);
    say(doctor, atol(text) < 16384 ? VERDICT_WARN : VERDICT_OK, "pid_max", "sysctl -w kernel.pid_max=4194304",
        "%s process ids", text);
    read_line("/proc/sys/fs/inotify/max_user_instances", text, sizeof text);
    say(doctor, VERDICT_OK, "inotify", "", "%s instances per user (each container is a user of its own)", text);
    read_line("/proc/sys/kernel/core_pattern", text, sizeof text);
    if (text[0] == '|')
        say(doctor, VERDICT_WARN, "core_pattern",
            "sysctl -w kernel.core_pattern=core, or limit core files to 0 with ulimits",
            "core dumps of tasks are piped to a program of the host: %s", text);
    else
        say(doctor, VERDICT_OK, "core_pattern", "", "%s", text);
    check_swap(doctor);
    bool two = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    say(doctor, VERDICT_OK, "cgroups", "", "version %d", two ? 2 : 1);
}

static void check_daemon(struct doctor *doctor)
{
    const char *path = doctor->config->socket;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    doctor->running = fd >= 0 && strlen(path) < sizeof address.sun_path &&
                      connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    if (strlen(path) >= sizeof address.sun_path)
        say(doctor, VERDICT_FAIL, "daemon", "choose a shorter path with --socket",
            "the socket's path is longer than %zu bytes", sizeof address.sun_path - 1);
    else
        say(doctor, VERDICT_OK, "daemon", "", "%s on %s", doctor->running ? "runs" : "does not run", path);
}

static void read_instance(struct doctor *doctor)
{
    char path[600];
    snprintf(path, sizeof path, "%s/instance", doctor->config->state_dir);
    read_line(path, doctor->instance, sizeof doctor->instance);
}

/* --- the engine -------------------------------------------------------------------------------------------------- */

static void finish(struct doctor *doctor)
{
    engine_close(doctor->engine, NULL, NULL);
}

static void on_list(void *user, const struct engine_object *objects, size_t count, const struct error *error)
{
    struct doctor *doctor = user;
    (void)objects;
    if (error != NULL)
        say(doctor, VERDICT_FAIL, "containers", "", "%s", error->message);
    else if (count > 0 && !doctor->running)
        say(doctor, VERDICT_WARN, "containers", "`warmpool up` with this stateDir removes them (autoCleanup)",
            "%zu were left by a former run of this instance (%s)", count, doctor->instance);
    else
        say(doctor, VERDICT_OK, "containers", "", "%zu carry this instance's label (%s)", count, doctor->instance);
    finish(doctor);
}

static void on_image(void *user, const struct image_status *status, const struct error *error)
{
    struct doctor *doctor = user;
    const char *image = doctor->config->defaults.image;
    if (error != NULL)
        say(doctor, VERDICT_FAIL, "image", "warmpool image build makes the default one; docker pull fetches others",
            "%s", error->message);
    else
        say(doctor, VERDICT_OK, "image", "", "%s, %llu MiB", image, (unsigned long long)(status->size_bytes >> 20));
    if (doctor->instance[0] == '\0') {
        say(doctor, VERDICT_OK, "containers", "", "no daemon has run on %s yet", doctor->config->state_dir);
        finish(doctor);
        return;
    }
    engine_container_list(doctor->engine, INSTANCE_LABEL, doctor->instance, on_list, doctor);
}

static void on_opened(void *user, const struct error *error)
{
    struct doctor *doctor = user;
    if (error != NULL) {
        say(doctor, VERDICT_FAIL, "engine", "start it (systemctl start docker, or dockerd &), or set DOCKER_HOST", "%s",
            error->message);
        finish(doctor);
        return;
    }
    const struct engine_info *info = engine_info(doctor->engine);
    say(doctor, VERDICT_OK, "engine", "", "%s %s, API %s, at %s", info->name, info->version, info->api_version,
        info->host);
    engine_image_inspect(doctor->engine, doctor->config->defaults.image, on_image, doctor);
}

/* --- the verb ------------------------------------------------------------------------------------------------------
 */

static int examine(struct doctor *doctor)
{
    struct error error = ERROR_INIT;
    doctor->json = (struct json_writer){.out = &doctor->json_text};
    if (doctor->as_json)
        jw_open(&doctor->json, '[');
    read_instance(doctor);
    check_directory(doctor, "stateDir", doctor->config->state_dir);
    check_directory(doctor, "socket", doctor->config->socket);
    check_daemon(doctor);
    check_limits(doctor);
    uv_loop_init(&doctor->loop);
    struct engine_options options = {.loop = &doctor->loop,
                                     .host = doctor->config->docker_host,
                                     .cert_path = doctor->config->docker_cert_path,
                                     .timeout_ms = 10000};
    if (engine_open(&doctor->engine, &options, on_opened, doctor, &error) < 0)
        say(doctor, VERDICT_FAIL, "engine", "correct dockerHost or DOCKER_HOST", "%s", error.message);
    uv_run(&doctor->loop, UV_RUN_DEFAULT);
    uv_loop_close(&doctor->loop);
    if (doctor->as_json) {
        jw_close(&doctor->json, ']');
        const char *text = buffer_text(&doctor->json_text);
        puts(text != NULL ? text : "null");
    } else {
        printf("%u ok, %u warnings, %u failures\n", doctor->counts[VERDICT_OK], doctor->counts[VERDICT_WARN],
               doctor->counts[VERDICT_FAIL]);
    }
    buffer_free(&doctor->json_text);
    return doctor->counts[VERDICT_FAIL] > 0 ? 1 : 0;
}

int verb_doctor(int argc, char *argv[])
{
    struct daemon_arguments arguments;
    if (arguments_read(&arguments, argc, argv) < 0)
        return 2;
    if (arguments.help || arguments.rest_count > 0) {
        printf("usage: warmpool doctor [--json] [--config FILE] [--set KEY=VALUE ...]\n\n"
               "Checks engine, image, directories and kernel limits, and says the mend where something is wrong. Exit "
               "code 1 when\n"
               "something fails.\n");
        arguments_free(&arguments);
        return arguments.help ? 0 : 2;
    }
    struct doctor doctor = {.as_json = arguments.json, .config = arguments_config(&arguments)};
    int code = doctor.config == NULL ? 2 : examine(&doctor);
    config_free(doctor.config);
    arguments_free(&arguments);
    return code;
}
