// Becomes a program of which every n-th `pwritev` writes only half of what it is asked to, as a
// disk may do: a tracer shortens the vector while the call runs. The program calls the system
// without a library, so that a preloaded one would not be asked.
//
// tracer LOG N PROGRAM ARGUMENTS...      LOG gets one line for each call that was cut.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/ptrace.h>
#include <unistd.h>

#define PARTS 16
#define THREADS 64

// What a thread in a shortened call had asked for.
static struct cut { pid_t thread; long vector; int parts; size_t lengths[PARTS]; } cuts[THREADS];

static long length_at(long vector, int part) { return vector + part * 16 + 8; }

static int shorten(pid_t thread, long vector, int parts) {
    struct cut *cut = cuts;
    while (cut < cuts + THREADS && cut->thread) cut++;
    if (cut == cuts + THREADS || parts > PARTS) return 0;
    size_t total = 0;
    for (int part = 0; part < parts; part++)
        total += cut->lengths[part] = ptrace(PTRACE_PEEKDATA, thread, length_at(vector, part), 0);
    size_t left = total / 2;
    if (!left) return 0;
    for (int part = 0; part < parts; part++) {
        size_t length = cut->lengths[part] < left ? cut->lengths[part] : left;
        ptrace(PTRACE_POKEDATA, thread, length_at(vector, part), length);
        left -= length;
    }
    cut->thread = thread, cut->vector = vector, cut->parts = parts;
    return 1;
}

static void restore(pid_t thread) {
    for (struct cut *cut = cuts; cut < cuts + THREADS; cut++) {
        if (cut->thread != thread) continue;
        for (int part = 0; part < cut->parts; part++)
            ptrace(PTRACE_POKEDATA, thread, length_at(cut->vector, part), cut->lengths[part]);
        cut->thread = 0;
    }
}

static void trace(pid_t program, FILE *log, long every) {
    long calls = 0;
    for (;;) {
        int status, signal = 0;
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0 && errno == EINTR) continue;
        if (thread < 0 || (thread == program && !WIFSTOPPED(status))) return;
        if (!WIFSTOPPED(status)) continue;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            struct ptrace_syscall_info info;
            ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info);
            int enters = info.op == PTRACE_SYSCALL_INFO_ENTRY;
            if (enters && info.entry.nr == SYS_pwritev && ++calls % every == 0
                && shorten(thread, info.entry.args[1], info.entry.args[2]))
                fprintf(log, "cut\n"), fflush(log);
            if (info.op == PTRACE_SYSCALL_INFO_EXIT) restore(thread);
        } else if (!(status >> 16)) {
            signal = WSTOPSIG(status);
        }
        ptrace(PTRACE_SYSCALL, thread, 0, signal);
    }
}

int main(int argc, char **argv) {
    int ready[2];
    if (argc < 4 || pipe(ready)) return 2;
    pid_t program = getpid(), tracer = fork();
    if (tracer < 0) return 2;
    if (tracer) {
        char byte;
        prctl(PR_SET_PTRACER, tracer);
        close(ready[1]);
        // Without a tracer nothing would be tested.
        if (read(ready[0], &byte, 1) != 1) return 2;
        close(ready[0]);
        execv(argv[3], argv + 3);
        return 2;
    }
    FILE *log = fopen(argv[1], "w");
    close(1);
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    if (!log || ptrace(PTRACE_SEIZE, program, 0, options)) return 2;
    if (ptrace(PTRACE_INTERRUPT, program, 0, 0)) return 2;
    if (write(ready[1], "", 1) != 1) return 2;
    close(ready[0]);
    close(ready[1]);
    trace(program, log, atol(argv[2]));
    return 0;
}
