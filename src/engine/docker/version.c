/* Which version of the API is spoken. It is in every path, so requests wait for it. It is asked for at the beginning,
 * on engine_probe(), and with the first request after the last try failed or a connection broke: whoever simply tries
 * again finds an engine that was down, or was upgraded meanwhile, without doing anything special.
 *
 *     UNKNOWN --docker_want_version()--> ASKING (/version, then /info) --> AGREED --docker_doubt_version()--> UNKNOWN
 *                                          \--------- failed ---------> UNKNOWN */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/docker/docker.h"

/* "1.41": the part after the dot; -1 when of another form or major version. */
static int version_minor(const char *text)
{
    if (strncmp(text, "1.", 2) != 0 || text[2] < '0' || text[2] > '9')
        return -1;
    char *end;
    long minor = strtol(text + 2, &end, 10);
    return *end == '\0' && minor <= 9999 ? (int)minor : -1;
}

/* Podman's service says what it is in one of its components; all of them say "Platform". */
static const char *engine_name(const json_t *json, bool *bad)
{
    const json_t *components = member_array(json, "Components", bad);
    for (size_t i = 0; i < json_array_size(components); i++) {
        if (strcmp(member_string(json_array_get(components, i), "Name", bad), "Podman Engine") == 0)
            return "podman";
    }
    return "docker";
}

static int version_agree(struct docker *docker, const json_t *json, struct error *err)
{
    bool bad = !json_is_object(json);
    const char *most = member_string(json, "ApiVersion", &bad);
    const char *least = member_string(json, "MinAPIVersion", &bad);
    const char *version = member_string(json, "Version", &bad);
    docker->info.name = engine_name(json, &bad);
    int most_minor = version_minor(most), least_minor = least[0] != '\0' ? version_minor(least) : 0;
    if (bad || most_minor < 0 || least_minor < 0) {
        reply_malformed(err, "no API version in it");
        return -1;
    }
    text_clean(docker->version, sizeof(docker->version), version, strlen(version));
    if (most_minor < DOCKER_API_LEAST_MINOR)
        return error_set(err, ERROR_ENGINE,
                         "the engine (version %s) speaks its API only up to 1.%d, at least 1.%d is needed: "
                         "upgrade it to Docker 20.10 or newer",
                         docker->version, most_minor, DOCKER_API_LEAST_MINOR);
    if (least_minor > DOCKER_API_MOST_MINOR)
        return error_set(err, ERROR_ENGINE,
                         "the engine (version %s) asks for API version 1.%d or newer, this warmpool speaks up to 1.%d: "
                         "upgrade warmpool",
                         docker->version, least_minor, DOCKER_API_MOST_MINOR);
    int agreed = most_minor < DOCKER_API_MOST_MINOR ? most_minor : DOCKER_API_MOST_MINOR;
    snprintf(docker->api_version, sizeof(docker->api_version), "1.%d", agreed);
    return 0;
}

/* The kernel's name of the machine, as /info has it, as images have it. Podman's has that already. */
static void architecture_set(struct docker *docker, const char *machine)
{
    static const struct {
        const char *machine, *image;
    } names[] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armv7l", "arm"}, {"armv6l", "arm"}, {"i686", "386"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(machine, names[i].machine) == 0)
            machine = names[i].image;
    }
    text_clean(docker->architecture, sizeof(docker->architecture), machine, strlen(machine));
}

/* Of what /info tells one could live without all. */
static void on_info(void *user, int status, const char *body, size_t size, const struct error *error)
{
    struct docker *docker = user;
    if (error != NULL) {
        struct error trouble = *error;
        error_prefix(&trouble, "ask the engine for its properties");
        docker_version_settled(docker, &trouble);
        return;
    }
    struct error ignored = ERROR_INIT;
    json_t *json = NULL;
    bool bad = false;
    docker->info.cgroup_v1 = false;
    docker->architecture[0] = '\0';
    if (status == 200 && reply_json(&json, body, size, &ignored) == 0) {
        docker->info.cgroup_v1 = strcmp(member_string(json, "CgroupVersion", &bad), "1") == 0;
        architecture_set(docker, member_string(json, "Architecture", &bad));
    }
    json_decref(json);
    docker_version_settled(docker, NULL);
}

/* An engine's port of TLS answers plain HTTP with this. */
static void version_refused(const struct docker *docker, int status, const char *body, size_t size, struct error *error)
{
    if (status == 400 && !docker->endpoint.tls && memmem(body, size, "HTTPS server", 12) != NULL)
        error_set(error, ERROR_UNAVAILABLE,
                  "the engine at %s wants TLS: set dockerCertPath or DOCKER_CERT_PATH to the directory with its "
                  "ca.pem, cert.pem and key.pem",
                  docker->endpoint.name);
    else
        reply_error(error, status, body, size);
}

static int ask(struct docker *docker, const char *path, http_done_fn *done)
{
    struct http_call call = {.method = "GET", .path = path, .urgent = true, .done = done, .user = docker};
    return http_send(docker->http, &call);
}

static void on_version(void *user, int status, const char *body, size_t size, const struct error *error)
{
    struct docker *docker = user;
    struct error trouble = ERROR_INIT;
    json_t *json = NULL;
    if (error != NULL)
        trouble = *error;
    else if (status != 200)
        version_refused(docker, status, body, size, &trouble);
    else if (reply_json(&json, body, size, &trouble) == 0)
        version_agree(docker, json, &trouble);
    json_decref(json);
    char path[40];
    snprintf(path, sizeof(path), "/v%s/info", docker->api_version);
    if (trouble.code == ERROR_NONE && (docker->closing || ask(docker, path, on_info) < 0))
        error_set(&trouble, docker->closing ? ERROR_CANCELLED : ERROR_NOMEM, "%s",
                  docker->closing ? "the connection to the engine was closed" : "out of memory");
    if (trouble.code == ERROR_NONE)
        return;
    error_prefix(&trouble, "agree on an API version");
    docker_version_settled(docker, &trouble);
}

void docker_want_version(struct docker *docker)
{
    if (docker->version_state != VERSION_UNKNOWN || docker->closing)
        return;
    docker->version_state = VERSION_ASKING;
    if (ask(docker, "/version", on_version) < 0) {
        docker->ask_failed = true;
        docker_wake(docker);
    }
}

void docker_doubt_version(struct docker *docker)
{
    if (docker->version_state == VERSION_AGREED)
        docker->version_state = VERSION_UNKNOWN;
}
