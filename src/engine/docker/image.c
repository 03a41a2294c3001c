#include <stdlib.h>
#include <string.h>

#include "engine/docker/docker.h"

#define IMAGE_ENV_MAX     4096U
#define IMAGE_VOLUMES_MAX 1024U

static void image_fail(const struct answer *answer, enum error_code code, const char *words)
{
    struct error trouble = ERROR_INIT;
    error_set(&trouble, code, "%s: %s", answer->what, words);
    answer->image(answer->user, NULL, &trouble);
}

/* Docker Hub's images have longer names than people give them. */
static const char *plain_repository(const char *name)
{
    static const char *const prefixes[] = {"docker.io/", "index.docker.io/", "library/"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            name += strlen(prefixes[i]);
    return name;
}

/* Of "repository@sha256:..." in RepoDigests, the digest under the repository that was asked for. */
static const char *find_digest(const json_t *json, const char *reference, bool *bad)
{
    const json_t *digests = member_array(json, "RepoDigests", bad);
    const char *asked = plain_repository(reference), *slash = strrchr(asked, '/');
    size_t length = (size_t)((slash != NULL ? slash : asked) - asked);
    length += strcspn(asked + length, ":@");
    for (size_t i = 0; i < json_array_size(digests); i++) {
        const char *text = json_string_value(json_array_get(digests, i));
        const char *name = text != NULL ? plain_repository(text) : "", *at = strchr(name, '@');
        if (at != NULL && (size_t)(at - name) == length && strncmp(name, asked, length) == 0 &&
            strncmp(at, "@sha256:", 8) == 0 && strlen(at) == 72)
            return at + 1;
    }
    return "";
}

static void deliver_image(const struct answer *answer, const json_t *json, const struct error *error)
{
    if (error != NULL) {
        answer->image(answer->user, NULL, error);
        return;
    }
    bool bad = false;
    const json_t *config = member_object(json, "Config", &bad);
    const json_t *texts = member_array(config, "Env", &bad);
    const json_t *volumes = member_object(config, "Volumes", &bad);
    int64_t size = member_integer(json, "Size", &bad);
    struct image_status status = {
        .id = member_string(json, "Id", &bad),
        .workdir = member_string(config, "WorkingDir", &bad),
        .size_bytes = size > 0 ? (uint64_t)size : 0,
        .volume_count = json_object_size(volumes),
        .architecture = member_string(json, "Architecture", &bad),
        .os = member_string(json, "Os", &bad),
        .user = member_string(config, "User", &bad),
        .digest = find_digest(json, answer->key, &bad),
    };
    size_t count = json_array_size(texts);
    if (bad || status.id[0] == '\0' || count > IMAGE_ENV_MAX || status.volume_count > IMAGE_VOLUMES_MAX) {
        image_fail(answer, ERROR_PROTOCOL, "the engine's answer is not understood: not an image");
        return;
    }
    const char **env = calloc(count + 1 + status.volume_count + 1, sizeof(*env));
    if (env == NULL) {
        image_fail(answer, ERROR_NOMEM, "out of memory");
        return;
    }
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(texts, i));
        if (text != NULL)
            env[used++] = text;
    }
    status.env = env;
    const char *key;
    json_t *value;
    status.volumes = &env[count + 1];
    used = count + 1;
    json_object_foreach ((json_t *)(uintptr_t)volumes, key, value)
        env[used++] = key;
    answer->image(answer->user, &status, NULL);
    free(env);
}

void docker_image_inspect(struct engine *engine, const char *reference, engine_image_fn *done, void *user)
{
    struct answer answer = {
        .deliver = deliver_image, .image = done, .user = user, .key = reference != NULL ? reference : ""};
    struct call *call =
        call_new(docker_of(engine), &answer, "GET", "inspect image %.128s", reference != NULL ? reference : "");
    if (call == NULL)
        return;
    if (!reference_valid(reference))
        error_set(&call->error, ERROR_INVALID, "not an image reference, such as name:tag");
    else
        buffer_printf(&call->path, "/images/%s/json", reference);
    call_send(call);
}

static void deliver_imported(const struct answer *answer, const json_t *json, const struct error *error)
{
    struct error trouble = ERROR_INIT;
    bool bad = false;
    const char *id = member_string(json, "status", &bad);
    if (error == NULL && (bad || strncmp(id, "sha256:", 7) != 0)) {
        error_set(&trouble, ERROR_PROTOCOL, "%s: the engine's answer is not understood: no image id in it",
                  answer->what);
        error = &trouble;
    }
    answer->id(answer->user, error == NULL ? id : NULL, error);
}

/* Repository and tag in one: Podman 4 does not look at the parameter `tag` and takes "latest". */
static void append_reference(struct buffer *path, const char *reference)
{
    const char *slash = strrchr(reference, '/');
    const char *colon = strrchr(reference, ':');
    bool tagged = colon != NULL && (slash == NULL || colon > slash);
    buffer_printf(path, "&repo=%s%s", reference, tagged ? "" : ":latest");
}

void docker_image_import(struct engine *engine, const void *tar, size_t size, const char *reference,
                         const char *const *changes, engine_id_fn *done, void *user)
{
    struct answer answer = {.deliver = deliver_imported, .id = done, .user = user};
    struct call *call =
        call_new(docker_of(engine), &answer, "POST", "import image %.128s", reference != NULL ? reference : "");
    if (call == NULL)
        return;
    call->upload = tar;
    call->upload_size = size;
    call->progress = true;
    if (!reference_valid(reference) || strchr(reference, '@') != NULL) {
        error_set(&call->error, ERROR_INVALID, "not a name for an image, such as name:tag");
    } else if (tar == NULL || size == 0) {
        error_set(&call->error, ERROR_INVALID, "an empty archive");
    } else {
        buffer_append_string(&call->path, "/images/create?fromSrc=-");
        append_reference(&call->path, reference);
        for (; changes != NULL && *changes != NULL; changes++) {
            buffer_append_string(&call->path, "&changes=");
            path_append_escaped(&call->path, *changes);
        }
    }
    call_send(call);
}
