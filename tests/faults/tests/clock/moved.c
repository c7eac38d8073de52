// A library that moves the wall clock of a program by so many nanoseconds as the first eight bytes
// of the file say that MOVED_CLOCK names. Clocks that only go forward stay what they are.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved_by;

__attribute__((constructor)) static void map(void) {
    const char *name = getenv("MOVED_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) moved_by = at;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    const int64_t second = 1000000000;
    long failed = syscall(SYS_clock_gettime, clock, time);
    if (failed || !moved_by || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return (int)failed;
    int64_t nanos = time->tv_nsec + *moved_by % second;
    time->tv_sec += *moved_by / second + (nanos < 0 ? -1 : nanos / second);
    time->tv_nsec = nanos < 0 ? nanos + second : nanos % second;
    return 0;
}

int gettimeofday(struct timeval *restrict day, void *restrict zone) {
    struct timespec time;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &time)) return -1;
    day->tv_sec = time.tv_sec;
    day->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
