/* For tests/test_capi.py: tells whether a function allocates, locks or enters the system. Preloaded, so that the malloc and the mutexes of the whole
 * process are these; glibc's names for its own stay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Thread_local volatile int armed;
static _Thread_local const char *volatile caught;

static void spring(const char *name)
{
    if (armed) caught = name;
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

void *malloc(size_t size) { spring("malloc"); return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { spring("calloc"); return __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { spring("realloc"); return __libc_realloc(old, size); }
void free(void *memory) { spring("free"); __libc_free(memory); }
void *aligned_alloc(size_t alignment, size_t size) { spring("aligned_alloc"); return __libc_memalign(alignment, size); }
int posix_memalign(void **memory, size_t alignment, size_t size)
{
    spring("posix_memalign");
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

typedef int (*mutex_fn)(pthread_mutex_t *);
int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    spring("pthread_mutex_lock");
    return ((mutex_fn)dlsym(RTLD_NEXT, "pthread_mutex_lock"))(mutex);
}
int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
    spring("pthread_mutex_trylock");
    return ((mutex_fn)dlsym(RTLD_NEXT, "pthread_mutex_trylock"))(mutex);
}

/* What `function` does that it must not, or NULL; "an error" where it does not return 0. */
const char *trap(int (*function)(const void *, void *, const void *, const void *), const void *a, void *b, const void *c, const void *d)
{
    int error, status;
    caught = NULL;
    armed = 1;
    error = function(a, b, c, d);
    armed = 0;
    if (caught) return caught;
    if (error) return "an error";
    const pid_t child = fork();
    if (child < 0) return "fork failed";
    if (child == 0) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) _exit(2); /* from here on only read, write and exit; anything else kills */
        for (int i = 0; i < 3; i++) error |= function(a, b, c, d);
        syscall(SYS_exit, error != 0);
    }
    if (waitpid(child, &status, 0) != child) return "waitpid failed";
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGKILL ? "system call" : "signal";
    return WEXITSTATUS(status) ? "no seccomp, or an error the second time" : NULL;
}
