// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/datadir"
)

// writeOne opens a node in a new directory, writes a key, closes the node and returns the directory.
func writeOne(ctx context.Context) (dir string, remove func()) {
	parent, err := os.MkdirTemp("", "datadir")
	if err != nil {
		log.Fatal(err)
	}
	dir = filepath.Join(parent, "data")
	n, err := coterie.Open(ctx, coterie.Config{Dir: dir, Name: "a"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := n.Put(ctx, "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
	if err := n.Close(); err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(parent) }
}

func ExampleInspect() {
	ctx := context.Background()
	dir, remove := writeOne(ctx)
	defer remove()

	in, err := datadir.Inspect(ctx, dir)
	if err != nil {
		log.Fatal(err) // if it matches coterie.ErrCorrupt, in.DamagedFiles says which files are damaged
	}
	fmt.Printf("%d key, revision %d, %d member\n", in.Keys, in.Revision, len(in.Members))
	// Output: 1 key, revision 2, 1 member
}

func ExampleConvert() {
	ctx := context.Background()
	dir, remove := writeOne(ctx)
	defer remove()

	bolt := boltlog.New(boltlog.Options{})
	c, err := datadir.Convert(ctx, dir, bolt)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.From, "to", c.To)

	n, err := coterie.Open(ctx, coterie.Config{Dir: dir, Name: "a", Storage: bolt})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	r, err := n.Get(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.KVs[0].Value)
	// Output:
	// segments to bolt
	// hello
}

// The program runs on the host of the survivor with the newest entries.
func ExampleRecover() {
	ctx := context.Background()
	dir, remove := writeOne(ctx)
	defer remove()

	// coterie-inspect -json has printed an Inspection on the host of every other survivor.
	var survivors []datadir.Inspection
	for _, text := range [][]byte{} {
		var in datadir.Inspection
		if err := json.Unmarshal(text, &in); err != nil {
			log.Fatal(err)
		}
		survivors = append(survivors, in)
	}
	r, err := datadir.Recover(ctx, dir, survivors...)
	if err != nil {
		log.Fatal(err) // if it matches datadir.ErrBehind, another survivor has more
	}
	fmt.Println(r.Name, r.Revision, r.NothingLost)
	// Output: a 2 true
}
