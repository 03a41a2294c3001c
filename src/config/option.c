#include "config/option.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"

#define SCOPE_OFFSET_GLOBAL(field)  offsetof(struct config, field)
#define SCOPE_OFFSET_POOL(field)    offsetof(struct profile, field)
#define SCOPE_OFFSET_PROFILE(field) offsetof(struct profile, field)

const struct option options[] = {
#define OPTION(key, scope, reload, type, field, standard, minimum, maximum, help)                                      \
    {#key, SCOPE_##scope, RELOAD_##reload, TYPE_##type, SCOPE_OFFSET_##scope(field), standard, minimum, maximum, help},
#include "config/options.def"
#undef OPTION
};

const size_t option_count = sizeof options / sizeof options[0];

const struct option *option_find(const char *key)
{
    for (size_t i = 0; i < option_count; i++)
        if (strcmp(options[i].key, key) == 0)
            return &options[i];
    return NULL;
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein, letters' case ignored. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64];
    size_t width = strlen(b);
    if (width >= 64 || strlen(a) >= 64)
        return 64;
    for (size_t j = 0; j <= width; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= width; j++) {
            size_t above = row[j];
            bool same = (a[i - 1] | 0x20) == (b[j - 1] | 0x20);
            row[j] = smallest(above + 1, row[j - 1] + 1, diagonal + !same);
            diagonal = above;
        }
    }
    return row[width];
}

const char *option_nearest(const char *key)
{
    const char *best = NULL;
    size_t least = 4;
    for (size_t i = 0; i < option_count; i++) {
        size_t far = distance(key, options[i].key);
        if (far < least) {
            least = far;
            best = options[i].key;
        }
    }
    return best;
}

/* --- messages ------------------------------------------------------------------------------------------------ */

static void print_bound(const struct option *option, int64_t value, char *text, size_t size)
{
    uint64_t bytes = (uint64_t)value;
    if (option->type == TYPE_SIZE && value != 0 && bytes % (1U << 30) == 0)
        snprintf(text, size, "%llug", (unsigned long long)(bytes >> 30));
    else if (option->type == TYPE_SIZE && value != 0 && bytes % (1U << 20) == 0)
        snprintf(text, size, "%llum", (unsigned long long)(bytes >> 20));
    else if (option->type == TYPE_TIME)
        snprintf(text, size, "%lldms", (long long)value);
    else if (option->type == TYPE_CPUS)
        snprintf(text, size, "%lld", (long long)value / 1000);
    else
        snprintf(text, size, "%lld", (long long)value);
}

void option_allowed(const struct option *option, char *text, size_t size)
{
    static const char *const kinds[] = {
        [TYPE_STRING] = "a text",
        [TYPE_PATH] = "an absolute path",
        [TYPE_BOOL] = "true or false",
        [TYPE_UINT] = "a whole number",
        [TYPE_LONG] = "a whole number",
        [TYPE_INT] = "a whole number",
        [TYPE_PERCENT] = "a percentage",
        [TYPE_TIME] = "a time, as 500ms, 30s, 5m, 1h or a number of milliseconds,",
        [TYPE_SIZE] = "a size, as 64m, 512MB, 1g or a number of bytes,",
        [TYPE_CPUS] = "a number of cores, as 0.5,",
        [TYPE_LEVEL] = "error, warn, info or debug",
        [TYPE_TRANSPORT] = "auto, socket or attach",
        [TYPE_ENGINE] = "auto, docker or podman",
        [TYPE_POLICY] = "predictive or threshold",
        [TYPE_INSTANCE] = "a name, [a-z0-9][a-z0-9-]{0,30}",
        [TYPE_RANGE] = "FIRST-LAST, two numbers from 1 to 4294967293",
        [TYPE_SUBNET] = "ADDRESS/PREFIX with a prefix of 8 to 29, as 10.213.0.0/16",
        [TYPE_STRINGS] = "a list of texts",
        [TYPE_TYPES] = "a list of agent types ([a-z0-9][a-z0-9-]{0,30})",
        [TYPE_PAIRS] = "a mapping of variable names to texts, at most 100",
        [TYPE_TMPFS] = "a mapping of absolute paths to sizes, at most 12",
        [TYPE_MOUNTS] = "a list of \"/host/path:/container/path\" or \"...:rw\", at most 32",
        [TYPE_ULIMITS] = "a mapping of limit names to N or \"SOFT:HARD\", at most 16",
        [TYPE_RESOURCES] = "a mapping of maxMemory, maxFileHandles, maxDiskSpace, maxCpuTime and priority",
    };
    bool bounded = option->type >= TYPE_UINT && option->type <= TYPE_CPUS;
    char low[32], high[32];
    print_bound(option, option->minimum, low, sizeof low);
    print_bound(option, option->maximum, high, sizeof high);
    if (bounded)
        snprintf(text, size, "%s %s to %s", kinds[option->type], low, high);
    else
        snprintf(text, size, "%s", kinds[option->type]);
}

static void origin_text(const struct origin *origin, int line, char *text, size_t size)
{
    if (origin->name == NULL)
        snprintf(text, size, "%s", origin->key);
    else
        snprintf(text, size, "%s:%d: %s", origin->name, line, origin->key);
}

static int refuse(const struct option *option, const struct tree *value, const struct origin *origin, struct error *err)
{
    char where[256], allowed[160];
    origin_text(origin, value->line, where, sizeof where);
    option_allowed(option, allowed, sizeof allowed);
    if (strcmp(option->key, "registryAuth") == 0) /* may be the password */
        return error_set(err, ERROR_INVALID, "%s: is not allowed so; allowed: a mapping, as {username: u, password: p}",
                         where);
    if (value->kind == TREE_SCALAR)
        return error_set(err, ERROR_INVALID, "%s: \"%.80s\" is not allowed; allowed: %s", where, value->text, allowed);
    return error_set(err, ERROR_INVALID, "%s: a %s is not allowed; allowed: %s", where,
                     value->kind == TREE_SEQUENCE ? "list" : "mapping", allowed);
}

/* --- numbers -------------------------------------------------------------------------------------------------- */

static int parse_scaled(const char *text, uint64_t *value, const char **rest)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    *value = strtoull(text, &end, 10);
    *rest = end;
    return errno != 0 || *value > (1ULL << 53) ? -1 : 0;
}

int parse_duration_ms(const char *text, uint64_t *milliseconds)
{
    static const struct {
        const char *unit;
        uint64_t factor;
    } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    const char *unit;
    uint64_t value;
    if (parse_scaled(text, &value, &unit) < 0)
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(unit, units[i].unit) == 0 && value <= (1ULL << 53) / units[i].factor) {
            *milliseconds = value * units[i].factor;
            return 0;
        }
    return -1;
}

int parse_size_bytes(const char *text, uint64_t *bytes)
{
    const char *unit;
    uint64_t value;
    unsigned shift = 0;
    if (parse_scaled(text, &value, &unit) < 0)
        return -1;
    switch (*unit | 0x20) {
    case 'k':
        shift = 10;
        break;
    case 'm':
        shift = 20;
        break;
    case 'g':
        shift = 30;
        break;
    case 't':
        shift = 40;
        break;
    default:
        break;
    }
    if (shift > 0)
        unit++;
    if (shift > 0 && (*unit | 0x20) == 'i')
        unit++;
    if ((*unit | 0x20) == 'b')
        unit++;
    if (*unit != '\0' || value > (1ULL << 53) >> shift)
        return -1;
    *bytes = value << shift;
    return 0;
}

/* "0.5" in thousandths. */
static int parse_cpus(const char *text, uint64_t *milli)
{
    uint64_t whole;
    const char *rest;
    if (parse_scaled(text, &whole, &rest) < 0 || whole > 100000)
        return -1;
    uint64_t part = 0;
    if (*rest == '.') {
        unsigned digits = 0;
        for (rest++; *rest >= '0' && *rest <= '9' && digits < 3; rest++, digits++)
            part = part * 10 + (uint64_t)(*rest - '0');
        for (; digits < 3; digits++)
            part *= 10;
    }
    *milli = whole * 1000 + part;
    return *rest == '\0' ? 0 : -1;
}

static int parse_number(const struct option *option, const char *text, int64_t *value)
{
    uint64_t magnitude;
    const char *rest;
    bool negative = text[0] == '-';
    int result = -1;
    if (option->type == TYPE_TIME) {
        result = parse_duration_ms(text, &magnitude);
    } else if (option->type == TYPE_SIZE) {
        result = parse_size_bytes(text, &magnitude);
    } else if (option->type == TYPE_CPUS) {
        result = parse_cpus(text, &magnitude);
    } else {
        result = parse_scaled(text + negative, &magnitude, &rest);
        if (result == 0 && *rest != '\0' && !(option->type == TYPE_PERCENT && strcmp(rest, "%") == 0))
            result = -1;
    }
    if (result < 0)
        return -1;
    *value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return *value < option->minimum || *value > option->maximum ? -1 : 0;
}

static void store_number(const struct option *option, void *field, int64_t value)
{
    switch ((int)option->type) {
    case TYPE_TIME:
    case TYPE_SIZE:
        *(uint64_t *)field = (uint64_t)value;
        break;
    case TYPE_LONG:
        *(int64_t *)field = value;
        break;
    case TYPE_INT:
        *(int *)field = (int)value;
        break;
    default:
        *(uint32_t *)field = (uint32_t)value;
    }
}

static int64_t load_number(const struct option *option, const void *field)
{
    switch ((int)option->type) {
    case TYPE_TIME:
    case TYPE_SIZE:
        return (int64_t) * (const uint64_t *)field;
    case TYPE_LONG:
        return *(const int64_t *)field;
    case TYPE_INT:
        return *(const int *)field;
    default:
        return *(const uint32_t *)field;
    }
}

static bool is_number(const struct option *option)
{
    return option->type >= TYPE_UINT && option->type <= TYPE_CPUS;
}

/* --- scalars ---------------------------------------------------------------------------------------------------- */

static int set_bool(bool *field, const char *text)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "on") == 0)
        *field = true;
    else if (strcmp(text, "false") == 0 || strcmp(text, "no") == 0 || strcmp(text, "off") == 0)
        *field = false;
    else
        return -1;
    return 0;
}

/* By the value of the enum in config.h that the field is. */
static const char *const choices[][4] = {
    [TYPE_TRANSPORT] = {"auto", "socket", "attach"},
    [TYPE_ENGINE] = {"auto", "docker", "podman"},
    [TYPE_POLICY] = {"predictive", "threshold"},
};
_Static_assert(sizeof(enum config_transport) == sizeof(unsigned) && sizeof(enum config_engine) == sizeof(unsigned) &&
                   sizeof(enum config_policy) == sizeof(unsigned),
               "choices are stored as unsigned");

/* A char * of its own. */
static bool is_text(const struct option *option)
{
    return option->type == TYPE_STRING || option->type == TYPE_PATH || option->type == TYPE_INSTANCE;
}

static bool is_choice(const struct option *option)
{
    return option->type == TYPE_TRANSPORT || option->type == TYPE_ENGINE || option->type == TYPE_POLICY;
}

static int set_choice(enum option_type type, void *field, const char *text)
{
    for (unsigned i = 0; choices[type][i] != NULL; i++) {
        if (strcmp(text, choices[type][i]) != 0)
            continue;
        *(unsigned *)field = i;
        return 0;
    }
    return -1;
}

static int set_level(enum log_level *field, const char *text)
{
    for (enum log_level level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++)
        if (strcmp(text, log_level_name(level)) == 0) {
            *field = level;
            return 0;
        }
    return -1;
}

static int set_uid_range(struct config *config, const char *text)
{
    uint64_t first, last;
    const char *rest;
    if (parse_scaled(text, &first, &rest) < 0 || *rest != '-' || parse_scaled(rest + 1, &last, &rest) < 0 ||
        *rest != '\0' || first < 1 || last < first || last > 4294967293U || last - first >= 1U << 20)
        return -1;
    config->uid_first = (uint32_t)first;
    config->uid_count = (uint32_t)(last - first + 1);
    return 0;
}

static int set_subnet(struct config *config, const char *text)
{
    char address[20];
    uint64_t prefix;
    const char *rest, *slash = strchr(text, '/');
    struct in_addr parsed;
    if (slash == NULL || (size_t)(slash - text) >= sizeof address || parse_scaled(slash + 1, &prefix, &rest) < 0 ||
        *rest != '\0' || prefix < 8 || prefix > 29)
        return -1;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    if (inet_pton(AF_INET, address, &parsed) != 1)
        return -1;
    config->subnet_prefix = (uint8_t)prefix;
    config->subnet_base = ntohl(parsed.s_addr) & (0xffffffffU << (32 - prefix));
    return 0;
}

static int set_text(char **field, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return -1;
    free(*field);
    *field = copy;
    return 0;
}

/* --- lists -------------------------------------------------------------------------------------------------------- */

static void release_strings(char ***field)
{
    for (char **item = *field; item != NULL && *item != NULL; item++)
        free(*item);
    free(*field);
    *field = NULL;
}

static size_t count_children(const struct tree *value)
{
    size_t count = 0;
    for (const struct tree *item = value->first; item != NULL; item = item->next)
        count++;
    return count;
}

static bool scalars_only(const struct tree *value, enum tree_kind kind)
{
    if (value->kind != kind)
        return false;
    for (const struct tree *item = value->first; item != NULL; item = item->next)
        if (item->kind != TREE_SCALAR)
            return false;
    return true;
}

static int set_strings(char ***field, const struct tree *value, bool types)
{
    if (!scalars_only(value, TREE_SEQUENCE))
        return -1;
    char **list = calloc(count_children(value) + 1, sizeof *list);
    size_t count = 0;
    for (const struct tree *item = value->first; item != NULL && list != NULL; item = item->next) {
        list[count] = types && !agent_type_valid(item->text) ? NULL : strdup(item->text);
        if (list[count++] == NULL) {
            release_strings(&list);
            return -1;
        }
    }
    if (list == NULL)
        return -1;
    release_strings(field);
    *field = list;
    return 0;
}

#define PAIRS_MAX     100U /* of one mapping; a type's come to those of the top level, */
#define PAIRS_ROOM    240U /* and a container's environment has room for so many */
#define PAIR_NAME_MAX 255U

/* Adds to what is there, replacing the same names. */
static int add_pairs(char ***field, const struct tree *value)
{
    if (!scalars_only(value, TREE_MAPPING) || count_children(value) > PAIRS_MAX)
        return -1;
    size_t count = 0;
    while (*field != NULL && (*field)[count] != NULL)
        count++;
    for (const struct tree *item = value->first; item != NULL; item = item->next) {
        size_t length = strlen(item->key);
        if (length == 0 || length > PAIR_NAME_MAX || strchr(item->key, '=') != NULL)
            return -1;
        char *pair = malloc(length + strlen(item->text) + 2);
        if (pair == NULL)
            return -1;
        sprintf(pair, "%s=%s", item->key, item->text);
        size_t at = 0;
        while (at < count && strncmp((*field)[at], pair, length + 1) != 0)
            at++;
        if (at < count) {
            free((*field)[at]);
            (*field)[at] = pair;
            continue;
        }
        char **list = count >= PAIRS_ROOM ? NULL : realloc(*field, (count + 2) * sizeof *list);
        if (list == NULL) {
            free(pair);
            return -1;
        }
        *field = list;
        list[count++] = pair;
        list[count] = NULL;
    }
    return 0;
}

static void release_tmpfs(struct profile *profile)
{
    for (size_t i = 0; i < profile->tmpfs_count; i++)
        free(profile->tmpfs[i].path);
    free(profile->tmpfs);
    profile->tmpfs = NULL;
    profile->tmpfs_count = 0;
}

static bool path_sound(const char *path)
{
    return path[0] == '/' && path[1] != '\0' && strstr(path, "/../") == NULL && strchr(path, ':') == NULL &&
           strlen(path) < 1024;
}

static int set_tmpfs(const struct option *option, struct profile *profile, const struct tree *value)
{
    size_t count = count_children(value);
    if (!scalars_only(value, TREE_MAPPING) || count > 12)
        return -1;
    release_tmpfs(profile);
    profile->tmpfs = calloc(count + 1, sizeof *profile->tmpfs);
    for (const struct tree *item = value->first; item != NULL && profile->tmpfs != NULL; item = item->next) {
        uint64_t size;
        if (!path_sound(item->key) || parse_size_bytes(item->text, &size) < 0 || (int64_t)size < option->minimum ||
            (int64_t)size > option->maximum)
            return -1;
        struct config_tmpfs *tmpfs = &profile->tmpfs[profile->tmpfs_count++];
        tmpfs->size_bytes = size;
        tmpfs->path = strdup(item->key);
        if (tmpfs->path == NULL)
            return -1;
    }
    return profile->tmpfs == NULL ? -1 : 0;
}

static void release_mounts(struct profile *profile)
{
    for (size_t i = 0; i < profile->mount_count; i++) {
        free(profile->mounts[i].source);
        free(profile->mounts[i].target);
    }
    free(profile->mounts);
    profile->mounts = NULL;
    profile->mount_count = 0;
}

static int add_mount(struct profile *profile, const char *source, size_t source_size, const char *target,
                     size_t target_size, bool writable)
{
    struct config_mount *mount = &profile->mounts[profile->mount_count++];
    mount->source = strndup(source, source_size);
    mount->target = strndup(target, target_size);
    mount->writable = writable;
    if (mount->source == NULL || mount->target == NULL)
        return -1;
    return mount->source[0] == '/' && path_sound(mount->target) ? 0 : -1;
}

static int set_mounts(struct profile *profile, const struct tree *value)
{
    size_t count = count_children(value);
    if (!scalars_only(value, TREE_SEQUENCE) || count > 32)
        return -1;
    release_mounts(profile);
    profile->mounts = calloc(count + 1, sizeof *profile->mounts);
    for (const struct tree *item = value->first; item != NULL && profile->mounts != NULL; item = item->next) {
        const char *colon = strchr(item->text, ':');
        if (colon == NULL)
            return -1;
        const char *target = colon + 1, *mode = strchr(target, ':');
        size_t target_size = mode == NULL ? strlen(target) : (size_t)(mode - target);
        bool writable = mode != NULL && strcmp(mode, ":rw") == 0;
        if (mode != NULL && !writable && strcmp(mode, ":ro") != 0)
            return -1;
        if (add_mount(profile, item->text, (size_t)(colon - item->text), target, target_size, writable) < 0)
            return -1;
    }
    return profile->mounts == NULL ? -1 : 0;
}

static void release_ulimits(struct profile *profile)
{
    for (size_t i = 0; i < profile->ulimit_count; i++)
        free(profile->ulimits[i].name);
    free(profile->ulimits);
    profile->ulimits = NULL;
    profile->ulimit_count = 0;
}

static int parse_ulimit(const char *text, int64_t *soft, int64_t *hard)
{
    uint64_t first, second;
    const char *rest;
    if (parse_scaled(text, &first, &rest) < 0)
        return -1;
    second = first;
    if (*rest == ':' && parse_scaled(rest + 1, &second, &rest) < 0)
        return -1;
    *soft = (int64_t)first;
    *hard = (int64_t)second;
    return *rest == '\0' && first <= second ? 0 : -1;
}

static int set_ulimits(struct profile *profile, const struct tree *value)
{
    static const char *const known =
        " core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack ";
    size_t count = count_children(value);
    if (!scalars_only(value, TREE_MAPPING) || count > 16)
        return -1;
    release_ulimits(profile);
    profile->ulimits = calloc(count + 1, sizeof *profile->ulimits);
    for (const struct tree *item = value->first; item != NULL && profile->ulimits != NULL; item = item->next) {
        char word[24];
        snprintf(word, sizeof word, " %.20s ", item->key);
        struct config_ulimit *limit = &profile->ulimits[profile->ulimit_count++];
        limit->name = strdup(item->key);
        if (limit->name == NULL || strstr(known, word) == NULL ||
            parse_ulimit(item->text, &limit->soft, &limit->hard) < 0)
            return -1;
    }
    return profile->ulimits == NULL ? -1 : 0;
}

/* --- by type ---------------------------------------------------------------------------------------------------------
 */

static bool is_list(const struct option *option)
{
    return option->type >= TYPE_STRINGS;
}

static int set_scalar(const struct option *option, void *record, void *field, const char *text)
{
    int64_t number;
    if (is_number(option)) {
        if (parse_number(option, text, &number) < 0)
            return -1;
        store_number(option, field, number);
        return 0;
    }
    switch ((int)option->type) {
    case TYPE_BOOL:
        return set_bool(field, text);
    case TYPE_LEVEL:
        return set_level(field, text);
    case TYPE_TRANSPORT:
    case TYPE_ENGINE:
    case TYPE_POLICY:
        return set_choice(option->type, field, text);
    case TYPE_INSTANCE:
        return text[0] != '\0' && !agent_type_valid(text) ? -1 : set_text(field, text);
    case TYPE_RANGE:
        return set_uid_range(record, text);
    case TYPE_SUBNET:
        return set_subnet(record, text);
    case TYPE_PATH:
        return text[0] != '\0' && text[0] != '/' ? -1 : set_text(field, text);
    default:
        return set_text(field, text);
    }
}

static int set_list(const struct option *option, void *record, void *field, const struct tree *value)
{
    switch ((int)option->type) {
    case TYPE_STRINGS:
    case TYPE_TYPES:
        return set_strings(field, value, option->type == TYPE_TYPES);
    case TYPE_PAIRS:
        return add_pairs(field, value);
    case TYPE_TMPFS:
        return set_tmpfs(option, record, value);
    case TYPE_MOUNTS:
        return set_mounts(record, value);
    default:
        return set_ulimits(record, value);
    }
}

int option_set(const struct option *option, void *record, const struct tree *value, const struct origin *origin,
               struct error *err)
{
    void *field = (char *)record + option->offset;
    int result = -1;
    if (option->type == TYPE_RESOURCES && value->kind == TREE_MAPPING)
        return resources_set(field, value, origin, err);
    if (is_list(option) && option->type != TYPE_RESOURCES)
        result = set_list(option, record, field, value);
    else if (!is_list(option) && value->kind == TREE_SCALAR)
        result = set_scalar(option, record, field, value->text);
    return result < 0 ? refuse(option, value, origin, err) : 0;
}

int option_set_text(const struct option *option, void *record, const char *text, const struct origin *origin,
                    struct error *err)
{
    struct tree *value;
    if (!is_list(option))
        value = tree_scalar(text);
    else if (option->type == TYPE_PAIRS || option->type == TYPE_TMPFS || option->type == TYPE_ULIMITS ||
             option->type == TYPE_RESOURCES)
        value = tree_mapping(text);
    else
        value = tree_sequence(text);
    if (value == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    int result = option_set(option, record, value, origin, err);
    tree_free(value);
    return result;
}

static void print_text(struct buffer *out, const char *text)
{
    buffer_append_string(out, "\"");
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            buffer_printf(out, "\\x%02x", (unsigned char)*text);
            continue;
        }
        if (*text == '"' || *text == '\\')
            buffer_append_string(out, "\\");
        buffer_append(out, text, 1);
    }
    buffer_append_string(out, "\"");
}

/* As it is where YAML takes it so. */
static void print_key(struct buffer *out, const char *key, size_t length)
{
    char text[1100];
    snprintf(text, sizeof text, "%.*s", (int)length, key);
    bool plain = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/.") == length;
    if (plain)
        buffer_append_string(out, text);
    else
        print_text(out, text);
    buffer_append_string(out, ": ");
}

static void print_strings(struct buffer *out, char **list)
{
    buffer_append_string(out, "[");
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        buffer_append_string(out, i > 0 ? ", " : "");
        print_text(out, list[i]);
    }
    buffer_append_string(out, "]");
}

/* What a login consists of is nobody's to read. */
static bool is_secret(const struct option *option, const char *name, size_t length)
{
    return strcmp(option->key, "registryAuth") == 0 && ((length == 8 && strncmp(name, "password", 8) == 0) ||
                                                        (length == 13 && strncmp(name, "identityToken", 13) == 0));
}

static void print_pairs(const struct option *option, struct buffer *out, char **list)
{
    buffer_append_string(out, "{");
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        const char *equals = strchr(list[i], '=');
        buffer_append_string(out, i > 0 ? ", " : "");
        print_key(out, list[i], (size_t)(equals - list[i]));
        print_text(out, is_secret(option, list[i], (size_t)(equals - list[i])) ? "***" : equals + 1);
    }
    buffer_append_string(out, "}");
}

static void print_tmpfs(const struct profile *profile, struct buffer *out)
{
    for (size_t i = 0; i < profile->tmpfs_count; i++) {
        buffer_append_string(out, i > 0 ? ", " : "");
        print_key(out, profile->tmpfs[i].path, strlen(profile->tmpfs[i].path));
        buffer_printf(out, "%llu", (unsigned long long)profile->tmpfs[i].size_bytes);
    }
}

static void print_mounts(const struct profile *profile, struct buffer *out)
{
    for (size_t i = 0; i < profile->mount_count; i++) {
        struct buffer mount = {0};
        buffer_printf(&mount, "%s:%s:%s", profile->mounts[i].source, profile->mounts[i].target,
                      profile->mounts[i].writable ? "rw" : "ro");
        const char *text = buffer_text(&mount);
        buffer_append_string(out, i > 0 ? ", " : "");
        print_text(out, text != NULL ? text : "");
        buffer_free(&mount);
    }
}

static void print_ulimits(const struct profile *profile, struct buffer *out)
{
    for (size_t i = 0; i < profile->ulimit_count; i++)
        buffer_printf(out, "%s%s: \"%lld:%lld\"", i > 0 ? ", " : "", profile->ulimits[i].name,
                      (long long)profile->ulimits[i].soft, (long long)profile->ulimits[i].hard);
}

static void print_profile_list(const struct option *option, const struct profile *profile, struct buffer *out)
{
    bool mounts = option->type == TYPE_MOUNTS;
    buffer_append_string(out, mounts ? "[" : "{");
    if (mounts)
        print_mounts(profile, out);
    else if (option->type == TYPE_TMPFS)
        print_tmpfs(profile, out);
    else
        print_ulimits(profile, out);
    buffer_append_string(out, mounts ? "]" : "}");
}

void option_print(const struct option *option, const void *record, struct buffer *out)
{
    const void *field = (const char *)record + option->offset;
    const struct config *config = record;
    if (option->type == TYPE_CPUS) {
        buffer_printf(out, "%u.%03u", *(const uint32_t *)field / 1000, *(const uint32_t *)field % 1000);
    } else if (option->type == TYPE_TIME) {
        buffer_printf(out, "%lldms", (long long)load_number(option, field));
    } else if (is_number(option)) {
        buffer_printf(out, "%lld", (long long)load_number(option, field));
    } else if (option->type == TYPE_BOOL) {
        buffer_append_string(out, *(const bool *)field ? "true" : "false");
    } else if (is_choice(option)) {
        buffer_append_string(out, choices[option->type][*(const unsigned *)field]);
    } else if (option->type == TYPE_LEVEL) {
        buffer_append_string(out, log_level_name(*(const enum log_level *)field));
    } else if (option->type == TYPE_RANGE) {
        buffer_printf(out, "%u-%u", config->uid_first, config->uid_first + config->uid_count - 1);
    } else if (option->type == TYPE_SUBNET) {
        buffer_printf(out, "%u.%u.%u.%u/%u", config->subnet_base >> 24, config->subnet_base >> 16 & 255,
                      config->subnet_base >> 8 & 255, config->subnet_base & 255, config->subnet_prefix);
    } else if (option->type == TYPE_STRINGS || option->type == TYPE_TYPES) {
        print_strings(out, *(char **const *)field);
    } else if (option->type == TYPE_PAIRS) {
        print_pairs(option, out, *(char **const *)field);
    } else if (option->type == TYPE_RESOURCES) {
        resources_print(field, out);
    } else if (is_list(option)) {
        print_profile_list(option, record, out);
    } else {
        const char *text = *(char *const *)field;
        print_text(out, text != NULL ? text : "");
    }
}

/* --- comparing ---------------------------------------------------------------------------------------------- */

static size_t count_strings(char **list)
{
    size_t count = 0;
    while (list != NULL && list[count] != NULL)
        count++;
    return count;
}

static bool has_string(char **list, const char *text)
{
    for (; *list != NULL; list++)
        if (strcmp(*list, text) == 0)
            return true;
    return false;
}

/* By their values, for what is printed of a login is the same for all. Names are unique, so one direction will do. */
static bool equal_pairs(char **a, char **b)
{
    if (count_strings(a) != count_strings(b))
        return false;
    for (; a != NULL && *a != NULL; a++)
        if (!has_string(b, *a))
            return false;
    return true;
}

bool option_equal(const struct option *option, const void *a, const void *b)
{
    const void *one = (const char *)a + option->offset, *other = (const char *)b + option->offset;
    if (option->type == TYPE_PAIRS)
        return equal_pairs(*(char **const *)one, *(char **const *)other);
    struct buffer left = {0}, right = {0};
    option_print(option, a, &left);
    option_print(option, b, &right);
    const char *first = buffer_text(&left), *second = buffer_text(&right);
    bool equal = first != NULL && second != NULL && strcmp(first, second) == 0;
    buffer_free(&left);
    buffer_free(&right);
    return equal;
}

/* --- memory
 * ------------------------------------------------------------------------------------------------------------ */

static int copy_strings(char ***to, char **from)
{
    size_t count = 0;
    while (from != NULL && from[count] != NULL)
        count++;
    char **list = calloc(count + 1, sizeof *list);
    if (list == NULL)
        return -1;
    *to = list;
    for (size_t i = 0; i < count; i++)
        if ((list[i] = strdup(from[i])) == NULL)
            return -1;
    return 0;
}

static int copy_profile_list(const struct option *option, struct profile *to, const struct profile *from)
{
    if (option->type == TYPE_TMPFS) {
        to->tmpfs = calloc(from->tmpfs_count + 1, sizeof *to->tmpfs);
        for (size_t i = 0; to->tmpfs != NULL && i < from->tmpfs_count; i++, to->tmpfs_count++) {
            to->tmpfs[i] = from->tmpfs[i];
            if ((to->tmpfs[i].path = strdup(from->tmpfs[i].path)) == NULL)
                return -1;
        }
        return to->tmpfs == NULL ? -1 : 0;
    }
    if (option->type == TYPE_ULIMITS) {
        to->ulimits = calloc(from->ulimit_count + 1, sizeof *to->ulimits);
        for (size_t i = 0; to->ulimits != NULL && i < from->ulimit_count; i++, to->ulimit_count++) {
            to->ulimits[i] = from->ulimits[i];
            if ((to->ulimits[i].name = strdup(from->ulimits[i].name)) == NULL)
                return -1;
        }
        return to->ulimits == NULL ? -1 : 0;
    }
    to->mounts = calloc(from->mount_count + 1, sizeof *to->mounts);
    for (size_t i = 0; to->mounts != NULL && i < from->mount_count; i++)
        if (add_mount(to, from->mounts[i].source, strlen(from->mounts[i].source), from->mounts[i].target,
                      strlen(from->mounts[i].target), from->mounts[i].writable) < 0)
            return -1;
    return to->mounts == NULL ? -1 : 0;
}

int option_copy(const struct option *option, void *to_record, const void *from_record)
{
    void *to = (char *)to_record + option->offset;
    const void *from = (const char *)from_record + option->offset;
    if (is_number(option)) {
        store_number(option, to, load_number(option, from));
    } else if (option->type == TYPE_BOOL) {
        *(bool *)to = *(const bool *)from;
    } else if (option->type == TYPE_STRINGS || option->type == TYPE_TYPES || option->type == TYPE_PAIRS) {
        return copy_strings(to, *(char **const *)from);
    } else if (option->type == TYPE_RESOURCES) {
        *(struct config_resources *)to = *(const struct config_resources *)from;
    } else if (is_choice(option)) {
        *(unsigned *)to = *(const unsigned *)from;
    } else if (is_list(option)) {
        return copy_profile_list(option, to_record, from_record);
    } else if (is_text(option)) {
        const char *text = *(char *const *)from;
        return text == NULL ? 0 : set_text(to, text);
    }
    return 0;
}

void option_release(const struct option *option, void *record)
{
    void *field = (char *)record + option->offset;
    if (option->type == TYPE_STRINGS || option->type == TYPE_TYPES || option->type == TYPE_PAIRS) {
        release_strings(field);
    } else if (option->type == TYPE_TMPFS) {
        release_tmpfs(record);
    } else if (option->type == TYPE_MOUNTS) {
        release_mounts(record);
    } else if (option->type == TYPE_ULIMITS) {
        release_ulimits(record);
    } else if (is_text(option)) {
        free(*(char **)field);
        *(char **)field = NULL;
    }
}
