/* Loading: defaults, then the file, then the environment, then the overrides, each over the one before; then a profile
 * for every built-in and configured agent type; then the checks. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config/internal.h"

#define FILE_MAX (1024U * 1024U)
#define COPIES_MAX                                                                                                     \
    (64U * 1024U * 1024U) /* bytes of the file's text times agent types, each of which has its own copy */
#define PIPE_WAIT_MS 5000
#define FAULTS_MAX   100U
#define PATH_DEFAULT "/etc/warmpool/warmpool.yaml"
#define TYPE_KEY     "agentConfigs"
#define PROFILES_MAX 256U

struct loader {
    struct config *config;
    const char *name; /* of the file */
    size_t size;      /* of its text */
    struct profile *drafts;
    size_t draft_count;
    struct error *err;
    /* To go on after an error: */
    config_fault_fn *fault;
    void *user;
    size_t faults;
    bool full;           /* of agent types: nothing goes on */
    const char *checked; /* agent type */
    struct buffer told;  /* what was said, each between newlines, without the agent type */
};

/* --- defaults ------------------------------------------------------------------------------------------------ */

char *config_default_socket(void)
{
    const char *given = getenv("WARMPOOL_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    char *path = NULL;
    if (given != NULL && given[0] != '\0')
        return strdup(given);
    if (geteuid() == 0)
        return strdup("/run/warmpool/api.sock");
    if (runtime != NULL && runtime[0] == '/')
        return asprintf(&path, "%s/warmpool/api.sock", runtime) < 0 ? NULL : path;
    return asprintf(&path, "/tmp/warmpool-%u/api.sock", (unsigned)geteuid()) < 0 ? NULL : path;
}

char *config_default_state_dir(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path = NULL;
    if (geteuid() == 0)
        return strdup("/var/lib/warmpool");
    if (state != NULL && state[0] == '/')
        return asprintf(&path, "%s/warmpool", state) < 0 ? NULL : path;
    return asprintf(&path, "%s/.local/state/warmpool", home != NULL ? home : "/tmp") < 0 ? NULL : path;
}

static int set_defaults(struct config *config, struct error *err)
{
    for (size_t i = 0; i < option_count; i++) {
        struct origin origin = {.key = options[i].key};
        bool global = options[i].scope == SCOPE_GLOBAL;
        if (option_set_text(&options[i], global ? (void *)config : &config->defaults, options[i].standard, &origin,
                            err) < 0)
            return -1;
    }
    /* Empty lists are lists. */
    if (config->defaults.environment == NULL && (config->defaults.environment = calloc(1, sizeof(char *))) == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    config->defaults.agent_type = strdup("default");
    return config->defaults.agent_type == NULL ? error_set(err, ERROR_NOMEM, "out of memory") : 0;
}

static int fill_paths(struct config *config, struct error *err)
{
    if (config->state_dir[0] == '\0') {
        free(config->state_dir);
        config->state_dir = config_default_state_dir();
    }
    if (config->socket[0] == '\0') {
        free(config->socket);
        config->socket = config_default_socket();
    }
    if (config->docker_host[0] == '\0') {
        free(config->docker_host);
        config->docker_host = NULL;
    }
    /* Of an engine elsewhere nothing is known. */
    const char *engine = config->docker_host != NULL ? config->docker_host : getenv("DOCKER_HOST");
    if (engine != NULL && engine[0] != '\0' && strncmp(engine, "unix:", 5) != 0)
        config->host_memory_bytes = 0;
    if (config->docker_cert_path[0] == '\0') {
        free(config->docker_cert_path);
        config->docker_cert_path = NULL;
    }
    return config->state_dir == NULL || config->socket == NULL ? error_set(err, ERROR_NOMEM, "out of memory") : 0;
}

/* --- keys ------------------------------------------------------------------------------------------------------- */

static int unknown_key(const struct loader *loader, const char *where, const char *key)
{
    const char *near = option_nearest(key);
    (void)loader;
    if (near != NULL)
        return error_set(loader->err, ERROR_INVALID, "%s%.64s: unknown key; did you mean %s?", where, key, near);
    return error_set(loader->err, ERROR_INVALID, "%s%.64s: unknown key; `warmpool config docs` lists all", where, key);
}

static void remember(struct config_origin *origins, const struct option *option, enum config_source source, int line)
{
    origins[option - options] = (struct config_origin){.source = source, .line = line};
}

static int set_top(struct loader *loader, const struct option *option, const struct tree *value, const char *text,
                   const struct origin *origin, enum config_source source)
{
    void *record = option->scope == SCOPE_GLOBAL ? (void *)loader->config : &loader->config->defaults;
    remember(loader->config->defaults.origins, option, source, value != NULL ? value->line : 0);
    return value != NULL ? option_set(option, record, value, origin, loader->err)
                         : option_set_text(option, record, text, origin, loader->err);
}

/* "image" below agentConfigs is dockerImage. */
static const struct option *find_in_type(const char *key)
{
    const struct option *option = option_find(strcmp(key, "image") == 0 ? "dockerImage" : key);
    return option != NULL && option->scope != SCOPE_GLOBAL ? option : NULL;
}

static struct profile *find_draft(struct loader *loader, const char *agent_type)
{
    for (size_t i = 0; i < loader->draft_count; i++)
        if (strcmp(loader->drafts[i].agent_type, agent_type) == 0)
            return &loader->drafts[i];
    return NULL;
}

static struct profile *add_draft(struct loader *loader, const char *agent_type)
{
    if (loader->draft_count >= PROFILES_MAX || loader->size * (loader->draft_count + 1) > COPIES_MAX) {
        loader->full = true;
        error_set(loader->err, ERROR_INVALID,
                  TYPE_KEY ".%s: too many agent types; allowed: %u, and fewer in a file of more than %u bytes",
                  agent_type, PROFILES_MAX, COPIES_MAX / PROFILES_MAX);
        return NULL;
    }
    struct profile *drafts = realloc(loader->drafts, (loader->draft_count + 1) * sizeof *drafts);
    if (drafts == NULL) {
        error_set(loader->err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    loader->drafts = drafts;
    struct profile *draft = &drafts[loader->draft_count];
    if (profile_copy(draft, &loader->config->defaults, agent_type) < 0) {
        error_set(loader->err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    loader->draft_count++;
    draft->origins = calloc(option_count, sizeof *draft->origins);
    if (draft->origins == NULL || profile_built_in(draft) < 0) {
        error_set(loader->err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    return draft;
}

/* --- going on after an error --------------------------------------------------------------------------------- */

/* Messages quote what they are about; a terminal gets no commands out of a file. */
static void clean(struct error *err)
{
    for (char *c = err->message; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

/* What is wrong at the top level is so for each type that takes it from there: said once. */
static bool is_told(struct loader *loader)
{
    char type[AGENT_TYPE_MAX + 3], line[ERROR_MESSAGE_MAX + 3];
    snprintf(type, sizeof type, "%s: ", loader->checked);
    const char *message = loader->err->message, *found = strstr(message, type);
    size_t before = found == NULL ? strlen(message) : (size_t)(found - message);
    snprintf(line, sizeof line, "\n%.*s%s\n", (int)before, message, found == NULL ? "" : found + strlen(type));
    const char *told = buffer_text(&loader->told);
    if (told != NULL && strstr(told, line) != NULL)
        return true;
    buffer_append_string(&loader->told, line);
    return false;
}

/* 0: go on, the error was told. */
static int forgive(void *user)
{
    struct loader *loader = user;
    if (loader->fault == NULL || loader->err->code == ERROR_NOMEM || loader->err->code == ERROR_NONE)
        return -1;
    clean(loader->err);
    if (loader->checked == NULL || !is_told(loader))
        loader->fault(loader->user, loader->err->message);
    *loader->err = (struct error)ERROR_INIT;
    return ++loader->faults < FAULTS_MAX && !loader->full ? 0 : -1;
}

/* --- the file -------------------------------------------------------------------------------------------------------
 */

static int read_type_key(struct loader *loader, struct profile *draft, const struct tree *item)
{
    char key[160], where[320];
    snprintf(key, sizeof key, TYPE_KEY ".%s.%.64s", draft->agent_type, item->key);
    snprintf(where, sizeof where, "%s:%d: " TYPE_KEY ".%s.", loader->name, item->line, draft->agent_type);
    const struct option *option = find_in_type(item->key);
    if (option == NULL && option_find(item->key) != NULL)
        return error_set(loader->err, ERROR_INVALID, "%s%s: is a key of the top level, not of an agent type", where,
                         item->key);
    if (option == NULL)
        return unknown_key(loader, where, item->key);
    struct origin origin = {.name = loader->name, .key = key};
    if (origin_given(&draft->origins[option - options])) /* keys are unique, but image is dockerImage */
        return error_set(loader->err, ERROR_INVALID, "%simage and dockerImage are both given; remove one", where);
    remember(draft->origins, option, SOURCE_FILE, item->line);
    return option_set(option, draft, item, &origin, loader->err);
}

static int read_type(struct loader *loader, const struct tree *type)
{
    if (!agent_type_valid(type->key))
        return error_set(loader->err, ERROR_INVALID,
                         "%s:%d: " TYPE_KEY ": \"%.64s\" is no agent type; allowed: [a-z0-9][a-z0-9-]{0,30}",
                         loader->name, type->line, type->key);
    if (type->kind != TREE_MAPPING)
        return error_set(loader->err, ERROR_INVALID, "%s:%d: " TYPE_KEY ".%s must be a mapping of keys to values",
                         loader->name, type->line, type->key);
    struct profile *draft = find_draft(loader, type->key);
    if (draft == NULL && (draft = add_draft(loader, type->key)) == NULL)
        return error_prefix(loader->err, "%s:%d", loader->name, type->line);
    for (const struct tree *item = type->first; item != NULL; item = item->next)
        if (read_type_key(loader, draft, item) < 0 && forgive(loader) < 0)
            return -1;
    return 0;
}

static int read_top_key(struct loader *loader, const struct tree *item)
{
    char where[256];
    snprintf(where, sizeof where, "%s:%d: ", loader->name, item->line);
    const struct option *option = option_find(item->key);
    if (option == NULL)
        return unknown_key(loader, where, item->key);
    struct origin origin = {.name = loader->name, .key = item->key};
    return set_top(loader, option, item, NULL, &origin, SOURCE_FILE);
}

static int read_top(struct loader *loader, const struct tree *root)
{
    for (const struct tree *item = root->first; item != NULL; item = item->next)
        if (strcmp(item->key, TYPE_KEY) != 0 && read_top_key(loader, item) < 0 && forgive(loader) < 0)
            return -1;
    return 0;
}

static int read_all_types(struct loader *loader, const struct tree *item)
{
    if (item->kind != TREE_MAPPING)
        return error_set(loader->err, ERROR_INVALID, "%s:%d: " TYPE_KEY " must be a mapping of agent types",
                         loader->name, item->line);
    for (const struct tree *type = item->first; type != NULL; type = type->next)
        if (read_type(loader, type) < 0 && forgive(loader) < 0)
            return -1;
    return 0;
}

static int read_types(struct loader *loader, const struct tree *root)
{
    for (size_t i = 0; profile_built_in_name(i) != NULL; i++)
        if (add_draft(loader, profile_built_in_name(i)) == NULL)
            return -1;
    for (const struct tree *item = root->first; item != NULL; item = item->next)
        if (strcmp(item->key, TYPE_KEY) == 0 && read_all_types(loader, item) < 0 && forgive(loader) < 0)
            return -1;
    return 0;
}

/* --- environment and overrides
 * ---------------------------------------------------------------------------------------- */

static int read_environment(struct loader *loader)
{
    for (size_t i = 0; i < option_count; i++) {
        char name[80];
        environment_name(options[i].key, name, sizeof name);
        const char *text = getenv(name);
        struct origin origin = {.key = name};
        if (text != NULL && set_top(loader, &options[i], NULL, text, &origin, SOURCE_ENVIRONMENT) < 0 &&
            forgive(loader) < 0)
            return -1;
    }
    return 0;
}

static bool names_type(const char *key)
{
    return strncmp(key, TYPE_KEY ".", sizeof TYPE_KEY) == 0;
}

static int override_top(struct loader *loader, const struct config_override *override)
{
    char key[160];
    const struct option *option = option_find(override->key);
    if (option == NULL)
        return unknown_key(loader, "--set ", override->key);
    snprintf(key, sizeof key, "--set %s", override->key);
    struct origin origin = {.key = key};
    return set_top(loader, option, NULL, override->value, &origin, SOURCE_SETTING);
}

static int override_type(struct loader *loader, const struct config_override *override)
{
    char type[64], key[160], where[160];
    const char *rest = override->key + sizeof TYPE_KEY;
    size_t length = strcspn(rest, ".");
    if (rest[length] != '.' || length >= sizeof type)
        return error_set(loader->err, ERROR_INVALID, "--set %.100s: must be " TYPE_KEY ".TYPE.KEY", override->key);
    memcpy(type, rest, length);
    type[length] = '\0';
    if (!agent_type_valid(type))
        return error_set(loader->err, ERROR_INVALID, "--set %.100s: \"%s\" is no agent type", override->key, type);
    const struct option *option = find_in_type(rest + length + 1);
    snprintf(where, sizeof where, "--set " TYPE_KEY ".%s.", type);
    if (option == NULL)
        return unknown_key(loader, where, rest + length + 1);
    struct profile *draft = find_draft(loader, type);
    if (draft == NULL && (draft = add_draft(loader, type)) == NULL)
        return -1;
    remember(draft->origins, option, SOURCE_SETTING, 0);
    snprintf(key, sizeof key, "--set %.150s", override->key);
    struct origin origin = {.key = key};
    return option_set_text(option, draft, override->value, &origin, loader->err);
}

/* --- all together
 * ---------------------------------------------------------------------------------------------------------- */

const char *config_registry_auth(const struct config *config, const char *name)
{
    size_t length = strlen(name);
    for (char **pair = config->registry_auth; pair != NULL && *pair != NULL; pair++)
        if (strncmp(*pair, name, length) == 0 && (*pair)[length] == '=')
            return *pair + length + 1;
    return NULL;
}

static int check_registry_auth(const struct config *config, struct error *err)
{
    static const char *const known[] = {"username", "password", "passwordFile", "identityToken"};
    if (config->registry_auth == NULL || *config->registry_auth == NULL)
        return 0;
    for (char **pair = config->registry_auth; *pair != NULL; pair++) {
        size_t length = strcspn(*pair, "=");
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            found = found || (strlen(known[i]) == length && strncmp(*pair, known[i], length) == 0);
        if (!found)
            return error_set(err, ERROR_INVALID,
                             "registryAuth has a key other than username, password, passwordFile and identityToken; it "
                             "is not shown here, for it may be a password");
    }
    bool user = config_registry_auth(config, "username") != NULL,
         token = config_registry_auth(config, "identityToken") != NULL;
    bool password = config_registry_auth(config, "password") != NULL,
         file = config_registry_auth(config, "passwordFile") != NULL;
    if ((token && !user && !password && !file) || (!token && user && password != file))
        return 0;
    return error_set(
        err, ERROR_INVALID,
        "registryAuth needs a username with either a password or a passwordFile, or an identityToken alone");
}

static int check_words(const struct config *config, struct error *err)
{
    static const char *const words[] = {"host-network", "no-cleanup",     "unconfined",
                                        "root-user",    "new-privileges", "host-paths"};
    for (char **word = config->allow_unsafe; *word != NULL; word++) {
        bool known = false;
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            known = known || strcmp(*word, words[i]) == 0;
        if (!known)
            return error_set(
                err, ERROR_INVALID,
                "allowUnsafe: \"%.64s\" is not known; allowed: host-network, no-cleanup, unconfined, root-user, "
                "new-privileges, host-paths",
                *word);
    }
    return 0;
}

static int check_cleanup(const struct config *config, struct error *err)
{
    if (!config->cleanup_between_tasks) {
        bool allowed = false;
        for (char **word = config->allow_unsafe; *word != NULL; word++)
            allowed = allowed || strcmp(*word, "no-cleanup") == 0;
        if (!allowed)
            return error_set(
                err, ERROR_INVALID,
                "cleanupBetweenTasks false lets one task meet what another left; to allow it put no-cleanup into "
                "allowUnsafe");
    }
    return 0;
}

static int check_profile(struct loader *loader, struct profile *profile)
{
    loader->checked = profile->agent_type;
    struct check check = {
        .config = loader->config, .profile = profile, .err = loader->err, .forgive = forgive, .user = loader};
    return profile_check(&check);
}

/* What is wrong by itself makes more wrong beside it: it is to be mended first. */
static int check_all(struct loader *loader)
{
    static int (*const checks[])(const struct config *config, struct error *err) = {check_words, check_cleanup,
                                                                                    check_registry_auth};
    if (loader->faults > 0)
        return 0;
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
        if (checks[i](loader->config, loader->err) < 0 && forgive(loader) < 0)
            return -1;
    if (check_profile(loader, &loader->config->defaults) < 0)
        return -1;
    for (size_t i = 0; i < loader->draft_count; i++)
        if (check_profile(loader, &loader->drafts[i]) < 0)
            return -1;
    return 0;
}

static int load(struct loader *loader, const struct tree *root, bool environment,
                const struct config_override *overrides, size_t count)
{
    if (set_defaults(loader->config, loader->err) < 0 || read_top(loader, root) < 0)
        return -1;
    if (environment && read_environment(loader) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (!names_type(overrides[i].key) && override_top(loader, &overrides[i]) < 0 && forgive(loader) < 0)
            return -1;
    if (read_types(loader, root) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (names_type(overrides[i].key) && override_type(loader, &overrides[i]) < 0 && forgive(loader) < 0)
            return -1;
    if (fill_paths(loader->config, loader->err) < 0)
        return -1;
    return check_all(loader);
}

/* Hands the drafts to the config. */
static void keep_profiles(struct loader *loader)
{
    loader->config->profiles = loader->drafts;
    loader->config->profile_count = loader->draft_count;
    loader->drafts = NULL; /* handed over */
    loader->draft_count = 0;
}

static int open_config(struct loader *loader, uint64_t host_memory_bytes)
{
    loader->config = calloc(1, sizeof *loader->config);
    if (loader->config == NULL)
        return error_set(loader->err, ERROR_NOMEM, "out of memory");
    loader->config->host_memory_bytes = host_memory_bytes;
    loader->config->name = strdup(loader->name);
    loader->config->defaults.origins = calloc(option_count, sizeof *loader->config->defaults.origins);
    return loader->config->name == NULL || loader->config->defaults.origins == NULL
               ? error_set(loader->err, ERROR_NOMEM, "out of memory")
               : 0;
}

/* A text with all that is laid over it, and what becomes of errors. */
struct request {
    const char *text, *name;
    size_t size;
    bool environment;
    const struct config_override *overrides;
    size_t override_count;
    uint64_t host_memory_bytes;
    config_fault_fn *fault;
    void *user;
};

static struct config *parse(const struct request *request, struct error *err)
{
    struct loader loader = {
        .name = request->name, .size = request->size, .err = err, .fault = request->fault, .user = request->user};
    struct tree *root = NULL;
    int result = open_config(&loader, request->host_memory_bytes);
    if (result == 0 && request->size > FILE_MAX)
        result = error_set(err, ERROR_INVALID, "%s: larger than what is allowed, %u bytes", request->name, FILE_MAX);
    if (result == 0 && (root = tree_parse(request->text, request->size, request->name, err)) == NULL)
        result = -1;
    if (result == 0)
        result = load(&loader, root, request->environment, request->overrides, request->override_count);
    if (result == 0)
        keep_profiles(&loader);
    else if (err->code != ERROR_NONE)
        forgive(&loader); /* what nothing can go on after is told as well */
    tree_free(root);
    for (size_t i = 0; i < loader.draft_count; i++)
        profile_release(&loader.drafts[i]);
    free(loader.drafts);
    buffer_free(&loader.told);
    clean(err);
    return result < 0 || loader.faults > 0 ? config_free(loader.config) : loader.config;
}

struct config *config_parse(const char *text, size_t size, const char *name, bool environment,
                            const struct config_override *overrides, size_t override_count, struct error *err)
{
    struct error ignored = ERROR_INIT;
    const struct request request = {.text = text,
                                    .size = size,
                                    .name = name,
                                    .environment = environment,
                                    .overrides = overrides,
                                    .override_count = override_count};
    return parse(&request, err != NULL ? err : &ignored);
}

/* A file, or what stands for one: /dev/null, and a pipe as a shell's <(...) is, which is not waited for for ever. */
static int check_kind(int fd, const char *path, bool *pipe, struct error *err)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return error_errno(err, errno, "%s: cannot be looked at", path);
    *pipe = S_ISFIFO(status.st_mode);
    if (S_ISREG(status.st_mode) || S_ISCHR(status.st_mode) || *pipe)
        return 0;
    return error_set(err, ERROR_INVALID, "%s: is %s; allowed: a file", path,
                     S_ISDIR(status.st_mode) ? "a directory" : "no file");
}

static int read_file(const char *path, struct buffer *text, struct error *err)
{
    bool pipe;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_errno(err, errno, "%s: cannot be opened", path);
    if (check_kind(fd, path, &pipe, err) < 0)
        return -1;
    while (buffer_length(text) <= FILE_MAX) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (pipe && poll(&wait, 1, PIPE_WAIT_MS) == 0)
            return error_set(err, ERROR_TIMEOUT, "%s: a pipe that nothing came out of for %d s", path,
                             PIPE_WAIT_MS / 1000);
        uint8_t *room = buffer_reserve(text, 65536);
        if (room == NULL)
            return error_set(err, ERROR_NOMEM, "out of memory");
        ssize_t got = read(fd, room, 65536);
        if (got < 0 && (errno == EINTR || (pipe && errno == EAGAIN)))
            continue;
        if (got < 0)
            return error_errno(err, errno, "%s: cannot be read", path);
        if (got == 0)
            return 0;
        buffer_commit(text, (size_t)got);
    }
    return error_set(err, ERROR_INVALID, "%s: larger than what is allowed, %u bytes", path, FILE_MAX);
}

static uint64_t host_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages <= 0 || page <= 0 ? 0 : (uint64_t)pages * (uint64_t)page;
}

static struct config *load_file(const char *path, struct request *request, struct error *err)
{
    _cleanup_buffer_ struct buffer text = {0};
    if (path == NULL)
        path = getenv("WARMPOOL_CONFIG");
    if (path == NULL && access(PATH_DEFAULT, F_OK) == 0)
        path = PATH_DEFAULT;
    if (path != NULL && read_file(path, &text, err) < 0)
        return NULL;
    request->text = buffer_text(&text);
    if (request->text == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    request->size = buffer_length(&text);
    request->name = path != NULL ? path : "defaults";
    request->environment = true;
    request->host_memory_bytes = host_memory();
    return parse(request, err);
}

struct config *config_load(const char *path, const struct config_override *overrides, size_t override_count,
                           struct error *err)
{
    struct error ignored = ERROR_INIT;
    struct request request = {.overrides = overrides, .override_count = override_count};
    return load_file(path, &request, err != NULL ? err : &ignored);
}

struct config *config_check(const char *path, const struct config_override *overrides, size_t override_count,
                            config_fault_fn *fault, void *user)
{
    struct error error = ERROR_INIT;
    struct request request = {.overrides = overrides, .override_count = override_count, .fault = fault, .user = user};
    struct config *config = load_file(path, &request, &error);
    if (config == NULL && error.code != ERROR_NONE)
        fault(user, error.message);
    return config;
}

size_t config_key_count(const struct config *config)
{
    size_t count = 0;
    for (size_t i = 0; i < option_count; i++) {
        count += config->defaults.origins[i].source == SOURCE_FILE;
        for (size_t j = 0; j < config->profile_count; j++)
            count += config->profiles[j].origins[i].source == SOURCE_FILE;
    }
    return count;
}

struct config *config_free(struct config *config)
{
    if (config == NULL)
        return NULL;
    for (size_t i = 0; i < option_count; i++)
        if (options[i].scope == SCOPE_GLOBAL)
            option_release(&options[i], config);
    profile_release(&config->defaults);
    for (size_t i = 0; i < config->profile_count; i++)
        profile_release(&config->profiles[i]);
    free(config->profiles);
    free(config->name);
    free(config);
    return NULL;
}

const struct profile *config_profile_of(const struct config *config, const char *agent_type)
{
    for (size_t i = 0; i < config->profile_count; i++)
        if (strcmp(config->profiles[i].agent_type, agent_type) == 0)
            return &config->profiles[i];
    return &config->defaults;
}

struct profile *config_profile(const struct config *config, const char *agent_type, struct error *err)
{
    if (agent_type == NULL || !agent_type_valid(agent_type)) {
        error_set(err, ERROR_INVALID, "\"%.64s\" is no agent type; allowed: [a-z0-9][a-z0-9-]{0,30}",
                  agent_type == NULL ? "" : agent_type);
        return NULL;
    }
    const struct profile *from = config_profile_of(config, agent_type);
    if (from == &config->defaults && config->strict_agent_types) {
        error_set(err, ERROR_NOT_FOUND,
                  "there is no agent type \"%s\" (strictAgentTypes is set); add it to agentConfigs", agent_type);
        return NULL;
    }
    struct profile *profile = malloc(sizeof *profile);
    if (profile == NULL || profile_copy(profile, from, agent_type) < 0) {
        free(profile);
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    return profile;
}

/* --- printing
 * ------------------------------------------------------------------------------------------------------------------ */

static void print_section(struct buffer *out, const char *title, enum option_scope scope)
{
    buffer_printf(out, "\n## %s\n\n| key | default | allowed | reload | meaning |\n| --- | --- | --- | --- | --- |\n",
                  title);
    static const char *const reloads[] = {
        [RELOAD_NOW] = "at once", [RELOAD_ROLL] = "rolls", [RELOAD_RESTART] = "restart"};
    for (size_t i = 0; i < option_count; i++) {
        char allowed[160];
        if (options[i].scope != scope)
            continue;
        option_allowed(&options[i], allowed, sizeof allowed);
        buffer_printf(out, "| `%s` | %s%s%s | %s | %s | %s |\n", options[i].key,
                      options[i].standard[0] != '\0' ? "`" : "", options[i].standard,
                      options[i].standard[0] != '\0' ? "`" : "", allowed, reloads[options[i].reload], options[i].help);
    }
}

void config_print_docs(struct buffer *out)
{
    buffer_append_string(
        out,
        "# Configuration\n\n"
        "This page is made by `warmpool config docs` from the option table (`src/config/options.def`).\n\n"
        "A file is YAML (so JSON too). What is set later wins: defaults, the file, the environment (`poolSize` is\n"
        "`WARMPOOL_POOL_SIZE`), `--set poolSize=4` on the command line. Lists are comma-separated in the latter two. "
        "Times are\n"
        "milliseconds or `500ms 30s 5m 1h`; sizes are bytes or `64m 512MB 1g`. An unknown key, a wrong type or a value "
        "out of range\n"
        "is an error that names line, key, value and what is allowed.\n\n"
        "`warmpool reload` (or SIGHUP) reads the file again. *at once*: a changed value takes effect at once; *rolls*: "
        "the "
        "containers\n"
        "of the types that it concerns are replaced, a few at a time; *restart*: the daemon has to be started anew, "
        "and a "
        "reload\n"
        "with a changed value is refused as a whole.\n");
    print_section(out, "The daemon", SCOPE_GLOBAL);
    print_section(out, "Pools and tasks: at the top level for every agent type, or below `agentConfigs.TYPE`",
                  SCOPE_POOL);
    print_section(out, "Containers: at the top level for every agent type, or below `agentConfigs.TYPE`",
                  SCOPE_PROFILE);
    buffer_append_string(out, "\nBelow `agentConfigs.TYPE`, `image` is the same as `dockerImage`. Built in are");
    for (size_t i = 0; profile_built_in_name(i) != NULL; i++)
        buffer_printf(out, "%s `%s`", i > 0 ? "," : "", profile_built_in_name(i));
    buffer_append_string(out,
                         ";\n`warmpool config show` prints what is in force, their limits and variables included.\n");
}

static void print_line(const struct config *config, const struct profile *profile, const struct option *option,
                       struct buffer *out)
{
    char place[256];
    const struct config_origin *origin = &profile->origins[option - options];
    buffer_printf(out, "%s%s: ", profile == &config->defaults ? "" : "    ", option->key);
    option_print(option, option->scope == SCOPE_GLOBAL ? (const void *)config : profile, out);
    if (profile != &config->defaults && origin->source == SOURCE_DEFAULT)
        snprintf(place, sizeof place, "as above");
    else
        origin_print(config, origin, option->key, place, sizeof place);
    buffer_printf(out, "  # %s\n", place);
}

void config_print_effective(const struct config *config, struct buffer *out)
{
    for (size_t i = 0; i < option_count; i++)
        print_line(config, &config->defaults, &options[i], out);
    buffer_append_string(out, TYPE_KEY ":\n");
    for (size_t i = 0; i < config->profile_count; i++) {
        buffer_printf(out, "  %s:\n", config->profiles[i].agent_type);
        for (size_t j = 0; j < option_count; j++)
            if (options[j].scope != SCOPE_GLOBAL)
                print_line(config, &config->profiles[i], &options[j], out);
    }
}
