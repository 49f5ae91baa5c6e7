/* Threads for one call at a time, and the barrier between the phases of a step.  README.md tells how they wait. */
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H

#include <stdatomic.h>

enum {
    FASTRNN_MAX_MEMBERS = 256,
    FASTRNN_MEETING = 100, /* ns */
    FASTRNN_LINE = 128 /* bytes that one core may pull from another at once: a line on Apple's processors, a pair of lines on x86 */
};

/* The part of `member`, 0 <= member < members. */
typedef void (*fastrnn_job)(void *context, int member, int members);

/* Runs job(context, m, members) once for every m in 0..members-1, member 0 on the calling thread, and returns `members` when all
 * are done.  1 <= members <= wanted: fewer where threads cannot be made, and 1 (the caller does everything) where the pool is at
 * work for another call or this is called from a job.  Never waits for other callers. */
int fastrnn_pool_run(int wanted, fastrnn_job job, void *context);

/* The threads of an OpenMP library that the process uses anyway: what runs a job on them, and tells each of them which of how many it is. */
typedef struct {
    void (*parallel)(void (*part)(void *), void *context, unsigned threads, unsigned flags); /* GOMP_parallel */
    int (*number)(void);                                                                     /* omp_get_thread_num */
    int (*count)(void);                                                                      /* omp_get_num_threads */
} fastrnn_team;

/* The same on the first of a team's `threads`, which look out for their next job for milliseconds, on the processors that the pool's workers
 * would want.  All are asked for, since libgomp ends those that one job does not want.  A team that does not come whole leaves the job to the
 * pool; so does a forked child, for OpenMP does not survive a fork. */
int fastrnn_pool_run_on(const fastrnn_team *team, int threads, int wanted, fastrnn_job job, void *context);

/* Around each call that might use threads, and one after it ended that did not.  Entering returns how many such calls are at work, this
 * one included: where each of them has a processor, threads of one would only keep another from its own. */
int fastrnn_pool_enter(void);
void fastrnn_pool_leave(void);

/* Whether workers look out for the next call, or will from then on, for one that ran alone has left just now: a launch takes 0.1 us then, and
 * 30 us if they sleep. */
int fastrnn_pool_awake(void);

/* ns that members take to meet, for each of them: FASTRNN_MEETING, or what empty runs took a moment ago where that was more than twice as much. So it is
 * where processors share no cache. */
int fastrnn_pool_meeting(void);

/* Whether a member of a recent run was so late for a barrier that something else must have had its processor, such as another process with threads.
 * Runs that meet often then wait for each other more than they work. */
int fastrnn_pool_crowded(void);

/* Processors that this process may use. */
int fastrnn_processors(void);

/* A barrier for the members of one run.  Padded, not aligned, so that it may lie in any memory; nothing to free. */
typedef struct {
    char before[FASTRNN_LINE];
    atomic_ullong arrived; /* in all: one word to add to and to wait on, so that the last to arrive sends the others one line */
    char after[FASTRNN_LINE];
} fastrnn_barrier;

void fastrnn_barrier_init(fastrnn_barrier *barrier);

/* Returns when all `members` have called it; what any of them wrote before is visible to all of them after. */
void fastrnn_barrier_wait(fastrnn_barrier *barrier, int members);

#endif
