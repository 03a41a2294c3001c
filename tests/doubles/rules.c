/* From the version history of Docker's API: 1.42 dropped KernelMemory; 1.44 checks for duplicates whatever
 * CheckDuplicate says, and tells no VirtualSize; 1.45 tells neither Container nor ContainerConfig of an image; 1.50
 * none of the Config that is not an image's. Docker drops silently what it does not know. */
#include "rules.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int speech_parse(struct speech *speech, const char *text)
{
    char end;
    if (sscanf(text, "1.%d-1.%d%c", &speech->least, &speech->most, &end) != 2)
        return -1;
    return speech->least > 0 && speech->most >= speech->least ? 0 : -1;
}

const char *speech_path(const struct speech *speech, const char *path, char *words, size_t size)
{
    int minor, used = 0;
    if (sscanf(path, "/v1.%d%n", &minor, &used) != 1 || path[used] != '/')
        return path;
    if (speech->most == 0)
        return path;
    if (minor < speech->least)
        snprintf(words, size,
                 "client version 1.%d is too old. Minimum supported API version is 1.%d, please upgrade your client to "
                 "a newer version",
                 minor, speech->least);
    else if (minor > speech->most)
        snprintf(words, size, "client version 1.%d is too new. Maximum supported API version is 1.%d", minor,
                 speech->most);
    else
        return path + used;
    return NULL;
}

enum rule speech_rule(const struct speech *speech, const char *method, const char *path)
{
    size_t length = strcspn(path, "?");
    bool get = strcmp(method, "GET") == 0;
    if (speech->most == 0)
        return RULE_NONE;
    if (get && length == 8 && strncmp(path, "/version", 8) == 0)
        return RULE_VERSION;
    if (!get && strncmp(path, "/containers/create", 18) == 0)
        return RULE_CREATE_CONTAINER;
    if (!get && strncmp(path, "/networks/create", 16) == 0)
        return RULE_CREATE_NETWORK;
    if (get && strncmp(path, "/images/", 8) == 0 && length > 13 && strncmp(path + length - 5, "/json", 5) == 0)
        return RULE_INSPECT_IMAGE;
    return RULE_NONE;
}

static void set_versions(json_t *object, const struct speech *speech)
{
    char least[16], most[16];
    snprintf(least, sizeof(least), "1.%d", speech->least);
    snprintf(most, sizeof(most), "1.%d", speech->most);
    json_object_set_new(object, "ApiVersion", json_string(most));
    json_object_set_new(object, "MinAPIVersion", json_string(least));
}

static void version_body(json_t *json, const struct speech *speech)
{
    size_t i;
    json_t *component;
    set_versions(json, speech);
    json_array_foreach (json_object_get(json, "Components"), i, component) {
        json_t *details = json_object_get(component, "Details");
        if (json_object_get(details, "ApiVersion") != NULL)
            set_versions(details, speech);
    }
}

static void image_body(json_t *json, const struct speech *speech)
{
    static const char *const not_of_an_image[] = {
        "Hostname",  "Domainname", "AttachStdin", "AttachStdout",    "AttachStderr", "Tty",
        "OpenStdin", "StdinOnce",  "Image",       "NetworkDisabled", "MacAddress",   "StopTimeout"};
    if (speech->most >= 44)
        json_object_del(json, "VirtualSize");
    if (speech->most >= 45) {
        json_object_del(json, "Container");
        json_object_del(json, "ContainerConfig");
    }
    for (size_t i = 0; speech->most >= 50 && i < sizeof(not_of_an_image) / sizeof(not_of_an_image[0]); i++)
        json_object_del(json_object_get(json, "Config"), not_of_an_image[i]);
}

void speech_body(const struct speech *speech, enum rule rule, struct buffer *body)
{
    json_t *json = json_loadb((const char *)buffer_data(body), buffer_length(body), 0, NULL);
    if (json == NULL || rule == RULE_NONE)
        return;
    if (rule == RULE_VERSION)
        version_body(json, speech);
    else if (rule == RULE_INSPECT_IMAGE)
        image_body(json, speech);
    else if (rule == RULE_CREATE_CONTAINER && speech->most >= 42)
        json_object_del(json_object_get(json, "HostConfig"), "KernelMemory");
    else if (rule == RULE_CREATE_NETWORK && speech->most >= 44)
        json_object_set_new(json, "CheckDuplicate", json_true());
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (text != NULL) {
        buffer_consume(body, buffer_length(body));
        buffer_append_string(body, text);
    }
    free(text);
}
