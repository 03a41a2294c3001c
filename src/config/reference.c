#include "config/reference.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

#define REFERENCE_MAX 400U
#define TAG_MAX       128U
#define DIGEST_DIGITS 64U

static int wrong(const char *reference, const char *what, struct error *err)
{
    return error_set(err, ERROR_INVALID,
                     "\"%.100s\" is no image reference: %s; as registry.example:5000/team/image:tag", reference, what);
}

static const char *last_component(const char *reference)
{
    const char *slash = strrchr(reference, '/');
    return slash != NULL ? slash + 1 : reference;
}

/* Where the name ends: at the tag, the digest or the end. */
static size_t name_length(const char *reference)
{
    const char *last = last_component(reference);
    return (size_t)(last - reference) + strcspn(last, ":@");
}

bool reference_names_registry(const char *reference)
{
    size_t length = strcspn(reference, "/");
    if (reference[length] == '\0')
        return false;
    return memchr(reference, '.', length) != NULL || memchr(reference, ':', length) != NULL ||
           (length == 9 && strncmp(reference, "localhost", 9) == 0);
}

static bool component_sound(const char *component, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        char c = component[i];
        bool inner = i > 0 && i + 1 < length;
        if (!islower((unsigned char)c) && !isdigit((unsigned char)c) && !(inner && strchr("._-", c) != NULL))
            return false;
    }
    return length > 0;
}

int reference_check(const char *reference, struct error *err)
{
    size_t length = strlen(reference), name = name_length(reference), at = 0;
    if (length == 0 || length > REFERENCE_MAX)
        return wrong(reference, length == 0 ? "it is empty" : "it is longer than 400 bytes", err);
    if (strlen(reference) == 7 + DIGEST_DIGITS && strncmp(reference, "sha256:", 7) == 0)
        return 0; /* an image's id */
    if (reference_names_registry(reference)) {
        size_t host = strcspn(reference, "/");
        if (strspn(reference, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") < host)
            return wrong(reference, "the registry's name has a character that none has", err);
        at = host + 1;
    }
    while (at < name) {
        size_t part = strcspn(reference + at, "/");
        if (part > name - at)
            part = name - at;
        if (!component_sound(reference + at, part))
            return wrong(reference, "the name is of a-z 0-9 and . _ - between them", err);
        at += part + 1;
    }
    if (at <= name && reference[name] != '\0' && name == 0)
        return wrong(reference, "the name is missing", err);
    const char *rest = reference + name;
    if (*rest == ':') {
        size_t tag = strspn(++rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
        if (tag == 0 || tag > TAG_MAX || strchr(".-", *rest) != NULL || (rest[tag] != '\0' && rest[tag] != '@'))
            return wrong(reference, "the tag is of A-Z a-z 0-9 . _ -", err);
        rest += tag;
    }
    if (*rest == '@' && (strncmp(rest, "@sha256:", 8) != 0 || strlen(rest) != 8 + DIGEST_DIGITS ||
                         strspn(rest + 8, "0123456789abcdef") != DIGEST_DIGITS))
        return wrong(reference, "the digest is sha256: and 64 hexadecimal digits", err);
    return 0;
}

char *reference_at(const char *registry, const char *reference)
{
    struct buffer text = {0};
    if (registry != NULL && registry[0] != '\0' && !reference_names_registry(reference) &&
        strncmp(reference, "sha256:", 7) != 0) {
        size_t length = strlen(registry);
        while (length > 0 && registry[length - 1] == '/')
            length--;
        buffer_append(&text, registry, length);
        buffer_append_string(&text, "/");
    }
    buffer_append_string(&text, reference);
    char *result = buffer_take(&text, NULL);
    buffer_free(&text);
    return result;
}

char *reference_pinned(const char *reference, const char *digest)
{
    struct buffer text = {0};
    buffer_append(&text, reference, name_length(reference));
    buffer_append_string(&text, "@");
    buffer_append_string(&text, digest);
    char *result = buffer_take(&text, NULL);
    buffer_free(&text);
    return result;
}
