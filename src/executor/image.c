#include "executor/internal.h"

#include <stdlib.h>
#include <string.h>

struct image *image_of(struct executor *executor, const char *reference)
{
    list_for_each (node, &executor->images) {
        struct image *image = list_entry(node, struct image, link);
        if (strcmp(image->reference, reference) == 0)
            return image;
    }
    struct image *image = calloc(1, sizeof *image);
    if (image == NULL)
        return NULL;
    image->executor = executor;
    image->reference = strdup(reference);
    image->pulled = strdup(reference);
    if (image->reference == NULL || image->pulled == NULL) {
        free(image->reference);
        free(image->pulled);
        free(image);
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
        free(image->reference);
        free(image->pulled);
        free(image);
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
    snprintf(image->id, sizeof image->id, "%s", status->id);
    snprintf(image->digest, sizeof image->digest, "%s", status->digest != NULL ? status->digest : "");
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
    error_set(&full, error->code,
              "it is not there and could not be pulled: %.300s (`warmpool image build` makes the default image)",
              error->message);
    image_settle(image, &full);
}

static void on_inspected(void *user, const struct image_status *status, const struct error *error)
{
    struct image *image = user;
    if (error == NULL) {
        image_found(image, status);
    } else if (error->code == ERROR_NOT_FOUND && !image->executor->closing) {
        image->state = IMAGE_PULLING;
        log_info(image->executor->log, "pulling %s", image->pulled);
        engine_image_pull(image->executor->engine, image->pulled, NULL, on_progress, on_pulled, image);
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
    engine_image_inspect(image->executor->engine, image->reference, on_inspected, image);
}

void image_lost(struct image *image)
{
    if (image->state == IMAGE_READY)
        image->state = IMAGE_UNKNOWN;
}

void images_preload(struct executor *executor)
{
    for (size_t i = 0; i < executor->config->profile_count; i++) {
        struct image *image = image_of(executor, executor->config->profiles[i].image);
        if (image != NULL)
            image_want(image);
    }
}
