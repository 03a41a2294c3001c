/* Through the Docker API Podman takes a volume's driver options and drops them without a word: what was to be a tmpfs
 * of 4 MB would be a directory on the host's disk, as large as that is. And it refuses nr_inodes for a tmpfs. Its own
 * API knows both, as options of an anonymous volume, so containers are created there; all else works through Docker's.
 *
 * What remains different: such a volume carries no labels (it goes with its container all the same). */
#include "engine/docker/podman.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPU_PERIOD_US 100000

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static bool flag_of(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* Sticky like a buffer: a container that lacks something must not be made. */
struct made {
    json_t *object;
    bool failed;
};

static void put(struct made *made, json_t *object, const char *key, json_t *value)
{
    if (value == NULL || json_object_set_new(object, key, value) < 0)
        made->failed = true;
}

static void put_text(struct made *made, json_t *object, const char *key, const char *text)
{
    if (text[0] != '\0')
        put(made, object, key, json_string(text));
}

static void push(struct made *made, json_t *array, json_t *value)
{
    if (value == NULL || json_array_append_new(array, value) < 0)
        made->failed = true;
}

static void push_text(struct made *made, json_t *array, const char *before, const char *text)
{
    push(made, array, json_sprintf("%s%s", before, text));
}

/* ["K=V"] as {"K": "V"}. */
static json_t *env_object(struct made *made, const json_t *array)
{
    json_t *env = json_object();
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *text = json_string_value(json_array_get(array, i));
        const char *equals = strchr(text, '=');
        char *key = strndup(text, equals != NULL ? (size_t)(equals - text) : strlen(text));
        if (key != NULL)
            put(made, env, key, json_string(equals != NULL ? equals + 1 : ""));
        made->failed |= key == NULL;
        free(key);
    }
    return env;
}

/* An anonymous volume when the mount has no source, then with a driver's options. */
static json_t *volume(struct made *made, const json_t *mount)
{
    json_t *options = json_array(), *object = json_object();
    json_t *driver =
        json_object_get(json_object_get(json_object_get(mount, "VolumeOptions"), "DriverConfig"), "Options");
    const char *key;
    json_t *value;
    json_object_foreach (driver, key, value)
        push(made, options, json_sprintf("volume-opt=%s=%s", key, json_string_value(value)));
    /* Those of the mount itself, which are stronger than the volume's. */
    const char *o = text_of(driver, "o");
    push_text(made, options, "", "nosuid");
    push_text(made, options, "", "nodev");
    push_text(made, options, "", strstr(o, "noexec") != NULL ? "noexec" : "exec");
    push_text(made, options, "", "nocopy");
    push_text(made, options, "", flag_of(mount, "ReadOnly") ? "ro" : "rw");
    put_text(made, object, "Name", text_of(mount, "Source"));
    put_text(made, object, "Dest", text_of(mount, "Target"));
    put(made, object, "Options", options);
    return object;
}

static json_t *bind_mount(struct made *made, const json_t *mount)
{
    json_t *object = json_object(), *options = json_array();
    push_text(made, options, "", flag_of(mount, "ReadOnly") ? "ro" : "rw");
    push_text(made, options, "", "rbind");
    push_text(made, options, "", "rprivate");
    put(made, object, "type", json_string("bind"));
    put_text(made, object, "source", text_of(mount, "Source"));
    put_text(made, object, "destination", text_of(mount, "Target"));
    put(made, object, "options", options);
    return object;
}

static void put_mounts(struct made *made, const json_t *host)
{
    json_t *mounts = json_array(), *volumes = json_array(), *mount, *value;
    const char *target;
    size_t i;
    json_array_foreach (json_object_get(host, "Mounts"), i, mount) {
        if (strcmp(text_of(mount, "Type"), "bind") == 0)
            push(made, mounts, bind_mount(made, mount));
        else
            push(made, volumes, volume(made, mount));
    }
    json_object_foreach (json_object_get(host, "Tmpfs"), target, value) {
        json_t *as_mount = json_pack("{s:s,s:{s:{s:{s:s,s:s,s:O}}}}", "Target", target, "VolumeOptions", "DriverConfig",
                                     "Options", "type", "tmpfs", "device", "tmpfs", "o", value);
        push(made, volumes, volume(made, as_mount));
        json_decref(as_mount);
    }
    put(made, made->object, "mounts", mounts);
    put(made, made->object, "volumes", volumes);
}

static void put_limits(struct made *made, const json_t *host)
{
    json_t *resources = json_object(), *memory = json_object(), *cpu = json_object(), *pids = json_object();
    if (json_object_get(host, "Memory") != NULL) {
        put(made, memory, "limit", json_incref(json_object_get(host, "Memory")));
        put(made, memory, "swap", json_incref(json_object_get(host, "MemorySwap")));
    }
    if (json_object_get(host, "MemorySwappiness") != NULL)
        put(made, memory, "swappiness", json_incref(json_object_get(host, "MemorySwappiness")));
    json_int_t nano = json_integer_value(json_object_get(host, "NanoCpus"));
    if (nano > 0) {
        put(made, cpu, "quota", json_integer(nano / (1000000000 / CPU_PERIOD_US)));
        put(made, cpu, "period", json_integer(CPU_PERIOD_US));
    }
    if (json_object_get(host, "PidsLimit") != NULL)
        put(made, pids, "limit", json_incref(json_object_get(host, "PidsLimit")));
    put(made, resources, "memory", memory);
    put(made, resources, "cpu", cpu);
    put(made, resources, "pids", pids);
    put(made, made->object, "resource_limits", resources);
    put(made, made->object, "oom_score_adj", json_incref(json_object_get(host, "OomScoreAdj")));
    json_t *limits = json_array(), *ulimit;
    size_t i;
    json_array_foreach (json_object_get(host, "Ulimits"), i, ulimit) {
        json_t *limit = json_object();
        char type[32] = ""; /* "NOFILE" */
        const char *name = text_of(ulimit, "Name");
        for (size_t at = 0; name[at] != '\0' && at < sizeof(type) - 1; at++)
            type[at] = (char)toupper((unsigned char)name[at]);
        put(made, limit, "type", json_string(type));
        put(made, limit, "soft", json_incref(json_object_get(ulimit, "Soft")));
        put(made, limit, "hard", json_incref(json_object_get(ulimit, "Hard")));
        push(made, limits, limit);
    }
    put(made, made->object, "r_limits", limits);
}

/* -1 for what Podman's API has no place for: a profile given as JSON needs a file on the engine's host there. */
static int put_security(struct made *made, const json_t *host, struct error *err)
{
    size_t i;
    json_t *option, *labels = json_array();
    json_array_foreach (json_object_get(host, "SecurityOpt"), i, option) {
        const char *text = json_string_value(option);
        if (strncmp(text, "no-new-privileges", 17) == 0) {
            put(made, made->object, "no_new_privileges", json_boolean(strstr(text, "false") == NULL));
        } else if (strncmp(text, "apparmor=", 9) == 0) {
            put(made, made->object, "apparmor_profile", json_string(text + 9));
        } else if (strncmp(text, "seccomp=", 8) == 0 && (text[8] == '/' || strcmp(text + 8, "unconfined") == 0)) {
            put(made, made->object, "seccomp_profile_path", json_string(text + 8));
        } else if (strncmp(text, "label=", 6) == 0) {
            push_text(made, labels, "", text + 6);
        } else {
            json_decref(labels);
            return error_set(
                err, ERROR_INVALID,
                "the security option \"%.60s\" cannot be given to Podman: no-new-privileges, apparmor=NAME, "
                "seccomp=unconfined, seccomp=/path/on/its/host and label=... can",
                text);
        }
    }
    put(made, made->object, "selinux_opts", labels);
    return 0;
}

static void put_network(struct made *made, const char *mode)
{
    static const char *const modes[] = {"none", "host", "bridge", "private"};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(mode, modes[i]) == 0) {
            put(made, made->object, "netns", json_pack("{s:s}", "nsmode", mode));
            return;
        }
    }
    put(made, made->object, "netns", json_pack("{s:s}", "nsmode", "bridge"));
    put(made, made->object, "Networks", json_pack("{s:{}}", mode));
}

json_t *podman_container(const json_t *docker, const char *name, struct error *err)
{
    struct made made = {.object = json_object()};
    const json_t *host = json_object_get(docker, "HostConfig");
    if (made.object == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory"), NULL;
    put_text(&made, made.object, "name", name);
    put_text(&made, made.object, "image", text_of(docker, "Image"));
    if (json_object_get(docker, "Entrypoint") != NULL)
        put(&made, made.object, "entrypoint", json_incref(json_object_get(docker, "Entrypoint")));
    put(&made, made.object, "command", json_array());
    put(&made, made.object, "env", env_object(&made, json_object_get(docker, "Env")));
    put(&made, made.object, "httpproxy", json_false()); /* else the engine's own proxy variables go into containers */
    put_text(&made, made.object, "user", text_of(docker, "User"));
    put_text(&made, made.object, "work_dir", text_of(docker, "WorkingDir"));
    put_text(&made, made.object, "hostname", text_of(docker, "Hostname"));
    put(&made, made.object, "labels", json_incref(json_object_get(docker, "Labels")));
    put(&made, made.object, "terminal", json_false());
    put(&made, made.object, "stdin", json_incref(json_object_get(docker, "OpenStdin")));
    put(&made, made.object, "healthconfig", json_incref(json_object_get(docker, "Healthcheck")));
    put(&made, made.object, "cap_drop", json_incref(json_object_get(host, "CapDrop")));
    put(&made, made.object, "read_only_filesystem", json_incref(json_object_get(host, "ReadonlyRootfs")));
    put(&made, made.object, "log_configuration", json_pack("{s:s}", "driver", "none"));
    put(&made, made.object, "stop_timeout", json_integer(0)); /* else a forced removal asks nicely for 10 s first */
    put(&made, made.object, "restart_policy", json_string("no"));
    put(&made, made.object, "systemd", json_string("false"));
    put(&made, made.object, "ipcns", json_pack("{s:s}", "nsmode", "private"));
    put_text(&made, made.object, "oci_runtime", text_of(host, "Runtime"));
    put_network(&made, text_of(host, "NetworkMode"));
    put_mounts(&made, host);
    put_limits(&made, host);
    if (put_security(&made, host, err) == 0 && !made.failed)
        return made.object;
    if (made.failed)
        error_set(err, ERROR_NOMEM, "out of memory");
    json_decref(made.object);
    return NULL;
}
