/* resourceLimits: the limits of a container and its tasks under the names that they had once. Most are another key in
 * other words; of two levels the nearer one counts, of one level both must say the same. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"

static const char *const priorities[] = {"critical", "high", "normal", "low", "background"};

int parse_priority(const char *text, uint32_t *priority)
{
    for (uint32_t i = 0; i < sizeof priorities / sizeof priorities[0]; i++)
        if (strcmp(text, priorities[i]) == 0) {
            *priority = i;
            return 0;
        }
    return -1;
}

static int parse_handles(const char *text, uint32_t *handles)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < 16 || value > 1048576)
        return -1;
    *handles = (uint32_t)value;
    return 0;
}

static int parse_size_between(const char *text, uint64_t *bytes, uint64_t low, uint64_t high)
{
    return parse_size_bytes(text, bytes) < 0 || *bytes < low || *bytes > high ? -1 : 0;
}

/* NULL, or what is allowed. */
static const char *set_member(struct config_resources *resources, const char *key, const char *text)
{
    if (strcmp(key, "maxMemory") == 0)
        return parse_size_between(text, &resources->max_memory_bytes, 6U << 20, 1ULL << 40) == 0
                   ? NULL
                   : "a size, 6m to 1024g; it is the key memory in other words";
    if (strcmp(key, "maxDiskSpace") == 0)
        return parse_size_between(text, &resources->max_disk_bytes, 65536, 1ULL << 40) == 0
                   ? NULL
                   : "a size, 64k to 1024g: of all writable mounts together";
    if (strcmp(key, "maxFileHandles") == 0)
        return parse_handles(text, &resources->max_file_handles) == 0 ? NULL : "16 to 1048576; it is nofile of ulimits";
    if (strcmp(key, "maxCpuTime") == 0)
        return parse_duration_ms(text, &resources->max_cpu_ms) == 0 && resources->max_cpu_ms <= 604800000
                   ? NULL
                   : "a time, as 500ms, 30s, 5m, 1h or a number of milliseconds, up to 7d; 0: none";
    if (strcmp(key, "priority") == 0)
        return parse_priority(text, &resources->priority) == 0 ? NULL : "critical, high, normal, low or background";
    if (strcmp(key, "maxNetworkConnections") == 0)
        return "nothing, for the kernel has no such limit and would not honour it; remove it, and set networkMode to "
               "none or internal to keep tasks from the network";
    return "maxMemory, maxFileHandles, maxDiskSpace, maxCpuTime and priority";
}

int resources_set(struct config_resources *resources, const struct tree *value, const struct origin *origin,
                  struct error *err)
{
    *resources = (struct config_resources){.priority = 2};
    for (const struct tree *item = value->first; item != NULL; item = item->next) {
        bool scalar = item->kind == TREE_SCALAR;
        const char *allowed = set_member(resources, item->key, scalar ? item->text : "");
        if (allowed == NULL)
            continue;
        char where[256] = "";
        if (origin->name != NULL)
            snprintf(where, sizeof where, "%.200s:%d: ", origin->name, item->line);
        return error_set(err, ERROR_INVALID, "%s%s.%.64s: \"%.80s\" is not allowed; allowed: %s", where, origin->key,
                         item->key, scalar ? item->text : "...", allowed);
    }
    return 0;
}

void resources_print(const struct config_resources *resources, struct buffer *out)
{
    buffer_append_string(out, "{");
    if (resources->max_memory_bytes != 0)
        buffer_printf(out, "maxMemory: %" PRIu64 ", ", resources->max_memory_bytes);
    if (resources->max_file_handles != 0)
        buffer_printf(out, "maxFileHandles: %u, ", resources->max_file_handles);
    if (resources->max_disk_bytes != 0)
        buffer_printf(out, "maxDiskSpace: %" PRIu64 ", ", resources->max_disk_bytes);
    if (resources->max_cpu_ms != 0)
        buffer_printf(out, "maxCpuTime: %" PRIu64 "ms, ", resources->max_cpu_ms);
    buffer_printf(out, "priority: %s}", priorities[resources->priority]);
}

/* --- into the profile -------------------------------------------------------------------------------------------- */

static int settle_memory(const struct check *check)
{
    struct profile *profile = check->profile;
    uint64_t *limit = &profile->resources.max_memory_bytes;
    if (check_own(check, "memory") && !check_own(check, "resourceLimits"))
        *limit = 0;
    if (*limit == 0)
        return 0;
    if (check_own(check, "memory") && profile->memory_bytes != *limit)
        return check_refuse(check, "memory",
                            "memory (%" PRIu64 " bytes) and resourceLimits.maxMemory (%" PRIu64
                            " bytes) are both given; remove one",
                            profile->memory_bytes, *limit);
    profile->memory_bytes = *limit;
    return 0;
}

static struct config_ulimit *find_nofile(const struct profile *profile)
{
    for (size_t i = 0; i < profile->ulimit_count; i++)
        if (strcmp(profile->ulimits[i].name, "nofile") == 0)
            return &profile->ulimits[i];
    return NULL;
}

static int add_nofile(const struct check *check, int64_t handles)
{
    struct profile *profile = check->profile;
    if (profile->ulimit_count >= 16)
        return check_refuse(check, "ulimits", "ulimits has no room for nofile of resourceLimits.maxFileHandles");
    struct config_ulimit *list = realloc(profile->ulimits, (profile->ulimit_count + 1) * sizeof *list);
    if (list == NULL)
        return error_set(check->err, ERROR_NOMEM, "out of memory");
    profile->ulimits = list;
    list[profile->ulimit_count] = (struct config_ulimit){.name = strdup("nofile"), .soft = handles, .hard = handles};
    return list[profile->ulimit_count++].name == NULL ? error_set(check->err, ERROR_NOMEM, "out of memory") : 0;
}

static int settle_handles(const struct check *check)
{
    struct profile *profile = check->profile;
    struct config_ulimit *nofile = find_nofile(profile);
    bool limited = check_own(check, "ulimits") && nofile != NULL;
    int64_t handles = profile->resources.max_file_handles;
    if (limited && !check_own(check, "resourceLimits"))
        profile->resources.max_file_handles = 0;
    if (profile->resources.max_file_handles == 0)
        return 0;
    if (limited && (nofile->soft != handles || nofile->hard != handles))
        return check_refuse(check, "ulimits",
                            "ulimits.nofile and resourceLimits.maxFileHandles (%" PRId64 ") are both given; remove one",
                            handles);
    if (nofile == NULL)
        return add_nofile(check, handles);
    nofile->soft = nofile->hard = handles;
    return 0;
}

int resources_settle(const struct check *check)
{
    struct profile *profile = check->profile;
    if (settle_memory(check) < 0 || settle_handles(check) < 0)
        return -1;
    if (profile->resources.max_disk_bytes > profile->memory_bytes)
        return check_refuse(check, "resourceLimits",
                            "resourceLimits.maxDiskSpace (%" PRIu64 " MiB) exceeds the memory limit (%" PRIu64
                            " MiB), which writable mounts count against; raise memory or lower it",
                            profile->resources.max_disk_bytes >> 20, profile->memory_bytes >> 20);
    return 0;
}
