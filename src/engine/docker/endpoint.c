#include "engine/docker/endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define UNIX_PATH_MAX 107 /* sockaddr_un, without the NUL */

int endpoint_parse(struct endpoint *endpoint, const char *host, const char *cert_path, struct error *err)
{
    const char *path = host + strlen("unix://");
    if (path[0] != '/' || strlen(path) > UNIX_PATH_MAX)
        return error_set(err, ERROR_INVALID,
                         "engine host \"%.200s\": after unix:// comes an absolute path of at most %d bytes", host,
                         UNIX_PATH_MAX);
    endpoint->name = strdup(host);
    endpoint->socket_path = strdup(path);
    endpoint->url = strdup("http://docker");
    if (endpoint->name == NULL || endpoint->socket_path == NULL || endpoint->url == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    return 0;
}

void endpoint_free(struct endpoint *endpoint)
{
    free(endpoint->name);
    free(endpoint->socket_path);
    free(endpoint->url);
    *endpoint = (struct endpoint){0};
}

/* The engine's sockets are not for the programs that a daemon runs. */
static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

int endpoint_apply(const struct endpoint *endpoint, CURL *easy, char *detail)
{
    int bad = 0;
    bad |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, detail);
    bad |= curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, endpoint->socket_path);
    bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
    bad |= curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* whatever http_proxy says */
    bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    return bad == CURLE_OK ? 0 : -1;
}

static const char *connect_hint(long errnum)
{
    if (errnum == EACCES || errnum == EPERM)
        return " (run as root, or as a member of the group that owns the socket)";
    if (errnum == ENOENT || errnum == ECONNREFUSED)
        return " (is the engine running?)";
    return "";
}

void endpoint_error(const struct endpoint *endpoint, CURL *easy, CURLcode code, const char *detail, struct error *error)
{
    long errnum = 0;
    if (code == CURLE_OUT_OF_MEMORY) {
        error_set(error, ERROR_NOMEM, "out of memory");
    } else if (code == CURLE_COULDNT_CONNECT) {
        curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &errnum);
        error_set(error, ERROR_UNAVAILABLE, "cannot connect to the engine at %s: %s%s", endpoint->name,
                  errnum > 0 ? strerror((int)errnum) : "connection failed", connect_hint(errnum));
    } else if (code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_UNSUPPORTED_PROTOCOL ||
               code == CURLE_BAD_CONTENT_ENCODING) {
        error_set(error, ERROR_PROTOCOL, "what answers at %s does not speak HTTP", endpoint->name);
    } else {
        error_set(error, ERROR_UNAVAILABLE, "the connection to the engine at %s broke: %s", endpoint->name,
                  detail[0] != '\0' ? detail : curl_easy_strerror(code));
    }
}
