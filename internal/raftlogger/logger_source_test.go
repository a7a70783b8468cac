// SPDX-License-Identifier: Apache-2.0

package raftlogger

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The level of an error depends on its first attribute, so raft must name other nodes there, and must write
// the text by which a compacted entry is recognized.
func TestRaftNamesOtherNodesFirst(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/hashicorp/raft").Output()
	require.NoError(t, err)
	names, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	require.NoError(t, err)
	first, messages := map[string]int{}, map[string]bool{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "testing.go" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || method.Sel.Name != "Error" {
				return true
			}
			messages[literal(call.Args[0])] = true
			for i := 1; i < len(call.Args); i += 2 {
				key := literal(call.Args[i])
				if slices.Contains(nodeKeys, key) {
					require.Equal(t, 1, i, "%s: %s is not the first attribute of %s", name, key, literal(call.Args[0]))
					first[key]++
				}
			}
			return true
		})
	}
	for _, key := range nodeKeys {
		require.Positive(t, first[key], "raft has no error with %q", key)
	}
	require.True(t, messages["failed to get log"])
}

// literal returns the value of a string literal, or "".
func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(lit.Value)
	return text
}
