// SPDX-License-Identifier: Apache-2.0

package membership

// Trust is the knowledge of a node about itself when one of raft's requests arrives. [Trust.MayAnswer]
// decides whether the node may answer the request.
//
// A node with an empty directory may have had another one, with promises in it: votes in terms that the
// node no longer knows, acknowledgements of entries that it no longer has. So it answers none of raft's
// requests until it is on record, which takes a majority without it. The exception is the founding. A
// founder that has gathered votes for founders that are on record nowhere, and takes entries of a leader
// for which it has voted. These entries make it a participant. Hearing of later terms does not, and
// neither does a vote for a founder that is not elected. A founder that has met a member on record takes
// no part in a founding, since the cluster exists already.
//
// A node comes on record at an index and in a term. From then on it
//
//   - follows only leaders of that term or a later one: it may have helped to depose an earlier one;
//   - votes only in later terms, and only when its log has that index, which covers all that it may
//     have acknowledged.
//
// This is the recovery of Viewstamped Replication Revisited (Liskov and Cowling, 2012, section 4.3),
// with the log in place of the nonce.
type Trust struct {
	Since uint64 // an index at which the cluster has the node on record; 0: the node knows of none
	Floor uint64 // the term at that time, if the directory was new then
	Last  uint64 // the index at which the node's log ends

	Gathered  bool // the node is a founder, and all the other founders have told it that they are new
	Founding  bool // the log has nothing beyond the founding entries
	Elected   bool // the node has voted for the sender, in the term of the request
	Forgotten bool // the cluster has other data of this node on record, or is founded already
}

// A Request has the properties of one of raft's requests that matter to MayAnswer.
type Request struct {
	Since uint64 // as in Trust, of the sender
	Term  uint64
	Vote  bool // asks for a vote or a pre-vote
	Elect bool // asks the node to stand for election
}

// MayAnswer reports whether the node may answer a request.
func (t Trust) MayAnswer(r Request) bool {
	switch {
	case t.Since == 0 && t.Founding:
		return t.mayFound(r)
	case t.Since == 0 || t.Floor == 0:
		return true // the directory is the member's first: it has forgotten nothing
	case r.Vote:
		return r.Term > t.Floor && t.Last >= t.Since
	case r.Elect:
		return t.Last >= t.Since
	}
	return r.Term >= t.Floor
}

// mayFound is MayAnswer for a node that may have forgotten its promises.
func (t Trust) mayFound(r Request) bool {
	switch {
	case !t.Gathered || t.Forgotten || r.Elect:
		return false
	case r.Vote:
		return r.Since == 0
	}
	return t.Elected
}
