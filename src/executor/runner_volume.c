#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>

#include "executor/internal.h"

#define TAR_MARGIN 16384U

extern const unsigned char warmpool_runner_begin[], warmpool_runner_end[];

static bool add_runner(struct archive *archive, const char *name, unsigned mode)
{
    size_t size = (size_t)(warmpool_runner_end - warmpool_runner_begin);
    struct archive_entry *entry = archive_entry_new();
    if (entry == NULL)
        return false;
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, (mode_t)mode);
    archive_entry_set_size(entry, (int64_t)size);
    bool added = archive_write_header(archive, entry) == ARCHIVE_OK &&
                 archive_write_data(archive, warmpool_runner_begin, size) == (la_ssize_t)size;
    archive_entry_free(entry);
    return added;
}

/* A tar with the runner, root's and execute-only, and once more for gVisor, which executes only what it may read. */
static int make_tar(struct runner_volume *volume, struct error *err)
{
    size_t room = 2 * (size_t)(warmpool_runner_end - warmpool_runner_begin) + TAR_MARGIN;
    volume->tar = malloc(room);
    struct archive *archive = archive_write_new();
    bool made = volume->tar != NULL && archive != NULL && archive_write_set_format_ustar(archive) == ARCHIVE_OK &&
                archive_write_open_memory(archive, volume->tar, room, &volume->tar_size) == ARCHIVE_OK &&
                add_runner(archive, "runner", 0711) && add_runner(archive, RUNNER_READABLE, 0755) &&
                archive_write_close(archive) == ARCHIVE_OK;
    archive_write_free(archive);
    return made ? 0 : error_set(err, ERROR_NOMEM, "out of memory for the runner's archive");
}

static void volume_settled(struct executor *executor, const struct error *error)
{
    struct runner_volume *volume = &executor->volume;
    volume->state = error == NULL ? VOLUME_READY : VOLUME_ABSENT;
    free(volume->tar);
    volume->tar = NULL;
    while (!list_empty(&volume->waiting)) {
        struct worker *worker = list_entry(volume->waiting.next, struct worker, volume_wait);
        list_remove(&worker->volume_wait);
        worker_volume_ready(worker, error);
    }
}

static void volume_failed(struct executor *executor, const struct error *error)
{
    struct error full = *error;
    error_prefix(&full, "put the runner into the volume %s", executor->volume.name);
    volume_settled(executor, &full);
}

static void on_helper_removed(void *user, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL)
        volume_failed(executor, error);
    else
        volume_settled(executor, NULL);
}

static void on_failed_helper_removed(void *user, const struct error *error)
{
    struct executor *executor = user;
    (void)error; /* the first one is the one to tell */
    volume_failed(executor, &executor->volume_error);
}

static void on_put(void *user, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL)
        executor->volume_error = *error;
    engine_container_remove(executor->engine, executor->volume.helper,
                            error == NULL ? on_helper_removed : on_failed_helper_removed, executor);
}

static void on_helper(void *user, const char *id, const struct error *error)
{
    struct executor *executor = user;
    struct runner_volume *volume = &executor->volume;
    if (error != NULL)
        volume_failed(executor, error);
    else
        engine_container_put(executor->engine, id, "/.warmpool", volume->tar, volume->tar_size, on_put, executor);
}

static void on_volume(void *user, const char *id, const struct error *error)
{
    static const char *const entrypoint[] = {"/.warmpool/runner", "--version", NULL};
    struct executor *executor = user;
    struct runner_volume *volume = &executor->volume;
    (void)id;
    if (error != NULL) {
        volume_failed(executor, error);
        return;
    }
    volume->exists = true;
    struct worker *first = list_entry(volume->waiting.next, struct worker, volume_wait);
    struct engine_label label = {LABEL_INSTANCE, executor->state.instance};
    struct engine_volume mount = {.name = volume->name, .target = "/.warmpool", .writable = true};
    struct container_spec spec = {.name = volume->helper,
                                  .image = first->owner->image->id,
                                  .entrypoint = entrypoint,
                                  .labels = &label,
                                  .label_count = 1,
                                  .memory_swappiness = -1,
                                  .volumes = &mount,
                                  .volume_count = 1,
                                  .no_new_privileges = true,
                                  .network = "none"};
    engine_container_create(executor->engine, &spec, on_helper, executor);
}

void runner_volume_want(struct worker *worker)
{
    struct executor *executor = worker->owner->executor;
    struct runner_volume *volume = &executor->volume;
    struct error error = ERROR_INIT;
    if (volume->state == VOLUME_READY) {
        worker_volume_ready(worker, NULL);
        return;
    }
    list_push_back(&volume->waiting, &worker->volume_wait);
    if (volume->state == VOLUME_MAKING)
        return;
    volume->state = VOLUME_MAKING;
    snprintf(volume->name, sizeof volume->name, "wp-%s-runner", executor->state.instance);
    snprintf(volume->helper, sizeof volume->helper, "%s-upload", volume->name);
    if (make_tar(volume, &error) < 0) {
        volume_failed(executor, &error);
        return;
    }
    struct engine_label label = {LABEL_INSTANCE, executor->state.instance};
    engine_volume_create(executor->engine, volume->name, &label, 1, on_volume, executor);
}

static void on_removed(void *user, const struct error *error)
{
    struct executor *executor = user;
    if (error != NULL)
        log_error(executor->log, "the volume %s could not be removed: %s", executor->volume.name, error->message);
    executor->networks_left--;
    executor_kick(executor);
}

void runner_volume_remove(struct executor *executor)
{
    if (!executor->volume.exists)
        return;
    executor->volume.exists = false;
    executor->networks_left++;
    engine_volume_remove(executor->engine, executor->volume.name, on_removed, executor);
}

void runner_volume_free(struct runner_volume *volume)
{
    free(volume->tar);
    volume->tar = NULL;
}
