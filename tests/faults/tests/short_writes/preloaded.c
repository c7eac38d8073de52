// A library that has every third large write of a program to a file write only half of what it is
// asked to. SHORT_WRITE_LOG names a file that gets one byte for each.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long calls;

static size_t cut(int file, size_t bytes) {
    struct stat about;
    if (bytes < 512 || fstat(file, &about) || !S_ISREG(about.st_mode)) return bytes;
    if (atomic_fetch_add(&calls, 1) % 3) return bytes;
    ssize_t (*write)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int log = open(getenv("SHORT_WRITE_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    write(log, "c", 1);
    close(log);
    return bytes / 2;
}

ssize_t write(int file, const void *from, size_t bytes) {
    ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    return next(file, from, cut(file, bytes));
}

ssize_t pwrite64(int file, const void *from, size_t bytes, off64_t at) {
    ssize_t (*next)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return next(file, from, cut(file, bytes), at);
}

ssize_t pwrite(int file, const void *from, size_t bytes, off_t at) {
    return pwrite64(file, from, bytes, at);
}
