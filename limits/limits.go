// Package limits counts what clients take of the gateway and says when it is enough. It knows no HTTP message, no loop and no
// clock: whoever asks says what the time is.
//
// # One algorithm at three levels
//
// A limit is a bucket of tokens. A request takes some or is refused. What makes this hard is that many take of one bucket at
// the same time: the loops of this process, and the processes of a cluster. To ask a common place for every request would cost
// more than the request. So whoever is further out takes tokens ahead of need, and spends what it holds by itself:
//
//	cluster   Source      the bucket of all nodes, somewhere else. A Cluster asks it for a batch when it runs low,
//	   |                  and no request waits for the answer.
//	node      Limit       the bucket of this process: one word of memory for each key and window, changed by CAS.
//	   |
//	loop      Lease       a batch that one loop took of the node's bucket, and spends without an atomic.
//
// The same sentence makes each step right: a token is in one place, and is moved, never copied. What somebody holds has
// been taken above already. So together all can exceed the bucket, in any span of time, by no more than what was held when
// the span began, and that is bounded: 1 % of the limit by the loops of a node (see Lease), a batch and a credit by a node of
// a cluster (see Cluster). What is held by one to whom nobody comes is missing elsewhere, and that is the same 1 %. A small
// limit is taken token by token, and exact.
//
// # The parts
//
// A Window says what is counted: token bucket, sliding window, fixed window, leaky bucket. Each is a pure function of a state
// of 58 bits, the rule, the cost and the time, in the file of its name, beside the source that it follows: rule.go joins them.
//
// A Limit is up to four windows and a table of keys, of fixed size: table.go tells how keys are found, made and displaced
// without a lock. Reconfigure changes its windows, Append and Import carry it into the process that replaces this one; both
// keep what is used.
//
// A Hierarchy is several limits as one decision, such as gateway, tenant and client: all of them are taken, or none.
//
// Package redis below keeps a cluster's buckets in Redis: it is a Source, and for those who wait it decides itself.
//
// Concurrency bounds what is in flight. Connections does that for connections per client address, and is there before
// anything is read. Top remembers who is refused most.
//
// # Whose is what
//
// Limit, Cluster, Concurrency and Connections are shared by all loops. Lease and Top belong to one loop, which alone may call
// them, and so does a Hierarchy of Leases. Nothing on the path of a request blocks, allocates or takes a lock. Times are int64 ns,
// of the clock that the caller likes as long as all who share something use the same; it may go back, and its zero means
// nothing. Windows begin at the multiples of their period on that clock: who wants days to begin at midnight gives the
// time of day.
package limits
