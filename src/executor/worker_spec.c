/* From a profile to what the engine is asked for: the hardening that every container gets. */
#include <string.h>

#include "executor/internal.h"
#include "wire/weaken.h"

#define INODE_BYTES     4096U /* of a tmpfs: one inode per this many bytes ... */
#define INODES_MIN      1024U /* ... but never fewer */
#define FIXED_ARGUMENTS 7U    /* at most */

struct spec_parts { /* what a container_spec points at */
    const char *entrypoint[FIXED_ARGUMENTS + RECEIPT_MOUNTS_MAX + 1];
    struct engine_tmpfs tmpfs[RECEIPT_MOUNTS_MAX];
    struct engine_bind binds[3 + 32];
    struct engine_ulimit ulimits[16 + 1];
    struct engine_label labels[3];
    struct engine_volume volume;
    const char *env[256];
    char own_env[9][160];
    char user[32], slot[16], orphan[24];
    char directory[4096], passwd[4096 + 16], group[4096 + 16];
};

static uint64_t inodes_for(uint64_t size_bytes)
{
    uint64_t inodes = size_bytes / INODE_BYTES;
    return inodes < INODES_MIN ? INODES_MIN : inodes;
}

bool worker_has_own_user(const struct profile *profile)
{
    return strcmp(profile->user, "swarm:swarm") == 0 || strcmp(profile->user, "swarm") == 0;
}

static void spec_environment(struct spec_parts *parts, const struct worker *worker, const struct profile *profile)
{
    size_t count = 0;
    const size_t own = worker->attached ? 9 : 8;
    snprintf(parts->own_env[0], sizeof parts->own_env[0], "AGENT_TYPE=%s", profile->agent_type);
    snprintf(parts->own_env[1], sizeof parts->own_env[1], "CONTAINER_ID=%s", worker->name);
    snprintf(parts->own_env[2], sizeof parts->own_env[2], "POOL_MODE=true");
    snprintf(parts->own_env[3], sizeof parts->own_env[3], "NODE_ENV=production");
    snprintf(parts->own_env[4], sizeof parts->own_env[4], "HOME=/workspace");
    snprintf(parts->own_env[5], sizeof parts->own_env[5], "USER=swarm");
    snprintf(parts->own_env[6], sizeof parts->own_env[6], "LOGNAME=swarm");
    snprintf(parts->own_env[7], sizeof parts->own_env[7], "TMPDIR=/tmp");
    if (worker->attached) {
        char *text = parts->own_env[8];
        text += snprintf(text, sizeof parts->own_env[8], SYNC_TOKEN_VARIABLE "=");
        for (size_t i = 0; i < SYNC_TOKEN_BYTES; i++)
            text += snprintf(text, 3, "%02x", worker->token[i]);
    }
    for (size_t i = 0; i < own; i++)
        parts->env[count++] = parts->own_env[i];
    /* The profile's come last: they win. */
    for (size_t i = 0; profile->environment[i] != NULL && count < sizeof parts->env / sizeof parts->env[0] - 1; i++)
        parts->env[count++] = profile->environment[i];
    parts->env[count] = NULL;
}

static bool profile_mounts(const struct profile *profile, const char *path)
{
    for (size_t i = 0; i < profile->tmpfs_count; i++)
        if (strcmp(profile->tmpfs[i].path, path) == 0)
            return true;
    for (size_t i = 0; i < profile->mount_count; i++)
        if (strcmp(profile->mounts[i].target, path) == 0)
            return true;
    return false;
}

/* The image's VOLUMEs share a sixteenth of the memory, or of resourceLimits.maxDiskSpace beside it; tmpfsLimits can
 * give them more. */
static size_t spec_image_volumes(struct spec_parts *parts, struct container_spec *spec, const struct profile *profile,
                                 const struct image *image, size_t arguments)
{
    for (size_t i = 0; i < image->volume_count && spec->tmpfs_count < RECEIPT_MOUNTS_MAX - 2; i++) {
        if (profile_mounts(profile, image->volumes[i]))
            continue;
        uint64_t all =
            profile->resources.max_disk_bytes != 0 ? profile->resources.max_disk_bytes : profile->memory_bytes;
        uint64_t size = (all / 16 / image->volume_count + 4095) & ~4095ULL; /* never 0, which were no limit */
        parts->tmpfs[spec->tmpfs_count++] = (struct engine_tmpfs){
            .target = image->volumes[i], .size_bytes = size, .inodes = inodes_for(size), .exec = true};
        parts->entrypoint[arguments++] = image->volumes[i];
    }
    return arguments;
}

/* Writable mounts: volumes of tmpfs, /dev/shm; the runner is told which to empty, /dev/mqueue with them. There is room:
 * tmpfsLimits and the image's VOLUMEs are bounded to less than RECEIPT_MOUNTS_MAX together. */
static void spec_mounts(struct spec_parts *parts, struct container_spec *spec, const struct profile *profile,
                        const struct image *image, size_t arguments)
{
    const char *shm = NULL;
    for (size_t i = 0; i < profile->tmpfs_count && spec->tmpfs_count < RECEIPT_MOUNTS_MAX - 2; i++) {
        const struct config_tmpfs *tmpfs = &profile->tmpfs[i];
        if (strcmp(tmpfs->path, "/dev/shm") == 0) {
            spec->shm_bytes = tmpfs->size_bytes;
            spec->shm_inodes = inodes_for(tmpfs->size_bytes);
            shm = tmpfs->path;
            continue;
        }
        parts->tmpfs[spec->tmpfs_count++] = (struct engine_tmpfs){.target = tmpfs->path,
                                                                  .size_bytes = tmpfs->size_bytes,
                                                                  .inodes = inodes_for(tmpfs->size_bytes),
                                                                  .exec = strcmp(tmpfs->path, "/tmp") != 0};
        parts->entrypoint[arguments++] = tmpfs->path;
    }
    arguments = spec_image_volumes(parts, spec, profile, image, arguments);
    if (shm == NULL) { /* never the engine's default of 64 MiB without an inode limit */
        spec->shm_bytes = profile->memory_bytes / 16;
        spec->shm_inodes = INODES_MIN;
    }
    parts->entrypoint[arguments++] = "/dev/shm";
    parts->entrypoint[arguments++] = "/dev/mqueue";
    parts->entrypoint[arguments] = NULL;
}

/* The container's directory on this host: the runner, its socket, passwd and group. */
static void spec_directory(struct spec_parts *parts, struct container_spec *spec, const struct worker *worker,
                           const struct profile *profile)
{
    snprintf(parts->directory, sizeof parts->directory, "%s/containers/%s", worker->owner->executor->state.path,
             worker->name);
    parts->binds[spec->bind_count++] = (struct engine_bind){.source = parts->directory, .target = RUNNER_DIRECTORY};
    if (!worker_has_own_user(profile))
        return;
    snprintf(parts->passwd, sizeof parts->passwd, "%s/passwd", parts->directory);
    snprintf(parts->group, sizeof parts->group, "%s/group", parts->directory);
    parts->binds[spec->bind_count++] = (struct engine_bind){.source = parts->passwd, .target = "/etc/passwd"};
    parts->binds[spec->bind_count++] = (struct engine_bind){.source = parts->group, .target = "/etc/group"};
}

static void spec_binds(struct spec_parts *parts, struct container_spec *spec, const struct worker *worker,
                       const struct profile *profile)
{
    if (worker->attached) {
        parts->volume =
            (struct engine_volume){.name = worker->owner->executor->volume.name, .target = RUNNER_DIRECTORY};
        spec->volumes = &parts->volume;
        spec->volume_count = 1;
    } else {
        spec_directory(parts, spec, worker, profile);
    }
    for (size_t i = 0; i < profile->mount_count && spec->bind_count < sizeof parts->binds / sizeof parts->binds[0]; i++)
        parts->binds[spec->bind_count++] = (struct engine_bind){.source = profile->mounts[i].source,
                                                                .target = profile->mounts[i].target,
                                                                .writable = profile->mounts[i].writable};
}

void worker_create(struct worker *worker, engine_id_fn *done)
{
    struct executor *executor = worker->owner->executor;
    const struct profile *profile = worker->owner->profile;
    struct spec_parts parts;
    memset(&parts, 0, sizeof parts);
    struct container_spec spec = {
        .name = worker->name,
        .image = worker->owner->image->id,
        .workdir = "/workspace",
        .memory_bytes = profile->memory_bytes,
        .cpu_milli = profile->cpu_milli,
        .pids_limit = profile->pids_limit,
        .oom_score_adj = profile->oom_score_adj,
        .memory_swappiness = profile->memory_swappiness,
        .security_opt = (const char *const *)profile->security_opts,
        .read_only_root = profile->read_only_root,
        .no_new_privileges = profile->no_new_privileges,
        .hostname = profile->agent_type,
        .open_stdin = worker->attached,
        .runtime = profile->runtime[0] != '\0' ? profile->runtime : NULL,
    };
    snprintf(parts.user, sizeof parts.user, "%u:%u", worker->slot->uid, worker->slot->uid);
    spec.user = worker_has_own_user(profile) ? parts.user : profile->user;
    if (worker->slot->network_id[0] != '\0')
        spec.network = worker->slot->network_id;
    else
        spec.network = profile->network_mode;

    snprintf(parts.orphan, sizeof parts.orphan, "%llu", (unsigned long long)executor->config->orphan_timeout_ms);
    parts.entrypoint[0] = RUNNER_DIRECTORY "/runner";
    if (worker->attached && worker->owner->gvisor)
        parts.entrypoint[0] = RUNNER_DIRECTORY "/" RUNNER_READABLE;
    size_t arguments = 1;
    if (worker->attached) {
        parts.entrypoint[arguments++] = "--attach";
    } else {
        parts.entrypoint[arguments++] = "--socket";
        parts.entrypoint[arguments++] = RUNNER_DIRECTORY "/sock";
    }
    parts.entrypoint[arguments++] = "--orphan-timeout";
    parts.entrypoint[arguments++] = parts.orphan;
#ifdef WARMPOOL_WEAKEN
    parts.entrypoint[arguments++] = "--weaken";
    parts.entrypoint[arguments++] = weaken_list(profile->agent_type);
#endif
    spec_mounts(&parts, &spec, profile, worker->owner->image, arguments);
    spec_binds(&parts, &spec, worker, profile);
    spec_environment(&parts, worker, profile);
    spec.entrypoint = parts.entrypoint;
    spec.tmpfs = parts.tmpfs;
    spec.binds = parts.binds;
    spec.env = parts.env;

    bool core = false;
    for (size_t i = 0;
         i < profile->ulimit_count && spec.ulimit_count < sizeof parts.ulimits / sizeof parts.ulimits[0] - 1; i++) {
        parts.ulimits[spec.ulimit_count++] = (struct engine_ulimit){
            .name = profile->ulimits[i].name, .soft = profile->ulimits[i].soft, .hard = profile->ulimits[i].hard};
        core |= strcmp(profile->ulimits[i].name, "core") == 0;
    }
    if (!core) /* what a task had in memory, secrets among it, ends up in no file unasked */
        parts.ulimits[spec.ulimit_count++] = (struct engine_ulimit){.name = "core"};
    spec.ulimits = parts.ulimits;

    snprintf(parts.slot, sizeof parts.slot, "%u", worker->slot->index);
    parts.labels[spec.label_count++] = (struct engine_label){LABEL_INSTANCE, executor->state.instance};
    parts.labels[spec.label_count++] = (struct engine_label){LABEL_TYPE, profile->agent_type};
    parts.labels[spec.label_count++] = (struct engine_label){LABEL_SLOT, parts.slot};
    spec.labels = parts.labels;

    worker->asked = true;
    engine_container_create(executor->engine, &spec, done, worker);
}
