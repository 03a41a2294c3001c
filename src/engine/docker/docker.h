/* Private to docker/: the Docker Engine API (and what is compatible with it) behind engine.h. */
#pragma once

#include <jansson.h>
#include <string.h>

#include "base/buffer.h"
#include "base/list.h"
#include "engine/docker/http.h"
#include "engine/engine_priv.h"

#define DOCKER_API_LEAST_MINOR 41 /* 1.41, Docker 20.10 */
#define DOCKER_API_MOST_MINOR  47 /* 1.47, Docker 27.3 */

enum docker_version_state { VERSION_UNKNOWN, VERSION_ASKING, VERSION_AGREED };

struct events;

struct docker {
    struct engine base; /* first: an engine is its docker */
    uv_loop_t *loop;
    const struct log *log;
    struct http *http;
    struct endpoint endpoint;
    uint32_t timeout_ms;
    enum docker_version_state version_state;
    char api_version[16], version[64], architecture[32];
    struct list waiting;   /* calls, until a version is agreed on */
    struct list probes;    /* who asked for it */
    struct list streams;   /* attached to containers */
    uint8_t *chunk;        /* what one of them reads into; NULL: none was there yet */
    struct events *events; /* NULL: nobody subscribed */
    uv_idle_t wake;
    bool closing, ask_failed; /* ask_failed: memory ran out when the version was to be asked for */
    unsigned users;           /* of this memory: HTTP client, `wake`, the events' timer, streams */
    void (*closed)(void *user);
    void *closed_user;
    struct engine_info info;
};

/* Where a call's result goes. `deliver` turns the engine's JSON (NULL when the answer had no body) into what the
 * caller of engine.h asked for. Exactly one of `json` and `error` has a meaning: `error` NULL is success. */
struct answer {
    void (*deliver)(const struct answer *answer, const json_t *json, const struct error *error);
    union {
        engine_done_fn *done;
        engine_id_fn *id;
        engine_inspect_fn *inspect;
        engine_list_fn *list;
        engine_image_fn *image;
    };
    void *user;
    const char *what;        /* set by the call: "create container wp-1" */
    const char *key, *value; /* of lists; copied by the call */
    bool podman;             /* answered by Podman; set by the call */
};

/* One request. Fill in `method` and `path` (and `body`), then call_send(). */
struct call {
    struct list link;
    struct docker *docker;
    struct answer answer;
    char *what, *key, *value; /* owned */
    const char *method;
    struct buffer path; /* below /v1.xx; from the slash on */
    json_t *json;       /* the body, owned; NULL: none */
    char *body;         /* `json` as sent, owned */
    bool creates;       /* `json` is a container's */
    const void *upload; /* instead of `json`, not owned */
    size_t upload_size;
    unsigned tries;
    char *header;  /* owned; one more for the request; may hold secrets */
    bool progress; /* the answer is a stream of JSON values in which an error may hide */
    /* For an answer that takes its time: gets its pieces, with the answer's user; -1 with `err` set ends it. */
    int (*stream)(void *user, const char *data, size_t size, struct error *err);
    struct error error; /* what is wrong with the arguments: answered instead of asking the engine */
};

static inline struct docker *docker_of(struct engine *engine)
{
    return (struct docker *)(void *)engine;
}

/* See podman.c. */
static inline bool docker_is_podman(const struct docker *docker)
{
    return strcmp(docker->info.name, "podman") == 0;
}

/* NULL when memory runs out; `answer` then has been given ERROR_NOMEM: the only one that comes from inside a call,
 * since not even a note of it could be kept for later. `answer` is copied. */
struct call *call_new(struct docker *docker, const struct answer *answer, const char *method, const char *what, ...)
    __attribute__((format(printf, 4, 5)));

/* Sends it, once a version is agreed on. Consumes the call. */
void call_send(struct call *call);

/* version.c */

/* Makes sure that a version is agreed on, or being asked for. */
void docker_want_version(struct docker *docker);
/* The connection broke: another engine may answer next time. */
void docker_doubt_version(struct docker *docker);

/* docker.c: an agreement was reached, or was not; tells those who wait for it. From the loop only. */
void docker_version_settled(struct docker *docker, const struct error *error);
/* The loop will look at what there is to do. */
void docker_wake(struct docker *docker);
/* Called once by each user of the memory when the engine is closing. */
void docker_release(struct docker *docker);

/* events.c */
void docker_events(struct engine *engine, const char *key, const char *value, engine_event_fn *event, void *user);
void events_version_settled(struct events *events, const struct error *error);
void events_close(struct events *events);
void events_free(struct events *events); /* NULL is allowed */

/* container.c */
void docker_container_create(struct engine *engine, const struct container_spec *spec, engine_id_fn *done, void *user);
void docker_container_start(struct engine *engine, const char *id, engine_done_fn *done, void *user);
void docker_container_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user);
void docker_container_inspect(struct engine *engine, const char *id, engine_inspect_fn *done, void *user);
void docker_container_put(struct engine *engine, const char *id, const char *path, const void *tar, size_t size,
                          engine_done_fn *done, void *user);
void docker_container_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);

/* attach.c */
struct engine_stream *docker_container_attach(struct engine *engine, const char *id,
                                              const struct engine_stream_handler *handler, void *user);
size_t docker_stream_write(struct engine_stream *stream, const void *data, size_t size);
void docker_stream_close(struct engine_stream *stream);
void streams_version_settled(struct docker *docker, const struct error *error);
void streams_cancel(struct docker *docker);

/* pull.c */
void docker_image_pull(struct engine *engine, const char *reference, const struct registry_auth *auth,
                       engine_pull_fn *progress, engine_done_fn *done, void *user);

/* image.c */
void docker_image_inspect(struct engine *engine, const char *reference, engine_image_fn *done, void *user);
void docker_image_import(struct engine *engine, const void *tar, size_t size, const char *reference,
                         const char *const *changes, engine_id_fn *done, void *user);

/* network.c */
void docker_network_create(struct engine *engine, const struct network_spec *spec, engine_id_fn *done, void *user);
void docker_network_remove(struct engine *engine, const char *id, engine_done_fn *done, void *user);
void docker_network_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);
void docker_volume_create(struct engine *engine, const char *name, const struct engine_label *labels, size_t count,
                          engine_id_fn *done, void *user);
void docker_volume_remove(struct engine *engine, const char *name, engine_done_fn *done, void *user);
void docker_volume_list(struct engine *engine, const char *key, const char *value, engine_list_fn *done, void *user);

/* reply.c: every byte of an answer is treated as hostile. */

/* Makes UTF-8 without control characters of anything, cut to fit (between characters). */
void text_clean(char *out, size_t size, const char *text, size_t length);
/* An error of the API: its own message, its status as a code. */
void reply_error(struct error *error, int status, const char *body, size_t size);
/* The JSON value of an answer; NULL without an error when it is empty. -1 when malformed. */
int reply_json(json_t **json, const char *body, size_t size, struct error *err);
/* The last value of a stream of JSON values; -1 when one holds an error. */
int reply_progress(json_t **json, const char *body, size_t size, struct error *err);

/* Members of an object, "" / 0 / false / NULL when absent or null; `bad` is set when of another type. `object` may be
 * anything, NULL included. */
const char *member_string(const json_t *object, const char *key, bool *bad);
int64_t member_integer(const json_t *object, const char *key, bool *bad);
bool member_bool(const json_t *object, const char *key, bool *bad);
const json_t *member_object(const json_t *object, const char *key, bool *bad);
const json_t *member_array(const json_t *object, const char *key, bool *bad);
void reply_malformed(struct error *error, const char *what);

/* A name or id of the engine's, safe in a path. */
bool name_valid(const char *name);
/* An image reference, safe in a path. */
bool reference_valid(const char *reference);
void path_append_escaped(struct buffer *path, const char *text);
/* ?filters={"label":["key=value"]}, with "type":["container"] too when `type` is not NULL. */
int path_append_filters(struct buffer *path, char separator, const char *key, const char *value, const char *type);

/* Answers that several requests share. */
void deliver_done(const struct answer *answer, const json_t *json, const struct error *error);
void deliver_gone(const struct answer *answer, const json_t *json, const struct error *error); /* not found: success */
/* Rows of `rows`, an array, as engine objects: `id` and `name` are keys of its members. */
void deliver_rows(const struct answer *answer, const json_t *rows, const char *id, const char *name, const char *state,
                  const struct error *error);
