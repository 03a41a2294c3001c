/* `warmpool run`, `exec` and `cp`: one task over an upgraded connection. The daemon sends STDOUT, STDERR, CREDIT and at
 * last RESULT; this side sends STDIN, CREDIT for what it has written on, and CANCEL. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json_write.h"
#include "cli/cli.h"
#include "cli/copy.h"
#include "cli/secret.h"
#include "cli/terminal.h"
#include "wire/frame.h"
#include "wire/message.h"

#define CREDIT_BATCH OUTPUT_CREDIT_BATCH
#define GRACE_MS     5000U
#define CANCELS_MAX  2 /* then output that nobody takes is not waited for any more */

/* Of a terminal that is not there: -t in a script. */
#define TERMINAL_ROWS    24U
#define TERMINAL_COLUMNS 80U
#define TERMINAL_TYPE    "xterm"

struct run {
    const struct cli *cli;
    const char *path; /* of the API */
    int fd;
    bool json;
    bool waits_for_credit; /* of files: the next frame is larger than what may be sent */
    bool terminal;         /* the task has one */
    bool stdin_open;
    uint32_t stdin_credit;
    uint32_t owed[2];
    struct buffer in;
    struct copies *copies;
    sigset_t waiting, working; /* signal masks: interrupts are let in while something is waited for */
    int cancels;
    int code; /* -1: no result yet */
};

static volatile sig_atomic_t interrupts, resized;

static void on_interrupt(int number)
{
    (void)number;
    interrupts++;
}

static void on_resize(int number)
{
    (void)number;
    resized = 1;
}

static int send_frame(struct run *run, uint8_t type, uint8_t flags, const void *payload, size_t size)
{
    uint8_t header[FRAME_HEADER_BYTES];
    frame_encode_header(header, type, flags, 0, (uint32_t)size);
    if (write_all(run->fd, header, sizeof header) < 0)
        return -1;
    return size == 0 ? 0 : write_all(run->fd, payload, size);
}

static int send_cancel(struct run *run)
{
    uint8_t payload[4];
    struct wire_writer writer = {.next = payload, .end = payload + sizeof payload};
    wire_put_u32(&writer, run->cancels++ == 0 ? GRACE_MS : 0);
    return send_frame(run, FRAME_CANCEL, 0, payload, sizeof payload);
}

/* Those that wait are let in; ppoll() does not while there is always something to read. */
static int heed_interrupts(struct run *run)
{
    sigprocmask(SIG_SETMASK, &run->waiting, NULL);
    sigprocmask(SIG_SETMASK, &run->working, NULL);
    while (interrupts > run->cancels)
        if (send_cancel(run) < 0)
            return -1;
    return 0;
}

/* One piece, which may take as long as whoever reads it likes. */
static ssize_t write_some(const struct run *run, int fd, const void *data, size_t size)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    sigprocmask(SIG_SETMASK, &run->waiting, NULL);
    ssize_t written = write(fd, data, size);
    int error = errno;
    sigprocmask(SIG_SETMASK, &run->working, NULL);
    if (written < 0 && error == EAGAIN) /* whoever gave it to us made it so */
        ppoll(&writable, 1, NULL, &run->waiting);
    errno = error;
    return written;
}

/* The task's output to ours. 1: whoever read it is gone. */
static int write_out(struct run *run, int fd, const uint8_t *data, size_t size)
{
    while (size > 0 && run->code < 0) {
        ssize_t written = write_some(run, fd, data, size);
        if (written > 0) {
            data += written;
            size -= (size_t)written;
        } else if (written < 0 && (errno == EPIPE || errno == EIO)) {
            return 1;
        } else if (written < 0 && errno != EINTR && errno != EAGAIN) {
            run->code = failed("writing the task's output: %s", strerror(errno));
        } else if (interrupts > run->cancels && run->cancels >= CANCELS_MAX) {
            run->code = 128 + SIGINT;
        }
        heed_interrupts(run); /* a daemon that is gone shows when it is read from */
    }
    return 0;
}

static int send_size(struct run *run)
{
    struct message_winch winch;
    uint8_t payload[MESSAGE_WINCH_BYTES];
    resized = 0;
    if (!terminal_size(&winch.rows, &winch.columns))
        return 0;
    message_winch_encode(&winch, payload);
    return send_frame(run, FRAME_WINCH, 0, payload, sizeof payload);
}

static int give_credit(struct run *run, int stream, uint32_t bytes)
{
    uint32_t *owed = &run->owed[stream == 2];
    *owed += bytes;
    if (*owed < CREDIT_BATCH)
        return 0;
    struct message_credit credit = {.stream = (uint8_t)stream, .bytes = *owed};
    uint8_t payload[MESSAGE_CREDIT_BYTES];
    message_credit_encode(&credit, payload);
    *owed = 0;
    return send_frame(run, FRAME_CREDIT, 0, payload, sizeof payload);
}

static int handle_result(struct run *run, const struct frame *frame)
{
    struct message_result result;
    if (message_result_decode(frame->payload, frame->length, &result) < 0)
        return -1;
    terminal_restore();
    if (run->json && puts(result.json) < 0)
        return -1;
    if (!run->json && result.message[0] != '\0')
        failed("%s", result.message);
    run->code = (int)(result.exit_code & 255);
    return 0;
}

static int handle_credit(struct run *run, const struct frame *frame)
{
    struct message_credit credit;
    if (message_credit_decode(frame->payload, frame->length, &credit) < 0)
        return -1;
    if (credit.stream == WIRE_FILES)
        return copies_credit(run->copies, credit.bytes) != 0 ? -1 : 0;
    if (credit.bytes == UINT32_MAX)
        run->stdin_open = false;
    else
        run->stdin_credit += credit.bytes;
    return 0;
}

static int handle_file_result(struct run *run, const struct frame *frame)
{
    struct message_file_result result;
    if (message_file_result_decode(frame->payload, frame->length, &result) < 0)
        return -1;
    copies_result(run->copies, result.error != 0);
    return 0;
}

static int handle_file(struct run *run, const struct frame *frame)
{
    struct message_credit credit = {.stream = WIRE_FILES};
    uint8_t payload[MESSAGE_CREDIT_BYTES];
    if (copies_receive(run->copies, frame->payload, frame->length, frame->flags, &credit.bytes) < 0)
        return -1;
    if (credit.bytes == 0)
        return 0;
    message_credit_encode(&credit, payload);
    send_frame(run, FRAME_CREDIT, 0, payload, sizeof payload);
    return 0;
}

/* 1: our own stdout is gone. */
static int handle_frame(struct run *run, const struct frame *frame)
{
    switch (frame->type) {
    case FRAME_STDOUT:
    case FRAME_STDERR: {
        int stream = frame->type == FRAME_STDOUT ? 1 : 2;
        /* A tar on stdout is not mixed with anything. */
        if (write_out(run, run->copies->to_stdout ? 2 : stream, frame->payload, frame->length) != 0)
            return 1;
        give_credit(run, stream, frame->length); /* fails after the daemon's last word, which is still to be read */
        return 0;
    }
    case FRAME_CREDIT:
        return handle_credit(run, frame);
    case FRAME_FILE:
        return handle_file(run, frame);
    case FRAME_FILE_RESULT:
        return handle_file_result(run, frame);
    case FRAME_RESULT:
        return handle_result(run, frame);
    default:
        return -1;
    }
}

static int handle_input(struct run *run)
{
    while (run->code < 0) {
        struct frame frame;
        ptrdiff_t taken = frame_decode(buffer_data(&run->in), buffer_length(&run->in), &frame);
        if (taken <= 0)
            return taken < 0 ? -1 : 0;
        int result = handle_frame(run, &frame);
        buffer_consume(&run->in, (size_t)taken);
        if (result != 0)
            return result;
    }
    return 0;
}

static int pass_stdin(struct run *run)
{
    uint8_t bytes[FRAME_DATA_MAX];
    size_t most = run->stdin_credit < sizeof bytes ? run->stdin_credit : sizeof bytes;
    ssize_t got = read(0, bytes, most);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (got <= 0) {
        run->stdin_open = false;
        return send_frame(run, FRAME_STDIN, FRAME_FLAG_EOF, NULL, 0);
    }
    run->stdin_credit -= (uint32_t)got;
    return send_frame(run, FRAME_STDIN, 0, bytes, (size_t)got);
}

static int gone(struct run *run)
{
    return failed("the daemon at %s went away in mid-task", run->cli->socket);
}

static int receive(struct run *run)
{
    uint8_t *room = buffer_reserve(&run->in, 131072);
    ssize_t got = room == NULL ? -1 : read(run->fd, room, 131072);
    if (got < 0 && errno == EINTR)
        return 0;
    if (got <= 0)
        return -1;
    buffer_commit(&run->in, (size_t)got);
    return handle_input(run);
}

static int converse(struct run *run)
{
    int result = handle_input(run); /* what came with the head */
    while (result == 0 && run->code < 0) {
        result = heed_interrupts(run);
        if (resized && run->terminal && result == 0)
            result = send_size(run);
        bool wants_stdin = run->stdin_open && run->stdin_credit > 0;
        struct pollfd set[3] = {
            {.fd = run->fd, .events = POLLIN},
            {.fd = wants_stdin ? 0 : -1, .events = POLLIN},
            {.fd = copies_want_read(run->copies) && !run->waits_for_credit ? run->copies->fd : -1, .events = POLLIN}};
        int ready = ppoll(set, 3, NULL, &run->waiting);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            return failed("waiting: %s", strerror(errno));
        if (set[1].revents != 0)
            pass_stdin(run); /* when the daemon has ended the conversation, its last word is still to be read */
        if (set[2].revents != 0)
            run->waits_for_credit = copies_send(run->copies, run->fd) == 1;
        if (set[0].revents != 0) {
            run->waits_for_credit = false;
            result = receive(run);
        }
    }
    if (result == 1)
        return 128 + SIGPIPE; /* closing the connection ends the task */
    return run->code >= 0 ? run->code : gone(run);
}

/* --- the request ----------------------------------------------------------------------------------------------------
 */

struct run_options {
    const char *timeout, *kill_timeout, *queue_timeout, *workdir, *priority, *id, *retries;
    bool interactive, terminal, both, fresh, idempotent, json;
    const char *artifacts[64];
    size_t artifact_count;
    struct copies copies;
    const char *env[256];
    size_t env_count;
    struct cli_secrets secrets;
};

static int add_env(void *user, const char *value)
{
    struct run_options *options = user;
    if (strchr(value, '=') == NULL || value[0] == '=' ||
        options->env_count == sizeof options->env / sizeof options->env[0])
        return -1;
    options->env[options->env_count++] = value;
    return 0;
}

static int add_artifact(void *user, const char *value)
{
    struct run_options *options = user;
    if (options->artifact_count == sizeof options->artifacts / sizeof options->artifacts[0])
        return -1;
    options->artifacts[options->artifact_count++] = value;
    return 0;
}

static void put_text(struct json_writer *json, const char *key, const char *value)
{
    if (value == NULL)
        return;
    jw_key(json, key);
    jw_text(json, value);
}

static void put_flag(struct json_writer *json, const char *key, bool value)
{
    jw_key(json, key);
    jw_bool(json, value);
}

static bool all_digits(const char *text)
{
    return text != NULL && text[0] != '\0' && strspn(text, "0123456789") == strlen(text) && strlen(text) < 16;
}

/* On the command line a bare number would be read as milliseconds by the API: as everywhere. */
static void put_time(struct json_writer *json, const char *key, const char *value)
{
    if (!all_digits(value)) {
        put_text(json, key, value);
        return;
    }
    jw_key(json, key);
    jw_uint(json, strtoull(value, NULL, 10));
}

static void put_terminal(struct json_writer *json)
{
    uint16_t rows = TERMINAL_ROWS, columns = TERMINAL_COLUMNS;
    const char *term = getenv("TERM");
    terminal_size(&rows, &columns);
    jw_key(json, "terminal");
    jw_open(json, '{');
    jw_key(json, "rows");
    jw_uint(json, rows);
    jw_key(json, "columns");
    jw_uint(json, columns);
    put_text(json, "term", term != NULL && term[0] != '\0' ? term : TERMINAL_TYPE);
    jw_close(json, '}');
}

/* `type`: NULL in a lease; `command`: NULL for copies alone. */
static void write_request(struct buffer *out, const char *type, const struct run_options *options, char **command)
{
    struct json_writer json = {.out = out};
    jw_open(&json, '{');
    put_text(&json, "agentType", type);
    if (command != NULL) {
        jw_key(&json, "command");
        jw_open(&json, '[');
        for (; *command != NULL; command++)
            jw_text(&json, *command);
        jw_close(&json, ']');
    }
    if (options->env_count > 0) {
        jw_key(&json, "env");
        jw_open(&json, '{');
        for (size_t i = 0; i < options->env_count; i++) {
            size_t length = strcspn(options->env[i], "=");
            jw_bytes(&json, (const uint8_t *)options->env[i], length);
            buffer_append_string(out, ":");
            json.comma = false;
            jw_text(&json, options->env[i] + length + 1);
        }
        jw_close(&json, '}');
    }
    secrets_write(&options->secrets, &json);
    put_time(&json, "timeoutMs", options->timeout);
    put_time(&json, "killTimeout", options->kill_timeout);
    put_time(&json, "queueTimeoutMs", options->queue_timeout);
    put_text(&json, "workdir", options->workdir);
    put_text(&json, "priority", options->priority);
    put_text(&json, "id", options->id);
    if (options->interactive)
        put_flag(&json, "stdinStream", true);
    if (options->terminal)
        put_terminal(&json);
    copies_write(&options->copies, &json);
    if (options->artifact_count > 0) {
        jw_key(&json, "artifacts");
        jw_open(&json, '[');
        for (size_t i = 0; i < options->artifact_count; i++)
            jw_text(&json, options->artifacts[i]);
        jw_close(&json, ']');
    }
    if (options->fresh)
        put_flag(&json, "fresh", true);
    if (options->idempotent)
        put_flag(&json, "idempotent", true);
    if (all_digits(options->retries)) {
        jw_key(&json, "retryAttempts");
        jw_uint(&json, strtoull(options->retries, NULL, 10));
    }
    put_flag(&json, "captureOutput", options->json);
    put_flag(&json, "streamOutput", !options->json);
    jw_close(&json, '}');
}

static void catch_signals(struct run *run)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_interrupt}, resize = {.sa_handler = on_resize};
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &run->waiting);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGWINCH);
    sigaction(SIGWINCH, &resize, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sigaddset(&blocked, numbers[i]);
        sigaction(numbers[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigdelset(&run->waiting, numbers[i]);
    sigdelset(&run->waiting, SIGWINCH);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    sigprocmask(SIG_BLOCK, NULL, &run->working);
}

static int run_task(struct run *run, struct buffer *body)
{
    size_t length = 0;
    run->fd = client_connect(run->cli, true);
    if (run->fd < 0)
        return EXIT_FAILED;
    catch_signals(run);
    int status = client_begin(run->fd, "POST", run->path, "Connection: Upgrade\r\nUpgrade: warmpool\r\n",
                              (const char *)buffer_data(body), buffer_length(body), &run->in, &length);
    buffer_free(body); /* before the task's time: there may be secrets in it */
    int code;
    if (status == 101) {
        if (run->terminal && run->stdin_open)
            terminal_raw();
        code = converse(run);
    } else if (status < 0) {
        code = gone(run);
    } else {
        struct reply reply = {.status = status, .body = run->in};
        run->in = (struct buffer){0};
        while (buffer_length(&reply.body) < length) {
            uint8_t *room = buffer_reserve(&reply.body, 65536);
            ssize_t got = room == NULL ? -1 : read(run->fd, room, 65536);
            if (got <= 0)
                break;
            buffer_commit(&reply.body, (size_t)got);
        }
        code = client_refused(&reply);
        buffer_free(&reply.body);
    }
    close(run->fd);
    terminal_restore();
    return code;
}

/* Asks for what `options` say, and ends with the exit code. */
static int run_request(struct cli *cli, struct run_options *options, const char *type, const char *lease,
                       char **command)
{
    char path[128] = "/v1/tasks";
    struct buffer body = {.wipe = true};
    if (lease != NULL)
        snprintf(path, sizeof path, "/v1/leases/%.64s/tasks", lease);
    write_request(&body, type, options, command);
    secrets_free(&options->secrets);
    struct run run = {.cli = cli,
                      .path = path,
                      .terminal = options->terminal,
                      .copies = &options->copies,
                      .json = options->json,
                      .stdin_open = options->interactive,
                      .stdin_credit = STDIN_CREDIT_INITIAL,
                      .code = -1};
    int code = body.failed ? failed("out of memory") : run_task(&run, &body);
    if (copies_end(&options->copies) && code == 0)
        code = EXIT_FAILED;
    copies_free(&options->copies);
    buffer_free(&body);
    buffer_free(&run.in);
    return code;
}

/* "l0123456789abcdef", which may end before a colon. */
static bool is_lease(const char *text, size_t length)
{
    return length == LEASE_ID_LENGTH && text[0] == 'l' && strspn(text + 1, "0123456789abcdef") >= length - 1;
}

/* The path in "LEASE:PATH", with the lease's id in `id`; NULL: it is none. */
static const char *path_in_lease(const char *text, char id[LEASE_ID_LENGTH + 1])
{
    const char *colon = strchr(text, ':');
    if (colon == NULL || !is_lease(text, (size_t)(colon - text)) || colon[1] == '\0')
        return NULL;
    memcpy(id, text, LEASE_ID_LENGTH);
    id[LEASE_ID_LENGTH] = '\0';
    return colon + 1;
}

int verb_cp(struct cli *cli)
{
    struct run_options options = {.copies = {.cli = cli, .fd = -1}};
    const struct option_spec specs[] = {{.name = "--json", .flag = &options.json}};
    char id[LEASE_ID_LENGTH + 1];
    int rest;
    int read = options_read(cli, specs, 1, &rest);
    if (read != 0)
        return read < 0 ? EXIT_FAILED : 0;
    if (cli->argc != 3)
        return misused(cli, "takes what is copied and where to, one of them as LEASE:PATH");
    const char *from = path_in_lease(cli->argv[1], id), *to = path_in_lease(cli->argv[2], id);
    if ((from == NULL) == (to == NULL))
        return misused(cli, "one of the two must be LEASE:PATH, and only one; `warmpool leases` lists the leases");
    if ((from != NULL ? copy_out_set(&options.copies, from, cli->argv[2])
                      : copy_in_set(&options.copies, cli->argv[1], to)) < 0)
        return failed("%s cannot be copied under that name", cli->argv[1]);
    return run_request(cli, &options, NULL, id, NULL);
}

int verb_run(struct cli *cli)
{
    struct run_options options = {.copies = {.cli = cli, .fd = -1}};
    const struct option_spec specs[] = {
        {.name = "-i", .flag = &options.interactive},
        {.name = "-e", .each = add_env, .user = &options},
        {.name = "--secret",
         .each = secret_file_add,
         .user = &options.secrets,
         .form = CLI_SECRET_FORM,
         .hidden = true},
        {.name = "--secret-env",
         .each = secret_env_add,
         .user = &options.secrets,
         .form = CLI_SECRET_FORM,
         .hidden = true},
        {.name = "--timeout", .text = &options.timeout},
        {.name = "--kill-timeout", .text = &options.kill_timeout},
        {.name = "--workdir", .text = &options.workdir},
        {.name = "--priority", .text = &options.priority},
        {.name = "--queue-timeout", .text = &options.queue_timeout},
        {.name = "--retry", .text = &options.retries},
        {.name = "--idempotent", .flag = &options.idempotent},
        {.name = "--fresh", .flag = &options.fresh},
        {.name = "--json", .flag = &options.json},
        {.name = "--id", .text = &options.id},
        {.name = "-t", .flag = &options.terminal},
        {.name = "--copy-in", .each = copy_in_add, .user = &options.copies, .form = "SRC:DST"},
        {.name = "--copy-out", .each = copy_out_add, .user = &options.copies, .form = "SRC:DST"},
        {.name = "--artifact", .each = add_artifact, .user = &options, .form = "a path"},
        {.name = "-it", .flag = &options.both},
        {.name = "-ti", .flag = &options.both},
    };
    int rest, whole = cli->argc;
    int read = options_read(cli, specs, sizeof specs / sizeof specs[0], &rest);
    if (read != 0)
        return read < 0 ? EXIT_FAILED : 0;
    bool in_lease = strcmp(cli->argv[0], "exec") == 0;
    if (cli->argc < 2)
        return misused(cli, in_lease ? "the lease is missing" : "the agent type is missing");
    if (in_lease && !is_lease(cli->argv[1], strlen(cli->argv[1])))
        return misused(cli, "\"%s\" is no lease; `warmpool leases` lists them", cli->argv[1]);
    if (in_lease && options.fresh)
        return misused(cli, "--fresh is for the lease, not for a task in it");
    if (options.retries != NULL && !all_digits(options.retries))
        return misused(cli, "--retry %s: must be a number", options.retries);
    if (cli->argc > 2)
        return misused(cli, "unexpected \"%s\"; the command stands after --", cli->argv[2]);
    if (rest >= whole)
        return misused(cli, "the command is missing; it stands after --");
    options.interactive |= options.both;
    options.terminal |= options.both;
    if (options.interactive && options.secrets.from_stdin)
        return misused(cli, "-i and a secret from - both want stdin");
    return run_request(cli, &options, in_lease ? NULL : cli->argv[1], in_lease ? cli->argv[1] : NULL, cli->argv + rest);
}
