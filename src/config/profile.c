/* Profiles: the built-in agent types, copies, and the checks that need more than one key. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"
#include "config/reference.h"

static const struct {
    const char *agent_type, *memory, *cpus, *environment;
} built_in[] = {
    {"coder", "512m", "1.0", "CODER_MODE=true,ALLOW_CODE_EXECUTION=true"},
    {"tester", "256m", "0.5", "TESTER_MODE=true,TEST_FRAMEWORKS=jest;mocha;cypress"},
    {"reviewer", "128m", "0.25", "REVIEWER_MODE=true,ANALYSIS_TOOLS=eslint;prettier;sonar"},
    {"researcher", "256m", "0.5", "RESEARCHER_MODE=true,SEARCH_ENGINES=enabled"},
    {"planner", "128m", "0.25", "PLANNER_MODE=true"},
};

bool agent_type_valid(const char *name)
{
    size_t length = strlen(name);
    return length >= 1 && length <= AGENT_TYPE_MAX && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == length;
}

struct profile *profile_free(struct profile *profile)
{
    if (profile == NULL)
        return NULL;
    profile_release(profile);
    free(profile);
    return NULL;
}

void profile_release(struct profile *profile)
{
    for (size_t i = 0; i < option_count; i++)
        if (options[i].scope != SCOPE_GLOBAL)
            option_release(&options[i], profile);
    free(profile->agent_type);
    free(profile->origins);
    profile->agent_type = NULL;
    profile->origins = NULL;
}

int profile_copy(struct profile *to, const struct profile *from, const char *agent_type)
{
    memset(to, 0, sizeof *to);
    to->agent_type = strdup(agent_type);
    int result = to->agent_type == NULL ? -1 : 0;
    for (size_t i = 0; i < option_count && result == 0; i++)
        if (options[i].scope != SCOPE_GLOBAL)
            result = option_copy(&options[i], to, from);
    if (result < 0)
        profile_release(to);
    return result;
}

/* The seed's lists have commas in them; in the table above they are semicolons. */
static void restore_commas(char **environment)
{
    for (; *environment != NULL; environment++)
        for (char *c = *environment; *c != '\0'; c++)
            if (*c == ';')
                *c = ',';
}

int profile_built_in(struct profile *profile)
{
    const struct origin origin = {.key = "built in"};
    for (size_t i = 0; i < sizeof built_in / sizeof built_in[0]; i++) {
        if (strcmp(built_in[i].agent_type, profile->agent_type) != 0)
            continue;
        if (option_set_text(option_find("memory"), profile, built_in[i].memory, &origin, NULL) < 0 ||
            option_set_text(option_find("cpus"), profile, built_in[i].cpus, &origin, NULL) < 0 ||
            option_set_text(option_find("environment"), profile, built_in[i].environment, &origin, NULL) < 0)
            return -1;
        restore_commas(profile->environment);
        static const char *const keys[] = {"memory", "cpus", "environment"};
        for (size_t j = 0; j < sizeof keys / sizeof keys[0] && profile->origins != NULL; j++)
            profile->origins[option_find(keys[j]) - options].source = SOURCE_BUILT_IN;
        return 1;
    }
    return 0;
}

const char *profile_built_in_name(size_t index)
{
    return index < sizeof built_in / sizeof built_in[0] ? built_in[index].agent_type : NULL;
}

/* --- checks ------------------------------------------------------------------------------------------------- */

static bool unsafe_allowed(const struct config *config, const char *word)
{
    for (char **allowed = config->allow_unsafe; *allowed != NULL; allowed++)
        if (strcmp(*allowed, word) == 0)
            return true;
    return false;
}

static int refuse_unsafe(const struct check *check, const char *key, const char *what, const char *word)
{
    if (unsafe_allowed(check->config, word))
        return 0;
    return check_refuse(check, key, "%s weakens isolation; to allow it put %s into allowUnsafe", what, word);
}

static bool is_root_user(const char *user)
{
    return strcmp(user, "root") == 0 || strncmp(user, "root:", 5) == 0 || strcmp(user, "0") == 0 ||
           strncmp(user, "0:", 2) == 0 || user[0] == '\0';
}

static bool is_sensitive(const char *path)
{
    static const char *const roots[] = {"/etc",  "/proc", "/sys",     "/dev",           "/boot",
                                        "/root", "/run",  "/var/run", "/var/lib/docker"};
    if (strcmp(path, "/") == 0 || strstr(path, "docker.sock") != NULL || strstr(path, "containerd.sock") != NULL ||
        strstr(path, "podman.sock") != NULL)
        return true;
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        size_t length = strlen(roots[i]);
        if (strncmp(path, roots[i], length) == 0 && (path[length] == '\0' || path[length] == '/'))
            return true;
    }
    return false;
}

static int check_unsafe(const struct check *check)
{
    const struct profile *profile = check->profile;
    if (!profile->sandboxed)
        return check_refuse(
            check, "sandboxed",
            "sandboxed: false is not possible, a container is always isolated; what can be loosened has "
            "keys of its own (securityOpts, user, networkMode, noNewPrivileges, volumeMounts) and must be "
            "named in allowUnsafe");
    if ((strcmp(profile->network_mode, "host") == 0 || strncmp(profile->network_mode, "container:", 10) == 0) &&
        refuse_unsafe(check, "networkMode", "networkMode host or container:", "host-network") < 0)
        return -1;
    if (is_root_user(profile->user) && refuse_unsafe(check, "user", "running as root", "root-user") < 0)
        return -1;
    if (!profile->no_new_privileges &&
        refuse_unsafe(check, "noNewPrivileges", "noNewPrivileges false", "new-privileges") < 0)
        return -1;
    for (char **opt = profile->security_opts; *opt != NULL; opt++)
        if ((strstr(*opt, "unconfined") != NULL || strstr(*opt, "disable") != NULL) &&
            refuse_unsafe(check, "securityOpts", *opt, "unconfined") < 0)
            return -1;
    for (size_t i = 0; i < profile->mount_count; i++)
        if (is_sensitive(profile->mounts[i].source) &&
            refuse_unsafe(check, "volumeMounts", profile->mounts[i].source, "host-paths") < 0)
            return -1;
    return 0;
}

/* Sizes that were not given follow those that were. */
static int check_sizes(const struct check *check)
{
    struct profile *profile = check->profile;
    bool size = check_given(check, "poolSize"), min = check_given(check, "minPoolSize");
    bool max = check_given(check, "maxPoolSize");
    if (!max && profile->max_pool_size < profile->pool_size)
        profile->max_pool_size = profile->pool_size;
    if (!max && profile->max_pool_size < profile->min_pool_size)
        profile->max_pool_size = profile->min_pool_size;
    if (!min && profile->min_pool_size > profile->max_pool_size)
        profile->min_pool_size = profile->max_pool_size;
    if (!min && size && profile->min_pool_size > profile->pool_size)
        profile->min_pool_size = profile->pool_size;
    if (!size && profile->pool_size > profile->max_pool_size)
        profile->pool_size = profile->max_pool_size;
    if (!size && profile->pool_size < profile->min_pool_size)
        profile->pool_size = profile->min_pool_size;
    if (profile->min_pool_size > profile->max_pool_size)
        return check_refuse(check, "minPoolSize", "minPoolSize (%u) is above maxPoolSize (%u); allowed: 0 to that",
                            profile->min_pool_size, profile->max_pool_size);
    if (profile->pool_size > profile->max_pool_size || profile->pool_size < profile->min_pool_size)
        return check_refuse(check, "poolSize", "poolSize (%u) is not between minPoolSize (%u) and maxPoolSize (%u)",
                            profile->pool_size, profile->min_pool_size, profile->max_pool_size);
    if (profile->scale_down_threshold >= profile->scale_up_threshold)
        return check_refuse(check, "scaleDownThreshold", "scaleDownThreshold (%u) must be below scaleUpThreshold (%u)",
                            profile->scale_down_threshold, profile->scale_up_threshold);
    return 0;
}

static int add_tmpfs(struct profile *profile, const char *path, uint64_t size_bytes, struct error *err)
{
    struct config_tmpfs *list = realloc(profile->tmpfs, (profile->tmpfs_count + 1) * sizeof *list);
    if (list == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    profile->tmpfs = list;
    list[profile->tmpfs_count] = (struct config_tmpfs){.path = strdup(path), .size_bytes = size_bytes & ~4095ULL};
    return list[profile->tmpfs_count++].path == NULL ? error_set(err, ERROR_NOMEM, "out of memory") : 0;
}

static bool has_tmpfs(const struct profile *profile, const char *path)
{
    for (size_t i = 0; i < profile->tmpfs_count; i++)
        if (strcmp(profile->tmpfs[i].path, path) == 0)
            return true;
    return false;
}

/* Is something at this path already? */
static bool has_mount(const struct profile *profile, const char *path)
{
    for (size_t i = 0; i < profile->mount_count; i++)
        if (strcmp(profile->mounts[i].target, path) == 0)
            return true;
    return has_tmpfs(profile, path);
}

static uint64_t sum_tmpfs(const struct profile *profile)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < profile->tmpfs_count; i++)
        sum += profile->tmpfs[i].size_bytes;
    return sum;
}

/* By default all mounts together take less than half of the memory; under maxDiskSpace they share, in the same
 * proportion, what the given ones leave of it. */
static int complete_tmpfs(const struct check *check)
{
    struct profile *profile = check->profile;
    static const struct {
        const char *path;
        unsigned parts; /* sixteenths */
    } standard[] = {{"/tmp", 2}, {"/workspace", 4}, {"/dev/shm", 1}};
    uint64_t disk = profile->resources.max_disk_bytes, given = sum_tmpfs(profile), share = profile->memory_bytes / 16;
    unsigned parts = 0;
    for (size_t i = 0; i < sizeof standard / sizeof standard[0]; i++)
        parts += has_mount(profile, standard[i].path) ? 0 : standard[i].parts;
    if (disk != 0 && given + parts * 4096ULL > disk)
        return check_refuse(check, "tmpfsLimits",
                            "tmpfsLimits (%" PRIu64 " KiB together) leaves /tmp, /workspace and /dev/shm no room in "
                            "resourceLimits.maxDiskSpace (%" PRIu64 " KiB)",
                            given >> 10, disk >> 10);
    if (disk != 0 && parts != 0)
        share = (disk - given) / parts;
    for (size_t i = 0; i < sizeof standard / sizeof standard[0]; i++)
        if (!has_mount(profile, standard[i].path) &&
            add_tmpfs(profile, standard[i].path, share * standard[i].parts, check->err) < 0)
            return -1;
    return 0;
}

/* tmpfs counts against the memory limit. */
static int check_tmpfs(const struct check *check)
{
    struct profile *profile = check->profile;
    if (complete_tmpfs(check) < 0)
        return -1;
    uint64_t sum = sum_tmpfs(profile);
    if (profile->memory_bytes != 0 && sum > profile->memory_bytes)
        return check_refuse(check, "tmpfsLimits",
                            "tmpfsLimits: the mounts together (%llu MiB) exceed the memory limit (%llu MiB) that they "
                            "count against",
                            (unsigned long long)sum >> 20, (unsigned long long)profile->memory_bytes >> 20);
    return 0;
}

/* cpuQuota says the same as cpus: of two levels the nearer one counts, of one level they must agree. */
static int settle_cpus(const struct check *check)
{
    struct profile *profile = check->profile;
    bool cpus = check_own(check, "cpus"), quota = check_own(check, "cpuQuota");
    uint32_t milli = (profile->cpu_quota_us + 50) / 100;
    if (cpus && !quota)
        profile->cpu_quota_us = 0;
    if (profile->cpu_quota_us == 0)
        return 0;
    if (profile->cpu_quota_us < 1000)
        return check_refuse(check, "cpuQuota", "cpuQuota (%u) is below the kernel's least, 1000",
                            profile->cpu_quota_us);
    if (cpus && profile->cpu_milli != milli)
        return check_refuse(
            check, "cpuQuota", "cpus (%u.%03u) and cpuQuota (%u, which is %u.%03u cores) are both given; remove one",
            profile->cpu_milli / 1000, profile->cpu_milli % 1000, profile->cpu_quota_us, milli / 1000, milli % 1000);
    profile->cpu_milli = milli;
    return 0;
}

static int check_whitelist(const struct check *check)
{
    const struct profile *profile = check->profile;
    for (char **entry = profile->environment_whitelist; *entry != NULL; entry++) {
        size_t length = strcspn(*entry, "*=");
        if (length == strlen(*entry) ? length == 0 : strcmp(*entry + length, "*") != 0)
            return check_refuse(check, "environmentWhitelist",
                                "environmentWhitelist: \"%.64s\" is neither a variable's name nor the beginning of one "
                                "and a * at the end",
                                *entry);
    }
    return 0;
}

static bool is_within(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/')
        length--;
    return strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/* A place has one mount; and what is mounted inside of what each reset empties, and moves about while it does, would
 * not stay as and where it is. */
static int check_mounts(const struct check *check)
{
    static const char *const own[] = {"/.warmpool", "/dev", "/proc", "/sys", "/etc/passwd", "/etc/group"};
    const struct profile *profile = check->profile;
    for (size_t i = 0; i < profile->mount_count; i++) {
        const char *target = profile->mounts[i].target;
        for (size_t j = 0; j < sizeof own / sizeof own[0]; j++)
            if (is_within(target, own[j]))
                return check_refuse(check, "volumeMounts",
                                    "volumeMounts: %.160s is not free, a container needs %s itself", target, own[j]);
        for (size_t j = 0; j < i; j++)
            if (is_within(target, profile->mounts[j].target) && is_within(profile->mounts[j].target, target))
                return check_refuse(check, "volumeMounts", "volumeMounts: two mounts at %.160s", target);
        for (size_t j = 0; j < profile->tmpfs_count; j++)
            if (is_within(target, profile->tmpfs[j].path))
                return check_refuse(
                    check, "volumeMounts",
                    "volumeMounts: %.160s is within %.100s, which is emptied after each task; allowed: a "
                    "path outside of tmpfsLimits, or exactly /tmp or /workspace",
                    target, profile->tmpfs[j].path);
    }
    return 0;
}

static int check_memory(const struct check *check)
{
    const struct profile *profile = check->profile;
    uint64_t budget = check->config->memory_budget_bytes, host = check->config->host_memory_bytes;
    const char *key = profile->resources.max_memory_bytes != 0 ? "resourceLimits" : "memory";
    if (budget != 0 && profile->memory_bytes > budget)
        return check_refuse(check, key,
                            "memory (%" PRIu64 " MiB) is above memoryBudget (%" PRIu64 " MiB): no container would fit",
                            profile->memory_bytes >> 20, budget >> 20);
    if (host != 0 && profile->memory_bytes > host)
        return check_refuse(check, key,
                            "memory (%" PRIu64 " MiB) is more than this host has (%" PRIu64
                            " MiB); allowed: 6m to %" PRIu64 "m",
                            profile->memory_bytes >> 20, host >> 20, host >> 20);
    return 0;
}

static int check_references(const struct check *check)
{
    const struct profile *profile = check->profile;
    if (profile->network_mode[0] == '\0')
        return check_refuse(check, "networkMode", "networkMode must not be empty");
    if (profile->image[0] == '\0')
        return check_refuse(check, "dockerImage", "dockerImage must not be empty");
    struct error error = ERROR_INIT;
    if (reference_check(profile->image, &error) < 0)
        return check_refuse(check, "dockerImage", "dockerImage: %s", error.message);
    if (profile->docker_registry[0] != '\0' && registry_check(profile->docker_registry, &error) < 0)
        return check_refuse(check, "dockerRegistry", "dockerRegistry: \"%.80s\": %s", profile->docker_registry,
                            error.message);
    return 0;
}

int profile_check(const struct check *check)
{
    static int (*const checks[])(const struct check *check) = {
        check_references, settle_cpus, resources_settle, check_memory, check_whitelist,
        check_unsafe,     check_sizes, check_tmpfs,      check_mounts,
    };
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
        if (checks[i](check) < 0 && (check->forgive == NULL || check->forgive(check->user) < 0))
            return -1;
    return 0;
}
