/* Where an engine is, and how a connection to it is made. */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>

#include "base/error.h"

struct endpoint {
    char *name;        /* as given, "unix:///var/run/docker.sock": for messages */
    char *socket_path; /* NULL: by TCP */
    bool tls;
    char *url; /* what requests' paths follow: "http://docker" */
};

/* Fills in a zeroed struct; endpoint_free() also after a failure. */
int endpoint_parse(struct endpoint *endpoint, const char *host, const char *cert_path, struct error *err);
void endpoint_free(struct endpoint *endpoint);

/* Makes a handle connect there. `detail`, of CURL_ERROR_SIZE bytes, stays for as long as the handle. -1: out of memory.
 */
int endpoint_apply(const struct endpoint *endpoint, CURL *easy, char *detail);

/* What a transfer's failure means. */
void endpoint_error(const struct endpoint *endpoint, CURL *easy, CURLcode code, const char *detail,
                    struct error *error);
