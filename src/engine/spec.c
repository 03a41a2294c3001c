/* Building never stops half-way: a value that could not be made is NULL, which jansson refuses to store, and `made`
 * remembers that. Texts are the only values that fail for another reason than memory. */
#include "engine/spec.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct made {
    bool nomem;
    const char *bad_text; /* a key whose text is not UTF-8 */
};

static void put(struct made *made, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        made->nomem = true;
}

static json_t *text(struct made *made, const char *key, const char *value)
{
    json_t *string = json_string(value);
    if (string == NULL)
        made->bad_text = key;
    return string;
}

static void put_text(struct made *made, json_t *object, const char *key, const char *value)
{
    if (value != NULL)
        put(made, object, key, text(made, key, value));
}

static void push(struct made *made, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        made->nomem = true;
}

static json_t *text_array(struct made *made, const char *key, const char *const *texts)
{
    json_t *array = json_array();
    for (; texts != NULL && *texts != NULL; texts++)
        push(made, array, text(made, key, *texts));
    return array;
}

static json_t *label_object(struct made *made, const struct engine_label *labels, size_t count)
{
    json_t *object = json_object();
    for (size_t i = 0; i < count; i++) {
        if (json_object_set_new(object, labels[i].key, text(made, "label", labels[i].value)) != 0)
            made->bad_text = "label";
    }
    return object;
}

static json_t *made_result(const struct made *made, json_t *object, struct error *err)
{
    if (object != NULL && made->bad_text == NULL && !made->nomem)
        return object;
    json_decref(object);
    if (made->bad_text != NULL)
        error_set(err, ERROR_INVALID, "%s holds a text that is not UTF-8", made->bad_text);
    else
        error_set(err, ERROR_NOMEM, "out of memory");
    return NULL;
}

/* A volume of the container's own. The options are mount's; `o` must not be taken over from the image's directory,
 * hence NoCopy. */
static json_t *tmpfs_mount(struct made *made, const struct container_spec *spec, const struct engine_tmpfs *tmpfs)
{
    char o[160];
    snprintf(o, sizeof(o), "size=%" PRIu64 ",nr_inodes=%" PRIu64 ",mode=1777,nosuid,nodev%s", tmpfs->size_bytes,
             tmpfs->inodes, tmpfs->exec ? "" : ",noexec");
    json_t *options = json_object();
    put_text(made, options, "type", "tmpfs");
    put_text(made, options, "device", "tmpfs");
    put_text(made, options, "o", o);
    json_t *driver = json_object();
    put_text(made, driver, "Name", "local");
    put(made, driver, "Options", options);
    json_t *volume = json_object();
    put(made, volume, "NoCopy", json_true());
    put(made, volume, "Labels", label_object(made, spec->labels, spec->label_count));
    put(made, volume, "DriverConfig", driver);
    json_t *mount = json_object();
    put_text(made, mount, "Type", "volume");
    put_text(made, mount, "Target", tmpfs->target);
    put(made, mount, "VolumeOptions", volume);
    return mount;
}

static json_t *bind_mount(struct made *made, const struct engine_bind *bind)
{
    json_t *mount = json_object();
    put_text(made, mount, "Type", "bind");
    put_text(made, mount, "Source", bind->source);
    put_text(made, mount, "Target", bind->target);
    put(made, mount, "ReadOnly", json_boolean(!bind->writable));
    return mount;
}

static json_t *volume_mount(struct made *made, const struct engine_volume *from)
{
    json_t *options = json_object();
    put(made, options, "NoCopy", json_true());
    json_t *mount = json_object();
    put_text(made, mount, "Type", "volume");
    put_text(made, mount, "Source", from->name);
    put_text(made, mount, "Target", from->target);
    put(made, mount, "ReadOnly", json_boolean(!from->writable));
    put(made, mount, "VolumeOptions", options);
    return mount;
}

static json_t *mount_array(struct made *made, const struct container_spec *spec)
{
    json_t *mounts = json_array();
    for (size_t i = 0; i < spec->tmpfs_count; i++)
        push(made, mounts, tmpfs_mount(made, spec, &spec->tmpfs[i]));
    for (size_t i = 0; i < spec->bind_count; i++)
        push(made, mounts, bind_mount(made, &spec->binds[i]));
    for (size_t i = 0; i < spec->volume_count; i++)
        push(made, mounts, volume_mount(made, &spec->volumes[i]));
    return mounts;
}

static json_t *security_array(struct made *made, const struct container_spec *spec)
{
    json_t *array = text_array(made, "security_opt", spec->security_opt);
    if (spec->no_new_privileges)
        push(made, array, text(made, "security_opt", "no-new-privileges"));
    return array;
}

static json_t *ulimit_array(struct made *made, const struct container_spec *spec)
{
    json_t *array = json_array();
    for (size_t i = 0; i < spec->ulimit_count; i++) {
        json_t *ulimit = json_object();
        put_text(made, ulimit, "Name", spec->ulimits[i].name);
        put(made, ulimit, "Soft", json_integer(spec->ulimits[i].soft));
        put(made, ulimit, "Hard", json_integer(spec->ulimits[i].hard));
        push(made, array, ulimit);
    }
    return array;
}

static void put_limits(struct made *made, json_t *host, const struct container_spec *spec)
{
    if (spec->memory_bytes > 0) {
        put(made, host, "Memory", json_integer((json_int_t)spec->memory_bytes));
        put(made, host, "MemorySwap", json_integer((json_int_t)spec->memory_bytes));
    }
    if (spec->memory_swappiness >= 0)
        put(made, host, "MemorySwappiness", json_integer(spec->memory_swappiness));
    if (spec->cpu_milli > 0)
        put(made, host, "NanoCpus", json_integer((json_int_t)spec->cpu_milli * 1000000));
    if (spec->pids_limit > 0)
        put(made, host, "PidsLimit", json_integer(spec->pids_limit));
    put(made, host, "OomScoreAdj", json_integer(spec->oom_score_adj));
    put(made, host, "Ulimits", ulimit_array(made, spec));
    if (spec->shm_bytes > 0) {
        char o[160];
        snprintf(o, sizeof(o), "size=%" PRIu64 ",nr_inodes=%" PRIu64 ",mode=1777,noexec,nosuid,nodev", spec->shm_bytes,
                 spec->shm_inodes);
        json_t *tmpfs = json_object();
        put_text(made, tmpfs, "/dev/shm", o);
        put(made, host, "Tmpfs", tmpfs);
    }
}

static json_t *host_config(struct made *made, const struct container_spec *spec)
{
    static const char *const all[] = {"ALL", NULL};
    json_t *log = json_object();
    put_text(made, log, "Type", "none");
    json_t *restart = json_object();
    put_text(made, restart, "Name", "no");
    json_t *host = json_object();
    put(made, host, "CapDrop", text_array(made, "CapDrop", all));
    put(made, host, "Privileged", json_false());
    put(made, host, "SecurityOpt", security_array(made, spec));
    put(made, host, "ReadonlyRootfs", json_boolean(spec->read_only_root));
    put(made, host, "LogConfig", log);
    put(made, host, "RestartPolicy", restart);
    put(made, host, "AutoRemove", json_false());
    put(made, host, "Init", json_false());
    put_text(made, host, "IpcMode", "private");
    put_text(made, host, "NetworkMode", spec->network != NULL ? spec->network : "none");
    put_text(made, host, "Runtime", spec->runtime);
    put(made, host, "Mounts", mount_array(made, spec));
    put_limits(made, host, spec);
    return host;
}

static int spec_check(const struct container_spec *spec, struct error *err)
{
    if (spec->image == NULL || spec->image[0] == '\0')
        return error_set(err, ERROR_INVALID, "no image given");
    if (spec->memory_bytes > INT64_MAX || spec->pids_limit < 0)
        return error_set(err, ERROR_INVALID, "a limit is out of range");
    for (size_t i = 0; i < spec->tmpfs_count; i++) {
        if (spec->tmpfs[i].target == NULL || spec->tmpfs[i].target[0] != '/')
            return error_set(err, ERROR_INVALID, "a tmpfs needs an absolute target");
    }
    for (size_t i = 0; i < spec->bind_count; i++) {
        const struct engine_bind *bind = &spec->binds[i];
        if (bind->source == NULL || bind->source[0] != '/' || bind->target == NULL || bind->target[0] != '/')
            return error_set(err, ERROR_INVALID, "a bind mount needs an absolute source and target");
    }
    return 0;
}

json_t *spec_container(const struct container_spec *spec, struct error *err)
{
    static const char *const no_health_check[] = {"NONE", NULL};
    if (spec_check(spec, err) < 0)
        return NULL;
    struct made made = {0};
    json_t *health = json_object();
    put(&made, health, "Test", text_array(&made, "Healthcheck", no_health_check));
    json_t *object = json_object();
    put_text(&made, object, "Image", spec->image);
    if (spec->entrypoint != NULL)
        put(&made, object, "Entrypoint", text_array(&made, "entrypoint", spec->entrypoint));
    put(&made, object, "Cmd", json_array());
    put(&made, object, "Env", text_array(&made, "env", spec->env));
    put_text(&made, object, "User", spec->user);
    put_text(&made, object, "WorkingDir", spec->workdir);
    put_text(&made, object, "Hostname", spec->hostname);
    put(&made, object, "Labels", label_object(&made, spec->labels, spec->label_count));
    put(&made, object, "Tty", json_false());
    put(&made, object, "OpenStdin", json_boolean(spec->open_stdin));
    put(&made, object, "StdinOnce", json_false());
    put_text(&made, object, "StopSignal", "SIGTERM");
    /* The image's own check would run a process in the container behind the runner's back. */
    put(&made, object, "Healthcheck", health);
    put(&made, object, "HostConfig", host_config(&made, spec));
    return made_result(&made, object, err);
}

void spec_drop_swappiness(json_t *container)
{
    json_object_del(json_object_get(container, "HostConfig"), "MemorySwappiness");
}

json_t *spec_network(const struct network_spec *spec, struct error *err)
{
    struct made made = {0};
    json_t *object = json_object();
    put_text(&made, object, "Name", spec->name);
    put(&made, object, "CheckDuplicate", json_true());
    put_text(&made, object, "Driver", "bridge");
    put(&made, object, "Internal", json_boolean(spec->internal));
    put(&made, object, "Attachable", json_false());
    put(&made, object, "EnableIPv6", json_false());
    if (spec->subnet != NULL) {
        json_t *range = json_object();
        put_text(&made, range, "Subnet", spec->subnet);
        json_t *ranges = json_array();
        push(&made, ranges, range);
        json_t *ipam = json_object();
        put_text(&made, ipam, "Driver", "default");
        put(&made, ipam, "Config", ranges);
        put(&made, object, "IPAM", ipam);
    }
    json_t *options = json_object();
    if (spec->internal)
        put_text(&made, options, "com.docker.network.bridge.inhibit_ipv4", "true");
    put(&made, object, "Options", options);
    put(&made, object, "Labels", label_object(&made, spec->labels, spec->label_count));
    return made_result(&made, object, err);
}

json_t *spec_volume(const char *name, const struct engine_label *labels, size_t count, struct error *err)
{
    struct made made = {0};
    json_t *object = json_object();
    put_text(&made, object, "Name", name);
    put_text(&made, object, "Driver", "local");
    put(&made, object, "Labels", label_object(&made, labels, count));
    return made_result(&made, object, err);
}
