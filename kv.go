// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"iter"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/state"
)

// A KeyValue is a key with its value at a revision. Its strings share the memory of the store; they are
// immutable and may be kept. Either string keeps the memory of both: strings.Clone frees the other. In JSON, bytes
// of a key or value that are not UTF-8 are lost.
type KeyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	// CreateRevision is the revision that created the key, after its last deletion if there was one.
	CreateRevision int64 `json:"createRevision"`
	// ModRevision is the revision of the last change to the key.
	ModRevision int64 `json:"modRevision"`
	// Version counts the changes since the key was created: 1 for a new key.
	Version int64 `json:"version"`
	// Lease is the lease that the key is attached to; 0 for none.
	Lease LeaseID `json:"lease"`
}

// A Header names the node that answered a call, and the state of the store for which the answer holds.
type Header struct {
	ClusterID ClusterID `json:"cluster"`
	MemberID  MemberID  `json:"member"`
	// Revision is the revision of the store at which the call was executed. For a write that changed
	// something, it is the revision that the write made.
	Revision int64 `json:"revision"`
	// Term is the Raft term that the node was in.
	Term uint64 `json:"term"`
}

// A PutResponse answers [Node.Put].
type PutResponse struct {
	Header
	PrevKV *KeyValue `json:"prevKV,omitempty"` // with WithPrevKV, if the key existed
}

// A GetResponse answers [Node.Get].
type GetResponse struct {
	Header
	KVs   []KeyValue `json:"kvs"`
	Count int64      `json:"count"` // of the keys in the range, including those that the limit and filters left out
	More  bool       `json:"more"`  // the limit left some out
}

// A DeleteResponse answers [Node.Delete].
type DeleteResponse struct {
	Header
	Deleted int64      `json:"deleted"`
	PrevKVs []KeyValue `json:"prevKVs,omitempty"` // with WithPrevKV
}

// A CompactResponse answers [Node.Compact].
type CompactResponse struct{ Header }

// Put stores val under key. It returns when this node has applied the write, which is then on a majority.
// It may be called on any node, concurrently. Every put makes a revision, even one of an equal value.
//
// Errors: ErrEmptyKey, ErrTooLarge, ErrInvalidOption, ErrKeyNotFound, ErrLeaseNotFound, ErrNoSpace,
// ErrOverloaded: nothing was changed. ErrMaybeApplied when ctx ended or the node closed while the outcome
// was open; ErrClosed.
func (n *Node) Put(ctx context.Context, key, val string, opts ...PutOption) (*PutResponse, error) {
	r, err := n.execute(ctx, nil, OpPut(key, val, opts...))
	if err != nil {
		return nil, err
	}
	return r.Put, nil
}

// Delete removes a key or, with a range option, keys, all in one revision. It returns when this node has
// applied the write. It may be called on any node, concurrently. Deleting nothing succeeds and makes no
// revision.
//
// Errors: ErrEmptyKey, ErrInvalidOption, ErrNoSpace if a disk is full, ErrOverloaded: nothing was changed.
// ErrMaybeApplied as for Put; ErrClosed.
func (n *Node) Delete(ctx context.Context, key string, opts ...DeleteOption) (*DeleteResponse, error) {
	r, err := n.execute(ctx, nil, OpDelete(key, opts...))
	if err != nil {
		return nil, err
	}
	return r.Delete, nil
}

// Get reads a key or, with options, many keys. It is linearizable on every node: it sees every write that
// was answered before the call. That costs a round trip to the leader and its majority, which all reads
// of the same moment share. If this node cannot write its log and so falls behind, the leader answers
// instead, and the result may be newer than the state of this node. [WithSerializable] and
// [WithWaitRevision] read without asking another node.
//
// A missing key is an empty result, not an error. The result belongs to the caller.
//
// Errors: ErrEmptyKey, ErrInvalidOption, *CompactedError, ErrFutureRevision, ErrClosed, or ctx's cause,
// joined with ErrNoLeader if no leader was known.
func (n *Node) Get(ctx context.Context, key string, opts ...GetOption) (*GetResponse, error) {
	var o getOptions
	if err := readOptions(&o, key, opts); err != nil {
		return nil, err
	}
	return n.get(ctx, nil, &o)
}

// get is Get as a user. A nil user is not checked, here and below. get does not keep o, so that the options of a
// call need not be on the heap: a Get of one key allocates its response and nothing else.
func (n *Node) get(ctx context.Context, as *command.As, o *getOptions) (*GetResponse, error) {
	v, p, err := n.reads.begin(ctx, o)
	if err != nil {
		return nil, err
	}
	if v != nil && state.IsOne(&o.Get) {
		if as != nil {
			if err := codeError(v.Auth.Guard(as).Range(command.Read, o.Key, "")); err != nil {
				return nil, err
			}
		}
		return n.oneKey(v, o.Key), nil
	}
	get := o.Get
	resp, err := n.read(ctx, v, p, as, &command.Op{Get: &get}, get.End == "")
	return resp.Get, err
}

// read evaluates op, a Get or a Txn of Gets, in a view. If v is nil, the read is linearizable at p.
func (n *Node) read(
	ctx context.Context, v *state.View, p readPoint, as *command.As, op *command.Op, quick bool,
) (OpResponse, error) {
	if v != nil {
		return n.executeRead(ctx, v, as, op, quick)
	}
	v, result, err := n.reads.evaluate(ctx, p, as, op)
	switch {
	case err != nil:
		return OpResponse{}, err
	case v != nil:
		return n.executeRead(ctx, v, as, op, quick)
	}
	if err := resultError(result); err != nil {
		return OpResponse{}, err
	}
	return n.opResponse(op, result), nil
}

// executeRead evaluates a Get, or a Txn of Gets. A read of many keys may take long, so it runs on another
// goroutine, and the call ends with ctx.
func (n *Node) executeRead(
	ctx context.Context, v *state.View, as *command.As, op *command.Op, quick bool,
) (resp OpResponse, err error) {
	if err := codeError(v.Permit(as, op)); err != nil {
		return OpResponse{}, err
	}
	if op.Get != nil && state.IsOne(op.Get) {
		return OpResponse{Get: n.oneKey(v, op.Get.Key)}, nil
	}
	run := func(stop func() bool) (OpResponse, error) {
		r := state.Execute(v.KV, op, stop)
		if stop != nil && stop() {
			return OpResponse{}, context.Cause(ctx)
		}
		if err := resultError(r); err != nil {
			return OpResponse{}, err
		}
		return n.opResponse(op, r), nil
	}
	if quick || ctx.Done() == nil {
		return run(nil)
	}
	var found OpResponse
	err = n.life.await(ctx, func() (err error) {
		found, err = run(func() bool { return ctx.Err() != nil })
		return err
	})
	if err != nil {
		return OpResponse{}, err
	}
	return found, nil
}

// oneKey returns the response to a Get of one key, in one allocation.
func (n *Node) oneKey(v *state.View, key string) *GetResponse {
	r := &struct {
		GetResponse
		kvs [1]KeyValue
	}{GetResponse: GetResponse{Header: n.header(v.KV.Revision())}}
	if kv, ok := v.KV.Get(key, 0); ok {
		r.kvs[0] = keyValue(kv)
		r.KVs, r.Count = r.kvs[:], 1
	}
	return &r.GetResponse
}

// Range yields the keys of a range in their order, without a bound on their number and all at one
// revision: that of [WithRevision], or the latest when the iteration begins. It is linearizable unless an
// option says otherwise. It holds no lock; writes and compactions continue meanwhile and are not seen. One
// goroutine uses the sequence, once.
//
// Errors: those of Get. A pair with an error is the last one.
func (n *Node) Range(ctx context.Context, key string, opts ...ScanOption) iter.Seq2[KeyValue, error] {
	return n.scanned(ctx, nil, key, opts)
}

func (n *Node) scanned(ctx context.Context, as *command.As, key string, opts []ScanOption) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		var o getOptions
		err := readOptions(&o, key, opts)
		if err == nil {
			err = n.scan(ctx, as, &o, func(kv KeyValue) bool { return yield(kv, nil) })
		}
		if err != nil {
			yield(KeyValue{}, err)
		}
	}
}

// scan is Range with options that were read. It returns nil if yield returns false.
func (n *Node) scan(ctx context.Context, as *command.As, o *getOptions, yield func(KeyValue) bool) error {
	v, err := n.reads.view(ctx, o)
	if err == nil && as != nil {
		err = codeError(v.Auth.Guard(as).Range(command.Read, o.Key, o.End))
	}
	if err == nil {
		err = revisionError(v, o.Revision)
	}
	if err != nil {
		return err
	}
	yielded := int64(0)
	ended := func() bool {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err != nil
	}
	v.KV.Ascend(o.Key, o.End, o.Revision, state.Until(ended, func(kv mvcc.KeyValue) bool {
		if !state.Matches(&o.Get, kv) {
			return true
		}
		if ended() {
			return false
		}
		yielded++
		return yield(keyValue(kv)) && yielded != o.Limit
	}))
	return err
}

// Compact drops the history before a revision: reads and watches of older revisions then fail with a
// *CompactedError. The latest state of every key stays. Config.Retention compacts automatically.
//
// Errors: *CompactedError if rev is not above the last compaction, ErrFutureRevision, ErrNoSpace if a disk
// is full, ErrOverloaded: nothing was changed. ErrMaybeApplied as for Put; ErrClosed.
func (n *Node) Compact(ctx context.Context, rev int64) (*CompactResponse, error) {
	return n.compact(ctx, nil, rev)
}

func (n *Node) compact(ctx context.Context, as *command.As, rev int64) (*CompactResponse, error) {
	r, err := n.command(ctx, &command.Command{As: as, Compact: &command.Compact{Revision: rev}})
	if err != nil {
		return nil, err
	}
	return &CompactResponse{n.header(r.Revision)}, nil
}

// command proposes a command and returns its result, or the error of a command that a rule refused.
func (n *Node) command(ctx context.Context, c *command.Command) (*command.Result, error) {
	r, err := n.propose(ctx, c)
	if err == nil {
		err = resultError(r)
	}
	return r, err
}

// execute proposes a single write and returns its result in the public form.
func (n *Node) execute(ctx context.Context, as *command.As, op Op) (OpResponse, error) {
	if op.err != nil {
		return OpResponse{}, op.err
	}
	r, err := n.command(ctx, &command.Command{As: as, Op: op.op})
	if err != nil {
		return OpResponse{}, err
	}
	return n.opResponse(&op.op, r), nil
}

// readOptions sets the options of a Get or a Range, also with an error.
func readOptions[Option GetOption](o *getOptions, key string, opts []Option) (err error) {
	for _, opt := range opts {
		if _, ok := any(opt).(serializable); ok { // a call of its method takes longer than the rest: it copies o twice
			o.serializable = true
			continue
		}
		*o = opt.get(*o)
	}
	if o.Key, o.End, err = o.keys.bounds(key); err != nil {
		return err
	}
	return commandError(command.Validate(&command.Op{Get: &o.Get}, 1))
}

func keyValue(kv mvcc.KeyValue) KeyValue {
	return KeyValue{
		Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
		Version: kv.Version, Lease: LeaseID(kv.Lease),
	}
}

func keyValues(kvs []mvcc.KeyValue) []KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	out := make([]KeyValue, len(kvs))
	for i, kv := range kvs {
		out[i] = keyValue(kv)
	}
	return out
}

func firstKeyValue(kvs []mvcc.KeyValue) *KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	kv := keyValue(kvs[0])
	return &kv
}
