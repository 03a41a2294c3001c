/* What a task can see of its container, told by one static program, so that every test image can answer the same
 * questions, also those that have nothing else in them.
 *
 *     probe [VERB [ARGUMENT]]...   as in: probe id mode /tmp exit 3
 *
 * Each verb prints a line; what fails prints the reason as "! why". Built with musl-gcc -static by scripts/images.sh.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static void failed(const char *what)
{
    printf("! %s: %s\n", what, strerror(errno));
}

static void verb_mode(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        failed(path);
    else
        printf("%o %u:%u\n", status.st_mode & 07777, status.st_uid, status.st_gid);
}

static void verb_write(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, "residue\n", 8) != 8)
        failed(path);
    else
        printf("written\n");
    if (fd >= 0)
        close(fd);
}

static void verb_list(const char *path)
{
    DIR *directory = opendir(path);
    unsigned entries = 0;
    if (directory == NULL) {
        failed(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        entries += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    printf("%u\n", entries);
}

static void verb_read(const char *path)
{
    char text[4096];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        failed(path);
        return;
    }
    size_t size;
    while ((size = fread(text, 1, sizeof text, file)) > 0)
        fwrite(text, 1, size, stdout);
    fclose(file);
}

static void verb_cwd(void)
{
    char path[4096];
    if (getcwd(path, sizeof path) == NULL)
        failed("cwd");
    else
        printf("%s\n", path);
}

static void verb_signal_mask(void)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "SigBlk:", 7) == 0 || strncmp(line, "SigIgn:", 7) == 0)
            fputs(line, stdout);
    if (file != NULL)
        fclose(file);
}

static void verb(const char *name, const char *argument)
{
    if (strcmp(name, "mode") == 0)
        verb_mode(argument);
    else if (strcmp(name, "write") == 0)
        verb_write(argument);
    else if (strcmp(name, "list") == 0)
        verb_list(argument);
    else if (strcmp(name, "read") == 0)
        verb_read(argument);
    else if (strcmp(name, "echo") == 0)
        printf("%s\n", argument);
    else if (strcmp(name, "error") == 0)
        fprintf(stderr, "%s\n", argument);
    else if (strcmp(name, "variable") == 0)
        printf("%s\n", getenv(argument) != NULL ? getenv(argument) : "! unset");
    else if (strcmp(name, "exit") == 0)
        exit(atoi(argument));
    else
        printf("! unknown verb %s\n", name);
}

int main(int argc, char *argv[])
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "cwd") == 0) {
            verb_cwd();
        } else if (strcmp(argv[i], "id") == 0) {
            printf("%u:%u\n", geteuid(), getegid());
        } else if (strcmp(argv[i], "signals") == 0) {
            verb_signal_mask();
        } else if (strcmp(argv[i], "environment") == 0) {
            for (char **entry = environ; *entry != NULL; entry++)
                printf("%s\n", *entry);
        } else if (i + 1 < argc) {
            verb(argv[i], argv[i + 1]);
            i++;
        }
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
