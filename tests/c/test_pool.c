/* The thread pool: who runs, what a barrier makes visible, callers that meet, forks, and silence after a call.
 *
 * For ThreadSanitizer no data below is atomic unless it must be: what the pool and its barrier promise to order is plain memory. */
#define _GNU_SOURCE /* nanosleep, fork, processor sets */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../src_kernels/pool.h"

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif

enum { MOST = 64, CROSSINGS = 3000, CALLERS = 6, CALLS = 500, FORKS = 20 };

static atomic_int failures;

static void check(int right, const char *what, long long got) {
    if (right) return;
    atomic_fetch_add(&failures, 1);
    printf("FAILED: %s, got %lld\n", what, got);
}

static void rest(double seconds) {
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) && errno == EINTR) continue;
}

/* Members -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    int times[FASTRNN_MAX_MEMBERS], told[FASTRNN_MAX_MEMBERS];
    pthread_t thread[FASTRNN_MAX_MEMBERS];
} roll;

static void sign(void *context, int member, int members) {
    roll *r = context;
    r->times[member]++;
    r->told[member] = members;
    r->thread[member] = pthread_self();
}

/* One run, on the pool or on a team of so many threads, in which every member took part once and all were told the truth. */
static int call_the_roll_on(const fastrnn_team *team, int threads, int wanted) {
    roll r = {0};
    const int members = team ? fastrnn_pool_run_on(team, threads, wanted, sign, &r) : fastrnn_pool_run(wanted, sign, &r);
    check(members >= 1 && members <= (wanted > 1 ? wanted : 1), "members", members);
    check(pthread_equal(r.thread[0], pthread_self()), "member 0 on another thread than the caller's", 0);
    for (int m = 0; m < FASTRNN_MAX_MEMBERS; m++) {
        check(r.times[m] == (m < members), "times that a member ran", r.times[m]);
        check(m >= members || r.told[m] == members, "members that a member was told of", r.told[m]);
        for (int other = 0; m < members && other < m; other++) check(!pthread_equal(r.thread[m], r.thread[other]), "two members on one thread", m);
    }
    return members;
}

static int call_the_roll(int wanted) { return call_the_roll_on(NULL, 0, wanted); }

static void test_members(void) {
    static const int wanted[] = {2, 1, 3, 8, 2, 0, -1, 5, MOST, 3};
    for (int i = 0; i < 300; i++) {
        const int w = wanted[i % 10], members = call_the_roll(w);
        check(members == (w > 1 ? w : 1), "members of a pool that nobody else uses", members);
        if (i % 100 == 99) rest(0.002); /* the next call finds all asleep */
    }
    check(call_the_roll(FASTRNN_MAX_MEMBERS + 1) <= FASTRNN_MAX_MEMBERS, "members beyond the most", 0);
}

/* Teams ---------------------------------------------------------------------------------------------------------------- */

/* What an OpenMP library does, without its pool. */
static _Thread_local unsigned team_number, team_count = 1;
static int teams, missing; /* how many were asked for, and threads that the next ones lack */

typedef struct {
    void (*part)(void *);
    void *context;
    unsigned number, count;
} team_member;

static void *join_in(void *argument) {
    const team_member *me = argument;
    const unsigned number = team_number, count = team_count;
    team_number = me->number, team_count = me->count;
    me->part(me->context);
    team_number = number, team_count = count;
    return NULL;
}

static void parallel(void (*part)(void *), void *context, unsigned threads, unsigned flags) {
    team_member members[MOST];
    pthread_t others[MOST];
    const unsigned count = threads - (unsigned)missing;
    teams++;
    check(flags == 0, "flags", flags);
    for (unsigned i = 0; i < count; i++) members[i] = (team_member){part, context, i, count};
    for (unsigned i = 1; i < count; i++) check(pthread_create(&others[i], NULL, join_in, &members[i]) == 0, "a thread of a team", i);
    join_in(&members[0]);
    for (unsigned i = 1; i < count; i++) pthread_join(others[i], NULL);
}

static int number_in_team(void) { return (int)team_number; }
static int count_of_team(void) { return (int)team_count; }
static const fastrnn_team a_team = {parallel, number_in_team, count_of_team};

static void call_a_team_inside(void *context, int member, int members) {
    int *inner = context;
    const int before = teams;
    if (member == 0) inner[0] = call_the_roll_on(&a_team, 3, 3), inner[1] = teams - before;
    (void)members;
}

static void test_teams(void) {
    int inner[2] = {0};
    check(call_the_roll_on(&a_team, 3, 3) == 3 && teams == 1, "members of a team", teams);
    check(call_the_roll_on(&a_team, 5, 2) == 2 && teams == 2, "members of a team that has more", teams);
    check(call_the_roll_on(&a_team, 3, 1) == 1 && teams == 2, "a team for one", teams);
    check(call_the_roll_on(&a_team, 2, 3) == 3 && teams == 2, "a team that is too small", teams);
    missing = 1;
    check(call_the_roll_on(&a_team, 3, 3) == 3 && teams == 3, "the pool, where a team does not come whole", teams);
    missing = 0;
    fastrnn_pool_run_on(&a_team, 2, 2, call_a_team_inside, inner);
    check(inner[0] == 1 && inner[1] == 0 && teams == 4, "a team called from a job", inner[0]);
}

static void read_signals(void *context, int member, int members) {
    (void)members;
    if (member) pthread_sigmask(SIG_SETMASK, NULL, context);
}

static void test_signals(void) {
    sigset_t caller, worker;
    check(fastrnn_pool_run(2, read_signals, &worker) == 2, "members", 1);
    pthread_sigmask(SIG_SETMASK, NULL, &caller);
    check(sigismember(&worker, SIGINT) == 1 && sigismember(&worker, SIGUSR1) == 1, "signals open in a worker", 0);
    check(sigismember(&caller, SIGINT) == 0, "signals blocked in the caller", 0);
}

#ifdef __linux__
typedef struct {
    cpu_set_t set[2];
} sets;

static void read_set(void *context, int member, int members) {
    (void)members;
    pthread_getaffinity_np(pthread_self(), sizeof(cpu_set_t), &((sets *)context)->set[member]);
}

/* A worker may run wherever its caller may, awake or just woken. */
static void test_affinity(void) {
    for (int i = 0; i < 20; i++) {
        sets s;
        check(fastrnn_pool_run(2, read_set, &s) == 2, "members", 0);
        check(CPU_EQUAL(&s.set[0], &s.set[1]), "processors of a worker", CPU_COUNT(&s.set[1]));
        if (i % 2) rest(0.002);
    }
}
#endif

/* Barrier -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    fastrnn_barrier barrier;
    int crossings, uneven;
    long written[MOST];
} phases;

/* Each writes its own number of the phase, crosses, and reads those of all others; and again. */
static void cross_phases(void *context, int member, int members) {
    phases *p = context;
    for (int phase = 0; phase < p->crossings; phase++) {
        p->written[member] = (long)phase * MOST + member;
        if (p->uneven && phase % 1000 == 10 && member == members - 1) rest(0.002); /* the others sleep */
        fastrnn_barrier_wait(&p->barrier, members);
        for (int other = 0; other < members; other++)
            check(p->written[other] == (long)phase * MOST + other, "what another wrote before the barrier", p->written[other]);
        fastrnn_barrier_wait(&p->barrier, members);
    }
}

static void test_barrier(int crossings) {
    static const int wanted[] = {1, 2, 3, 8};
    for (int i = 0; i < 8; i++) {
        phases p = {.crossings = crossings, .uneven = i % 2};
        fastrnn_barrier_init(&p.barrier);
        const int members = fastrnn_pool_run(wanted[i / 2], cross_phases, &p);
        check(members == wanted[i / 2], "members", members);
        check((long)atomic_load(&p.barrier.arrived) == (members > 1 ? 2L * crossings * members : 0), "arrivals", (long)atomic_load(&p.barrier.arrived));
    }
}

static void come_late(void *context, int member, int members) {
    fastrnn_barrier *barrier = context;
    fastrnn_barrier_wait(barrier, members);
    if (member) rest(0.002);
    fastrnn_barrier_wait(barrier, members);
}

/* How far members are from each other is measured between runs, which the pool must be free for again; under TSan they are far. */
static void test_meeting(void) {
    for (int i = 0; i < 300; i++) call_the_roll(2);
    check(fastrnn_pool_meeting() >= FASTRNN_MEETING, "ns to meet, a run ago", fastrnn_pool_meeting());
    rest(0.05);
    check(fastrnn_pool_meeting() == FASTRNN_MEETING, "ns to meet, long ago", fastrnn_pool_meeting());
    call_the_roll(2);
}

static void test_crowded(void) {
    if (fastrnn_processors() < 2) return; /* then nobody spins, and nobody is thought to be late */
    for (int attempt = 0; attempt < 5 && !fastrnn_pool_crowded(); attempt++) { /* on a busy machine who waits may be sent away too */
        rest(0.1); /* one that was late before is forgotten: twice is always enough */
        for (int i = 0; i < 2; i++) {
            fastrnn_barrier barrier;
            fastrnn_barrier_init(&barrier);
            check(fastrnn_pool_run(2, come_late, &barrier) == 2, "members", 0);
        }
    }
    check(fastrnn_pool_crowded(), "a member that is late again goes unnoticed", 0);
    rest(0.1);
    check(!fastrnn_pool_crowded(), "a member that was late is remembered for too long", 0);
}

/* Callers that meet ---------------------------------------------------------------------------------------------------- */

static void call_inside(void *context, int member, int members) {
    (void)members;
    ((int *)context)[member] = call_the_roll(3);
}

static void test_nested(void) {
    int inner[3] = {0};
    check(fastrnn_pool_run(3, call_inside, inner) == 3, "members", 0);
    for (int m = 0; m < 3; m++) check(inner[m] == 1, "members of a nested call", inner[m]);
    check(call_the_roll(3) == 3, "members after nested calls", 0);
}

static void *call_often(void *together) {
    for (int i = 0; i < CALLS; i++) {
        const int members = call_the_roll(2 + i % 3);
        if (members > 1) (*(int *)together)++;
    }
    return NULL;
}

static void test_callers(void) {
    pthread_t caller[CALLERS];
    int together[CALLERS] = {0}, all = 0;
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&caller[i], NULL, call_often, &together[i])) abort();
    for (int i = 0; i < CALLERS; i++) pthread_join(caller[i], NULL), all += together[i];
    check(all > 0, "calls that got the pool", all);
    printf("%d callers: %d of %d calls got the pool\n", CALLERS, all, CALLERS * CALLS);
    check(call_the_roll(4) == 4, "members after all callers", 0);
}

/* A run that stays: its members hold until they are let go. */
typedef struct {
    atomic_int inside, go;
    int held; /* this member; the others end */
} hold;

static void hold_on(void *context, int member, int members) {
    hold *h = context;
    (void)members;
    atomic_fetch_add(&h->inside, 1);
    while (member == h->held && !atomic_load(&h->go)) rest(0.0005);
}

static void *run_and_hold(void *context) {
    check(fastrnn_pool_run(3, hold_on, context) == 3, "members", 0);
    return NULL;
}

static pthread_t start_holding(hold *h, int held) {
    pthread_t thread;
    *h = (hold){.held = held};
    if (pthread_create(&thread, NULL, run_and_hold, h)) abort();
    while (atomic_load(&h->inside) < 3) rest(0.0005);
    rest(0.002); /* whoever has nothing to do is asleep: the caller, if a worker is held */
    return thread;
}

static void test_busy(void) {
    hold h;
    const pthread_t thread = start_holding(&h, 1);
    check(call_the_roll(3) == 1, "members while another call is at work", 0);
    atomic_store(&h.go, 1);
    pthread_join(thread, NULL);
    check(call_the_roll(3) == 3, "members after it", 0);
}

/* Fork ----------------------------------------------------------------------------------------------------------------- */

#ifndef TSAN /* which gives up on a process of several threads whose child starts threads */
static void test_child(int wanted) {
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0) abort();
    if (child == 0) {
        alarm(60);
        atomic_store(&failures, 0);
        for (int i = 0; i < 3; i++) check(call_the_roll(wanted) == wanted, "members in a child", i);
        rest(0.001);
        check(call_the_roll(wanted) == wanted, "members in a child, later", 0);
        const int before = teams;
        check(call_the_roll_on(&a_team, wanted, wanted) == wanted && teams == before, "a team in a child", teams);
        test_barrier(CROSSINGS / 100);
        fflush(stdout);
        _exit(atomic_load(&failures) > 0);
    }
    int status;
    if (waitpid(child, &status, 0) != child) abort();
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status of a child", status);
}

static void *call_until(void *stop) {
    while (!atomic_load((atomic_int *)stop)) call_the_roll(3);
    return NULL;
}

static void test_fork(void) {
    check(call_the_roll(4) == 4, "members before a fork", 0);
    test_child(5);
    for (int held = 0; held < 2; held++) { /* at work: the caller, a worker */
        hold h;
        const pthread_t thread = start_holding(&h, held);
        test_child(3);
        check(call_the_roll(3) == 1, "members in the parent, whose other call is at work", 0);
        atomic_store(&h.go, 1);
        pthread_join(thread, NULL);
    }
    atomic_int stop = 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, call_until, &stop)) abort();
    for (int i = 0; i < FORKS; i++) test_child(2); /* anywhere within a call */
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    check(call_the_roll(4) == 4, "members in the parent after forks", 0);
}
#endif

/* Silence -------------------------------------------------------------------------------------------------------------- */

static double processor_time(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void test_silence(void) {
    static const int wanted[] = {2, 8};
    for (int i = 0; i < 2; i++) {
        check(call_the_roll(wanted[i]) == wanted[i], "members", 0);
        const double before = processor_time();
        rest(1);
        const double used = processor_time() - before;
        printf("one second after a call with %d members: %.0f us of processor time\n", wanted[i], 1e6 * used);
        check(used < 5e-3, "us of processor time in a second without a call", (long long)(1e6 * used));
    }
}

int main(void) {
    alarm(300); /* a deadlock ends, too */
    test_members();
    test_teams();
    test_signals();
#ifdef __linux__
    test_affinity();
#endif
    test_barrier(CROSSINGS);
    test_meeting();
    test_crowded();
    test_nested();
    test_callers();
    test_busy();
#ifndef TSAN
    test_fork();
#endif
    test_silence();
    printf("%d failures\n", atomic_load(&failures));
    return atomic_load(&failures) > 0;
}
