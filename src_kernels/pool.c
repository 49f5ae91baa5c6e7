/* The thread pool: workers that sleep between calls, and how all of them wait. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* processor sets, pthread_setname_np */
#endif
#include "pool.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

enum {
    LAUNCH_SPIN = 50000,  /* ns for which a worker looks out for the next call, and the caller for the last member */
    BARRIER_SPIN = 50000, /* ns */
    YIELDS = 32,          /* of a member, after that and before it sleeps */
    LATE = 500000,        /* ns: of two members at work one may well be this much slower, above all where memory is the limit */
    PAUSES = 32,          /* between two looks at the clock */
    CROWDED = 20000000,   /* ns for which others are taken to want the processors too, */
    AGAIN = 40000000,     /*    when a member was late again within so many */
    MEASURED_EVERY = 64,  /* runs after which it is measured how far members are from each other, */
    EMPTY_RUNS = 3,       /*    by the shortest of so many, */
    FAR = 20000000        /*    and ns for which those that were far are taken to be so still */
};

/* Where threads sleep until a word has grown. */
typedef struct {
    atomic_int sleepers;
    pthread_cond_t wake;
} bed;

typedef struct {
    _Alignas(FASTRNN_LINE) atomic_ullong calls; /* how often it was called: what it waits on, on one line with what it needs then */
    atomic_int processor; /* where it has last been at work */
    int member, members, kept; /* kept away from its caller's processor */
    fastrnn_job job;
    void *context;
    bed idle;
    pthread_t thread;
#ifdef __linux__
    cpu_set_t home; /* where it may run otherwise */
#endif
} worker;

/* What callers write at every call, on lines that no worker reads. */
static struct {
    _Alignas(FASTRNN_LINE) atomic_int busy; /* a call has the workers */
    atomic_int at_work;                     /* calls that have entered, and */
    _Atomic int64_t last_end;               /*   when one last left */
} callers;
static struct {
    _Alignas(FASTRNN_LINE) atomic_int processors; /* that the workers may use */
} limits;

static worker workers[FASTRNN_MAX_MEMBERS - 1];
static atomic_int built;                                       /* workers that exist; written by who holds `busy` */
static int is_child;                                           /* of a process that may have had threads */
static int forks_are_seen;                                     /* by the handler below; else there is no pool */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;      /* only for those who go to sleep and those who wake them */
static bed crossing = {.wake = PTHREAD_COND_INITIALIZER};      /* of the members of the one run there is, at any barrier */
static fastrnn_barrier end;                                    /* which workers only arrive at */

/* Waiting -------------------------------------------------------------------------------------------------------------- */

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` does nothing on most of them */
#endif
}

static int has_reached(atomic_ullong *word, unsigned long long target) { return atomic_load_explicit(word, memory_order_acquire) >= target; }

/* Until *word is `target` or more: spin for `spin` ns, give the processor away `yields` times, sleep.  Returns for how many ns, where spinning was not
 * enough, else 0. */
static int64_t wait_until(atomic_ullong *word, unsigned long long target, int spin, int yields, bed *place) {
    int64_t start = 0;
    for (int i = 1; spin; i++) {
        if (has_reached(word, target)) return 0;
        pause_briefly();
        if (i % PAUSES) continue;
        const int64_t now = nanoseconds();
        if (!start) start = now;
        else if (now - start > spin) break;
    }
    for (int i = 0; i < yields; i++) {
        if (has_reached(word, target)) return start ? nanoseconds() - start : 0;
        sched_yield();
    }
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(&place->sleepers, 1);
    while (atomic_load(word) < target) pthread_cond_wait(&place->wake, &mutex);
    atomic_fetch_sub(&place->sleepers, 1);
    pthread_mutex_unlock(&mutex);
    return start ? nanoseconds() - start : 0;
}

/* After an addition to a word, for those who sleep until then.  It, the load here and both in the wait above are in sequential order: either the
 * sleeper sees the new value or this sees the sleeper. */
static void wake(bed *place) {
    if (!atomic_load(&place->sleepers)) return;
    pthread_mutex_lock(&mutex); /* until the sleeper really waits */
    pthread_mutex_unlock(&mutex);
    pthread_cond_broadcast(&place->wake);
}

/* Barrier -------------------------------------------------------------------------------------------------------------- */

void fastrnn_barrier_init(fastrnn_barrier *barrier) { atomic_init(&barrier->arrived, 0); }

/* Returns how many must have arrived for all to go on.  Past the addition that lets them go it touches nothing of the barrier, whose memory may be
 * gone. */
static unsigned long long arrive(fastrnn_barrier *barrier, int members) {
    const unsigned long long before = atomic_fetch_add(&barrier->arrived, 1), place = before % (unsigned)members;
    if (place + 1 == (unsigned)members) wake(&crossing);
    return before - place + (unsigned)members;
}

static int each_has_a_processor(int members) { return members <= atomic_load_explicit(&limits.processors, memory_order_relaxed); }

/* Who spins while another member has no processor to run on only keeps it from getting one. */
static int spin_of(int members, int limit) { return each_has_a_processor(members) ? limit : 0; }

static _Atomic int64_t late;    /* when a member last was */
static _Atomic int64_t crowded; /* until when; 0: not */

/* Who is late for a barrier that it has crossed before, and so is awake, was most likely sent from its processor.  Once is chance, such as the host
 * of a virtual machine. */
static void note_late(void) {
    const int64_t now = nanoseconds(), before = atomic_exchange_explicit(&late, now, memory_order_relaxed);
    if (now - before < AGAIN) atomic_store_explicit(&crowded, now + CROWDED, memory_order_relaxed);
}

static void cross(fastrnn_barrier *barrier, int members, int limit) {
    const unsigned long long all = arrive(barrier, members);
    const int64_t waited = wait_until(&barrier->arrived, all, spin_of(members, limit), YIELDS, &crossing);
    if (waited > LATE && all > (unsigned)members) note_late();
}

int fastrnn_pool_crowded(void) {
    const int64_t until = atomic_load_explicit(&crowded, memory_order_relaxed);
    return until && nanoseconds() < until;
}

void fastrnn_barrier_wait(fastrnn_barrier *barrier, int members) {
    assert(members > 0);
    if (members > 1) cross(barrier, members, BARRIER_SPIN);
}

/* Workers -------------------------------------------------------------------------------------------------------------- */

/* In a virtual machine Linux takes a halted processor for one that the host has taken away, and wakes a thread on its waker's, idle as
 * the others may be: two jobs of 100 us after a pause took 310 us, 135 like this. A worker that looks out for calls on its caller's processor is sent away
 * too. It is free again before it works. */
#ifdef __linux__
static void keep_away(worker *sleeper) {
    const int here = sched_getcpu();
    if (!atomic_load(&sleeper->idle.sleepers) && atomic_load_explicit(&sleeper->processor, memory_order_relaxed) != here) return;
    cpu_set_t others;
    if (pthread_getaffinity_np(sleeper->thread, sizeof others, &others)) return;
    sleeper->home = others;
    CPU_CLR(here, &others);
    sleeper->kept = !pthread_setaffinity_np(sleeper->thread, sizeof others, &others);
}

static void let_go(worker *self) {
    const int here = sched_getcpu();
    /* Stored only when it changes, for the caller is about to write this line. */
    if (atomic_load_explicit(&self->processor, memory_order_relaxed) != here) atomic_store_explicit(&self->processor, here, memory_order_relaxed);
    if (!self->kept) return;
    pthread_setaffinity_np(self->thread, sizeof self->home, &self->home);
    self->kept = 0;
}
#else
static void keep_away(worker *sleeper) { (void)sleeper; }
static void let_go(worker *self) { (void)self; }
#endif

static void *work(void *argument) {
    worker *self = argument;
#ifdef __APPLE__
    pthread_setname_np("fastrnn");
#elif defined(__linux__)
    pthread_setname_np(pthread_self(), "fastrnn");
#endif
    int spin = 0;
    for (unsigned long long calls = 1;; calls++) {
        wait_until(&self->calls, calls, spin, 0, &self->idle);
        const int members = self->members;
        assert(0 < self->member && self->member < members);
        let_go(self);
        self->job(self->context, self->member, members);
        spin = spin_of(members, LAUNCH_SPIN);
        arrive(&end, members);
    }
    return NULL;
}

int fastrnn_processors(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

/* Up to `wanted` workers, or as many as the system gives. They live as long as the process. */
static void build(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: signals belong to the threads of the program */
    for (; built < wanted; built++) {
        worker *next = &workers[built];
        *next = (worker){.member = built + 1, .idle = {.wake = PTHREAD_COND_INITIALIZER}};
        if (pthread_create(&next->thread, NULL, work, next)) break;
        pthread_detach(next->thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store_explicit(&limits.processors, fastrnn_processors(), memory_order_relaxed);
}

/* One run of a pool that is held. */
static void run(int members, fastrnn_job job, void *context) {
    fastrnn_barrier_init(&end);                            /* the last run may have had other members */
    for (worker *next = workers; next < workers + members - 1; next++) {
        next->members = members, next->job = job, next->context = context;
        if (each_has_a_processor(members)) keep_away(next);
        atomic_fetch_add(&next->calls, 1);
        wake(&next->idle);
    }
    job(context, 0, members);
    cross(&end, members, LAUNCH_SPIN);
}

static atomic_int far_meeting;     /* ns for each member; 0: they are near */
static _Atomic int64_t far_until;

static int still_far(void) { return nanoseconds() < atomic_load_explicit(&far_until, memory_order_relaxed); }

int fastrnn_pool_meeting(void) {
    const int meeting = atomic_load_explicit(&far_meeting, memory_order_relaxed);
    return meeting && still_far() ? meeting : FASTRNN_MEETING;
}

static void nothing(void *context, int member, int members) { (void)context, (void)member, (void)members; }

/* The host of a virtual machine moves its processors about, so that a meeting takes 0.1 us or 1, for minutes or for seconds.  Measured after a run,
 * when all are awake. */
static void measure_meeting(int members) {
    static unsigned runs;
    const int was_far = atomic_load_explicit(&far_meeting, memory_order_relaxed) != 0;
    if (!each_has_a_processor(members) || (was_far ? still_far() : runs++ % MEASURED_EVERY != 0)) return;
    int64_t least = INT64_MAX, start = nanoseconds();
    for (int i = 0; i < EMPTY_RUNS; i++) {
        run(members, nothing, NULL);
        const int64_t now = nanoseconds(), took = now - start;
        if (took < least) least = took;
        start = now;
    }
    const int64_t each = least / members;
    const int is_far = each > 2 * FASTRNN_MEETING;
    atomic_store_explicit(&far_until, start + FAR, memory_order_relaxed);
    atomic_store_explicit(&far_meeting, is_far ? (int)(each < INT_MAX ? each : INT_MAX) : 0, memory_order_relaxed);
}

int fastrnn_pool_run(int wanted, fastrnn_job job, void *context) {
    if (wanted < 2 || !forks_are_seen || atomic_exchange_explicit(&callers.busy, 1, memory_order_acquire)) {
        job(context, 0, 1);
        return 1;
    }
    if (wanted > FASTRNN_MAX_MEMBERS) wanted = FASTRNN_MAX_MEMBERS;
    if (built < wanted - 1) build(wanted - 1);
    const int members = built < wanted - 1 ? built + 1 : wanted;
    assert(0 < members && members <= FASTRNN_MAX_MEMBERS && members <= built + 1);
    run(members, job, context);
    measure_meeting(members);
    atomic_store_explicit(&callers.busy, 0, memory_order_release);
    return members;
}

/* Teams of others ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const fastrnn_team *team;
    fastrnn_job job;
    void *context;
    int threads, members, done;
} borrowed;

static void take_part(void *argument) {
    borrowed *run = argument;
    const int member = run->team->number();
    assert(member >= 0);
    if (run->team->count() != run->threads || member >= run->members) return;
    run->job(run->context, member, run->members);
    if (member == 0) run->done = 1;
}

int fastrnn_pool_run_on(const fastrnn_team *team, int threads, int wanted, fastrnn_job job, void *context) {
    const int members = wanted < FASTRNN_MAX_MEMBERS ? wanted : FASTRNN_MAX_MEMBERS;
    if (members < 2 || threads < members || is_child || !forks_are_seen || atomic_exchange_explicit(&callers.busy, 1, memory_order_acquire))
        return fastrnn_pool_run(wanted, job, context);
    if (!built) atomic_store_explicit(&limits.processors, fastrnn_processors(), memory_order_relaxed);
    borrowed run = {team, job, context, threads, members, 0};
    team->parallel(take_part, &run, (unsigned)threads, 0);
    atomic_store_explicit(&callers.busy, 0, memory_order_release);
    return run.done ? members : fastrnn_pool_run(wanted, job, context);
}

/* Calls at work -------------------------------------------------------------------------------------------------------- */

int fastrnn_pool_enter(void) { return atomic_fetch_add_explicit(&callers.at_work, 1, memory_order_relaxed) + 1; }

/* Whether the first worker looks out for a call, told without the clock: two looks at it were 0.05 us of a step. */
static int one_looks_out(void) {
    return atomic_load_explicit(&built, memory_order_acquire) > 0 && !atomic_load_explicit(&workers[0].idle.sleepers, memory_order_relaxed);
}

int fastrnn_pool_awake(void) {
    return one_looks_out() || nanoseconds() - atomic_load_explicit(&callers.last_end, memory_order_relaxed) < LAUNCH_SPIN;
}

void fastrnn_pool_leave(void) {
    const int before = atomic_fetch_sub_explicit(&callers.at_work, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    if (!one_looks_out()) atomic_store_explicit(&callers.last_end, nanoseconds(), memory_order_relaxed);
}

/* Fork ----------------------------------------------------------------------------------------------------------------- */

/* A child has none of the workers, and what they and their callers held would stay held for ever. */
static void forget(void) {
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&crossing.wake, NULL);
    atomic_init(&crossing.sleepers, 0);
    fastrnn_barrier_init(&end);
    built = 0;
    is_child = 1;
    atomic_store_explicit(&callers.at_work, 0, memory_order_relaxed);
    atomic_store_explicit(&callers.busy, 0, memory_order_release);
}

/* When loaded, not at the first call: a fork during that would find `busy` set and no handler. */
__attribute__((constructor)) static void see_forks(void) { forks_are_seen = !pthread_atfork(NULL, NULL, forget); }
