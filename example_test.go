// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie"
)

// A single node, with nothing on disk and no network, is a whole store: enough for development.
func Example() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	put, err := n.Put(ctx, "greeting", "hello")
	if err != nil {
		log.Fatal(err)
	}
	got, err := n.Get(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.KVs[0].Value, "of revision", put.Revision)
	// Output: hello of revision 2
}

// openExample opens a node as Example does.
func openExample(ctx context.Context) *coterie.Node {
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	return n
}

// Compare-and-set: a change is made on the condition that nobody else made one since it was read.
func ExampleNode_Txn() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	read, err := n.Put(ctx, "limit", "10")
	if err != nil {
		log.Fatal(err)
	}
	for _, value := range []string{"20", "30"} {
		unchanged := coterie.Compare(coterie.ModRevision("limit"), coterie.Equal, read.Revision)
		r, err := n.Txn(ctx).If(unchanged).Then(coterie.OpPut("limit", value)).Else(coterie.OpGet("limit")).Commit()
		if err != nil {
			log.Fatal(err)
		}
		if r.Succeeded {
			fmt.Println("set to", value)
		} else {
			fmt.Println("not set to", value+": it is", r.Responses[0].Get.KVs[0].Value)
		}
	}
	// Output:
	// set to 20
	// not set to 30: it is 20
}

// A watch from a revision misses nothing that came after it.
func ExampleNode_Watch() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	first, err := n.Put(ctx, "jobs/1", "queued")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := n.Put(ctx, "jobs/1", "done"); err != nil {
		log.Fatal(err)
	}
	if _, err := n.Delete(ctx, "jobs/1"); err != nil {
		log.Fatal(err)
	}
	for r, err := range n.Watch(ctx, "jobs/", coterie.WithPrefix(), coterie.WithRevision(first.Revision)) {
		if err != nil {
			log.Fatal(err)
		}
		e := r.Events[0]
		fmt.Println(r.Revision, e.Type, e.KV.Key, e.KV.Value)
		if e.Type == coterie.EventDelete {
			break
		}
	}
	// Output:
	// 2 PUT jobs/1 queued
	// 3 PUT jobs/1 done
	// 4 DELETE jobs/1
}

// A namespace is a view of the keys with a prefix, without the prefix.
func ExampleNewNamespace() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	orders := coterie.NewNamespace(n, "orders/")
	if _, err := orders.Put(ctx, "limit", "20"); err != nil {
		log.Fatal(err)
	}
	if _, err := n.Put(ctx, "payments/limit", "30"); err != nil {
		log.Fatal(err)
	}
	for kv, err := range orders.Range(ctx, "", coterie.WithPrefix()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(kv.Key, kv.Value)
	}
	all, err := n.Get(ctx, "", coterie.WithPrefix())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(all.KVs[0].Key, all.KVs[1].Key)
	// Output:
	// limit 20
	// orders/limit payments/limit
}

// A watch of a prefix is asked up to which revision it has yielded every event, after a write that does
// not touch the prefix.
func ExampleWithProgressRequests() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	requests := make(chan struct{}, 1)
	watch := n.Watch(ctx, "jobs/", coterie.WithPrefix(), coterie.WithProgressRequests(requests))
	if _, err := n.Put(ctx, "jobs/1", "new"); err != nil {
		log.Fatal(err)
	}
	other, err := n.Put(ctx, "users/1", "ann")
	if err != nil {
		log.Fatal(err)
	}
	requests <- struct{}{}
	for r, err := range watch {
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range r.Events {
			fmt.Println(e.Type, e.KV.Key)
		}
		if len(r.Events) == 0 && r.Revision >= other.Revision {
			fmt.Println("everything up to revision", r.Revision)
			break
		}
	}
	// Output:
	// PUT jobs/1
	// everything up to revision 3
}

// A key that is attached to a lease goes with it: when it is revoked, or not renewed in time.
func ExampleNode_Grant() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	lease, err := n.Grant(ctx, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := n.Put(ctx, "services/orders/10.0.0.7", "up", coterie.WithLease(lease.ID)); err != nil {
		log.Fatal(err)
	}
	left, err := n.TimeToLive(ctx, lease.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(left.TTL, left.Keys)
	if _, err := n.Revoke(ctx, lease.ID); err != nil {
		log.Fatal(err)
	}
	got, err := n.Get(ctx, "services/", coterie.WithPrefix())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.Count, "services")
	// Output:
	// 10s [services/orders/10.0.0.7]
	// 0 services
}

// The guard rejects a write of a holder that has lost the lock and does not know.
func ExampleMutex() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()
	session, err := coterie.NewSession(ctx, n)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	m := coterie.NewMutex(session, "locks/stock")
	if err := m.Lock(ctx); err != nil {
		log.Fatal(err)
	}
	token, guard := m.Token(), m.Guard()
	r, err := n.Txn(ctx).If(guard).Then(coterie.OpPut("stock", "41")).Commit()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("holder %d: written %v\n", token, r.Succeeded)
	if err := m.Unlock(ctx); err != nil {
		log.Fatal(err)
	}
	if r, err = n.Txn(ctx).If(guard).Then(coterie.OpPut("stock", "40")).Commit(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("holder %d, too late: written %v\n", token, r.Succeeded)
	// Output:
	// holder 2: written true
	// holder 2, too late: written false
}

// A recipe of your own: each session takes the first free seat. If ctx ends in between, the seat is given back. The
// seat belongs to the session and is free after its end.
func ExampleSession_CommitOrUndo() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	sit := func(s *coterie.Session) (seat string, err error) {
		for i := 1; ; i++ {
			seat := fmt.Sprint("seats/", i)
			free := coterie.Compare(coterie.CreateRevision(seat), coterie.Equal, 0)
			me := fmt.Sprint(s.Lease())
			mine := coterie.OpTxn([]coterie.Comparison{coterie.Compare(coterie.Value(seat), coterie.Equal, me)},
				[]coterie.Op{coterie.OpDelete(seat)}, nil)
			r, err := s.CommitOrUndo(n.Txn(ctx).If(free).Then(coterie.OpPut(seat, me, coterie.WithLease(s.Lease()))), mine)
			if err != nil || r.Succeeded {
				return seat, err
			}
		}
	}
	for range 2 {
		s, err := coterie.NewSession(ctx, n)
		if err != nil {
			log.Fatal(err)
		}
		defer s.Close()
		seat, err := sit(s)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(seat)
	}
	// Output:
	// seats/1
	// seats/2
}

// One instance at a time reads a number and writes the next one. The function runs at most once, and its write is
// rejected if the lock is lost meanwhile.
func ExampleRunWithLock() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	for range 2 {
		err := coterie.RunWithLock(ctx, n, "locks/stock", func(ctx context.Context, token int64) error {
			r, err := n.Get(ctx, "stock")
			if err != nil {
				return err
			}
			stock := 0
			if len(r.KVs) > 0 {
				if stock, err = strconv.Atoi(r.KVs[0].Value); err != nil {
					return err
				}
			}
			write := coterie.OpPut("stock", strconv.Itoa(stock+1))
			w, err := n.Txn(ctx).If(coterie.GuardFromContext(ctx)).Then(write).Commit()
			if err != nil {
				return err
			}
			fmt.Println(stock+1, "written:", w.Succeeded)
			return nil
		})
		if err != nil {
			log.Fatal(err) // ErrSessionExpired or ErrNotOwner: the lock was lost while the function ran
		}
	}
	// Output:
	// 1 written: true
	// 2 written: true
}

// Two instances want to lead, here on one node, usually on two. They take turns. The function gets a context that
// ends when leadership is lost, and a fencing token that is higher than that of every earlier leader.
func ExampleRunAsLeader() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	for _, name := range []string{"a", "b"} {
		err := coterie.RunAsLeader(ctx, n, "leader", name, func(ctx context.Context, token int64) error {
			fmt.Println(name, "leads, with fencing token", token)
			return nil // the work is done, and leadership given up
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// a leads, with fencing token 2
	// b leads, with fencing token 4
}

// Follow yields a whole prefix, and again after each change.
func ExampleFollow() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()

	if _, err := n.Put(ctx, "config/level", "info"); err != nil {
		log.Fatal(err)
	}
	for m, err := range coterie.Follow(ctx, n, "config/") {
		if err != nil {
			log.Fatal(err)
		}
		level := m.KVs["config/level"].Value
		fmt.Println("level is", level)
		if level == "debug" {
			break
		}
		if _, err := n.Put(ctx, "config/level", "debug"); err != nil { // usually, another node does
			log.Fatal(err)
		}
	}
	// Output:
	// level is info
	// level is debug
}

// Three replicas in one process: what one of them has written, the others read.
func ExampleOpenCluster() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Node(0).Put(ctx, "k", "v"); err != nil {
		log.Fatal(err)
	}
	for _, n := range c.Nodes() {
		got, err := n.Get(ctx, "k")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n.Status().Name, got.KVs[0].Value)
	}
	// Output:
	// node1 v
	// node2 v
	// node3 v
}

// A backup is taken from a node that runs, and makes the directories of a new cluster: here that of
// one node.
func ExampleRestoreBackup() {
	ctx := context.Background()
	old := openExample(ctx)
	defer old.Close()
	if _, err := old.Put(ctx, "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
	var backup bytes.Buffer // as a rule, a file
	taken, err := old.Backup(ctx, &backup)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("taken at revision", taken.Revision)

	dir, err := os.MkdirTemp("", "coterie-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := coterie.Config{Dir: dir} // with Founders, each founder restores the same
	if err := coterie.RestoreBackup(ctx, &backup, cfg); err != nil {
		log.Fatal(err)
	}
	n, err := coterie.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	got, err := n.Get(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	put, err := n.Put(ctx, "greeting", "hello again")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.KVs[0].Value, "of revision", got.KVs[0].ModRevision)
	fmt.Println("goes on with revision", put.Revision)
	// Output:
	// taken at revision 2
	// hello of revision 2
	// goes on with revision 3
}

// Data from another store keep their revisions.
func ExampleContentsBuilder() {
	ctx := context.Background()
	b, err := coterie.NewContentsBuilder(7, 6)
	if err != nil {
		log.Fatal(err)
	}
	for _, kv := range []coterie.KeyValue{
		{Key: "a", Value: "old", CreateRevision: 3, ModRevision: 5, Version: 2},
		{Key: "b", Value: "gone", CreateRevision: 6, ModRevision: 6, Version: 1},
		{Key: "b", ModRevision: 7}, // a deletion
	} {
		if err := b.AddVersion(kv); err != nil {
			log.Fatal(err)
		}
	}
	contents, err := b.Contents()
	if err != nil {
		log.Fatal(err)
	}
	var backup bytes.Buffer
	if err := contents.WriteBackup(ctx, &backup); err != nil {
		log.Fatal(err)
	}

	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := coterie.Config{Dir: dir}
	if err := coterie.RestoreBackup(ctx, &backup, cfg); err != nil {
		log.Fatal(err)
	}
	n, err := coterie.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	put, err := n.Put(ctx, "a", "new", coterie.WithPrevKV())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("revision", put.Revision, "replaces", put.PrevKV.Value, "of revision", put.PrevKV.ModRevision)
	// Output: revision 8 replaces old of revision 5
}

// Every node reads the metadata of all members.
func ExampleNode_UpdateMetadata() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true, Name: "a"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	if err := n.UpdateMetadata(ctx, n.ID(), map[string]string{"http": "10.0.0.1:8080"}); err != nil {
		log.Fatal(err)
	}
	members, err := n.Members(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range members {
		fmt.Println(m.Name, m.Metadata["http"])
	}
	// Output: a 10.0.0.1:8080
}
