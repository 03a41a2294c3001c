#include "executor/internal.h"

#include <stdlib.h>
#include <string.h>

#include "config/login.h"
#include "config/reference.h"

#define DEFAULT_IMAGE                                                                                                  \
    "warmpool-agent" /* is made on this machine; of that name elsewhere it would be somebody else's                    \
                      */

static void image_free(struct image *image)
{
    free(image->reference);
    free(image->registry);
    free(image->pulled);
    free(image);
}

struct image *image_of(struct executor *executor, const struct profile *profile)
{
    const char *reference = profile->image;
    list_for_each (node, &executor->images) {
        struct image *image = list_entry(node, struct image, link);
        if (strcmp(image->reference, reference) == 0 && strcmp(image->registry, profile->docker_registry) == 0)
            return image;
    }
    struct image *image = calloc(1, sizeof *image);
    if (image == NULL)
        return NULL;
    image->executor = executor;
    image->reference = strdup(reference);
    image->registry = strdup(profile->docker_registry);
    image->pulled = reference_at(profile->docker_registry, reference);
    if (image->reference == NULL || image->pulled == NULL || image->registry == NULL) {
        image_free(image);
        return NULL;
    }
    list_push_back(&executor->images, &image->link);
    return image;
}

void images_free(struct executor *executor)
{
    list_for_each_safe (node, &executor->images) {
        struct image *image = list_entry(node, struct image, link);
        list_remove(&image->link);
        image_free(image);
    }
}

/* --- finding out ---------------------------------------------------------------------------------------- */

static void image_settle(struct image *image, const struct error *error)
{
    struct executor *executor = image->executor;
    image->state = error == NULL ? IMAGE_READY : IMAGE_FAILED;
    image->error = error == NULL ? (struct error)ERROR_INIT : *error;
    if (error != NULL)
        log_warn(executor->log, "image %s: %s", image->reference, error->message);
    executor_kick(executor);
}

/* Of another architecture its programs would only fail one by one, each with "exec format error". */
static int check_architecture(const struct image *image, const struct image_status *status, struct error *err)
{
    const struct engine_info *info = engine_info(image->executor->engine);
    if (status->architecture == NULL || status->os == NULL)
        return 0;
    bool other = status->architecture[0] != '\0' && info->architecture != NULL && info->architecture[0] != '\0' &&
                 strcmp(status->architecture, info->architecture) != 0;
    if (other || (status->os[0] != '\0' && strcmp(status->os, "linux") != 0))
        return error_set(err, ERROR_INVALID,
                         "it is made for %s/%s, the engine's host is linux/%s; name an image for that", status->os,
                         status->architecture, info->architecture);
    return 0;
}

/* What the container itself needs cannot be hidden below an empty mount. */
static bool volume_sound(const char *path)
{
    static const char *const ours[] = {"/.warmpool", "/dev", "/etc", "/proc", "/sys"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        size_t length = strlen(ours[i]);
        if (strncmp(path, ours[i], length) == 0 && (path[length] == '/' || path[length] == '\0'))
            return false;
    }
    if (path[0] != '/' || path[1] == '\0')
        return false;
    for (; *path != '\0'; path += strcspn(path + 1, "/") + 1) {
        size_t length = strcspn(path + 1, "/");
        if (length == 0 || (length == 1 && path[1] == '.') || (length == 2 && path[1] == '.' && path[2] == '.'))
            return false;
    }
    return true;
}

static int take_volumes(struct image *image, const struct image_status *status, struct error *err)
{
    image->volume_count = 0;
    if (status->volume_count > IMAGE_VOLUMES_MAX)
        return error_set(err, ERROR_INVALID, "it declares %zu VOLUMEs; at most %u can be mounted", status->volume_count,
                         IMAGE_VOLUMES_MAX);
    for (size_t i = 0; i < status->volume_count; i++) {
        char *path = image->volumes[image->volume_count];
        size_t length = strlen(status->volumes[i]);
        while (length > 1 && status->volumes[i][length - 1] == '/')
            length--;
        if (length >= IMAGE_VOLUME_BYTES)
            return error_set(err, ERROR_INVALID, "it declares a VOLUME of more than %u bytes", IMAGE_VOLUME_BYTES - 1);
        memcpy(path, status->volumes[i], length);
        path[length] = '\0';
        if (!volume_sound(path))
            return error_set(err, ERROR_INVALID,
                             "it declares VOLUME %.200s, which cannot be emptied between tasks; build it without",
                             path);
        image->volume_count++;
    }
    return 0;
}

static void image_found(struct image *image, const struct image_status *status)
{
    struct error error = ERROR_INIT;
    if (check_architecture(image, status, &error) < 0 || take_volumes(image, status, &error) < 0) {
        image_settle(image, &error);
        return;
    }
    /* Found by its id it tells no digest: that is known only together with a repository. */
    if (status->digest[0] != '\0' || strcmp(image->id, status->id) != 0)
        snprintf(image->digest, sizeof image->digest, "%s", status->digest);
    snprintf(image->id, sizeof image->id, "%s", status->id);
    log_info(image->executor->log, "image %s is %.19s%s%s", image->reference, image->id,
             image->digest[0] != '\0' ? ", pulled as " : "", image->digest);
    image_settle(image, NULL);
}

static void on_inspected_again(void *user, const struct image_status *status, const struct error *error)
{
    struct image *image = user;
    if (error != NULL)
        image_settle(image, error);
    else
        image_found(image, status);
}

static void on_progress(void *user, const struct pull_progress *progress)
{
    struct image *image = user;
    image->bytes = progress->bytes;
    image->total_bytes = progress->total_bytes;
}

static void on_pulled(void *user, const struct error *error)
{
    struct image *image = user;
    if (error == NULL) {
        engine_image_inspect(image->executor->engine, image->pulled, on_inspected_again, image);
        return;
    }
    struct error full;
    error_set(&full, error->code, "it is not there and could not be pulled: %.380s", error->message);
    image_settle(image, &full);
}

static void pull(struct image *image)
{
    struct executor *executor = image->executor;
    struct error error = ERROR_INIT;
    struct login login;
    int found = login_find(&login, executor->config, image->registry, image->pulled, &error);
    if (found < 0) {
        image_settle(image, &error);
        return;
    }
    struct registry_auth auth = {.username = login.username,
                                 .password = login.password,
                                 .identity_token = login.identity_token,
                                 .server = login.server};
    image->state = IMAGE_PULLING;
    log_info(executor->log, "pulling %s", image->pulled);
    engine_image_pull(executor->engine, image->pulled, found > 0 ? &auth : NULL, on_progress, on_pulled, image);
    login_forget(&login);
}

static void on_inspected_there(void *user, const struct image_status *status, const struct error *error)
{
    struct image *image = user;
    if (error == NULL)
        image_found(image, status);
    else if (error->code == ERROR_NOT_FOUND && !image->executor->closing)
        pull(image);
    else
        image_settle(image, error);
}

static bool made_here(const struct image *image)
{
    size_t length = strlen(DEFAULT_IMAGE);
    return image->registry[0] == '\0' && strncmp(image->reference, DEFAULT_IMAGE, length) == 0 &&
           (image->reference[length] == ':' || image->reference[length] == '\0');
}

static void on_inspected(void *user, const struct image_status *status, const struct error *error)
{
    struct image *image = user;
    struct error missing = ERROR_INIT;
    if (error == NULL) {
        image_found(image, status);
    } else if (error->code == ERROR_NOT_FOUND && made_here(image)) {
        error_set(&missing, ERROR_NOT_FOUND, "it is not there: `warmpool image build --tag %.100s` makes it",
                  image->reference);
        image_settle(image, &missing);
    } else if (error->code == ERROR_NOT_FOUND && !image->executor->closing) {
        engine_image_inspect(image->executor->engine, image->pulled, on_inspected_there, image);
    } else {
        if (error->code == ERROR_UNAVAILABLE)
            executor_engine_failed(image->executor, error);
        image_settle(image, error);
    }
}

void image_want(struct image *image)
{
    if (image->state == IMAGE_ASKING || image->state == IMAGE_PULLING || image->state == IMAGE_READY)
        return;
    image->state = IMAGE_ASKING;
    image->bytes = image->total_bytes = 0;
    /* One that was pinned stays the one it was, whatever its tag means by now. */
    engine_image_inspect(image->executor->engine, image->id[0] != '\0' ? image->id : image->reference, on_inspected,
                         image);
}

void image_lost(struct image *image)
{
    if (image->state != IMAGE_READY)
        return;
    image->state = IMAGE_UNKNOWN;
    char *pinned = image->digest[0] != '\0' ? reference_pinned(image->pulled, image->digest) : NULL;
    if (pinned != NULL) {
        free(image->pulled);
        image->pulled = pinned;
    } else {
        image->id[0] = '\0'; /* no registry knows it: what has its name now is taken */
    }
}

void images_preload(struct executor *executor)
{
    for (size_t i = 0; i < executor->config->profile_count; i++) {
        struct image *image = image_of(executor, &executor->config->profiles[i]);
        if (image != NULL)
            image_want(image);
    }
}
