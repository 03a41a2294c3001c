#include "api/request.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/secret.h"

#define TEMPLATE_DEPTH 8
#define VALUES_MAX     200000U

static int bad(struct api_failure *failure, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int bad(struct api_failure *failure, unsigned status, const char *format, ...)
{
    char text[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    failure->status = status;
    if (failure->hint == NULL)
        failure->hint = "";
    return error_set(&failure->error, status == 413 ? ERROR_LIMIT : ERROR_INVALID, "%s", text);
}

static int nomem(struct api_failure *failure)
{
    failure->status = 503;
    failure->hint = "";
    return error_set(&failure->error, ERROR_NOMEM, "out of memory");
}

/* --- simple members ------------------------------------------------------------------------------------------ */

static int read_text(const json_t *value, const char *key, const char **text, struct api_failure *failure)
{
    if (!json_is_string(value))
        return bad(failure, 400, "$.%s must be a string", key);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return bad(failure, 400, "$.%s must not contain a NUL", key);
    *text = json_string_value(value);
    return 0;
}

static int read_bool(const json_t *value, const char *key, bool *flag, struct api_failure *failure)
{
    if (!json_is_boolean(value))
        return bad(failure, 400, "$.%s must be true or false", key);
    *flag = json_is_true(value);
    return 0;
}

/* Milliseconds as a number, or "30s". */
static int read_time(const json_t *value, const char *key, int64_t *milliseconds, struct api_failure *failure)
{
    uint64_t parsed = 0;
    bool sound = json_is_integer(value) && json_integer_value(value) >= 0;
    if (sound)
        parsed = (uint64_t)json_integer_value(value);
    else
        sound = json_is_string(value) && parse_duration_ms(json_string_value(value), &parsed) == 0;
    if (!sound || parsed > UINT32_MAX)
        return bad(failure, 400, "$.%s must be a time: a number of milliseconds up to 4294967295, or as \"30s\"", key);
    *milliseconds = (int64_t)parsed;
    return 0;
}

static int read_size(const json_t *value, const char *key, int64_t *bytes, struct api_failure *failure)
{
    uint64_t parsed = 0;
    bool sound = json_is_integer(value) && json_integer_value(value) >= 0;
    if (sound)
        parsed = (uint64_t)json_integer_value(value);
    else
        sound = json_is_string(value) && parse_size_bytes(json_string_value(value), &parsed) == 0;
    if (!sound || parsed > (64U << 20))
        return bad(failure, 400, "$.%s must be a size up to 64m: a number of bytes, or as \"1m\"", key);
    *bytes = (int64_t)parsed;
    return 0;
}

bool api_priority_read(const json_t *value, enum task_priority *priority)
{
    uint32_t number;
    if (!json_is_string(value) || parse_priority(json_string_value(value), &number) < 0)
        return false;
    *priority = (enum task_priority)number;
    return true;
}

static int read_priority(const json_t *value, enum task_priority *priority, struct api_failure *failure)
{
    if (api_priority_read(value, priority))
        return 0;
    return bad(failure, 400, "$.priority must be critical, high, normal, low or background");
}

/* --- command and environment --------------------------------------------------------------------------------- */

static int read_command(struct api_request *request, const json_t *value, struct api_failure *failure)
{
    size_t count = json_array_size(value);
    if (!json_is_array(value) || count == 0)
        return bad(failure, 400, "$.command must be a list of at least one string");
    request->argv = calloc(count + 1, sizeof *request->argv);
    if (request->argv == NULL)
        return nomem(failure);
    for (size_t i = 0; i < count; i++) {
        char key[40];
        snprintf(key, sizeof key, "command[%zu]", i);
        if (read_text(json_array_get(value, i), key, &request->argv[i], failure) < 0)
            return -1;
    }
    if (request->argv[0][0] == '\0')
        return bad(failure, 400, "$.command[0] must not be empty: it is the program to run");
    return 0;
}

static int read_environment(struct api_request *request, json_t *value, struct api_failure *failure)
{
    if (!json_is_object(value))
        return bad(failure, 400, "$.env must be an object of strings");
    size_t count = json_object_size(value), at = 0;
    request->env = calloc(count + 1, sizeof *request->env);
    request->pairs = calloc(count + 1, sizeof *request->pairs);
    if (request->env == NULL || request->pairs == NULL)
        return nomem(failure);
    const char *name;
    json_t *text;
    json_object_foreach (value, name, text) {
        char key[96];
        const char *plain = "";
        snprintf(key, sizeof key, "env.%.80s", name);
        if (read_text(text, key, &plain, failure) < 0)
            return -1;
        if (name[0] == '\0' || strchr(name, '=') != NULL)
            return bad(failure, 400, "$.env: \"%.80s\" is no name of a variable", name);
        char *pair = malloc(strlen(name) + strlen(plain) + 2);
        if (pair == NULL)
            return nomem(failure);
        sprintf(pair, "%s=%s", name, plain);
        request->pairs[at] = pair;
        request->env[at++] = pair;
    }
    return 0;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int decode_base64(const char *text, size_t length, uint8_t *out, size_t *size)
{
    uint32_t bits = 0;
    unsigned held = 0;
    *size = 0;
    while (length > 0 && text[length - 1] == '=')
        length--;
    for (size_t i = 0; i < length; i++) {
        int value = base64_value(text[i]);
        if (value < 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[(*size)++] = (uint8_t)(bits >> held);
        }
    }
    return held < 6 ? 0 : -1; /* one digit over makes no byte */
}

static int read_stdin(struct api_request *request, const json_t *value, const json_t *encoding,
                      struct api_failure *failure)
{
    if (!json_is_string(value))
        return bad(failure, 400, "$.stdin must be a string");
    request->task.stdin_data = json_string_value(value);
    request->task.stdin_size = json_string_length(value);
    if (encoding == NULL || (json_is_string(encoding) && strcmp(json_string_value(encoding), "utf-8") == 0))
        return 0;
    if (!json_is_string(encoding) || strcmp(json_string_value(encoding), "base64") != 0)
        return bad(failure, 400, "$.stdinEncoding must be utf-8 or base64");
    request->stdin_data = malloc(request->task.stdin_size + 1);
    if (request->stdin_data == NULL)
        return nomem(failure);
    if (decode_base64(json_string_value(value), json_string_length(value), request->stdin_data,
                      &request->task.stdin_size) < 0)
        return bad(failure, 400, "$.stdin is not base64");
    request->task.stdin_data = request->stdin_data;
    return 0;
}

static int read_side(const json_t *value, const char *key, uint16_t *side, struct api_failure *failure)
{
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : 0;
    if (number < 1 || number > UINT16_MAX)
        return bad(failure, 400, "$.terminal.%s must be a number from 1 to %u", key, UINT16_MAX);
    *side = (uint16_t)number;
    return 0;
}

/* {"rows": 24, "columns": 80, "term": "xterm"} */
static int read_terminal(struct api_request *request, const json_t *value, struct api_failure *failure)
{
    struct task_request *task = &request->task;
    const char *key;
    json_t *member;
    if (!json_is_object(value))
        return bad(failure, 400, "$.terminal must be an object with rows, columns and term");
    task->terminal = true;
    task->rows = 24;
    task->columns = 80;
    json_object_foreach ((json_t *)value, key, member) {
        int result = 0;
        if (strcmp(key, "rows") == 0)
            result = read_side(member, key, &task->rows, failure);
        else if (strcmp(key, "columns") == 0)
            result = read_side(member, key, &task->columns, failure);
        else if (strcmp(key, "term") == 0)
            result = read_text(member, "terminal.term", &task->term, failure);
        else
            return bad(failure, 400, "$.terminal.%.64s is not known: rows, columns and term are", key);
        if (result < 0)
            return -1;
    }
    return 0;
}

/* --- secrets: what is refused is named, never shown -------------------------------------------------------------- */

/* "text", or {"value": "text", "encoding": "base64", "as": "env"} */
static int read_secret(struct task_secret *secret, const json_t *member, bool *base64, struct api_failure *failure)
{
    const json_t *value = member;
    if (json_is_object(member)) {
        const char *key;
        json_t *item;
        value = json_object_get(member, "value");
        json_object_foreach ((json_t *)member, key, item) {
            const char *text = json_is_string(item) ? json_string_value(item) : "";
            if (strcmp(key, "as") == 0) {
                secret->as_env = strcmp(text, "env") == 0;
                if (!secret->as_env && strcmp(text, "file") != 0)
                    return bad(failure, 400, "$.secrets.%.64s.as must be file or env", secret->name);
            } else if (strcmp(key, "encoding") == 0) {
                *base64 = strcmp(text, "base64") == 0;
                if (!*base64 && strcmp(text, "utf-8") != 0)
                    return bad(failure, 400, "$.secrets.%.64s.encoding must be utf-8 or base64", secret->name);
            } else if (strcmp(key, "value") != 0) {
                return bad(failure, 400, "$.secrets.%.64s has members other than value, encoding and as", secret->name);
            }
        }
    }
    if (!json_is_string(value))
        return bad(failure, 400, "$.secrets.%.64s must be a string, or an object whose value is one", secret->name);
    secret->value = json_string_value(value);
    secret->size = json_string_length(value);
    return 0;
}

static int decode_secret(struct task_secret *secret, uint8_t **out, struct api_failure *failure)
{
    size_t size = secret->size;
    *out = malloc(size + 1);
    if (*out == NULL)
        return nomem(failure);
    if (decode_base64(secret->value, size, *out, &secret->size) < 0)
        return bad(failure, 400, "$.secrets.%.64s.value is not base64", secret->name);
    secret->value = *out;
    return 0;
}

static int read_secrets(struct api_request *request, json_t *value, struct api_failure *failure)
{
    size_t count = json_object_size(value), decoded = 0;
    if (!json_is_object(value))
        return bad(failure, 400, "$.secrets must be an object of strings and objects");
    if (count > SECRETS_MAX)
        return bad(failure, 400, "$.secrets has %zu members; a task may have %u", count, SECRETS_MAX);
    request->secrets = calloc(count + 1, sizeof *request->secrets);
    request->secret_values = calloc(count + 1, sizeof *request->secret_values);
    if (request->secrets == NULL || request->secret_values == NULL)
        return nomem(failure);
    struct task_secret *secret = request->secrets;
    const char *name;
    json_t *member;
    json_object_foreach (value, name, member) {
        bool base64 = false;
        secret->name = name;
        if (read_secret(secret, member, &base64, failure) < 0 ||
            (base64 && decode_secret(secret, &request->secret_values[decoded++], failure) < 0))
            return -1;
        const char *wrong = secret_wrong(name, secret->value, secret->size, secret->as_env);
        if (wrong != NULL)
            return bad(failure, 400, "$.secrets: \"%.64s\" %s", name, wrong);
        secret++;
    }
    request->task.secrets = request->secrets;
    request->task.secret_count = count;
    return 0;
}

/* --- files ----------------------------------------------------------------------------------------------------- */

static int read_paths(const json_t *value, const char *key, const char ***paths, size_t *count,
                      struct api_failure *failure)
{
    *count = json_array_size(value);
    if (!json_is_array(value))
        return bad(failure, 400, "$.%s must be a list of absolute paths in the container", key);
    *paths = calloc(*count + 1, sizeof **paths);
    if (*paths == NULL)
        return nomem(failure);
    for (size_t i = 0; i < *count; i++) {
        char name[48];
        snprintf(name, sizeof name, "%s[%zu]", key, i);
        if (read_text(json_array_get(value, i), name, &(*paths)[i], failure) < 0)
            return -1;
    }
    return 0;
}

/* [{"to": "/workspace/src", "name": "src"}, ...]: what the client will send, see wire/file.h */
static int read_copies_in(struct api_request *request, const json_t *value, struct api_failure *failure)
{
    size_t count = json_array_size(value);
    if (!json_is_array(value))
        return bad(failure, 400, "$.copyIn must be a list of {\"to\": path, \"name\": name}");
    request->copies = calloc(count + 1, sizeof *request->copies);
    if (request->copies == NULL)
        return nomem(failure);
    request->task.copies_in = request->copies;
    request->task.copy_in_count = count;
    for (size_t i = 0; i < count; i++) {
        const json_t *copy = json_array_get(value, i), *to = json_object_get(copy, "to");
        const json_t *name = json_object_get(copy, "name");
        char key[48];
        request->copies[i].name = "";
        snprintf(key, sizeof key, "copyIn[%zu].to", i);
        if (read_text(to, key, &request->copies[i].destination, failure) < 0)
            return -1;
        snprintf(key, sizeof key, "copyIn[%zu].name", i);
        if (name != NULL && read_text(name, key, &request->copies[i].name, failure) < 0)
            return -1;
        if (json_object_size(copy) != (name != NULL ? 2U : 1U))
            return bad(failure, 400, "$.copyIn[%zu] has members other than to and name", i);
    }
    return 0;
}

/* --- a task definition through the profile's template ----------------------------------------------------------- */

/* "a.b" below `root`; NULL when absent. */
static const json_t *find_member(const json_t *root, const char *path, size_t length)
{
    const json_t *at = root;
    for (unsigned depth = 0; depth < TEMPLATE_DEPTH && at != NULL; depth++) {
        size_t part = 0;
        while (part < length && path[part] != '.')
            part++;
        char name[128];
        if (part == 0 || part >= sizeof name)
            return NULL;
        memcpy(name, path, part);
        name[part] = '\0';
        at = json_object_get(at, name);
        if (part == length)
            return at;
        path += part + 1;
        length -= part + 1;
    }
    return NULL;
}

static int put_value(struct buffer *out, const json_t *value)
{
    if (json_is_string(value)) {
        buffer_append(out, json_string_value(value), json_string_length(value));
        return 0;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    if (text == NULL)
        return -1;
    buffer_append_string(out, text);
    free(text);
    return 0;
}

static int expand(const char *template, const json_t *body, struct buffer *out, struct api_failure *failure)
{
    const json_t *task = json_object_get(body, "task");
    for (;;) {
        const char *open = strstr(template, "{{");
        const char *close = open == NULL ? NULL : strstr(open, "}}");
        if (close == NULL) {
            buffer_append_string(out, template);
            return 0;
        }
        buffer_append(out, template, (size_t)(open - template));
        const char *name = open + 2;
        size_t length = (size_t)(close - name);
        const json_t *value = NULL;
        if (length == 4 && memcmp(name, "task", 4) == 0)
            value = task;
        else if (length > 5 && memcmp(name, "task.", 5) == 0)
            value = find_member(task, name + 5, length - 5);
        else if (length > 6 && memcmp(name, "agent.", 6) == 0)
            value = find_member(json_object_get(body, "agent"), name + 6, length - 6);
        else
            value = find_member(task, name, length);
        if (value == NULL || json_is_null(value)) {
            failure->hint = "the profile's command names a member that $.task does not have; add it, or change "
                            "agentConfigs.TYPE.command";
            return bad(failure, 422, "$.task has no \"%.*s\", which the command of this agent type needs",
                       length > 80 ? 80 : (int)length, name);
        }
        if (put_value(out, value) < 0)
            return nomem(failure);
        template = close + 2;
    }
}

static int make_command(struct api_request *request, const struct config *config, struct api_failure *failure)
{
    struct error error = ERROR_INIT;
    struct profile *profile = config_profile(config, request->task.agent_type, &error);
    if (profile == NULL)
        return bad(failure, error.code == ERROR_NOT_FOUND ? 404 : 400, "$.agentType: %s", error.message);
    size_t count = 0;
    while (profile->command[count] != NULL)
        count++;
    int result = 0;
    if (count == 0) {
        failure->hint =
            "set agentConfigs.TYPE.command, as [\"claude\", \"-p\", \"{{description}}\"], or send `command`";
        result = bad(failure, 422, "agent type \"%s\" has no command to make of a task definition",
                     request->task.agent_type);
    }
    request->argv = calloc(count + 1, sizeof *request->argv);
    request->made = calloc(count + 1, sizeof *request->made);
    if (result == 0 && (request->argv == NULL || request->made == NULL))
        result = nomem(failure);
    for (size_t i = 0; i < count && result == 0; i++) {
        struct buffer text = {0};
        size_t length = 0;
        result = expand(profile->command[i], request->json, &text, failure);
        if (result == 0 && (request->made[i] = buffer_take(&text, &length)) == NULL)
            result = nomem(failure);
        if (result == 0 && strlen(request->made[i]) != length)
            result = bad(failure, 400, "$.task must not contain a NUL");
        request->argv[i] = request->made[i];
        buffer_free(&text);
    }
    if (result == 0 && request->argv[0][0] == '\0')
        result = bad(failure, 422, "the command made of $.task is empty");
    profile_free(profile);
    return result;
}

/* --- all together --------------------------------------------------------------------------------------------------
 */

static const char *const later[] = {"async"};

static int read_member(struct api_request *request, const char *key, json_t *value, struct api_failure *failure)
{
    struct task_request *task = &request->task;
    if (strcmp(key, "agentType") == 0)
        return read_text(value, key, &task->agent_type, failure);
    if (strcmp(key, "id") == 0)
        return read_text(value, key, &task->id, failure);
    if (strcmp(key, "command") == 0)
        return read_command(request, value, failure);
    if (strcmp(key, "env") == 0)
        return read_environment(request, value, failure);
    if (strcmp(key, "secrets") == 0)
        return read_secrets(request, value, failure);
    if (strcmp(key, "stdin") == 0)
        return read_stdin(request, value, json_object_get(request->json, "stdinEncoding"), failure);
    if (strcmp(key, "stdinStream") == 0)
        return read_bool(value, key, &task->stdin_stream, failure);
    if (strcmp(key, "copyIn") == 0)
        return read_copies_in(request, value, failure);
    if (strcmp(key, "copyOut") == 0) {
        int result = read_paths(value, key, &request->copies_out, &task->copy_out_count, failure);
        task->copies_out = request->copies_out;
        return result;
    }
    if (strcmp(key, "artifacts") == 0) {
        int result = read_paths(value, key, &request->artifacts, &task->artifact_count, failure);
        task->artifacts = request->artifacts;
        return result;
    }
    if (strcmp(key, "terminal") == 0)
        return read_terminal(request, value, failure);
    if (strcmp(key, "workdir") == 0)
        return read_text(value, key, &task->workdir, failure);
    if (strcmp(key, "timeoutMs") == 0)
        return read_time(value, key, &task->timeout_ms, failure);
    if (strcmp(key, "killTimeout") == 0)
        return read_time(value, key, &task->kill_timeout_ms, failure);
    if (strcmp(key, "queueTimeoutMs") == 0)
        return read_time(value, key, &task->queue_timeout_ms, failure);
    if (strcmp(key, "maxOutputBytes") == 0)
        return read_size(value, key, &task->max_output_bytes, failure);
    if (strcmp(key, "priority") == 0)
        return read_priority(value, &task->priority, failure);
    if (strcmp(key, "retryAttempts") == 0)
        return read_size(value, key, &task->retries, failure);
    if (strcmp(key, "idempotent") == 0)
        return read_bool(value, key, &task->idempotent, failure);
    if (strcmp(key, "fresh") == 0)
        return read_bool(value, key, &task->fresh, failure);
    if (strcmp(key, "captureOutput") == 0) {
        request->capture_given = true;
        return read_bool(value, key, &task->capture, failure);
    }
    if (strcmp(key, "streamOutput") == 0) {
        request->stream_given = true;
        return read_bool(value, key, &task->stream, failure);
    }
    if (strcmp(key, "task") == 0 || strcmp(key, "agent") == 0)
        return json_is_object(value) ? 0 : bad(failure, 400, "$.%s must be an object", key);
    if (strcmp(key, "stdinEncoding") == 0)
        return 0;
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++)
        if (strcmp(key, later[i]) == 0)
            return bad(failure, 400, "$.%s is not supported by this version", key);
    failure->hint =
        "known are agentType command task agent env secrets stdin stdinEncoding terminal workdir timeoutMs "
        "killTimeout queueTimeoutMs "
        "maxOutputBytes priority retryAttempts idempotent fresh captureOutput streamOutput artifacts copyIn copyOut id";
    return bad(failure, 400, "$.%.64s is not known", key);
}

/* Parsed, a value of two bytes takes forty: their number is bounded before anything is parsed. */
static bool is_bounded(const char *body, size_t size)
{
    unsigned values = 0;
    bool in_text = false;
    for (size_t i = 0; i < size; i++) {
        char c = body[i];
        if (c == '"')
            in_text = !in_text;
        else if (in_text && c == '\\')
            i++;
        else if (!in_text && (c == ',' || c == '[' || c == '{') && ++values > VALUES_MAX)
            return false;
    }
    return true;
}

int api_request_parse(struct api_request *request, const char *body, size_t size, const struct config *config,
                      const char *lease_type, struct api_failure *failure)
{
    *request = (struct api_request){0};
    *failure = (struct api_failure){.hint = NULL};
    request->task = (struct task_request){
        .timeout_ms = -1, .kill_timeout_ms = -1, .queue_timeout_ms = -1, .max_output_bytes = -1, .retries = -1};
    json_error_t error;
    if (!is_bounded(body, size))
        return bad(failure, 400, "the body has more than %u values", VALUES_MAX);
    request->json = json_loadb(body, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    char *near = strstr(error.text, " near '"); /* what stands there may be a secret */
    if (request->json == NULL && near != NULL)
        *near = '\0';
    if (request->json == NULL)
        return bad(failure, 400, "the body is not JSON: line %d, column %d: %s", error.line, error.column, error.text);
    if (!json_is_object(request->json))
        return bad(failure, 400, "$ must be an object");
    const char *key;
    json_t *value;
    json_object_foreach (request->json, key, value) {
        if (read_member(request, key, value, failure) < 0)
            return -1;
    }
    bool has_command = request->argv != NULL, has_task = json_object_get(request->json, "task") != NULL;
    if (request->task.agent_type == NULL)
        request->task.agent_type = lease_type;
    if (request->task.agent_type == NULL)
        return bad(failure, 400, "$.agentType is missing");
    request->task.files_only = lease_type != NULL && !has_command && !has_task &&
                               request->task.copy_in_count + request->task.copy_out_count > 0;
    if (json_object_get(request->json, "priority") == NULL)
        request->task.priority =
            (enum task_priority)config_profile_of(config, request->task.agent_type)->resources.priority;
    if (has_command == has_task && !request->task.files_only)
        return bad(failure, 400,
                   has_command ? "$.command and $.task exclude each other" : "$.command (or $.task) is missing");
    if (has_task && make_command(request, config, failure) < 0)
        return -1;
    request->task.argv = request->argv;
    request->task.env = request->env;
    return 0;
}

static void free_strings(char **strings)
{
    for (char **text = strings; text != NULL && *text != NULL; text++)
        free(*text);
    free(strings);
}

void api_request_free(struct api_request *request)
{
    free(request->argv);
    free(request->env);
    free_strings(request->made);
    free_strings(request->pairs);
    free(request->stdin_data);
    free(request->secrets);
    for (uint8_t **value = request->secret_values; value != NULL && *value != NULL; value++)
        secret_free(*value);
    free(request->secret_values);
    free(request->copies);
    free(request->copies_out);
    free(request->artifacts);
    json_decref(request->json);
    *request = (struct api_request){0};
}
