/* A task's files: in before it starts, out when it has ended, one copy after the other. The client's end and the
 * runner's check everything; here bytes pass through, but for artifacts, which are collected for the result.
 *
 *     BEGINNING -> COPYING_IN -> RUNNING -> COPYING_OUT -> COLLECTING -> DONE
 *
 * The container stays BUSY with the task all the time. What has begun ends within TRANSFER_STALL_US of the last byte.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "executor/internal.h"

#define COPIES_MAX 256U

static struct runner_conn *conn_of(const struct job *job)
{
    struct worker *worker = job->task.container == NULL ? NULL : worker_of(job->task.container);
    return worker != NULL && runner_conn_ready(worker->conn) ? worker->conn : NULL;
}

/* --- the request ----------------------------------------------------------------------------------------- */

static int check_path(const char *what, const char *path, struct error *err)
{
    if (path[0] != '/')
        return error_set(err, ERROR_INVALID, "%s \"%.100s\" is not an absolute path in the container", what, path);
    if (strlen(path) > FILE_PATH_MAX)
        return error_set(err, ERROR_INVALID, "%s: a path is longer than %u bytes", what, FILE_PATH_MAX);
    return 0;
}

int transfer_check(const struct task_request *request, struct error *err)
{
    if (request->copy_in_count > COPIES_MAX || request->copy_out_count > COPIES_MAX ||
        request->artifact_count > COPIES_MAX)
        return error_set(err, ERROR_INVALID, "more than %u copies", COPIES_MAX);
    for (size_t i = 0; i < request->copy_in_count; i++) {
        const struct task_copy *copy = &request->copies_in[i];
        if (check_path("copy-in to", copy->destination, err) < 0)
            return -1;
        if (copy->name[0] != '\0' && !file_name_valid(copy->name))
            return error_set(err, ERROR_INVALID, "copy-in: \"%.100s\" is not a file's name", copy->name);
    }
    for (size_t i = 0; i < request->copy_out_count; i++)
        if (check_path("copy-out of", request->copies_out[i], err) < 0)
            return -1;
    for (size_t i = 0; i < request->artifact_count; i++)
        if (check_path("artifact", request->artifacts[i], err) < 0)
            return -1;
    return 0;
}

static const char **copy_texts(const char *const *texts, size_t count)
{
    const char **copy = calloc(count + 1, sizeof *copy);
    for (size_t i = 0; copy != NULL && i < count; i++)
        copy[i] = strdup(texts[i]);
    return copy;
}

static bool texts_made(const char *const *texts, size_t count)
{
    for (size_t i = 0; texts != NULL && i < count; i++)
        if (texts[i] == NULL)
            return false;
    return texts != NULL;
}

static void free_texts(const char **texts, size_t count)
{
    for (size_t i = 0; texts != NULL && i < count; i++)
        free((char *)(uintptr_t)texts[i]);
    free(texts);
}

int transfer_copy(struct job *job, const struct task_request *request)
{
    struct job_files *files = &job->files;
    bool made = true;
    if (request->copy_in_count > 0) {
        files->in = calloc(request->copy_in_count, sizeof *files->in);
        files->in_count = files->in != NULL ? request->copy_in_count : 0;
        made = files->in != NULL;
        for (size_t i = 0; i < files->in_count; i++) {
            files->in[i].destination = strdup(request->copies_in[i].destination);
            files->in[i].name = strdup(request->copies_in[i].name);
            made = made && files->in[i].destination != NULL && files->in[i].name != NULL;
        }
    }
    if (request->copy_out_count > 0) {
        files->out = copy_texts(request->copies_out, request->copy_out_count);
        files->out_count = files->out != NULL ? request->copy_out_count : 0;
        made = made && texts_made(files->out, files->out_count);
    }
    if (request->artifact_count > 0) {
        files->artifacts = copy_texts(request->artifacts, request->artifact_count);
        files->collected = calloc(request->artifact_count, sizeof *files->collected);
        files->artifact_count = files->artifacts != NULL && files->collected != NULL ? request->artifact_count : 0;
        made = made && files->collected != NULL && texts_made(files->artifacts, files->artifact_count);
    }
    return made ? 0 : -1;
}

void transfer_free(struct job *job)
{
    struct job_files *files = &job->files;
    for (size_t i = 0; i < files->in_count; i++) {
        free((char *)(uintptr_t)files->in[i].destination);
        free((char *)(uintptr_t)files->in[i].name);
    }
    free(files->in);
    for (size_t i = 0; files->collected != NULL && i < files->artifact_count; i++)
        tree_memory_free(&files->collected[i]);
    free(files->collected);
    for (size_t i = 0; i < files->list_count; i++)
        free((char *)(uintptr_t)files->list[i].path);
    free(files->list);
    free_texts(files->out, files->out_count);
    free_texts(files->artifacts, files->artifact_count);
}

/* --- in ---------------------------------------------------------------------------------------------------- */

static void put_next(struct job *job)
{
    struct job_files *files = &job->files;
    struct runner_conn *conn = conn_of(job);
    if (files->at == files->in_count) {
        job_run(job);
        return;
    }
    const struct task_copy *copy = &files->in[files->at];
    files->credit = FILES_CREDIT_INITIAL;
    files->moved_us = clock_us();
    struct message_put put = {.flags = PUT_MAKE_PARENTS, .destination = copy->destination, .name = copy->name};
    if (conn != NULL) {
        runner_conn_put(conn, job->number, &put);
        runner_conn_flush(conn);
    }
    files->ready_due = true; /* this may be inside the caller's executor_submit() */
    job_soon(job);
}

bool transfer_in_begin(struct job *job)
{
    if (job->files.in_count == 0)
        return false;
    job->phase = JOB_COPYING_IN;
    put_next(job);
    return true;
}

int executor_task_file(struct task *task, const void *data, size_t size, bool eof, struct error *err)
{
    struct job *job = job_of(task);
    struct runner_conn *conn = conn_of(job);
    if (job->phase != JOB_COPYING_IN)
        return 0; /* it has ended already, which the client is being told */
    if (size > job->files.credit)
        return error_set(err, ERROR_LIMIT, "%zu bytes of files where %llu may be sent", size,
                         (unsigned long long)job->files.credit);
    job->files.credit -= size;
    job->files.moved_us = clock_us();
    if (conn == NULL)
        return 0;
    runner_conn_file(conn, job->number, data, size, eof);
    runner_conn_flush(conn);
    return 0;
}

void transfer_credit(struct job *job, uint32_t bytes)
{
    struct job_files *files = &job->files;
    if (job->phase != JOB_COPYING_IN)
        return;
    if (bytes > FILES_CREDIT_INITIAL - files->credit) /* it cannot have taken more than it got */
        bytes = (uint32_t)(FILES_CREDIT_INITIAL - files->credit);
    files->credit += bytes;
    files->moved_us = clock_us();
    if (bytes > 0 && !job->abandoned && job->handler.file_ready != NULL)
        job->handler.file_ready(job->user, &job->task, bytes);
}

/* What a container says is shown to people as text without control characters. */
static void clean(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

void transfer_result(struct job *job, const struct message_file_result *result)
{
    struct job_files *files = &job->files;
    if (job->phase != JOB_COPYING_IN || job->outcome != TASK_UNKNOWN) /* cancelled: it is not started any more */
        return;
    if (!job->abandoned && job->handler.file_result != NULL)
        job->handler.file_result(job->user, &job->task, result);
    if (result->error != 0) {
        char text[300];
        snprintf(text, sizeof text, "%.150s%s%.100s", result->path, result->path[0] != '\0' ? ": " : "", result->text);
        clean(text);
        job_stop(job, TASK_REJECTED, "copy-in to %.100s: %s", files->in[files->at].destination, text);
        return;
    }
    files->at++;
    put_next(job);
}

/* --- out --------------------------------------------------------------------------------------------------- */

static void get_next(struct job *job);

static void note_error(struct job *job, const char *path, const char *text)
{
    struct job_files *files = &job->files;
    if (files->error[0] == '\0')
        snprintf(files->error, sizeof files->error, "%.100s: %.120s", path, text);
    clean(files->error);
}

static void out_done(struct job *job)
{
    job->phase = JOB_DONE;
    job_complete(job, true);
}

static void get_begin(struct job *job, const char *path, uint64_t max_bytes, uint64_t max_entries)
{
    struct runner_conn *conn = conn_of(job);
    job->files.stream_ended = false;
    job->files.unconsumed = 0;
    job->files.moved_us = clock_us();
    struct message_get get = {.source = path, .max_bytes = max_bytes, .max_entries = max_entries};
    if (conn == NULL)
        return;
    runner_conn_get(conn, job->number, &get);
    runner_conn_flush(conn);
}

static void get_next(struct job *job)
{
    struct job_files *files = &job->files;
    if (job->phase == JOB_COPYING_OUT && files->at == files->out_count) {
        job->phase = JOB_COLLECTING;
        files->at = 0;
    }
    if (job->phase == JOB_COPYING_OUT) {
        get_begin(job, files->out[files->at], 0, 0);
        return;
    }
    if (files->at == files->artifact_count) {
        out_done(job);
        return;
    }
    uint64_t bytes = 0, count = 0;
    for (size_t i = 0; i < files->at; i++) {
        bytes += files->collected[i].bytes;
        count += files->collected[i].count;
    }
    if (bytes >= ARTIFACTS_BYTES || count >= ARTIFACTS_MAX) {
        note_error(job, files->artifacts[files->at], "left out: the artifacts before it are as much as a result holds");
        out_done(job);
        return;
    }
    tree_memory_init(&files->collected[files->at], ARTIFACTS_BYTES - bytes, ARTIFACTS_MAX - count);
    get_begin(job, files->artifacts[files->at], ARTIFACTS_BYTES - bytes, 0);
}

bool transfer_out_begin(struct job *job, const struct message_exit *message)
{
    struct job_files *files = &job->files;
    if ((files->out_count == 0 && files->artifact_count == 0) || job->abandoned || job->cancelled ||
        message->outcome == EXIT_NOT_STARTED)
        return false;
    files->exit = *message;
    files->exit_us = clock_us();
    files->at = 0;
    job->phase = JOB_COPYING_OUT;
    get_next(job);
    return true;
}

static void copy_over(struct job *job)
{
    job->files.at++;
    get_next(job);
}

static void collect(struct job *job, const uint8_t *data, size_t size, bool eof)
{
    struct job_files *files = &job->files;
    struct runner_conn *conn = conn_of(job);
    struct tree_memory *memory = &files->collected[files->at];
    tree_memory_feed(memory, data, size);
    if (!eof) {
        if (conn != NULL) {
            runner_conn_credit(conn, job->number, WIRE_FILES, (uint32_t)size);
            runner_conn_flush(conn);
        }
        return;
    }
    if (memory->error != 0 || !memory->done) { /* nothing of it is verified */
        note_error(job, files->artifacts[files->at], memory->text[0] != '\0' ? memory->text : "incomplete");
        tree_memory_free(memory);
        tree_memory_init(memory, 0, 0);
    }
    copy_over(job);
}

void transfer_file(struct job *job, const uint8_t *data, size_t size, bool eof)
{
    struct job_files *files = &job->files;
    files->moved_us = clock_us();
    if (job->phase == JOB_COLLECTING && files->at < files->artifact_count) {
        collect(job, data, size, eof);
        return;
    }
    if (job->phase != JOB_COPYING_OUT || files->stream_ended)
        return;
    files->unconsumed += size;
    files->stream_ended = eof;
    if (files->unconsumed > FILES_CREDIT_INITIAL) {
        worker_retire(worker_of(job->task.container), "its runner sent more of a file than it may");
        return;
    }
    if (!job->abandoned && job->handler.file != NULL)
        job->handler.file(job->user, &job->task, data, size, eof);
    else
        executor_task_file_consumed(&job->task, size);
}

void executor_task_file_consumed(struct task *task, size_t size)
{
    struct job *job = job_of(task);
    struct job_files *files = &job->files;
    struct runner_conn *conn = conn_of(job);
    if (job->phase != JOB_COPYING_OUT)
        return;
    if (size > files->unconsumed)
        size = (size_t)files->unconsumed;
    files->unconsumed -= size;
    files->moved_us = clock_us();
    if (files->stream_ended) {
        files->next_due =
            files->unconsumed == 0; /* not before, so that what waits for a slow client stays one window */
        if (files->next_due)
            job_soon(job);
    } else if (conn != NULL && size > 0) {
        runner_conn_credit(conn, job->number, WIRE_FILES, (uint32_t)size);
        runner_conn_flush(conn);
    }
}

/* --- trouble ----------------------------------------------------------------------------------------------- */

void transfer_give_up(struct job *job, const char *why)
{
    struct job_files *files = &job->files;
    struct runner_conn *conn = conn_of(job);
    if (conn != NULL)
        runner_conn_cancel(conn, job->number, 0);
    if (job->phase == JOB_COPYING_IN) {
        job_stop(job, TASK_REJECTED, "copy-in to %.100s: %s", files->in[files->at].destination, why);
    } else if (job->phase == JOB_COPYING_OUT || job->phase == JOB_COLLECTING) {
        note_error(job, job->phase == JOB_COPYING_OUT ? files->out[files->at] : files->artifacts[files->at], why);
        if (job->phase == JOB_COLLECTING) {
            tree_memory_free(&files->collected[files->at]);
            tree_memory_init(&files->collected[files->at], 0, 0);
        }
        out_done(job);
    }
}

void transfer_lost(struct job *job)
{
    struct job_files *files = &job->files;
    note_error(job, job->phase == JOB_COPYING_OUT ? files->out[files->at] : files->artifacts[files->at],
               "the container was lost meanwhile");
    if (job->phase == JOB_COLLECTING) {
        tree_memory_free(&files->collected[files->at]);
        tree_memory_init(&files->collected[files->at], 0, 0);
    }
    job->phase = JOB_DONE;
    job_complete(job, false);
}

void transfer_soon(struct job *job)
{
    struct job_files *files = &job->files;
    bool next = files->next_due, ready = files->ready_due;
    files->next_due = files->ready_due = false;
    if (ready && job->phase == JOB_COPYING_IN && !job->abandoned && job->handler.file_ready != NULL)
        job->handler.file_ready(job->user, &job->task, FILES_CREDIT_INITIAL);
    if (files->give_up_due) {
        files->give_up_due = false;
        transfer_give_up(job, "cancelled");
    } else if (next && job->phase == JOB_COPYING_OUT) {
        copy_over(job);
    }
}

bool transfer_cancel(struct job *job)
{
    if (job->phase != JOB_COPYING_OUT && job->phase != JOB_COLLECTING)
        return false;
    job->files.give_up_due = true;
    job_soon(job);
    return true;
}

/* What was collected, as the result has it. */
void transfer_list(struct job *job)
{
    struct job_files *files = &job->files;
    size_t count = 0;
    for (size_t i = 0; i < files->artifact_count; i++)
        count += files->collected[i].count;
    files->list = count == 0 ? NULL : calloc(count, sizeof *files->list);
    for (size_t i = 0; files->list != NULL && i < files->artifact_count; i++) {
        for (size_t j = 0; j < files->collected[i].count; j++) {
            const struct tree_memory_file *file = &files->collected[i].files[j];
            size_t length = strlen(files->artifacts[i]) + 1 + strlen(file->path) + 1;
            char *path = malloc(length);
            if (path == NULL)
                continue;
            snprintf(path, length, "%s%s%s", files->artifacts[i], file->path[0] != '\0' ? "/" : "", file->path);
            files->list[files->list_count++] = (struct task_artifact){.path = path,
                                                                      .mode = file->mode,
                                                                      .mtime_s = file->mtime_s,
                                                                      .size = file->size,
                                                                      .data = file->data,
                                                                      .sha256 = file->digest};
        }
    }
}

bool transfer_broken(struct job *job)
{
    if (job->phase != JOB_COPYING_IN && job->phase != JOB_COPYING_OUT && job->phase != JOB_COLLECTING)
        return false;
    transfer_give_up(job, "the connection to the container broke meanwhile");
    return true;
}

bool transfer_stalled(const struct job *job, uint64_t now_us)
{
    return (job->phase == JOB_COPYING_IN || job->phase == JOB_COPYING_OUT || job->phase == JOB_COLLECTING) &&
           now_us - job->files.moved_us > TRANSFER_STALL_US;
}
