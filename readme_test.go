// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// tour is README.md's sample.
func tour(ctx context.Context, cfg coterie.Config, use func(map[string]coterie.KeyValue) bool,
	work func(context.Context, int64) error,
) error {
	// A node is this process's replica. Every founder has the same list of Founders; they found the cluster when
	// all are up. A later node has Join instead: the addresses of some members.
	n, err := coterie.Open(ctx, cfg) // Config{Name: "a", Addr: "10.0.0.1:7400", Dir: "/var/lib/x", Founders: …}
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.Ready(ctx); err != nil { // a leader is known, and this node is up to date
		return err
	}

	// Shared configuration: write it anywhere, follow it everywhere.
	if _, err := n.Put(ctx, "config/limit", "100"); err != nil {
		return err
	}
	for m, err := range coterie.Follow(ctx, n, "config/") {
		if err != nil {
			return err
		}
		if done := use(m.KVs); done { // the whole prefix, again after each change
			break
		}
	}

	// A leader: fn runs in one instance at a time, and in another one if that one is lost.
	err = coterie.RunAsLeader(ctx, n, "jobs/leader", "a", func(ctx context.Context, token int64) error {
		return work(ctx, token)
	})
	if err != nil {
		return err
	}

	// A lock. Its guard rejects the writes of a holder that has lost the lock and does not know it.
	s, err := coterie.NewSession(ctx, n)
	if err != nil {
		return err
	}
	defer s.Close()
	m := coterie.NewMutex(s, "locks/stock")
	return m.Do(ctx, func(ctx context.Context, token int64) error {
		_, err := n.Txn(ctx).If(m.Guard()).Then(coterie.OpPut("stock/42", "7")).Commit()
		return err
	})
}

func Example_tour() {
	err := tour(context.Background(), coterie.Config{InMemory: true},
		func(kvs map[string]coterie.KeyValue) bool {
			fmt.Println("limit", kvs["config/limit"].Value)
			return true
		},
		func(_ context.Context, token int64) error {
			fmt.Println("leading:", token > 0)
			return nil
		})
	fmt.Println(err)
	// Output:
	// limit 100
	// leading: true
	// <nil>
}

// Every Go sample of README.md and of the documents is compiled. README.md's is compiled and run here, the others are
// compiled in docs/samples_test.go.
func TestReadme(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	var compiled string
	for _, file := range []string{"readme_test.go", "docs/samples_test.go", "examples/hello/main.go"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		compiled += words(string(text))
	}
	found := 0
	for _, document := range append(documents, "README.md") {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			require.Contains(t, compiled, words(block[1]), document)
			found++
		}
	}
	require.Greater(t, found, 5)
}

// words returns a text without its indentation and alignment.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }

// Every link of a document has a target, and every test that a document names exists.
func TestDocuments(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	tests := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				tests[f.Name.Name] = true
			}
		}
	}
	for _, document := range append(documents, "README.md", "ARCHITECTURE.md", "CHANGELOG.md") {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		prose := regexp.MustCompile("(?s)```.*?```").ReplaceAll(text, nil)
		for _, link := range regexp.MustCompile(`\]\(([^):#]+)[^):]*\)`).FindAllSubmatch(prose, -1) {
			_, err := os.Stat(filepath.Join(filepath.Dir(document), string(link[1])))
			require.NoError(t, err, document)
		}
		for _, name := range regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w+`).FindAllString(string(text), -1) {
			require.True(t, tests[name], "%s names %s", document, name)
		}
	}
}
