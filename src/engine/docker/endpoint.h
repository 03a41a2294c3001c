/* Where an engine is, and how a connection to it is made: by a unix socket, by TCP, or by TLS with certificates of both
 * sides. */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>

#include "base/error.h"

struct endpoint {
    char *name;            /* as given, "unix:///var/run/docker.sock": for messages */
    char *socket_path;     /* NULL: by TCP */
    char *url;             /* what requests' paths follow: "http://docker", "https://build-1:2376" */
    bool tls;              /* then: */
    char *ca, *cert, *key; /* paths of files that could be read */
};

/* Fills in a zeroed struct; endpoint_free() also after a failure. `cert_path` as in struct engine_options. */
int endpoint_parse(struct endpoint *endpoint, const char *host, const char *cert_path, struct error *err);
void endpoint_free(struct endpoint *endpoint);

/* Makes a handle connect there. `detail`, of CURL_ERROR_SIZE bytes, stays for as long as the handle. -1: out of memory.
 */
int endpoint_apply(const struct endpoint *endpoint, CURL *easy, char *detail);

/* What a transfer's failure means. */
void endpoint_error(const struct endpoint *endpoint, CURL *easy, CURLcode code, const char *detail,
                    struct error *error);
