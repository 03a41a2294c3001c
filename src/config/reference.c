/* A reference's first part is a host when it has a dot or a colon, or is "localhost"; so "team/image" names none. */
#include "config/reference.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 512

static bool is_low(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_word(char c)
{
    return is_low(c) || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Letters and digits in small, with one '.', one or two '_' or any number of '-' between them. */
static bool path_part_valid(const char *part, size_t length)
{
    if (length == 0 || !is_low(part[0]) || !is_low(part[length - 1]))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (is_low(part[i]))
            continue;
        size_t run = 1;
        while (part[i + run] == part[i])
            run++;
        if (!is_low(part[i + run]) || !(part[i] == '-' || (part[i] == '_' && run <= 2) || (part[i] == '.' && run == 1)))
            return false;
        i += run;
    }
    return true;
}

static bool path_valid(const char *path)
{
    for (;;) {
        size_t length = strcspn(path, "/");
        if (!path_part_valid(path, length))
            return false;
        if (path[length] == '\0')
            return true;
        path += length + 1;
    }
}

static bool port_valid(const char *port, size_t length)
{
    unsigned number = 0;
    for (size_t i = 0; i < length; i++) {
        if (port[i] < '0' || port[i] > '9' || number > 65535)
            return false;
        number = number * 10 + (unsigned)(port[i] - '0');
    }
    return length > 0 && number > 0 && number <= 65535;
}

static bool ipv6_valid(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!isxdigit((unsigned char)text[i]) && text[i] != ':')
            return false;
    }
    return length >= 2;
}

static bool host_name_valid(const char *host, size_t length)
{
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']')
        return ipv6_valid(host + 1, length - 2);
    for (size_t i = 0; i < length; i++) {
        bool edge = i == 0 || i + 1 == length || host[i - 1] == '.' || host[i + 1] == '.';
        if (!isalnum((unsigned char)host[i]) && (edge || (host[i] != '-' && host[i] != '.')))
            return false;
    }
    return length > 0;
}

static bool host_valid(const char *host, size_t length)
{
    const char *bracket = memchr(host, ']', length), *colon = NULL;
    size_t skip = bracket != NULL ? (size_t)(bracket - host) : 0;
    colon = memchr(host + skip, ':', length - skip);
    if (colon == NULL)
        return host_name_valid(host, length);
    return host_name_valid(host, (size_t)(colon - host)) && port_valid(colon + 1, length - (size_t)(colon + 1 - host));
}

static bool is_host(const char *part, size_t length)
{
    if (length == strlen("localhost") && memcmp(part, "localhost", length) == 0)
        return true;
    for (size_t i = 0; i < length; i++) {
        if (part[i] == '.' || part[i] == ':')
            return true;
    }
    return false;
}

static bool tag_valid(const char *tag)
{
    if (!is_word(tag[0]))
        return false;
    for (const char *c = tag; *c != '\0'; c++) {
        if (!is_word(*c) && *c != '.' && *c != '-')
            return false;
    }
    return true;
}

static bool digest_valid(const char *digest)
{
    const char *hex = strchr(digest, ':');
    if (hex == NULL || !is_low(digest[0]) ||
        strspn(digest, "abcdefghijklmnopqrstuvwxyz0123456789+._-") < (size_t)(hex - digest))
        return false;
    size_t length = strlen(++hex);
    if (strspn(hex, "0123456789abcdef") != length || length < 32)
        return false;
    return strncmp(digest, "sha256:", 7) != 0 || length == 64;
}

static int refuse(struct error *err, const char *text, const char *words)
{
    char clean[81];
    size_t length = 0;
    for (; text[length] != '\0' && length + 1 < sizeof(clean); length++)
        clean[length] = text[length] > ' ' && text[length] <= '~' ? text[length] : '?';
    clean[length] = '\0';
    return error_set(err, ERROR_INVALID, "\"%s\" is no image reference, as registry.example:5000/team/image:tag: %s",
                     clean, words);
}

/* Cuts what follows `mark` off `text` into `out`; false when it does not fit. */
static bool cut(char *text, char *mark, char *out, size_t size)
{
    out[0] = '\0';
    if (mark == NULL)
        return true;
    *mark = '\0';
    return snprintf(out, size, "%s", mark + 1) < (int)size && mark > text;
}

int reference_parse(struct reference *reference, const char *text, struct error *err)
{
    char rest[TEXT_MAX + 1];
    memset(reference, 0, sizeof(*reference));
    if (text == NULL || text[0] == '\0')
        return error_set(err, ERROR_INVALID, "an image reference is empty");
    if (snprintf(rest, sizeof(rest), "%s", text) >= (int)sizeof(rest))
        return refuse(err, text, "longer than 512 bytes");
    char *at = strchr(rest, '@');
    if (!cut(rest, at, reference->digest, sizeof(reference->digest)) || (at != NULL && !digest_valid(at + 1)))
        return refuse(err, text, "behind the @ must stand a digest, as sha256: and 64 hexadecimal digits");
    char *slash = strrchr(rest, '/'), *colon = strrchr(rest, ':');
    if (colon != NULL && slash != NULL && colon < slash)
        colon = NULL;
    if (!cut(rest, colon, reference->tag, sizeof(reference->tag)) || (colon != NULL && !tag_valid(colon + 1)))
        return refuse(err, text,
                      "the tag must be 1 to 128 letters, digits, '_', '.' or '-', and begin with none of the "
                      "last two");
    if (snprintf(reference->name, sizeof(reference->name), "%s", rest) >= (int)sizeof(reference->name))
        return refuse(err, text, "its name is longer than 255 bytes");
    size_t first = strcspn(rest, "/");
    if (rest[first] == '/' && is_host(rest, first)) {
        if (strstr(rest, "://") != NULL)
            return refuse(err, text, "leave the scheme away");
        if (!host_valid(rest, first))
            return refuse(err, text, "its registry is no HOST or HOST:PORT");
        reference->host_length = first;
    }
    const char *path = reference->host_length > 0 ? rest + first + 1 : rest;
    if (!path_valid(path))
        return refuse(err, text, "its name may have small letters, digits, and '.', '_' or '-' between them");
    return 0;
}

static bool is_hub(const char *host)
{
    return strcmp(host, REFERENCE_HUB) == 0 || strcmp(host, "index.docker.io") == 0 ||
           strcmp(host, "registry-1.docker.io") == 0;
}

void reference_server(const struct reference *reference, char *server, size_t size)
{
    snprintf(server, size, "%.*s", (int)reference->host_length, reference->name);
    if (server[0] == '\0' || is_hub(server))
        snprintf(server, size, REFERENCE_HUB);
}

void reference_repository(const struct reference *reference, char *repository, size_t size)
{
    char server[sizeof(reference->name)];
    reference_server(reference, server, sizeof(server));
    const char *path = reference->name + (reference->host_length > 0 ? reference->host_length + 1 : 0);
    bool official = strcmp(server, REFERENCE_HUB) == 0 && strchr(path, '/') == NULL;
    snprintf(repository, size, "%s/%s%s", server, official ? "library/" : "", path);
}

int registry_check(const char *registry, struct error *err)
{
    size_t host = strcspn(registry, "/");
    if (strstr(registry, "://") != NULL)
        return error_set(err, ERROR_INVALID,
                         "a registry is named without a scheme, as registry.example:5000; the engine itself knows "
                         "which ones speak plain HTTP (insecure-registries)");
    if (!is_host(registry, host) || !host_valid(registry, host) || strlen(registry) > 128)
        return error_set(err, ERROR_INVALID,
                         "must be HOST, HOST:PORT or HOST:PORT/PATH, where HOST has a dot or a port or is localhost");
    if (registry[host] == '/' && !path_valid(registry + host + 1))
        return error_set(err, ERROR_INVALID,
                         "its path may have small letters, digits, and '.', '_' or '-' between them");
    return 0;
}

static bool is_id(const char *reference)
{
    return strncmp(reference, "sha256:", 7) == 0 && digest_valid(reference);
}

int reference_check(const char *reference, struct error *err)
{
    struct reference parsed;
    return is_id(reference) ? 0 : reference_parse(&parsed, reference, err);
}

bool reference_names_registry(const char *reference)
{
    size_t first = strcspn(reference, "/");
    return reference[first] == '/' && is_host(reference, first);
}

char *reference_at(const char *registry, const char *reference)
{
    char *text = NULL;
    if (registry == NULL || registry[0] == '\0' || reference_names_registry(reference) || is_id(reference))
        return strdup(reference);
    return asprintf(&text, "%s/%s", registry, reference) < 0 ? NULL : text;
}

char *reference_pinned(const char *reference, const char *digest)
{
    const char *slash = strrchr(reference, '/');
    const char *last = slash != NULL ? slash : reference;
    char *text = NULL;
    return asprintf(&text, "%.*s@%s", (int)(last - reference + (ptrdiff_t)strcspn(last, ":@")), reference, digest) < 0
               ? NULL
               : text;
}
