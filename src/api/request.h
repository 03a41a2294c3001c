/* From the JSON of a task request to what the executor takes. */
#pragma once

#include <jansson.h>

#include "base/error.h"
#include "config/config.h"
#include "executor/executor.h"

struct api_request {
    struct task_request task;    /* points into what follows */
    const char **argv, **env;    /* owned arrays */
    char **made;                 /* argv strings made from a template, NULL-terminated; owned */
    char **pairs;                /* K=V strings, NULL-terminated; owned */
    uint8_t *stdin_data;         /* decoded; owned */
    struct task_copy *copies;    /* owned arrays */
    struct task_secret *secrets; /* owned, their values are in `json` or in: */
    uint8_t **secret_values;     /* decoded; owned, NULL-terminated */
    const char **copies_out, **artifacts;
    json_t *json; /* owned: strings point into it */
    bool capture_given, stream_given;
};

/* What an error means for the client. */
struct api_failure {
    unsigned status;  /* HTTP */
    const char *hint; /* "" when there is none */
    struct error error;
};

/* 0, or -1 with `failure`: 400 with the JSON path of what is wrong, 422 for a template that does not fit. Free with
 * api_request_free() in both cases. */
/* `lease_type`: the task is for a lease of that agent type, and may be one of copies alone; NULL: for none. */
int api_request_parse(struct api_request *request, const char *body, size_t size, const struct config *config,
                      const char *lease_type, struct api_failure *failure);
/* False: it is no priority. */
bool api_priority_read(const json_t *value, enum task_priority *priority);
void api_request_free(struct api_request *request);
