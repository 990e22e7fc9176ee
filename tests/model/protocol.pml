/*
 * The submission protocol, for one decision, as torghut/services has it. docs/protocol.md explains
 * it; -D NAME switches a guard off (the controls) or sets a bound:
 *
 *   REPLICAS    processes on the account          CRASHES  kill -9, then a new process
 *   SLOTS       calls one process has under way   LAPSES   leases lost by a process that lives on
 *   FAULTS      of the broker and the network     SLOWS    doubts whose grace ran out while a call
 *   LATES       calls that outlive their sender            or an order was still to come to light
 *
 * One decision is enough: decisions share nothing but the lease, and that is lost at any instant.
 * There are no clocks: whatever time may do between two steps, another process does. There are no
 * tokens and no attempt numbers either, only whether a process's own are still the newest.
 *
 * The budgets only ever fall, and every other step moves the decision, a call or what is known
 * forward: so each run ends (test_model.py has that checked), and P2 is asserted where it does.
 */

#ifndef REPLICAS
#define REPLICAS 2
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LAPSES
#define LAPSES 1
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef LATES
#define LATES 1
#endif
#ifndef SLOWS
#define SLOWS 1
#endif
#define CALLS (REPLICAS * SLOTS)
#define NOBODY REPLICAS

mtype = {
  /* statuses: torghut/domain/lifecycle.py */
  PLANNED, APPROVED, SUBMITTING, IN_DOUBT, SUBMITTED, CLOSED, DENIED, REJECTED, EXPIRED, CANCELED,
  /* proofs: torghut/domain/submission.py; NEVER_LEFT stands for RATE_LIMITED and ACCOUNT_REFUSED */
  ACCEPTED, EXISTS, REFUSED, NEVER_LEFT, NOT_SENT, FOUND, ABSENT, UNANSWERED, NONE,
  /* where a call stands: torghut/services/placing.py */
  IDLE, CHECK, READY, CALL, ASK, DONE
};

/* ---- the database ---- */
mtype status = PLANNED;
bool attempted;              /* attempts > 0 */
mtype last = NONE;           /* what the newest attempt came to, once it is recorded */
byte misses;                 /* definite "no such order", this doubt; 2 means two or more */
bool graced;                 /* absence_grace_s has passed since this doubt began */
bool booked;                 /* an execution has our client_order_id */
bool watched;                /* … and it is shown as an order after the end, its cancel asked for */
byte owner = NOBODY;         /* of the lease */

/* ---- the broker and the network ---- */
byte orders;                 /* with our client_order_id */
bool visible;                /* to lookups and lists */
byte strays;                 /* calls on their way, whose sender is dead or has given up */

/* ---- time ---- */
bool overtime;               /* expires_at is over */

/* ---- processes ---- */
mtype phase[CALLS] = IDLE;
mtype proof[CALLS] = NONE;
mtype lookup[CALLS] = NONE;
bool newest[CALLS];          /* its attempt is the decision's newest */
byte calling;                /* how many of them stand at CALL */
bool ours[CALLS];            /* the lease it was claimed under was never lost */
mtype answer[REPLICAS] = NONE;  /* the settler's question */
bool answer_ours[REPLICAS];
bool answer_graced[REPLICAS];
bool answer_overtime[REPLICAS];
mtype answer_last[REPLICAS] = NONE;
#ifdef NO_FENCE
bool believes[REPLICAS];     /* held the lease once, and does not know that it is gone */
#endif

/* ---- for the properties only ---- */
bool slow;                   /* something came later than absence_grace_s: the one excuse */
bool there[CALLS];           /* when the evidence was taken, an order was there or on its way */
bool answer_there[REPLICAS];

/* ---- within one step only ---- */
hidden byte i, j, k;
hidden mtype next;

/* ---- budgets ---- */
byte crashes = CRASHES;
byte lapses = LAPSES;
byte faults = FAULTS;
byte lates = LATES;
byte slows = SLOWS;

/* -------------------------------------------------------------------- what the code decides */

inline after_submit(came, asked, next) {
  if
  :: asked == FOUND -> next = SUBMITTED
  :: else ->
     if
     :: came == ACCEPTED -> next = SUBMITTED
#ifdef BELIEVE_REFUSAL
     :: came == REFUSED -> next = REJECTED
#else
     :: came == REFUSED && asked == ABSENT -> next = REJECTED
#endif
#ifdef UNIQUE_IS_REFUSAL
     :: came == EXISTS -> next = REJECTED
#endif
#ifdef REJECT_ON_TIMEOUT
     :: came == IN_DOUBT -> next = REJECTED
#endif
     :: came == NEVER_LEFT || came == NOT_SENT -> next = APPROVED
     :: else -> next = IN_DOUBT
     fi
  fi
}

#ifdef ABSENT_AFTER_ONE_MISS
#define PROVEN(missed, grace) true
#else
#define PROVEN(missed, grace) (missed + 1 >= 3 && grace)
#endif

/* `newest_proof` is what the newest attempt came to: after EXISTS nothing proves absence */
inline after_lookup(asked, missed, grace, newest_proof, over, next) {
  if
  :: asked == FOUND -> next = SUBMITTED
  :: asked == ABSENT && PROVEN(missed, grace) && newest_proof != EXISTS ->
     if
     :: newest_proof == REFUSED -> next = REJECTED
     :: newest_proof != REFUSED && over -> next = EXPIRED
     :: newest_proof != REFUSED && !over -> next = APPROVED
     fi
  :: else -> next = IN_DOUBT
  fi
}

/* -------------------------------------------------------------------- the database's writes */

#if SLOTS == 1
#define FIRST_IDLE(r) (r)
#define HAS_IDLE(r) (phase[r] == IDLE)
#define ALL_IDLE(r) (phase[r] == IDLE)
#else
#define FIRST_IDLE(r) (phase[r * SLOTS] == IDLE -> r * SLOTS : r * SLOTS + 1)
#define HAS_IDLE(r) (phase[r * SLOTS] == IDLE || phase[r * SLOTS + 1] == IDLE)
#define ALL_IDLE(r) (phase[r * SLOTS] == IDLE && phase[r * SLOTS + 1] == IDLE)
#endif

#ifdef NO_FENCE
#define FENCE(r) (owner == r || believes[r])
#define STILL_OURS(r) true
#else
#define FENCE(r) (owner == r)
#define STILL_OURS(r) answer_ours[r]
#endif

#ifdef NO_ATTEMPT_NO
#define NEWEST(c) true
#else
#define NEWEST(c) newest[c]
#endif

#define ENDED_WITHOUT_ORDER \
  (status == DENIED || status == REJECTED || status == EXPIRED || status == CANCELED)
#define ENDED (status == CLOSED || ENDED_WITHOUT_ORDER)
#define WAITING (status == APPROVED || status == SUBMITTING || status == IN_DOUBT)

/* the steps of lifecycle.TRANSITIONS; test_model.py compares the calls of this with the table */
inline step(before, after) {
  assert(status == before);                                                            /* P5 */
  status = after;
  misses = 0;
  graced = false
}

/* found_orders.settle: a decision whose order is in the books is submitted */
inline settle_booked() {
  if
  :: status == APPROVED -> step(APPROVED, SUBMITTING); attempted = true; forget_newest();
     step(SUBMITTING, SUBMITTED)
  :: status == SUBMITTING -> step(SUBMITTING, SUBMITTED)
  :: status == IN_DOUBT -> step(IN_DOUBT, SUBMITTED)
  fi
}

/* attempts + 1: what others know is about an older attempt */
inline forget_newest() {
  for (i : 0 .. CALLS - 1) { newest[i] = false }
  last = NONE
}

inline lose_lease() {
#ifdef NO_FENCE
  if
  :: owner != NOBODY -> believes[owner] = true
  :: else
  fi;
#endif
  owner = NOBODY;
  for (i : 0 .. CALLS - 1) { ours[i] = false }
  for (i : 0 .. REPLICAS - 1) { answer_ours[i] = false }
}

inline forget_call(c) {
  if
  :: phase[c] == CALL -> calling--
  :: else
  fi;
  phase[c] = IDLE; proof[c] = NONE; lookup[c] = NONE;
  newest[c] = false; ours[c] = false; there[c] = false
}

inline forget_answer(r) {
  answer[r] = NONE; answer_ours[r] = false; answer_graced[r] = false; answer_overtime[r] = false;
  answer_last[r] = NONE; answer_there[r] = false
}

/* -------------------------------------------------------------------- the broker */

#define AT_THE_BROKER_OR_ON_ITS_WAY (orders > 0 || strays > 0)

/* the same client_order_id is taken once; taken is not yet visible */
inline broker_takes() {
#ifdef NO_UNIQUE
  orders++;
#else
  if
  :: orders == 0 -> orders++
  :: else
  fi;
#endif
  assert(orders <= 1);                                                                 /* P1 */
  if
  :: visible = true
  :: !visible                                          /* World shows it some time */
  fi
}

#ifdef FAILED_IS_ABSENT
#define FAILED ABSENT
#else
#define FAILED UNANSWERED
#endif

/* GET by client_order_id */
inline ask(came) {
  if
  :: visible -> came = FOUND
  :: !visible -> came = ABSENT
  :: faults > 0 -> faults--; came = FAILED
  fi
}

/* POST /orders, all at once: what happens between sending and taking happens to a process that
 * stands before it as well */
inline post(c) {
  if
#ifdef NO_UNIQUE
  :: broker_takes(); proof[c] = ACCEPTED
#else
  :: orders == 0 -> broker_takes(); proof[c] = ACCEPTED
  :: orders > 0 -> proof[c] = EXISTS
#endif
  :: faults > 0 && orders == 0 -> faults--;            /* refused, and no order */
     proof[c] = REFUSED
  :: faults > 0 -> faults--; broker_takes();           /* refused, and live all the same */
     proof[c] = REFUSED
  :: faults > 0 -> faults--; broker_takes();           /* repeated on the way: the second answer */
     proof[c] = EXISTS
  :: faults > 0 -> faults--; broker_takes();           /* taken, and the answer lost */
     proof[c] = IN_DOUBT
  :: faults > 0 -> faults--;                           /* lost on its way, unknown to the sender */
     proof[c] = IN_DOUBT
  :: faults > 0 && lates > 0 -> faults--; lates--; strays++;  /* given up, and still on its way */
     proof[c] = IN_DOUBT
  :: faults > 0 -> faults--;                           /* 429, keys refused, connection refused */
     proof[c] = NEVER_LEFT
  fi;
  there[c] = proof[c] == EXISTS || (AT_THE_BROKER_OR_ON_ITS_WAY && !slow)
}

/* -------------------------------------------------------------------- one process */

/* a question whose answer could change nothing is left out: asking for ever would be no end */
#ifdef ASK_FOR_EVER
#define MAY_TEACH true
#else
#define MAY_TEACH (visible || misses < 2 || (graced && last != EXISTS))
#endif

proctype Replica(byte r) {
end:
  do
  /* supervisor: storage/leases.acquire, under a new token */
  :: atomic { owner == NOBODY -> owner = r }

  /* executor, 2 claim; the verdict is risk's: here any */
  :: atomic { FENCE(r) && status == PLANNED ->
       if
       :: !overtime -> step(PLANNED, APPROVED)
       :: !overtime -> step(PLANNED, DENIED)
       :: overtime -> step(PLANNED, EXPIRED)
       fi }
  :: atomic { FENCE(r) && status == APPROVED && !booked && overtime -> step(APPROVED, EXPIRED) }
  :: atomic { FENCE(r) && status == APPROVED && !booked && !overtime -> step(APPROVED, CANCELED) }
  :: atomic { FENCE(r) && status == APPROVED && !booked && !overtime && HAS_IDLE(r) ->
       j = FIRST_IDLE(r);
       step(APPROVED, SUBMITTING);
       forget_newest();
       phase[j] = (attempted -> CHECK : READY);
       attempted = true; newest[j] = true; ours[j] = owner == r }

#ifdef EXPIRE_IN_DOUBT
  :: atomic { FENCE(r) && status == IN_DOUBT && overtime ->
       assert(!AT_THE_BROKER_OR_ON_ITS_WAY || slow);                                   /* P2 */
       step(IN_DOUBT, EXPIRED) }
#endif

  /* executor, 1 sweep: a decision that is under way here is not swept */
#ifndef NO_SWEEP
  :: atomic { FENCE(r) && status == SUBMITTING && ALL_IDLE(r) -> step(SUBMITTING, IN_DOUBT) }
#endif

  /* settler: the question, with no transaction open */
  :: atomic { FENCE(r) && status == IN_DOUBT && answer[r] == NONE && MAY_TEACH ->
       ask(answer[r]);
       answer_ours[r] = owner == r; answer_graced[r] = graced; answer_overtime[r] = overtime;
       answer_last[r] = last;
       answer_there[r] = AT_THE_BROKER_OR_ON_ITS_WAY && !slow }
  /* … and what follows from it */
  :: atomic { answer[r] != NONE ->
       if
       :: STILL_OURS(r) && status == IN_DOUBT ->
          after_lookup(answer[r], misses, answer_graced[r], answer_last[r],
                       answer_overtime[r], next);
          if
          :: next == SUBMITTED -> booked = true; step(IN_DOUBT, SUBMITTED)
          :: next == APPROVED -> assert(!answer_there[r]); step(IN_DOUBT, APPROVED)    /* P2 */
          :: next == REJECTED -> assert(!answer_there[r]); step(IN_DOUBT, REJECTED)    /* P2 */
          :: next == EXPIRED -> assert(!answer_there[r]); step(IN_DOUBT, EXPIRED)      /* P2 */
          :: next == IN_DOUBT ->
             if
             :: answer[r] == ABSENT && misses < 2 -> misses++
             :: else
             fi
          fi
       :: else                                         /* fenced out, or somebody was faster */
       fi;
       forget_answer(r) }

  /* reconciler: broker → local */
#ifndef NO_RECONCILER
  :: atomic { FENCE(r) && visible && !booked ->
       if
       :: WAITING -> booked = true; settle_booked()
       :: ENDED_WITHOUT_ORDER ->
          booked = true;
#ifdef EXPIRE_UNWATCHED
          watched = status != EXPIRED
#else
          watched = true
#endif
       fi }
#endif
#ifdef ANSWER_ONLY_BOOKED
  /* … decisions whose order is in the books: `record` leaves none otherwise */
  :: atomic { FENCE(r) && booked && WAITING -> settle_booked() }
#endif
  /* … and those whose order has ended; when that is, is the market's affair */
  :: atomic { FENCE(r) && status == SUBMITTED -> step(SUBMITTED, CLOSED) }
  od
}

/* -------------------------------------------------------------------- one call: placing, 4 record */

proctype Caller(byte c; byte r) {
end:
  do
  /* the lookup before a repeated attempt */
  :: atomic { phase[c] == CHECK ->
#ifdef NO_CHECK_FIRST
       phase[c] = READY
#else
       ask(lookup[c]);
       if
       :: lookup[c] == ABSENT -> lookup[c] = NONE; phase[c] = READY
       :: else -> proof[c] = NOT_SENT; there[c] = false; phase[c] = DONE
       fi
#endif
     }

  /* the last look before the call: lease, time, trading state; then nothing of ours can stop it */
  :: atomic { phase[c] == READY ->
       if
       :: ours[c] && !overtime -> phase[c] = CALL; calling++
       :: !ours[c] || overtime || faults > 0 ->
          if
          :: ours[c] && !overtime -> faults--          /* halted meanwhile */
          :: else
          fi;
          proof[c] = NOT_SENT; phase[c] = DONE
       fi }

  :: atomic { phase[c] == CALL ->
       calling--;
       post(c);
       if
#ifndef BELIEVE_REFUSAL
       :: proof[c] == REFUSED -> phase[c] = ASK
#endif
#ifndef UNIQUE_IS_REFUSAL
       :: proof[c] == EXISTS -> phase[c] = ASK
#endif
       :: else -> phase[c] = DONE
       fi }

  /* the lookup after a refusal or "must be unique" */
  :: atomic { phase[c] == ASK ->
       if
       :: proof[c] == REFUSED -> there[c] = visible    /* asked once, and believed: docs/protocol.md */
       :: else
       fi;
       ask(lookup[c]);
       phase[c] = DONE }

  /* 4 record: the order into the books; the step only if the attempt is the newest */
  :: atomic { phase[c] == DONE && FENCE(r) ->
       if
       :: NEWEST(c) -> last = (proof[c] == REFUSED || proof[c] == EXISTS -> proof[c] : NONE)
       :: else
       fi;
       after_submit(proof[c], lookup[c], next);
       if
       :: NEWEST(c) && status == SUBMITTING ->
          if
          :: next == SUBMITTED -> booked = true; step(SUBMITTING, SUBMITTED)
          :: next == IN_DOUBT -> step(SUBMITTING, IN_DOUBT)
          :: next == REJECTED -> assert(!there[c]); step(SUBMITTING, REJECTED)         /* P2 */
          :: next == APPROVED -> assert(!there[c]); step(SUBMITTING, APPROVED)         /* P2 */
          fi
       :: else
       fi;
       /* the decision had moved on, and its order is known now */
       if
       :: proof[c] == ACCEPTED || lookup[c] == FOUND ->
#ifndef ANSWER_ONLY_BOOKED
          if
          :: WAITING -> settle_booked()
          :: !booked && ENDED_WITHOUT_ORDER -> watched = true
          :: else
          fi;
#endif
          booked = true
       :: else
       fi;
       /* nobody overrules the definite answer of who held the account all the time */
       assert(!(ours[c] && proof[c] == ACCEPTED) || status == SUBMITTED || status == CLOSED); /* P4 */
       forget_call(c) }
  /* the lease is lost: nothing is written, the next owner's sweep settles it */
  :: atomic { phase[c] == DONE && !FENCE(r) -> forget_call(c) }
  od
}

/* -------------------------------------------------------------------- what happens to them */

#define TO_COME (strays > 0 || calling > 0 || (orders > 0 && !visible))

proctype World() {
end:
  do
  /* kill -9: the calls under way may still arrive; a new process starts with empty hands */
  :: atomic { crashes > 0 ->
       crashes--;
       select (j : 0 .. REPLICAS - 1);
       for (k : j * SLOTS .. j * SLOTS + SLOTS - 1) {
         if
         :: phase[k] == CALL && lates > 0 -> lates--; strays++
         :: true
         fi;
         forget_call(k)
       }
       forget_answer(j);
#ifdef NO_FENCE
       believes[j] = false;
#endif
       if
       :: owner == j -> lose_lease()
       :: else
       fi }
  /* frozen, cut off or slow beyond the lease: it goes on working, and does not know */
  :: atomic { lapses > 0 && owner != NOBODY -> lapses--; lose_lease() }
  :: atomic { !overtime && !ENDED -> overtime = true }

  /* absence_grace_s after the doubt began. What is still to come then comes too late (slow) */
  :: atomic { status == IN_DOUBT && !graced && (!TO_COME || slows > 0) ->
       if
       :: TO_COME -> slows--; slow = true
       :: else
       fi;
       graced = true }

  :: atomic { orders > 0 && !visible -> visible = true }

  /* a stray call arrives, or never does */
  :: atomic { strays > 0 ->
       strays--;
       if
       :: broker_takes()
       :: true
       fi }
  od
}

/* -------------------------------------------------------------------- the end of a run */

/* nothing can happen any more: faults are over, everything is delivered, every loop has run */
proctype End() {
  timeout;
  assert(ENDED);                                                                       /* P2 */
  assert(booked == (orders > 0));                                                      /* P2 */
  assert(!booked || status == CLOSED || watched);                                      /* P2 */
  assert(status != CLOSED || booked)
}

#ifdef TABLES
/* what the model decides, row by row: test_model.py compares it with the code */
inline submit_rows(came) {
  after_submit(came, NONE, next); printf("after_submit %e %e %e\n", came, NONE, next);
  after_submit(came, FOUND, next); printf("after_submit %e %e %e\n", came, FOUND, next);
  after_submit(came, ABSENT, next); printf("after_submit %e %e %e\n", came, ABSENT, next);
  after_submit(came, UNANSWERED, next); printf("after_submit %e %e %e\n", came, UNANSWERED, next)
}

inline lookup_rows(asked, newest_proof) {
  for (i : 0 .. 2) {
    for (j : 0 .. 1) {
      for (k : 0 .. 1) {
        after_lookup(asked, i, j, newest_proof, k, next);
        printf("after_lookup %e %d %d %e %d %e\n", asked, i, j, newest_proof, k, next)
      }
    }
  }
}

inline status_row(one) {
  status = one;
  printf("status %e %d %d\n", one, ENDED, ENDED_WITHOUT_ORDER)
}

init {
  submit_rows(ACCEPTED); submit_rows(IN_DOUBT); submit_rows(EXISTS); submit_rows(REFUSED);
  submit_rows(NEVER_LEFT); submit_rows(NOT_SENT);
  lookup_rows(FOUND, NONE); lookup_rows(FOUND, REFUSED); lookup_rows(FOUND, EXISTS);
  lookup_rows(ABSENT, NONE); lookup_rows(ABSENT, REFUSED); lookup_rows(ABSENT, EXISTS);
  lookup_rows(UNANSWERED, NONE); lookup_rows(UNANSWERED, REFUSED); lookup_rows(UNANSWERED, EXISTS);
  status_row(PLANNED); status_row(APPROVED); status_row(SUBMITTING); status_row(IN_DOUBT);
  status_row(SUBMITTED); status_row(CLOSED); status_row(DENIED); status_row(REJECTED);
  status_row(EXPIRED); status_row(CANCELED)
}
#else
init {
  atomic {
    for (i : 0 .. REPLICAS - 1) { run Replica(i) }
    for (i : 0 .. CALLS - 1) { run Caller(i, i / SLOTS) }
    run World();
    run End()
  }
}
#endif
