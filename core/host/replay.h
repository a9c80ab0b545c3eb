/* `neap replay --failed`: a connection's requests that its plugin had failed on are run again, oldest first, one after the other, by the generation
 * that is in force. Each counts once, whoever asks how often: what a handler does commits with the mark on the request's row. */
#ifndef NP_HOST_REPLAY_H
#define NP_HOST_REPLAY_H

struct np_lane;
struct np_call;
struct np_replays;

/* The replays of one lane. Lane's thread. */
struct np_replays *np_replays_new(struct np_lane *lane);
void np_replays_take(struct np_replays *r,
                     struct np_call *call); /* goes on by itself until there is none left, then answers the call */
void np_replays_free(struct np_replays *r);

#endif
