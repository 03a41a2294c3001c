/* Configuration: every option has an effect, every error says where, what and what would be right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/option.h"

static struct config *parse(const char *text, struct error *error)
{
    *error = (struct error)ERROR_INIT;
    return config_parse(text, strlen(text), "test.yaml", false, NULL, 0, error);
}

static struct config *parse_sound(const char *text)
{
    struct error error;
    struct config *config = parse(text, &error);
    if (config == NULL)
        fail_msg("%s", error.message);
    return config;
}

static void refuse(const char *text, const char *part)
{
    struct error error;
    struct config *config = parse(text, &error);
    if (config != NULL)
        fail_msg("accepted: %s", text);
    if (strstr(error.message, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, error.message);
}

/* Two values for each key, both unlike the default. */
static const char *const samples[][3] = {
    {"engine", "docker", "podman"},
    {"instance", "blue", "green"},
    {"dockerHost", "unix:///a", "unix:///b"},
    {"dockerCertPath", "/etc/a", "/etc/b"},
    {"transport", "socket", "attach"},
    {"runtime", "runsc", "crun"},
    {"stateDir", "/a", "/b"},
    {"socket", "/a", "/b"},
    {"logLevel", "debug", "error"},
    {"autoCleanup", "false", "true"},
    {"cleanupBetweenTasks", "false", "true"},
    {"enableMetrics", "false", "true"},
    {"optimizeNetworking", "false", "true"},
    {"preloadCommonImages", "false", "true"},
    {"registryAuth", "{username: u, password: p}", "{identityToken: t}"},
    {"dockerRegistry", "registry.example:5000", "localhost"},
    {"strictAgentTypes", "true", "false"},
    {"maxConcurrentCreates", "1", "2"},
    {"maxTotalContainers", "7", "8"},
    {"orphanTimeout", "1m", "2m"},
    {"uidRange", "100000-100009", "200000-200009"},
    {"networkSubnetPool", "10.1.0.0/16", "10.2.0.0/20"},
    {"warmupAgentTypes", "[coder]", "[tester, coder]"},
    {"allowUnsafe", "[no-cleanup]", "[no-cleanup, unconfined, root-user, new-privileges]"},
    {"poolSize", "3", "4"},
    {"minPoolSize", "0", "2"},
    {"maxPoolSize", "5", "6"},
    {"autoScaling", "false", "true"},
    {"scaleUpThreshold", "70", "90"},
    {"scaleDownThreshold", "5", "10"},
    {"scalingInterval", "5s", "6000"},
    {"scaleCooldown", "1s", "2s"},
    {"maxContainerAge", "1m", "2h"},
    {"containerIdleTimeout", "1m", "2m"},
    {"healthCheckInterval", "1s", "2s"},
    {"canaryInterval", "1s", "0"},
    {"enableContainerReuse", "false", "true"},
    {"maxTasksPerContainer", "1", "2"},
    {"maxQueue", "1", "2"},
    {"queueTimeoutMs", "1", "2"},
    {"scalingPolicy", "threshold", "predictive"},
    {"targetHitRate", "90", "95"},
    {"memoryBudget", "1g", "2g"},
    {"retryAttempts", "0", "2"},
    {"leaseTtl", "1000", "2000"},
    {"leaseWarnAfter", "1000", "2000"},
    {"timeoutMs", "1", "2"},
    {"killTimeout", "1", "2"},
    {"resetTimeout", "10", "20"},
    {"maxOutputBytes", "1k", "2k"},
    {"environmentWhitelist", "[A]", "[A, B_*]"},
    {"captureOutput", "false", "true"},
    {"streamOutput", "false", "true"},
    {"dockerImage", "a", "b"},
    {"user", "1000", "1001:1001"},
    {"memory", "64m", "1g"},
    {"cpus", "0.25", "2"},
    {"cpuQuota", "20000", "250000"},
    {"pids", "64", "65"},
    {"oomScoreAdj", "100", "-100"},
    {"memorySwappiness", "0", "10"},
    {"networkMode", "none", "internal"},
    {"readOnlyRootFs", "false", "true"},
    {"sandboxed", "true", NULL}, /* nothing else is possible */
    {"noNewPrivileges", "false", "true"},
    {"securityOpts", "[apparmor=x]", "[apparmor=y]"},
    {"environment", "{A: x}", "{A: y}"},
    {"command", "[a]", "[a, b]"},
    {"tmpfsLimits", "{/tmp: 1m}", "{/tmp: 2m}"},
    {"volumeMounts", "[\"/a:/b\"]", "[\"/a:/b:rw\"]"},
    {"resourceLimits", "{maxMemory: 64m}", "{maxCpuTime: 3s, priority: low}"},
    {"ulimits", "{nofile: 10}", "{nofile: \"10:20\"}"},
};

static char *value_of(const char *key, const char *sample)
{
    char text[256];
    const struct option *option = option_find(key);
    snprintf(text, sizeof text, "%s%s: %s\n",
             strcmp(key, "allowUnsafe") == 0 ? "" : "allowUnsafe: [no-cleanup, new-privileges]\n", key, sample);
    struct config *config = parse_sound(text);
    struct buffer out = {0};
    option_print(option, option->scope == SCOPE_GLOBAL ? (void *)config : (void *)&config->defaults, &out);
    config_free(config);
    return buffer_take(&out, NULL);
}

static void test_two_values_of_each_option_differ(void **state)
{
    (void)state;
    size_t count = sizeof samples / sizeof samples[0];
    assert_int_equal(count, option_count);
    for (size_t i = 0; i < count; i++) {
        assert_non_null(option_find(samples[i][0]));
        if (samples[i][2] == NULL)
            continue;
        char *first = value_of(samples[i][0], samples[i][1]), *second = value_of(samples[i][0], samples[i][2]);
        if (strcmp(first, second) == 0)
            fail_msg("%s: %s and %s both give %s", samples[i][0], samples[i][1], samples[i][2], first);
        free(first);
        free(second);
    }
}

static void test_errors_name_line_key_value_and_what_is_allowed(void **state)
{
    (void)state;
    refuse("poolSize: 2\nmaxPoolSize: many\n", "test.yaml:2: maxPoolSize: \"many\"");
    refuse("maxPoolSize: many\n", "allowed: a whole number 1 to 1000");
    refuse("poolSize: 0\n", "1 to 1000");
    refuse("timeoutMs: -5\n", "timeoutMs: \"-5\"");
    refuse("memory: 12parsecs\n", "a size");
    refuse("memory: 4k\n", "6m to 1024g");
    refuse("autoScaling: maybe\n", "true or false");
    refuse("poolSize: [1, 2]\n", "a list is not allowed");
    refuse("warmupAgentTypes: [Coder]\n", "agent types");
    refuse("uidRange: 5-4\n", "FIRST-LAST");
    refuse("networkSubnetPool: 10.0.0.0/30\n", "prefix of 8 to 29");
    refuse("tmpfsLimits: {tmp: 1m}\n", "absolute paths");
    refuse("volumeMounts: [\"/a\"]\n", "/host/path:/container/path");
    refuse("ulimits: {nofiles: 3}\n", "limit names");
    refuse("stateDir: relative\n", "an absolute path");
    refuse("dockerRegistry: https://registry.example\n", "without a scheme");
    refuse("agentConfigs: {coder: {dockerRegistry: team}}\n", "coder: dockerRegistry: \"team\": must be HOST");
    refuse("dockerImage: Team/image\n", "dockerImage: \"Team/image\" is no image reference");
}

static void test_unknown_keys_are_refused_with_the_nearest_one(void **state)
{
    (void)state;
    refuse("\npoolsize: 3\n", "test.yaml:2: poolsize: unknown key; did you mean poolSize?");
    refuse("quantumEntanglement: 3\n", "unknown key");
    refuse("agentConfigs:\n  coder:\n    memmory: 3\n",
           "test.yaml:3: agentConfigs.coder.memmory: unknown key; did you mean memory?");
    refuse("agentConfigs:\n  coder:\n    stateDir: /x\n", "a key of the top level");
    refuse("agentConfigs:\n  Coder:\n    memory: 1g\n", "no agent type");
}

static void test_hostile_texts_are_refused(void **state)
{
    (void)state;
    refuse("poolSize: 1\npoolSize: 2\n", "given twice; the first is on line 1");
    refuse("a: &x [1]\nb: *x\n", "test.yaml:1: an anchor");
    refuse("a: *x\n", "test.yaml:1: an alias");
    refuse("a: [[[[[[[[[[1]]]]]]]]]]\n", "nested");
    refuse("poolSize:\t[\n", "not YAML");
    refuse("- a\n- b\n", "must be a mapping");
    refuse("--- {}\n--- {}\n", "second document");
    char *large = malloc(2 << 20);
    memset(large, ' ', (2 << 20) - 1);
    large[(2 << 20) - 1] = '\0';
    refuse(large, "larger than");
    free(large);
}

static void test_passwords_are_never_said(void **state)
{
    static const char *const wrong[] = {
        "registryAuth: s3cret-word\n",
        "registryAuth: [s3cret-word]\n",
        "registryAuth: {s3cret-word: x}\n",
        "registryAuth: {username: [s3cret-word]}\n",
        "registryAuth: {password: s3cret-word}\n",
        "registryAuth: {username: u, password: s3cret-word, passwordFile: /s3cret-word}\n",
        "registryAuth: {username: u, password: p, identityToken: s3cret-word}\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct error error;
        assert_null(parse(wrong[i], &error));
        assert_non_null(strstr(error.message, "registryAuth"));
        if (strstr(error.message, "s3cret") != NULL)
            fail_msg("%s", error.message);
    }
    const char *const right[] = {"registryAuth: {username: u, password: s3cret-word}\n",
                                 "registryAuth: {identityToken: s3cret-word}\n"};
    for (size_t i = 0; i < 2; i++) {
        struct config *config = parse_sound(right[i]);
        struct buffer out = {0};
        config_print_effective(config, &out);
        assert_null(strstr(buffer_text(&out), "s3cret"));
        assert_non_null(strstr(buffer_text(&out), "\"***\""));
        buffer_free(&out);
        config_free(config);
    }
}

static void test_json_is_yaml(void **state)
{
    (void)state;
    struct config *config = parse_sound("{\"poolSize\": 3, \"agentConfigs\": {\"coder\": {\"cpus\": 2}}}");
    assert_int_equal(config->defaults.pool_size, 3);
    config_free(config);
}

static void test_what_does_not_fit_together_is_refused(void **state)
{
    (void)state;
    refuse("minPoolSize: 5\nmaxPoolSize: 4\n", "minPoolSize (5) is above maxPoolSize (4)");
    refuse("poolSize: 9\nmaxPoolSize: 4\n", "poolSize (9)");
    refuse("scaleUpThreshold: 20\nscaleDownThreshold: 20\n", "scaleDownThreshold");
    refuse("environmentWhitelist: [\"A*B\"]\n", "environmentWhitelist: \"A*B\"");
    refuse("environmentWhitelist: [\"A=\"]\n", "environmentWhitelist: \"A=\"");
    refuse("environmentWhitelist: [\"\"]\n", "environmentWhitelist: \"\"");
    config_free(parse_sound("environmentWhitelist: [A, \"B*\", \"*\"]\n"));
    refuse("memory: 64m\ntmpfsLimits: {/tmp: 64m}\n", "exceed the memory limit");
}

static void test_sizes_not_given_follow_those_given(void **state)
{
    (void)state;
    struct config *config = parse_sound("maxPoolSize: 1\n");
    assert_int_equal(config->defaults.pool_size, 1);
    config_free(config);
    config = parse_sound("minPoolSize: 12\n");
    assert_int_equal(config->defaults.pool_size, 12);
    assert_int_equal(config->defaults.max_pool_size, 12);
    config_free(config);
    config = parse_sound("poolSize: 20\n");
    assert_int_equal(config->defaults.max_pool_size, 20);
    config_free(config);
}

static void test_what_weakens_isolation_must_be_allowed_by_name(void **state)
{
    (void)state;
    refuse("networkMode: host\n", "put host-network into allowUnsafe");
    refuse("networkMode: container:x\n", "host-network");
    refuse("cleanupBetweenTasks: false\n", "no-cleanup");
    refuse("securityOpts: [seccomp=unconfined]\n", "unconfined");
    refuse("agentConfigs: {coder: {sandboxed: false}}\n", "coder: sandboxed");
    refuse("sandboxed: false\n", "allowUnsafe");
    config_free(parse_sound("sandboxed: true\n"));
    refuse("user: root\n", "root-user");
    refuse("user: \"0:0\"\n", "root-user");
    refuse("noNewPrivileges: false\n", "new-privileges");
    refuse("volumeMounts: [\"/var/run/docker.sock:/x\"]\n", "host-paths");
    refuse("agentConfigs: {coder: {volumeMounts: [\"/etc:/x\"]}}\n", "coder: /etc");
    refuse("allowUnsafe: [everything]\n", "not known");
    config_free(parse_sound("allowUnsafe: [host-network]\nnetworkMode: host\n"));
}

static uint32_t cores_of(const char *text, const char *agent_type)
{
    struct error error = ERROR_INIT;
    struct config *config = parse_sound(text);
    struct profile *profile = config_profile(config, agent_type, &error);
    uint32_t milli = profile->cpu_milli;
    profile_free(profile);
    config_free(config);
    return milli;
}

static void test_cpu_quota_is_cpus_in_other_words(void **state)
{
    (void)state;
    assert_int_equal(cores_of("cpuQuota: 30000\n", "mine"), 300);
    assert_int_equal(cores_of("cpuQuota: 30000\n", "coder"), 300); /* over the built-in 1.0 */
    assert_int_equal(cores_of("cpuQuota: 30000\nagentConfigs: {coder: {cpus: 2}}\n", "coder"), 2000);
    assert_int_equal(cores_of("cpus: 2\nagentConfigs: {mine: {cpuQuota: 75000}}\n", "mine"), 750);
    assert_int_equal(cores_of("cpuQuota: 30000\nagentConfigs: {mine: {cpuQuota: 0}}\n", "mine"), 500);
    assert_int_equal(cores_of("cpuQuota: 30000\ncpus: 0.3\n", "mine"), 300);
    refuse("cpuQuota: 30000\ncpus: 2\n", "cpus (2.000) and cpuQuota (30000, which is 0.300 cores) are both given");
    refuse("agentConfigs: {coder: {cpuQuota: 30000, cpus: 2}}\n", "coder: cpus (2.000) and cpuQuota");
    refuse("cpuQuota: 999\n", "1000");
}

static void test_resource_limits_are_other_keys_in_other_words(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    struct config *config = parse_sound(
        "resourceLimits: {maxMemory: 100m, maxFileHandles: 333, maxDiskSpace: 70m, maxCpuTime: 1500, priority: low}\n"
        "agentConfigs:\n  near: {memory: 200m, ulimits: {nofile: 20}}\n  own: {resourceLimits: {maxFileHandles: "
        "40}}\n");
    struct profile *profile = config_profile(config, "coder", &error);
    assert_int_equal(profile->memory_bytes, 100 << 20); /* over the built-in 512m */
    assert_int_equal(profile->ulimits[0].hard, 333);
    assert_int_equal(profile->resources.priority, 3);
    uint64_t sum = 0;
    for (size_t i = 0; i < profile->tmpfs_count; i++)
        sum += profile->tmpfs[i].size_bytes;
    assert_int_equal(sum, 70 << 20);
    profile_free(profile);
    profile = config_profile(config, "near", &error);
    assert_int_equal(profile->memory_bytes, 200 << 20);
    assert_int_equal(profile->ulimits[0].hard, 20);
    profile_free(profile);
    profile = config_profile(config, "own", &error);
    assert_int_equal(profile->memory_bytes, 256 << 20);
    assert_int_equal(profile->ulimits[0].soft, 40);
    assert_int_equal(profile->resources.priority, 2);
    profile_free(profile);
    config_free(config);
    config_free(parse_sound("ulimits: {core: 0}\nresourceLimits: {maxFileHandles: 20}\n"));
}

static void test_resource_limits_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    refuse("resourceLimits: {maxMemory: 64m}\nmemory: 65m\n",
           "resourceLimits.maxMemory (67108864 bytes) are both given");
    refuse("agentConfigs: {coder: {resourceLimits: {maxMemory: 64m}, memory: 65m}}\n", "coder: memory");
    refuse("resourceLimits: {maxFileHandles: 20}\nulimits: {nofile: 30}\n", "ulimits.nofile and");
    refuse("memory: 64m\nresourceLimits: {maxDiskSpace: 65m}\n", "exceeds the memory limit (64 MiB)");
    refuse("resourceLimits: {maxDiskSpace: 1m}\ntmpfsLimits: {/tmp: 1m}\n", "no room in resourceLimits.maxDiskSpace");
    refuse("\nresourceLimits:\n  maxNetworkConnections: 10\n",
           "test.yaml:3: resourceLimits.maxNetworkConnections: \"10\" is not allowed; allowed: nothing");
    refuse("resourceLimits: {maxCpuTime: long}\n", "a time");
    refuse("resourceLimits: {priority: 3}\n", "critical, high");
    refuse("resourceLimits: {maxMemory: [1]}\n", "a size");
    refuse("resourceLimits: {maxFileHandles: 4}\n", "16 to 1048576");
    refuse("resourceLimits: {maxPower: 4}\n", "maxMemory, maxFileHandles");
    refuse("resourceLimits: 4\n", "a mapping of maxMemory");
}

static void test_profiles(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    struct config *config = parse_sound(
        "memory: 300m\nenvironment: {TOP: t}\nagentConfigs:\n  coder:\n    cpus: 2\n    environment: {X: y}\n"
        "  mine:\n    image: other\n");
    struct profile *coder = config_profile(config, "coder", &error);
    assert_int_equal(coder->memory_bytes, 512 << 20); /* its own limit, from the seed */
    assert_int_equal(coder->cpu_milli, 2000);
    bool mode = false, top = false, own = false;
    for (char **pair = coder->environment; *pair != NULL; pair++) {
        mode = mode || strcmp(*pair, "CODER_MODE=true") == 0;
        top = top || strcmp(*pair, "TOP=t") == 0;
        own = own || strcmp(*pair, "X=y") == 0;
    }
    assert_true(mode && top && own);
    profile_free(coder);
    struct profile *mine = config_profile(config, "mine", &error);
    assert_string_equal(mine->image, "other");
    assert_int_equal(mine->memory_bytes, 300 << 20);
    profile_free(mine);
    struct profile *other = config_profile(config, "never-heard-of", &error);
    assert_string_equal(other->agent_type, "never-heard-of");
    profile_free(other);
    assert_null(config_profile(config, "Not Valid", &error));
    config_free(config);
    config = parse_sound("strictAgentTypes: true\n");
    assert_null(config_profile(config, "never-heard-of", &error));
    assert_int_equal(error.code, ERROR_NOT_FOUND);
    config_free(config);
}

static void test_default_mounts_take_less_than_half_of_the_memory(void **state)
{
    (void)state;
    struct config *config = parse_sound("");
    for (size_t i = 0; i < config->profile_count; i++) {
        uint64_t sum = 0;
        for (size_t j = 0; j < config->profiles[i].tmpfs_count; j++)
            sum += config->profiles[i].tmpfs[j].size_bytes;
        assert_int_equal(config->profiles[i].tmpfs_count, 3);
        assert_true(sum > 0 && sum <= config->profiles[i].memory_bytes / 2);
    }
    config_free(config);
}

static void test_overrides_win_over_environment_over_file(void **state)
{
    (void)state;
    static const char text[] = "poolSize: 3\nmaxQueue: 3\nmaxPoolSize: 30\n";
    const struct config_override overrides[] = {
        {"poolSize", "5"}, {"agentConfigs.coder.memory", "1g"}, {"warmupAgentTypes", "a,b"}};
    struct error error = ERROR_INIT;
    setenv("WARMPOOL_POOL_SIZE", "4", 1);
    setenv("WARMPOOL_MAX_QUEUE", "4", 1);
    struct config *config = config_parse(text, strlen(text), "f", true, overrides, 3, &error);
    assert_non_null(config);
    assert_int_equal(config->defaults.pool_size, 5);
    assert_int_equal(config->defaults.max_queue, 4);
    assert_int_equal(config->defaults.max_pool_size, 30);
    assert_string_equal(config->warmup_agent_types[1], "b");
    struct profile *coder = config_profile(config, "coder", &error);
    assert_int_equal(coder->memory_bytes, 1 << 30);
    profile_free(coder);
    config_free(config);
    setenv("WARMPOOL_MAX_QUEUE", "none", 1);
    assert_null(config_parse(text, strlen(text), "f", true, NULL, 0, &error));
    assert_non_null(strstr(error.message, "WARMPOOL_MAX_QUEUE: \"none\""));
    unsetenv("WARMPOOL_POOL_SIZE");
    unsetenv("WARMPOOL_MAX_QUEUE");
    const struct config_override wrong = {"poolSise", "5"};
    assert_null(config_parse(text, strlen(text), "f", false, &wrong, 1, &error));
    assert_non_null(strstr(error.message, "did you mean poolSize"));
}

/* Without the comments that say where a value comes from. */
static void cut_origins(struct buffer *printed)
{
    char *text = buffer_take(printed, NULL), *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        char *comment = strstr(line, "  # ");
        buffer_printf(printed, "%.*s\n", comment == NULL ? (int)strlen(line) : (int)(comment - line), line);
    }
    free(text);
}

static void test_the_printed_configuration_reads_back_the_same(void **state)
{
    (void)state;
    struct config *config =
        parse_sound("poolSize: 3\ncpuQuota: 12345\nresourceLimits: {maxMemory: 99m, maxDiskSpace: 9m, maxFileHandles: "
                    "99, maxCpuTime: 1}\nagentConfigs: {coder: {cpus: 1.5, tmpfsLimits: {/tmp: 3m}}}\n");
    struct buffer first = {0}, second = {0};
    config_print_effective(config, &first);
    config_free(config);
    config = parse_sound(buffer_text(&first));
    config_print_effective(config, &second);
    cut_origins(&first);
    cut_origins(&second);
    assert_string_equal(buffer_text(&first), buffer_text(&second));
    buffer_free(&first);
    buffer_free(&second);
    config_free(config);
}

static void keep_warning(void *user, const char *text)
{
    buffer_append_string(user, text);
    buffer_append_string(user, "\n");
}

static void warned(const char *text, const char *part)
{
    struct buffer out = {0};
    struct config *config = parse_sound(text);
    config_warnings(config, keep_warning, &out);
    const char *first = strstr(buffer_text(&out), part);
    if (first == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, buffer_text(&out));
    if (strstr(first + 1, part) != NULL)
        fail_msg("said twice: %s", buffer_text(&out));
    buffer_free(&out);
    config_free(config);
}

static void test_what_weakens_a_default_is_said_once(void **state)
{
    (void)state;
    struct buffer out = {0};
    struct config *config = parse_sound("");
    config_warnings(config, keep_warning, &out);
    assert_string_equal(buffer_text(&out), "");
    config_free(config);
    config =
        parse_sound("agentConfigs: {mine: {tmpfsLimits: {/tmp: 40m}, pids: 4096, cpus: 0.1, networkMode: internal}}");
    config_warnings(config, keep_warning, &out);
    assert_string_equal(buffer_text(&out), "");
    config_free(config);
    buffer_free(&out);
    warned("readOnlyRootFs: false\n", "of its own: readOnlyRootFs is false: what");
    warned("agentConfigs: {mine: {readOnlyRootFs: false}}\n", "mine: readOnlyRootFs is false: what");
    warned("volumeMounts: [\"/a:/b:rw\", \"/c:/d\"]\n", "volumeMounts: /a is writable at /b");
    warned("networkMode: shared\n", "networkMode is shared: all containers");
    warned("pids: 4097\n", "pids is 4097");
    warned("securityOpts: [\"seccomp={}\"]\n", "securityOpts: seccomp: this profile replaces");
    warned("allowUnsafe: [unconfined]\nsecurityOpts: [apparmor=unconfined]\n", "securityOpts: apparmor=unconfined");
    warned("allowUnsafe: [unconfined]\n", "allowUnsafe has unconfined: securityOpts may");
    warned("allowUnsafe: [root-user]\n", "allowUnsafe has root-user");
    warned("allowUnsafe: [new-privileges]\nnoNewPrivileges: false\n", ": noNewPrivileges is false");
    warned("allowUnsafe: [host-network]\nnetworkMode: host\n", "networkMode is host: tasks have that network");
    warned("allowUnsafe: [no-cleanup]\ncleanupBetweenTasks: false\n", "type: cleanupBetweenTasks is false");
    warned("user: \"1000\"\n", "user is 1000");
    warned("agentConfigs: {coder: {cpus: 0}}\n", "coder: cpus is 0");
    warned("oomScoreAdj: -5\n", "oomScoreAdj is -5");
    warned("agentConfigs: {mine: {tmpfsLimits: {/tmp: 90m}}}\n", "mine: tmpfsLimits: the mounts together (170 MiB)");
}

static void shows(const struct config *config, const char *line)
{
    struct buffer out = {0};
    config_print_effective(config, &out);
    if (strstr(buffer_text(&out), line) == NULL)
        fail_msg("\"%s\" is not in:\n%s", line, buffer_text(&out));
    buffer_free(&out);
}

static void test_where_a_value_comes_from(void **state)
{
    (void)state;
    static const char text[] = "maxQueue: 3\nagentConfigs:\n  coder:\n    memory: 1g\n  mine:\n    image: a\n";
    const struct config_override overrides[] = {{"logLevel", "debug"}, {"agentConfigs.mine.cpus", "2"}};
    struct error error = ERROR_INIT;
    setenv("WARMPOOL_LEASE_TTL", "5s", 1);
    struct config *config = config_parse(text, strlen(text), "f.yaml", true, overrides, 2, &error);
    unsetenv("WARMPOOL_LEASE_TTL");
    assert_non_null(config);
    shows(config, "\nmaxQueue: 3  # f.yaml:1\n");
    shows(config, "\npoolSize: 2  # default\n");
    shows(config, "\nlogLevel: debug  # --set\n");
    shows(config, "\nleaseTtl: 5000ms  # WARMPOOL_LEASE_TTL\n");
    shows(config, "    memory: 1073741824  # f.yaml:4\n");
    shows(config, "    cpus: 1.000  # built in\n");
    shows(config, "    maxQueue: 3  # as above\n");
    shows(config, "    cpus: 2.000  # --set\n");
    assert_int_equal(config_key_count(config), 3);
    config_free(config);
}

static void test_what_does_not_fit_together_is_told_with_its_line(void **state)
{
    (void)state;
    refuse("poolSize: 2\nminPoolSize: 5\nmaxPoolSize: 4\n", "test.yaml:2: default: minPoolSize (5) is above");
    refuse("\nagentConfigs:\n  coder:\n    scaleDownThreshold: 90\n", "test.yaml:4: coder: scaleDownThreshold (90)");
    refuse("\nuser: root\n", "test.yaml:2: default: running as root");
    refuse("\ndockerImage: Team/image\n", "test.yaml:2: default: dockerImage: ");
    refuse("memory: 64m\nmemoryBudget: 32m\n", "test.yaml:1: default: memory (64 MiB) is above memoryBudget");
    refuse("agentConfigs: {coder: {image: a, dockerImage: b}}\n", "image and dockerImage are both given");
}

static void test_mounts_keep_out_of_each_other(void **state)
{
    (void)state;
    refuse("volumeMounts: [\"/a:/workspace/in:rw\"]\n",
           "test.yaml:1: default: volumeMounts: /workspace/in is within /workspace");
    refuse("volumeMounts: [\"/a:/tmp/\"]\n", "/tmp/ is within /tmp");
    refuse("volumeMounts: [\"/a:/data\"]\ntmpfsLimits: {/data: 1m}\n", "/data is within /data");
    refuse("volumeMounts: [\"/a:/x\", \"/b:/x/\"]\n", "two mounts at /x/");
    refuse("volumeMounts: [\"/a:/dev/shm\"]\n", "/dev/shm is not free");
    refuse("volumeMounts: [\"/a:/.warmpool/sock\"]\n", "a container needs /.warmpool itself");
    config_free(parse_sound("volumeMounts: [\"/a:/workspace\", \"/b:/workspaces\", \"/c:/workspace2/x\"]\n"));
}

static void test_more_memory_than_the_host_has(void **state)
{
    (void)state;
    struct error error = ERROR_INIT;
    const struct config_override large[] = {{"agentConfigs.coder.memory", "1024g"},
                                            {"dockerHost", "tcp://192.0.2.1:2376"}};
    assert_null(config_load("/dev/null", large, 1, &error));
    if (strstr(error.message, "--set: coder: memory (1048576 MiB) is more than this host has (") == NULL)
        fail_msg("%s", error.message);
    struct config *config = config_load("/dev/null", large, 2, &error); /* of another host nothing is known */
    assert_non_null(config);
    config_free(config);
    config = parse_sound("memory: 16m\npoolSize: 1000\nminPoolSize: 1\nwarmupAgentTypes: [mine]\n");
    config->host_memory_bytes = 1 << 30;
    struct buffer out = {0};
    config_warnings(config, keep_warning, &out);
    assert_non_null(strstr(buffer_text(&out), "the 1000 containers that are warm from the start may take 16000 MiB "
                                              "together, this host has 1024 MiB"));
    assert_non_null(strstr(buffer_text(&out), "maxTotalContainers (200) is below the 1000"));
    buffer_free(&out);
    config_free(config);
}

/* What a check of this text tells. */
static char *told_of(const char *text)
{
    char path[] = "/tmp/wp-test-XXXXXX";
    struct buffer out = {0};
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
    close(fd);
    assert_null(config_check(path, NULL, 0, keep_warning, &out));
    unlink(path);
    return buffer_take(&out, NULL);
}

static void test_all_that_is_wrong_is_told(void **state)
{
    (void)state;
    char *told = told_of("poolSize: 0\nnonsense: 1\nagentConfigs:\n  coder:\n    memory: x\n    cpu: 1\n  Bad: {}\n");
    const char *const parts[] = {":1: poolSize", ":2: nonsense", ":5: agentConfigs.coder.memory",
                                 ":6: agentConfigs.coder.cpu", ":7: agentConfigs: \"Bad\""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(told, parts[i]) == NULL)
            fail_msg("%s is not in %s", parts[i], told);
    free(told);
    /* What is so for every type is said once. */
    told = told_of("minPoolSize: 5\nmaxPoolSize: 4\nuser: root\n");
    size_t lines = 0;
    for (const char *c = told; *c != '\0'; c++)
        lines += *c == '\n';
    if (lines != 2)
        fail_msg("%s", told);
    free(told);
    told = told_of("poolSize: [\n");
    assert_non_null(strstr(told, "not YAML"));
    free(told);
}

static void test_durations_and_sizes(void **state)
{
    (void)state;
    uint64_t value = 0;
    assert_int_equal(parse_duration_ms("500ms", &value), 0);
    assert_int_equal(value, 500);
    assert_int_equal(parse_duration_ms("2h", &value), 0);
    assert_int_equal(value, 7200000);
    assert_int_equal(parse_size_bytes("512MB", &value), 0);
    assert_int_equal(value, 512 << 20);
    assert_int_equal(parse_size_bytes("1GiB", &value), 0);
    assert_int_equal(value, 1 << 30);
    const char *const wrong[] = {"", "-1", "1y", "s", "1 s", "99999999999999999999", "1.5s"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(parse_duration_ms(wrong[i], &value), -1);
        assert_int_equal(parse_size_bytes(wrong[i], &value), -1);
    }
}

static void test_the_page_documents_every_key(void **state)
{
    (void)state;
    const char *path = getenv("CONFIGURATION_PAGE");
    FILE *file = fopen(path != NULL ? path : "docs/CONFIGURATION.md", "r");
    assert_non_null(file);
    static char page[65536];
    size_t size = fread(page, 1, sizeof page - 1, file);
    fclose(file);
    page[size] = '\0';
    struct buffer made = {0};
    config_print_docs(&made);
    assert_string_equal(page, buffer_text(&made)); /* warmpool config docs > docs/CONFIGURATION.md */
    buffer_free(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_values_of_each_option_differ),
        cmocka_unit_test(test_errors_name_line_key_value_and_what_is_allowed),
        cmocka_unit_test(test_unknown_keys_are_refused_with_the_nearest_one),
        cmocka_unit_test(test_hostile_texts_are_refused),
        cmocka_unit_test(test_passwords_are_never_said),
        cmocka_unit_test(test_json_is_yaml),
        cmocka_unit_test(test_what_does_not_fit_together_is_refused),
        cmocka_unit_test(test_sizes_not_given_follow_those_given),
        cmocka_unit_test(test_what_weakens_isolation_must_be_allowed_by_name),
        cmocka_unit_test(test_cpu_quota_is_cpus_in_other_words),
        cmocka_unit_test(test_resource_limits_are_other_keys_in_other_words),
        cmocka_unit_test(test_resource_limits_that_do_not_fit_are_refused),
        cmocka_unit_test(test_profiles),
        cmocka_unit_test(test_default_mounts_take_less_than_half_of_the_memory),
        cmocka_unit_test(test_overrides_win_over_environment_over_file),
        cmocka_unit_test(test_the_printed_configuration_reads_back_the_same),
        cmocka_unit_test(test_what_weakens_a_default_is_said_once),
        cmocka_unit_test(test_where_a_value_comes_from),
        cmocka_unit_test(test_what_does_not_fit_together_is_told_with_its_line),
        cmocka_unit_test(test_mounts_keep_out_of_each_other),
        cmocka_unit_test(test_more_memory_than_the_host_has),
        cmocka_unit_test(test_all_that_is_wrong_is_told),
        cmocka_unit_test(test_durations_and_sizes),
        cmocka_unit_test(test_the_page_documents_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
