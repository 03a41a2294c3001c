/* Configuration: one table (options.def) feeds parser, environment, --set, defaults, range checks and documentation.
 *
 * Two scopes. Global keys live in `struct config`; pool keys live in `struct profile`: at the top level they set what
 * every agent type gets, below agentConfigs.TYPE they override it for that type. Precedence: --set, environment
 * (WARMPOOL_POOL_SIZE), file, defaults. All strings and arrays are owned by the config. Not thread-safe; read-only
 * after config_load(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

#define AGENT_TYPE_MAX 31 /* bytes, without NUL: [a-z0-9][a-z0-9-]{0,30} */

struct config_tmpfs { /* tmpfsLimits: {/tmp: 32m, /workspace: 64m, /dev/shm: 8m} */
    char *path;
    uint64_t size_bytes;
};

struct config_mount { /* volumeMounts: ["/host/path:/container/path[:rw]"], read-only unless :rw */
    char *source, *target;
    bool writable;
};

struct config_ulimit { /* ulimits: {nofile: 1024, nproc: "512:1024"} */
    char *name;
    int64_t soft, hard;
};

struct config_resources { /* resourceLimits: {maxMemory: 256m, ...}; 0: not given */
    uint64_t max_memory_bytes, max_disk_bytes, max_cpu_ms;
    uint32_t max_file_handles;
    uint32_t priority; /* 0 critical to 4 background */
};

/* How runners are reached: over a unix socket in a directory that daemon and containers share, or over the engine's
 * attach stream. AUTO: the socket if it works with the engine, else the other. */
enum config_transport { TRANSPORT_AUTO, TRANSPORT_SOCKET, TRANSPORT_ATTACH };

enum config_engine { ENGINE_AUTO, ENGINE_DOCKER, ENGINE_PODMAN };

enum config_policy { SCALING_PREDICTIVE, SCALING_THRESHOLD };

enum config_source { SOURCE_DEFAULT, SOURCE_BUILT_IN, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_SETTING };

struct config_origin { /* where a value comes from */
    enum config_source source;
    int line; /* of the file */
};

/* What one agent type's pool and containers are like. */
struct profile {
    char *agent_type;
    struct config_origin *origins; /* of this type's own values, by index into the option table; NULL in copies */
    /* container */
    char *image;            /* image, else dockerImage */
    char *docker_registry;  /* dockerRegistry, "": none */
    char *user;             /* "swarm:swarm": a numeric uid of the container's own; anything else is passed on */
    uint64_t memory_bytes;  /* memory */
    uint32_t cpu_milli;     /* cpus; 0: no limit */
    uint32_t cpu_quota_us;  /* cpuQuota, 0: none; cpu_milli has it in it */
    int64_t pids_limit;     /* pids */
    int oom_score_adj;      /* oomScoreAdj */
    int memory_swappiness;  /* memorySwappiness, -1: the engine's default */
    char *runtime;          /* of the engine's; "": its default */
    char *network_mode;     /* isolated (bridge is the same), internal, none, or a network's name */
    bool read_only_root;    /* readOnlyRootFs */
    bool sandboxed;         /* always true */
    bool no_new_privileges; /* noNewPrivileges */
    char **security_opts;   /* securityOpts, NULL-terminated, never NULL */
    char **environment;     /* K=V, NULL-terminated: built in ones, then environment; agent type's own variables
                               AGENT_TYPE, CONTAINER_ID, POOL_MODE, NODE_ENV are added by the executor */
    char **command; /* template of argv for `task` requests, e.g. ["claude", "-p", "{{description}}"]; empty: none */
    struct config_tmpfs *tmpfs;
    size_t tmpfs_count;
    struct config_mount *mounts;
    size_t mount_count;
    struct config_ulimit *ulimits;
    size_t ulimit_count;
    struct config_resources resources; /* memory and nofile have theirs in them */
    /* pool */
    uint32_t pool_size, min_pool_size, max_pool_size; /* containers */
    bool auto_scaling;
    enum config_policy scaling_policy;
    uint32_t target_hit_rate;                          /* percent */
    uint32_t scale_up_threshold, scale_down_threshold; /* percent */
    uint64_t scaling_interval_ms, scale_cooldown_ms;
    uint64_t max_container_age_ms, container_idle_timeout_ms, health_check_interval_ms;
    uint64_t canary_interval_ms;
    bool enable_container_reuse;
    uint32_t max_tasks_per_container; /* 0: no limit */
    uint32_t max_queue;               /* waiting tasks */
    uint64_t queue_timeout_ms;
    uint32_t retry_attempts;
    uint64_t lease_ttl_ms, lease_warn_after_ms;
    /* tasks */
    uint64_t timeout_ms;      /* deadline of a task; 0: none */
    uint64_t kill_timeout_ms; /* between SIGTERM and SIGKILL */
    uint64_t reset_timeout_ms;
    uint64_t max_output_bytes;          /* captured per stream; more is cut and said so */
    bool capture_output, stream_output; /* of requests that do not say */
    char **environment_whitelist;       /* names, or NAME* for all that begin so; empty: everything */
};

struct config {
    char *name;                 /* of the file, for messages */
    uint64_t host_memory_bytes; /* of this host when the engine is on it and config_load() looked; 0: not known */
    char *docker_host;          /* NULL: $DOCKER_HOST, else the default socket */
    char *docker_cert_path;     /* NULL: $DOCKER_CERT_PATH, or ~/.docker where $DOCKER_TLS_VERIFY is set, else no TLS */
    enum config_transport transport;
    enum config_engine engine;
    char *instance;  /* "": what the state directory has */
    char *state_dir; /* absolute */
    char *socket;    /* absolute */
    enum log_level log_level;
    char **registry_auth; /* registryAuth: NAME=VALUE, NULL-terminated; NULL: none */
    bool preload_common_images;
    bool enable_metrics;
    bool auto_cleanup, cleanup_between_tasks, optimize_networking, strict_agent_types;
    uint32_t max_concurrent_creates;
    uint32_t max_total_containers;
    uint64_t memory_budget_bytes; /* 0: any */
    uint64_t orphan_timeout_ms;
    uint32_t uid_first, uid_count; /* uidRange: "2000000000-2000065535" */
    uint32_t subnet_base;          /* networkSubnetPool "10.213.0.0/16", host byte order */
    uint8_t subnet_prefix;
    char **warmup_agent_types; /* NULL-terminated */
    char **allow_unsafe;       /* names: "networkMode: host" is allowed by "host-network", see options.def */
    struct profile defaults;   /* of agent types without one */
    struct profile *profiles;  /* built in and configured */
    size_t profile_count;
};

struct config_override {
    const char *key, *value; /* "poolSize", "4"; agentConfigs.coder.memory works too; lists are comma-separated */
};

/* Loads `path` (NULL: $WARMPOOL_CONFIG, else /etc/warmpool/warmpool.yaml if it exists, else defaults only), the
 * environment and `overrides`. On failure the message names file, line, key, value and what is allowed. Free with
 * config_free(). */
struct config *config_load(const char *path, const struct config_override *overrides, size_t override_count,
                           struct error *err);

/* As config_load(), from text that is in memory; `name` stands for the file in messages. No environment is read when
 * `environment` is false. */
struct config *config_parse(const char *text, size_t size, const char *name, bool environment,
                            const struct config_override *overrides, size_t override_count, struct error *err);

/* As config_load(), but goes on after an error, as far as that makes sense, and tells each. NULL when there was one. */
typedef void config_fault_fn(void *user, const char *text);
struct config *config_check(const char *path, const struct config_override *overrides, size_t override_count,
                            config_fault_fn *fault, void *user);

struct config *config_free(struct config *config); /* returns NULL */

/* How many keys the file has set, those of agent types included. */
size_t config_key_count(const struct config *config);

/* The profile for a type: its own, or a copy of the defaults under that name (which the caller frees with
 * profile_free()). NULL with ERROR_INVALID for a malformed name, ERROR_NOT_FOUND for an unknown one under
 * strictAgentTypes. The result is always the caller's copy. */
struct profile *config_profile(const struct config *config, const char *agent_type, struct error *err);
struct profile *profile_free(struct profile *profile); /* returns NULL */
/* The same without a copy: of the type, else the defaults; the config's. */
const struct profile *config_profile_of(const struct config *config, const char *agent_type);

bool agent_type_valid(const char *name);

/* Default API socket and state directory as INTERFACES has them: root or not, environment. Caller frees. */
char *config_default_socket(void);
char *config_default_state_dir(void);

/* --- reading it again ------------------------------------------------------------------------------------ */

/* 0 when a daemon that runs with `from` can take `to`; -1 naming the key that cannot change. */
int config_reload_check(const struct config *from, const struct config *to, struct error *err);
/* Do containers made by `from` have to be replaced for `to`? */
bool profile_rolls(const struct profile *from, const struct profile *to);
/* Each key that differs, with both values as YAML ("(not shown)" where there may be secrets among them); `agent_type`
 * NULL: the top level. A type is named where its change is not the top level's. */
typedef void config_change_fn(void *user, const char *agent_type, const char *key, const char *from, const char *to);
void config_changes(const struct config *from, const struct config *to, config_change_fn *fn, void *user);

/* Parsers that the command line shares. Durations: "500ms", "30s", "5m", "1h", or a bare number of milliseconds. Sizes:
 * "64m", "512MB", "1g", "4096" bytes; binary multiples. -1 when malformed or out of range. */
int parse_duration_ms(const char *text, uint64_t *milliseconds);
int parse_size_bytes(const char *text, uint64_t *bytes);
/* critical (0), high, normal, low or background (4). */
int parse_priority(const char *text, uint32_t *priority);

/* A member of registryAuth; NULL when it is not there. */
const char *config_registry_auth(const struct config *config, const char *name);

/* Says what weakens a default: key, agent type, consequence, one call each. */
void config_warnings(const struct config *config, void (*warn)(void *user, const char *text), void *user);

/* Prints the option table as Markdown (docs/CONFIGURATION.md), or the effective configuration as YAML, with
 * comments that say where each value comes from. Into `out`. */
struct buffer;
void config_print_docs(struct buffer *out);
void config_print_effective(const struct config *config, struct buffer *out);
