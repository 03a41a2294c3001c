/* What a configuration weakens, in words: allowed, but nobody should have it without knowing. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "config/config.h"

#define TEXT_MAX_BYTES 512
#define PIDS_PLENTY    4096

struct warner {
    void (*warn)(void *user, const char *text);
    void *user;
    const char *of;       /* the agent type */
    bool common;          /* of the top level: what it says is said once, not for each type that has it too */
    struct buffer *known; /* what the top level has said, each between newlines */
};

static void say(struct warner *warner, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct warner *warner, const char *format, ...)
{
    char text[TEXT_MAX_BYTES], line[TEXT_MAX_BYTES + 64];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(line, sizeof line, "\n%s\n", text);
    const char *known = buffer_text(warner->known);
    if (!warner->common && known != NULL && strstr(known, line) != NULL)
        return;
    if (warner->common)
        buffer_append_string(warner->known, line);
    snprintf(line, sizeof line, "%s: %s", warner->of, text);
    warner->warn(warner->user, line);
}

static void warn_of_root(struct warner *warner, const struct profile *profile)
{
    if (!profile->read_only_root)
        say(warner, "readOnlyRootFs is false: what a task changes in the image's files could not be found and removed, "
                    "so each container serves one task and is replaced; enableContainerReuse has no effect");
    if (strcmp(profile->user, "swarm:swarm") != 0 && strcmp(profile->user, "swarm") != 0)
        say(warner,
            "user is %.64s: containers do not have a uid each, so a process that came out of one could meddle with "
            "another's and share its limits",
            profile->user);
    if (!profile->no_new_privileges)
        say(warner,
            "noNewPrivileges is false: that setuid programs give a task no rights is then up to the runner alone");
    for (size_t i = 0; i < profile->mount_count; i++)
        if (profile->mounts[i].writable)
            say(warner,
                "volumeMounts: %.160s is writable at %.100s: what a task leaves there outlives it, and the next tasks "
                "and "
                "this host meet it; nothing cleans it up",
                profile->mounts[i].source, profile->mounts[i].target);
}

static void warn_of_security(struct warner *warner, const struct profile *profile)
{
    for (char **option = profile->security_opts; *option != NULL; option++) {
        if (strstr(*option, "unconfined") != NULL || strstr(*option, "disable") != NULL)
            say(warner, "securityOpts: %.64s: a protection of the engine's is off, the kernel is open to tasks",
                *option);
        else if (strncmp(*option, "seccomp", 7) == 0)
            say(warner, "securityOpts: seccomp: this profile replaces the engine's own; what it does not forbid is "
                        "allowed");
    }
}

static void warn_of_network(struct warner *warner, const struct profile *profile)
{
    static const char *const own[] = {"isolated", "bridge", "internal", "none"};
    const char *mode = profile->network_mode;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (strcmp(mode, own[i]) == 0)
            return;
    if (strcmp(mode, "host") == 0 || strncmp(mode, "container:", 10) == 0)
        say(warner, "networkMode is %.100s: tasks have that network as their own, with all that listens on it", mode);
    else
        say(warner,
            "networkMode is %.100s: all containers of that network, of this pool and others, can reach each other",
            mode);
}

static void warn_of_limits(struct warner *warner, const struct profile *profile)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < profile->tmpfs_count; i++)
        sum += profile->tmpfs[i].size_bytes;
    if (profile->cpu_milli == 0)
        say(warner, "cpus is 0: one task may take all CPU time of the machine from the others");
    if (profile->pids_limit > PIDS_PLENTY)
        say(warner,
            "pids is %" PRId64 ": above %d a fork bomb in one container may use up the process numbers of the host",
            profile->pids_limit, PIDS_PLENTY);
    if (profile->oom_score_adj < 0)
        say(warner,
            "oomScoreAdj is %d: when the host is short of memory the kernel rather kills other processes than the "
            "runner",
            profile->oom_score_adj);
    if (sum > profile->memory_bytes / 2)
        say(warner,
            "tmpfsLimits: the mounts together (%" PRIu64 " MiB) are more than half of memory (%" PRIu64
            " MiB): files can push a task into an OOM kill where it would have seen a full disk",
            sum >> 20, profile->memory_bytes >> 20);
}

static void warn_of_profile(struct warner *warner, const struct profile *profile)
{
    warn_of_root(warner, profile);
    warn_of_security(warner, profile);
    warn_of_network(warner, profile);
    warn_of_limits(warner, profile);
}

static void warn_of_words(struct warner *warner, char **words)
{
    static const struct {
        const char *word, *consequence;
    } known[] = {
        {"host-network", "networkMode may be host or another container's"},
        {"no-cleanup", "cleanupBetweenTasks may be false, and one task then meets what another left"},
        {"unconfined", "securityOpts may switch seccomp, AppArmor or SELinux off"},
        {"root-user", "user may be root, so a way out of a container ends as root of the host"},
        {"new-privileges", "noNewPrivileges may be false"},
        {"host-paths", "volumeMounts may have paths that give power over the host"},
    };
    for (; *words != NULL; words++)
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (strcmp(*words, known[i].word) == 0)
                say(warner, "allowUnsafe has %s: %s", known[i].word, known[i].consequence);
}

/* What is warm from the start, all of it in use. */
static void warn_of_host(struct warner *warner, const struct config *config)
{
    uint64_t bytes = 0, containers = 0;
    for (char **type = config->warmup_agent_types; *type != NULL; type++) {
        const struct profile *profile = config_profile_of(config, *type);
        bytes += profile->memory_bytes * profile->pool_size;
        containers += profile->pool_size;
    }
    if (config->host_memory_bytes != 0 && bytes > config->host_memory_bytes)
        say(warner,
            "memory: the %" PRIu64 " containers that are warm from the start may take %" PRIu64
            " MiB together, this host has %" PRIu64
            " MiB; lower poolSize or memory, shorten warmupAgentTypes, or set memoryBudget",
            containers, bytes >> 20, config->host_memory_bytes >> 20);
    if (containers > config->max_total_containers)
        say(warner,
            "maxTotalContainers (%u) is below the %" PRIu64 " containers that poolSize and warmupAgentTypes ask for",
            config->max_total_containers, containers);
}

void config_warnings(const struct config *config, void (*warn)(void *user, const char *text), void *user)
{
    struct buffer known = {0};
    struct warner warner = {.warn = warn, .user = user, .of = "every agent type", .common = true, .known = &known};
    warn_of_words(&warner, config->allow_unsafe);
    if (!config->cleanup_between_tasks)
        say(&warner, "cleanupBetweenTasks is false: files, processes and memory of one task are there for the next");
    warner.of = "all agent types together";
    warn_of_host(&warner, config);
    warner.of = "every agent type without a setting of its own";
    warn_of_profile(&warner, &config->defaults);
    warner.common = false;
    for (size_t i = 0; i < config->profile_count; i++) {
        warner.of = config->profiles[i].agent_type;
        warn_of_profile(&warner, &config->profiles[i]);
    }
    buffer_free(&known);
}
