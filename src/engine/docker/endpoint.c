#include "engine/docker/endpoint.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define UNIX_PATH_MAX   107 /* sockaddr_un, without the NUL */
#define HOST_NAME_BYTES 253
#define PORT_PLAIN      2375
#define PORT_TLS        2376
#define KEEPALIVE_S     30L /* of a silent connection by TCP: event and attach streams may be silent for days */

static int set_nomem(struct error *err)
{
    return error_set(err, ERROR_NOMEM, "out of memory");
}

/* --- from what the user said ---------------------------------------------------------------------- */

static int parse_unix(struct endpoint *endpoint, const char *path, struct error *err)
{
    if (path[0] != '/' || strlen(path) > UNIX_PATH_MAX)
        return error_set(err, ERROR_INVALID,
                         "engine host \"%.200s\": after unix:// comes an absolute path of at most %d bytes",
                         endpoint->name, UNIX_PATH_MAX);
    endpoint->socket_path = strdup(path);
    endpoint->url = strdup("http://docker");
    return endpoint->socket_path != NULL && endpoint->url != NULL ? 0 : set_nomem(err);
}

/* "name", "name:1234", "[::1]:1234": the length of the name, brackets included, and the port; 0 when malformed. */
static size_t parse_address(const char *address, unsigned *port)
{
    size_t length;
    if (address[0] == '[') {
        length = 1 + strspn(address + 1, "0123456789abcdefABCDEF:.");
        if (length == 1 || address[length] != ']')
            return 0;
        length++;
    } else {
        for (length = 0; isalnum((unsigned char)address[length]) ||
                         (address[length] != '\0' && strchr("-._", address[length]) != NULL);)
            length++;
    }
    const char *rest = address + length;
    if (length == 0 || length > HOST_NAME_BYTES)
        return 0;
    if (*rest == '\0')
        return length;
    size_t digits = strspn(rest + 1, "0123456789");
    if (*rest != ':' || digits == 0 || digits > 5 || rest[1 + digits] != '\0')
        return 0;
    *port = (unsigned)strtoul(rest + 1, NULL, 10);
    return *port > 0 && *port < 65536 ? length : 0;
}

static int set_no_cert_path(const struct endpoint *endpoint, const char *reason, struct error *err)
{
    return error_set(err, ERROR_INVALID,
                     "engine host %s: no directory for its certificates: %s; set dockerCertPath or DOCKER_CERT_PATH",
                     endpoint->name, reason);
}

/* The directory with the certificates, owned; NULL with 0: no TLS is wanted. */
static int find_cert_path(const struct endpoint *endpoint, const char *cert_path, char **path, struct error *err)
{
    if (cert_path == NULL || cert_path[0] == '\0')
        cert_path = getenv("DOCKER_CERT_PATH");
    *path = NULL;
    if (cert_path != NULL && cert_path[0] != '\0') {
        *path = strdup(cert_path);
        return *path != NULL ? 0 : set_nomem(err);
    }
    const char *verify = getenv("DOCKER_TLS_VERIFY");
    if (verify == NULL || verify[0] == '\0')
        return 0;
    const char *home = getenv("HOME");
    if (home == NULL || home[0] == '\0')
        return set_no_cert_path(endpoint, "DOCKER_TLS_VERIFY is set, HOME is not", err);
    if (asprintf(path, "%s/.docker", home) < 0) {
        *path = NULL;
        return set_nomem(err);
    }
    return 0;
}

/* Said now, with the path: libcurl would say it later, and of some files only that "the problem is local". */
static int check_file(const struct endpoint *endpoint, const char *directory, const char *name, char **path,
                      struct error *err)
{
    if (asprintf(path, "%s/%s", directory, name) < 0) {
        *path = NULL;
        return set_nomem(err);
    }
    _cleanup_close_ int fd = open(*path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char byte;
    if (fd < 0 || read(fd, &byte, 1) < 0) /* a directory can be opened */
        return error_set(err, ERROR_INVALID,
                         "engine host %.200s: %.200s cannot be read: %s; TLS needs ca.pem, cert.pem and key.pem there",
                         endpoint->name, *path, strerror(errno));
    return 0;
}

static int parse_tcp(struct endpoint *endpoint, const char *address, const char *cert_path, struct error *err)
{
    _cleanup_free_ char *directory = NULL;
    unsigned port = 0;
    size_t length = parse_address(address, &port);
    if (length == 0)
        return error_set(err, ERROR_INVALID,
                         "engine host \"%.200s\": after tcp:// comes NAME:PORT, ADDRESS:PORT or [IPv6]:PORT",
                         endpoint->name);
    if (find_cert_path(endpoint, cert_path, &directory, err) < 0)
        return -1;
    endpoint->tls = directory != NULL;
    if (port == 0)
        port = endpoint->tls ? PORT_TLS : PORT_PLAIN;
    if (asprintf(&endpoint->url, "%s://%.*s:%u", endpoint->tls ? "https" : "http", (int)length, address, port) < 0) {
        endpoint->url = NULL;
        return set_nomem(err);
    }
    if (!endpoint->tls)
        return 0;
    if (check_file(endpoint, directory, "ca.pem", &endpoint->ca, err) < 0 ||
        check_file(endpoint, directory, "cert.pem", &endpoint->cert, err) < 0 ||
        check_file(endpoint, directory, "key.pem", &endpoint->key, err) < 0)
        return -1;
    return 0;
}

int endpoint_parse(struct endpoint *endpoint, const char *host, const char *cert_path, struct error *err)
{
    endpoint->name = strdup(host);
    if (endpoint->name == NULL)
        return set_nomem(err);
    if (strncmp(host, "unix://", 7) == 0)
        return parse_unix(endpoint, host + 7, err);
    return parse_tcp(endpoint, host + strlen("tcp://"), cert_path, err);
}

void endpoint_free(struct endpoint *endpoint)
{
    free(endpoint->name);
    free(endpoint->socket_path);
    free(endpoint->url);
    free(endpoint->ca);
    free(endpoint->cert);
    free(endpoint->key);
    *endpoint = (struct endpoint){0};
}

/* --- for libcurl ---------------------------------------------------------------------------------- */

/* The engine's sockets are not for the programs that a daemon runs. */
static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* The engine's certificate must be of this authority and for this name, whatever DOCKER_TLS_VERIFY says. */
static int apply_tls(const struct endpoint *endpoint, CURL *easy)
{
    int bad = 0;
    bad |= curl_easy_setopt(easy, CURLOPT_CAINFO, endpoint->ca);
    bad |= curl_easy_setopt(easy, CURLOPT_CAPATH, NULL); /* or else the system's authorities would be trusted as well */
    bad |= curl_easy_setopt(easy, CURLOPT_SSLCERT, endpoint->cert);
    bad |= curl_easy_setopt(easy, CURLOPT_SSLKEY, endpoint->key);
#if LIBCURL_VERSION_NUM >= 0x075700
    bad |= curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L); /* a renewed file counts at once, not after a day */
#endif
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    bad |= curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    return bad;
}

int endpoint_apply(const struct endpoint *endpoint, CURL *easy, char *detail)
{
    int bad = 0;
    bad |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, detail);
    if (endpoint->socket_path != NULL)
        bad |= curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, endpoint->socket_path);
    if (endpoint->tls)
        bad |= apply_tls(endpoint, easy);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_S);
    bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, endpoint->tls ? "https" : "http");
    bad |= curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* whatever http_proxy says */
    bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    return bad == CURLE_OK ? 0 : -1;
}

/* --- from libcurl --------------------------------------------------------------------------------- */

static const char *connect_hint(const struct endpoint *endpoint, long errnum)
{
    if (errnum == EACCES || errnum == EPERM)
        return " (run as root, or as a member of the group that owns the socket)";
    if (endpoint->socket_path == NULL && errnum == ECONNREFUSED)
        return " (is the engine running, and does it listen there?)";
    if (errnum == ENOENT || errnum == ECONNREFUSED)
        return " (is the engine running?)";
    return "";
}

static bool contains(const char *text, const char *part)
{
    return strcasestr(text, part) != NULL;
}

/* What OpenSSL's words mean, and what to do. */
static const struct {
    const char *words, *meaning;
} tls_hints[] = {
    /* of the engine's certificate, found by us */
    {"certificate has expired", "the engine's certificate has expired: renew it on the engine's host"},
    {"not yet valid", "the engine's certificate is not valid yet: compare the clocks"},
    {"alternative certificate subject name", "the engine's certificate is for another name: connect by a name that it "
                                             "has, or make one with this name as subjectAltName"},
    {"does not match target host name", "the engine's certificate is for another name: connect by a name that it has, "
                                        "or make one with this name as subjectAltName"},
    {"issuer certificate", "the engine's certificate is not of the authority in ca.pem: is that file this engine's?"},
    {"self-signed certificate", "the engine's certificate is not of the authority in ca.pem: is that file this "
                                "engine's?"},
    {"self signed certificate", "the engine's certificate is not of the authority in ca.pem: is that file this "
                                "engine's?"},
    {"certificate signature failure", "the engine's certificate is not of the authority in ca.pem: is that file this "
                                      "engine's?"},
    /* of ours, told by the engine */
    {"alert certificate expired", "the engine refuses cert.pem, which has expired: renew it"},
    {"alert expired certificate", "the engine refuses cert.pem, which has expired: renew it"},
    {"alert unknown ca", "the engine refuses cert.pem, which is not of the authority that it trusts"},
    {"alert bad certificate", "the engine refuses cert.pem: it has expired, is not of the authority that the engine "
                              "trusts, or is not for clients"},
    {"alert certificate required", "the engine wants a certificate: is cert.pem there?"},
    {"alert", "the engine ended the TLS handshake"},
    /* neither */
    {"wrong version number", "what answers there does not speak TLS: is it the port of plain TCP? Unset dockerCertPath "
                             "and DOCKER_CERT_PATH then, or start the engine with --tlsverify"},
    {"unable to set private key", "key.pem does not belong to cert.pem, or is no key without a passphrase"},
    {"could not load PEM client certificate", "cert.pem holds no certificate"},
    {"error setting certificate file", "ca.pem holds no certificate"},
    {"error adding trust anchors", "ca.pem holds no certificate"},
};

static const char *tls_meaning(const char *detail)
{
    for (size_t i = 0; i < sizeof(tls_hints) / sizeof(tls_hints[0]); i++) {
        if (contains(detail, tls_hints[i].words))
            return tls_hints[i].meaning;
    }
    return NULL;
}

/* No connection, for all who only ask whether there is one. */
static void tls_error(const struct endpoint *endpoint, const char *meaning, const char *detail, struct error *error)
{
    error_set(error, ERROR_UNAVAILABLE, "no TLS with the engine at %.120s: %s (%.140s)", endpoint->name, meaning,
              detail);
}

/* With TLS 1.3 an engine looks at our certificate when we are through with the handshake. Its alert is lost when the
 * connection is reset before it is read; what libcurl says then is by chance. */
static bool hung_up_on(CURL *easy, CURLcode code)
{
    long connects = 0;
    curl_off_t handshake = 0, answer = 0;
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
    curl_easy_getinfo(easy, CURLINFO_APPCONNECT_TIME_T, &handshake);
    curl_easy_getinfo(easy, CURLINFO_STARTTRANSFER_TIME_T, &answer);
    return connects > 0 && handshake > 0 && answer == 0 &&
           (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING);
}

static void tcp_error(const struct endpoint *endpoint, CURL *easy, CURLcode code, const char *detail,
                      struct error *error)
{
    const char *meaning = endpoint->tls ? tls_meaning(detail) : NULL;
    if (code == CURLE_COULDNT_RESOLVE_HOST)
        error_set(error, ERROR_UNAVAILABLE, "the engine's host in %s is unknown: correct its name (%s)", endpoint->name,
                  detail);
    else if (meaning != NULL)
        tls_error(endpoint, meaning, detail, error);
    else if (endpoint->tls && (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR ||
                               code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CACERT_BADFILE))
        tls_error(endpoint, "the handshake failed", detail, error);
    else if (endpoint->tls && hung_up_on(easy, code))
        tls_error(endpoint,
                  "it hangs up after the handshake, as one does that refuses cert.pem: has that expired, is it of the "
                  "authority that the engine trusts, and for clients?",
                  detail, error);
    else if (!endpoint->tls && code == CURLE_GOT_NOTHING)
        error_set(error, ERROR_UNAVAILABLE,
                  "what listens at %s hangs up without an answer: if it wants TLS, set dockerCertPath or "
                  "DOCKER_CERT_PATH",
                  endpoint->name);
    else
        error_set(error, ERROR_UNAVAILABLE, "the connection to the engine at %s broke: %s", endpoint->name, detail);
}

void endpoint_error(const struct endpoint *endpoint, CURL *easy, CURLcode code, const char *detail, struct error *error)
{
    long errnum = 0;
    if (detail[0] == '\0')
        detail = curl_easy_strerror(code);
    if (code == CURLE_OUT_OF_MEMORY) {
        error_set(error, ERROR_NOMEM, "out of memory");
    } else if (code == CURLE_COULDNT_CONNECT) {
        curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &errnum);
        error_set(error, ERROR_UNAVAILABLE, "cannot connect to the engine at %s: %s%s", endpoint->name,
                  errnum > 0 ? strerror((int)errnum) : "connection failed", connect_hint(endpoint, errnum));
    } else if (code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_UNSUPPORTED_PROTOCOL ||
               code == CURLE_BAD_CONTENT_ENCODING) {
        error_set(error, ERROR_PROTOCOL, "what answers at %s does not speak HTTP", endpoint->name);
    } else if (endpoint->socket_path == NULL) {
        tcp_error(endpoint, easy, code, detail, error);
    } else {
        error_set(error, ERROR_UNAVAILABLE, "the connection to the engine at %s broke: %s", endpoint->name, detail);
    }
}
