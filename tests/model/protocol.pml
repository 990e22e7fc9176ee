/* The life of one decision: replicas × crashes × lost leases × what a broker can do.

   REPLICAS replicas want to own the account. Any of them may die at any step (CRASHES times in
   all) or be stalled until another has taken its lease (STEALS times): a step of a stalled replica
   that needs no database, the POST, still happens, whenever it likes. Each doubtful answer costs
   one of FAULTS, so that "after the faults stop" is part of every run.

   P1  the broker holds one order at the most                        assertion in accept()
   P2  every run ends with the decision final and the books equal    no other state may be the last
   P3, P5 are the shape of the program: intent, call and outcome are steps of their own, and every
   write is one atomic step under the fence.

   Switched off, one at a time, a run must be found that breaks P1 or P2 (tests/model/test_model.py):
   -DNO_UNIQUE            the broker takes a client_order_id twice
   -DNO_FENCE             writes are not fenced by the lease's token
   -DFAILED_IS_ABSENT     a lookup that fails is taken for "no such order"       (with NO_UNIQUE)
   -DREJECT_ON_TIMEOUT    no answer is taken for a refusal
   -DBELIEVE_REFUSAL      no lookup after a 4xx
   -DUNIQUE_IS_REFUSAL    "must be unique" is taken for a refusal
   -DNO_SWEEP             nobody takes up what a dead writer left `submitting`
   -DNO_RECONCILER        the broker's list is never read
   -DEXPIRE_IN_DOUBT      time runs out without asking
   -DEXPIRE_KNOWN         … or although the order is in the books
*/
#ifndef REPLICAS
#define REPLICAS 2
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef STEALS
#define STEALS 2
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#define MISSES 2   /* the product asks three times; one less is less safe, and smaller */
#define NOBODY REPLICAS

mtype = { approved, submitting, in_doubt, submitted, rejected, expired };
mtype = { accepted, exists, refused, not_taken, nothing };   /* answers to a POST */
mtype = { found, absent, unanswered };                       /* answers to a lookup */

/* ---- the database: the row of the decision, its execution, the lease */
mtype status = approved;
bool sent_once;         /* an attempt was recorded: ask before the next one */
byte writer;            /* token under which the row became `submitting` */
byte misses;
bool was_refused;       /* the last attempt's answer was a 4xx */
bool was_exists;        /* … or "must be unique" */
bool execution;         /* the order is in our books */
bool discrepancy;       /* … and contradicts the decision's end, visibly */
byte token;             /* of the lease */
byte owner = NOBODY;

/* ---- the world */
bool out_of_time;       /* now >= expires_at */
byte orders;            /* accepted by the broker, ever, for this client_order_id */
bool visible;           /* … and shown by lookups and lists */
byte late;              /* POSTs that the broker has received and not yet looked at */
byte crashes = CRASHES;
byte steals = STEALS;
byte faults = FAULTS;

#define FINAL (status == submitted || status == rejected || status == expired)
#define CONTRADICTED (status != submitted && execution)
#define DONE (FINAL && late == 0 && (orders > 0) == execution && (!CONTRADICTED || discrepancy) \
              && (status != submitted || execution))
#ifdef NO_FENCE
#define FENCE(mine) true
#else
#define FENCE(mine) (token == mine)
#endif
#ifdef EXPIRE_KNOWN
#define MAY_EXPIRE true
#else
#define MAY_EXPIRE (!execution)
#endif

inline accept() {
    orders++;
    assert(orders <= 1);   /* P1 */
}

/* The broker deals with a POST: `answer` is what it would say. One instant. */
inline deal_with(answer) {
    if
#ifndef NO_UNIQUE
    :: orders > 0 -> answer = exists
    :: orders == 0 ->
#else
    :: true ->
#endif
        if
        :: accept(); answer = accepted
        :: faults > 0 -> faults--; accept(); answer = refused    /* live behind a 4xx */
        :: faults > 0 -> faults--; answer = not_taken            /* 429, 5xx before the work */
        :: answer = refused
        fi
    fi
}

active proctype broker() {
    mtype ignored;
end:
    do
    :: late > 0 -> atomic { late--; if :: deal_with(ignored) :: skip fi; ignored = 0 }
    :: orders > 0 && !visible -> visible = true
    :: !out_of_time -> out_of_time = true
    od
}

/* A replica dies, and starts again at once with nothing but the database. */
#define MAY_DIE  :: crashes > 0 -> crashes--; goto reborn

active [REPLICAS] proctype replica() {
    byte mine;          /* token of the lease it holds or believes to hold */
    bool ask_first;
    mtype answer;
    mtype seen;
reborn:
    atomic {
        if :: owner == _pid - 1 -> owner = NOBODY :: else fi;
        mine = 0; ask_first = false; answer = 0; seen = 0
    }
idle:
    do
    :: atomic { DONE -> goto over }
    :: atomic { owner == NOBODY && !DONE -> owner = _pid - 1; token++; mine = token }
    /* the lease of a replica that stands still runs out */
    :: atomic { owner != NOBODY && owner != _pid - 1 && steals > 0 && !DONE ->
                steals--; owner = _pid - 1; token++; mine = token }
    :: owner == _pid - 1 && status == approved && out_of_time ->
        atomic { if :: FENCE(mine) && status == approved && MAY_EXPIRE -> status = expired
                    :: else fi }
    :: owner == _pid - 1 && status == approved -> goto claim
#ifndef NO_SWEEP
    :: owner == _pid - 1 && status == submitting && writer != mine ->
        atomic { if :: FENCE(mine) && status == submitting && writer != mine ->
                        status = in_doubt; misses = 0; was_refused = false; was_exists = false
                    :: else fi }
#endif
    :: owner == _pid - 1 && status == in_doubt -> goto settle
#ifndef NO_RECONCILER
    :: owner == _pid - 1 && visible && !(execution && FINAL) -> goto reconcile
#endif
    MAY_DIE
    od;

claim:      /* Tx: intent and attempt */
    atomic {
        if
        :: FENCE(mine) && status == approved ->
            ask_first = sent_once || execution;
            status = submitting; writer = mine; sent_once = true
        :: else -> goto idle
        fi
    }
    if :: skip MAY_DIE fi;
    if
    :: ask_first ->
        if :: visible -> seen = found
           :: !visible -> seen = absent
           :: faults > 0 -> faults--; seen = unanswered
        fi;
        if
        :: seen == found -> answer = accepted; goto outcome
        :: seen == unanswered -> answer = not_taken; goto outcome
        :: seen == absent -> seen = 0
        fi
    :: else
    fi;
    /* not fenced: the last look at the clocks is over, and the process may stand still here */
    if
    :: token == mine && !out_of_time -> skip
    :: else -> answer = not_taken; goto outcome
    fi;
post:
    if
    :: atomic { deal_with(answer) }
    :: atomic { faults > 0 -> faults--; deal_with(answer); answer = nothing }   /* reply lost */
    :: atomic { faults > 0 -> faults--; late++; answer = nothing }              /* time-out */
    :: atomic { faults > 0 -> faults--; answer = nothing }                      /* never arrived */
    fi;
    if :: skip MAY_DIE fi;
    if
    :: answer == refused || answer == exists ->
#ifndef BELIEVE_REFUSAL
        if :: visible -> seen = found
           :: !visible -> seen = absent
           :: faults > 0 -> faults--; seen = unanswered
        fi;
#endif
        if :: skip MAY_DIE fi
    :: else
    fi;

outcome:    /* Tx: outcome, execution, status */
    atomic {
        if
        :: FENCE(mine) && status == submitting && writer == mine ->
            if
            :: answer == accepted || seen == found -> execution = true; status = submitted
            :: answer == not_taken -> status = approved
            :: answer == refused && seen != found ->
                was_refused = true; was_exists = false;
#ifdef BELIEVE_REFUSAL
                status = rejected
#else
                if :: seen == absent -> status = rejected
                   :: else -> status = in_doubt; misses = 0
                fi
#endif
            :: answer == exists && seen != found ->
#ifdef UNIQUE_IS_REFUSAL
                status = rejected
#else
                was_exists = true; was_refused = false; status = in_doubt; misses = 0
#endif
            :: answer == nothing ->
                was_refused = false; was_exists = false; misses = 0;
#ifdef REJECT_ON_TIMEOUT
                status = rejected
#else
                status = in_doubt
#endif
            fi
        :: else     /* another owner swept the row: its lookup settles it */
        fi;
        ask_first = false; answer = 0; seen = 0
    }
    goto idle;

settle:     /* ask, then Tx */
    if :: visible -> seen = found
       :: !visible -> seen = absent
       :: faults > 0 -> faults--; seen = unanswered
    fi;
    if :: skip MAY_DIE fi;
    atomic {
        if
        :: FENCE(mine) && status == in_doubt ->
            if
            :: seen == found -> execution = true; status = submitted
#ifdef EXPIRE_IN_DOUBT
            :: out_of_time -> status = expired
#endif
#ifdef FAILED_IS_ABSENT
            :: seen != found ->
#else
            :: seen == unanswered -> skip
            :: seen == absent ->
#endif
                if
                :: misses < MISSES -> misses++
                :: else
                fi;
                if
                :: misses == MISSES && !was_exists ->
                    if
                    :: was_refused -> status = rejected
                    :: !was_refused && out_of_time && MAY_EXPIRE -> status = expired
                    :: else -> status = approved
                    fi
                :: else
                fi
            fi
        :: else
        fi;
        seen = 0
    }
    goto idle;

reconcile:  /* the list showed the order; then Tx */
    if :: skip MAY_DIE fi;
    atomic {
        if
        :: FENCE(mine) && visible ->
            execution = true;
            if
            :: status == submitting || status == in_doubt || status == approved ->
                status = submitted
            :: status == rejected || status == expired -> discrepancy = true
            :: else
            fi
        :: else
        fi
    }
    goto idle;

over:
    skip
}
