/* Who makes containers: the one narrow, asynchronous interface to an engine.
 *
 * Every request answers exactly once, later, on the loop's thread, never inside the call; also when the engine hangs
 * (ERROR_TIMEOUT after `timeout_ms`), dies (ERROR_UNAVAILABLE) or is closed (ERROR_CANCELLED). Arguments are copied;
 * what a callback gets is valid until it returns. `error` is NULL on success. Errors of the engine carry its own
 * message. "No such object" is ERROR_NOT_FOUND, "already exists" or "is in use" ERROR_CONFLICT, no connection
 * ERROR_UNAVAILABLE, another refusal ERROR_ENGINE. All calls belong to the loop's thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/log.h"

struct engine;

struct engine_options {
    uv_loop_t *loop;
    const struct log *log;
    const char *host; /* unix:///path or tcp://name:port; NULL: $DOCKER_HOST, else unix:///var/run/docker.sock */
    /* Directory with ca.pem, cert.pem and key.pem: tcp:// then speaks TLS and checks the engine's certificate. NULL:
     * $DOCKER_CERT_PATH, else ~/.docker when $DOCKER_TLS_VERIFY is set and not empty; else plain TCP, which is warned
     * of.
     */
    const char *cert_path;
    uint32_t timeout_ms; /* deadline of one request; 0: 60 s. Pulls, imports and the event stream have none of this. */
    unsigned max_parallel; /* requests in flight at once; 0: 16. More wait in order. */
};

/* `opened` (later, once) says whether the engine answered and an API version could be agreed on. The struct engine is
 * returned at once; requests made before `opened` wait for it. Returns -1 only for a malformed host. */
typedef void engine_opened_fn(void *user, const struct error *error);
int engine_open(struct engine **engine, const struct engine_options *options, engine_opened_fn *opened, void *user,
                struct error *err);

/* Ends everything: outstanding requests answer ERROR_CANCELLED (from the loop, before `closed`), then `closed` is
 * called and the engine's memory is gone. NULL is allowed for `closed`. */
void engine_close(struct engine *engine, void (*closed)(void *user), void *user);

/* Agrees on a version again, as after an engine's restart. */
void engine_probe(struct engine *engine, engine_opened_fn *done, void *user);

struct engine_info {
    const char *name;        /* "docker" */
    const char *version;     /* "20.10.24" */
    const char *api_version; /* agreed on, "1.41" */
    bool local;              /* reached by unix socket */
    bool cgroup_v1;
    const char *architecture; /* of the engine's host, as images name it: "amd64", "arm64" */
    const char *host;         /* as connected, "unix:///var/run/docker.sock" */
};
/* Valid until the next call; fields are "" before `opened`. */
const struct engine_info *engine_info(const struct engine *engine);

typedef void engine_done_fn(void *user, const struct error *error);
typedef void engine_id_fn(void *user, const char *id, const struct error *error);

struct engine_label {
    const char *key, *value;
};

/* --- containers ----------------------------------------------------------------------------------- */

struct engine_tmpfs {   /* a tmpfs-backed volume of the container's own (NoCopy, mode 1777), removed with it */
    const char *target; /* "/workspace" */
    uint64_t size_bytes;
    uint64_t inodes;
    bool exec; /* always nosuid, nodev */
};

struct engine_bind {
    const char *source, *target;
    bool writable;
};

struct engine_ulimit {
    const char *name; /* "nofile" */
    int64_t soft, hard;
};

struct engine_volume { /* a named volume of the engine's, read-only unless `writable`; nothing is copied into it */
    const char *name, *target;
    bool writable;
};

struct container_spec {
    const char *name;
    const char *image;
    const char *const *entrypoint; /* NULL-terminated; Cmd is always emptied */
    const char *const *env;        /* K=V, NULL-terminated; NULL: none */
    const char *user;              /* "2000000000:2000000000" */
    const char *workdir;           /* NULL: the image's */
    const char *hostname;          /* NULL: the engine's choice */
    const struct engine_label *labels;
    size_t label_count;
    uint64_t memory_bytes; /* limit of memory and of memory+swap; 0: none */
    uint32_t cpu_milli;    /* 1000 = one core; 0: no limit */
    int64_t pids_limit;    /* 0: none */
    int oom_score_adj;
    int memory_swappiness;          /* -1: the engine's default; ignored where the engine's cgroup version has none */
    uint64_t shm_bytes, shm_inodes; /* /dev/shm as tmpfs, mode 1777 */
    const struct engine_ulimit *ulimits;
    size_t ulimit_count;
    const struct engine_tmpfs *tmpfs;
    size_t tmpfs_count;
    const struct engine_bind *binds;
    size_t bind_count;
    const struct engine_volume *volumes;
    size_t volume_count;
    const char *const *security_opt; /* beyond no-new-privileges, NULL-terminated; NULL: none */
    bool read_only_root;
    bool no_new_privileges;
    const char *network; /* network id or name, "none", "host", "bridge" */
    const char *runtime; /* NULL: the engine's default */
    bool open_stdin;     /* stdin stays open for engine_container_attach(), also after it was detached */
};
/* Always: CapDrop ALL, log driver none, no restart policy, private ipc, no init, Tty off. */

void engine_container_create(struct engine *engine, const struct container_spec *spec, engine_id_fn *done, void *user);
void engine_container_start(struct engine *engine, const char *id, engine_done_fn *done, void *user);
/* Forced, with its anonymous volumes. A container that is gone already is a success. */
void engine_container_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user);

struct container_status {
    const char *id, *name, *image, *state; /* state: "running", "exited", "created", ... */
    int64_t pid;                           /* of the init process, on the engine's host; 0 when not running */
    bool running, oom_killed;
    int exit_code;
    const char *error;      /* the engine's word on a failed start, "" */
    const char *network_id; /* the first network's; "" */
};
typedef void engine_inspect_fn(void *user, const struct container_status *status, const struct error *error);
void engine_container_inspect(struct engine *engine, const char *id, engine_inspect_fn *done, void *user);

struct engine_object {     /* a row of a list: container, network or volume */
    const char *id, *name; /* a volume's id is its name */
    const char *state;     /* containers; "" else */
    const char *(*label)(const struct engine_object *object, const char *key); /* NULL when absent */
    const void *opaque;
};
typedef void engine_list_fn(void *user, const struct engine_object *objects, size_t count, const struct error *error);
/* Those with label `key` (=`value` unless NULL), stopped ones included. */
void engine_container_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);

/* --- streams and files of a container --------------------------------------------------------------- */

/* The engine's attach stream: bytes to the stdin of a container's init process and from its stdout. It may be opened
 * before the container is started, and so misses nothing. What the process writes while no stream is open is lost, what
 * was written to it is not. Close it before the container is removed: a stream that nobody reads freezes the removal.
 */
struct engine_stream;
struct engine_stream_handler {
    void (*opened)(void *user);
    /* From stdout; the multiplexing is undone. Bytes of stderr are logged at debug level, a line at a time, bounded. */
    void (*data)(void *user, const uint8_t *data, size_t size);
    void (*writable)(void *user); /* after a short write */
    /* Once, and nothing follows; the stream is gone. It never comes after engine_stream_close(). ERROR_NOT_FOUND: no
     * such container; ERROR_CONFLICT: it does not run any more; ERROR_UNAVAILABLE: the engine ended the stream, or went
     * away. */
    void (*closed)(void *user, const struct error *error);
};
/* `handler` must outlive the stream. The container must have been created with `open_stdin`. NULL when memory runs out:
 * then `closed` does not come. */
struct engine_stream *engine_container_attach(struct engine *engine, const char *id,
                                              const struct engine_stream_handler *handler, void *user);
/* How many bytes were taken; 0: none now (before `opened`, or the engine does not read), `writable` follows. */
size_t engine_stream_write(struct engine_stream *stream, const void *data, size_t size);
/* No callback follows. NULL is allowed. */
void engine_stream_close(struct engine_stream *stream);

/* Unpacks a tar below `path` in a container, which need not have been started. `tar` must stay valid until `done`. */
void engine_container_put(struct engine *engine, const char *id, const char *path, const void *tar, size_t size,
                          engine_done_fn *done, void *user);

/* --- events --------------------------------------------------------------------------------------- */

struct engine_event {
    const char *type;   /* "container", "network", "volume" */
    const char *action; /* "die", "oom", "destroy", "start", "kill", ... */
    const char *id;
    const char *(*label)(const struct engine_event *event, const char *key);
    const void *opaque;
};
/* Container events of objects with the label, from now on, until engine_close(). `event` with NULL and an error says
 * the stream broke; it is opened again by itself with backoff, and `event` with NULL and no error says that it is open
 * (so whatever happened meanwhile must be looked up). One subscription per engine. */
typedef void engine_event_fn(void *user, const struct engine_event *event, const struct error *error);
void engine_events(struct engine *engine, const char *key, const char *value, engine_event_fn *event, void *user);

/* --- images --------------------------------------------------------------------------------------- */

struct image_status {
    const char *id, *workdir;
    uint64_t size_bytes;
    const char *const *env;     /* NULL-terminated */
    const char *const *volumes; /* VOLUME declarations: paths, as the image writes them, NULL-terminated */
    size_t volume_count;
    const char *architecture, *os;
    const char *user;   /* USER; "" when none */
    const char *digest; /* "sha256:..." of the manifest it was pulled by (of RepoDigests, the one of the reference's
                           repository); "" for an image that no registry knows */
};
typedef void engine_image_fn(void *user, const struct image_status *status, const struct error *error);
void engine_image_inspect(struct engine *engine, const char *reference, engine_image_fn *done, void *user);
/* Pulls from a registry. `progress` (NULL allowed) comes while it goes on, at most ten times a second: bytes of all
 * layers so far and as far as known (0: not yet), and the layers. ERROR_NOT_FOUND: the registry has no such image (or
 * does not show it without a login); ERROR_DENIED: it refuses the login, or wants one; ERROR_UNAVAILABLE: it cannot be
 * reached. Each carries the engine's own words. A pull that brings nothing for twice `timeout_ms` (two
 * minutes) fails with ERROR_TIMEOUT. */
struct pull_progress {
    uint64_t bytes, total_bytes;
    unsigned layers, layers_done;
    const char *words; /* the engine's status of what moved last: "Downloading", "Extracting", ... */
};
struct registry_auth {               /* NULL members: not given */
    const char *username, *password; /* or, instead of both: */
    const char *identity_token;
    const char *server; /* "registry.example:5000" */
};
typedef void engine_pull_fn(void *user, const struct pull_progress *progress);
void engine_image_pull(struct engine *engine, const char *reference, const struct registry_auth *auth,
                       engine_pull_fn *progress, engine_done_fn *done, void *user);
/* Makes an image of a root file system. `tar` must stay valid until `done`. `changes` are Dockerfile instructions. */
void engine_image_import(struct engine *engine, const void *tar, size_t size, const char *reference,
                         const char *const *changes, engine_id_fn *done, void *user);

/* --- networks and volumes ------------------------------------------------------------------------- */

struct network_spec {
    const char *name;
    const char *subnet; /* CIDR; NULL: the engine's choice */
    bool internal;      /* no way out, and no address of the host's on the bridge (inhibit_ipv4) */
    const struct engine_label *labels;
    size_t label_count;
};
void engine_network_create(struct engine *engine, const struct network_spec *spec, engine_id_fn *done, void *user);
void engine_network_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user); /* gone: success */
void engine_network_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);

void engine_volume_create(struct engine *engine, const char *name, const struct engine_label *labels, size_t count,
                          engine_id_fn *done, void *user);
void engine_volume_remove(struct engine *engine, const char *name, engine_done_fn *done,
                          void *user); /* gone: success */
void engine_volume_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);
