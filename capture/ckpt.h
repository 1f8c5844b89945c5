/* ckpt.h: a process saves itself to one file and goes on from it later.
 *
 * Link with -lckpt (libckpt.so) or libckpt.a. All functions return -1 and set errno when they fail.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef CKPT_H
#define CKPT_H

#ifdef __cplusplus
extern "C" {
#endif

#define CKPT_CONTINUE 0 /* after a save on a signal: go on */
#define CKPT_EXIT 1     /* after a save on a signal: end with status 0 */

/* Saves this process to the file. Returns twice, like setjmp: 0 in this process, 1 in each process that is
 * restarted from the image. On failure a line on standard error tells the object and the reason, the process goes
 * on, and an older image is untouched. */
int ckpt_save(const char *path);

/* Saves this process to the file whenever the signal comes. A relative path counts from the working directory of now. */
int ckpt_on_signal(int signal, const char *path, int after);

/* The special branch at the start of main: if the file is there, this process becomes the saved one and the call
 * does not return; else it returns 0 and the program runs as usual. */
int ckpt_restart_if_saved(const char *path);

/* Registers a function that runs in a restarted process before it goes on, on the thread that saved, all others
 * still waiting: it must not wait for a lock that another thread may hold. At most 32. */
int ckpt_at_restart(void (*hook)(void *), void *argument);

/* Becomes the process that was saved to the file. Returns only on failure. */
int ckpt_restart(const char *path);

#ifdef __cplusplus
}
#endif

#endif
