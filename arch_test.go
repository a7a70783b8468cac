// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/coterie-kv/coterie"

// A source is a Go file of this repository, parsed.
type source struct {
	path string // from the repository's root
	text string
	ast  *ast.File
	set  *token.FileSet
}

func parse(t *testing.T, path, text string) source {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, parser.ParseComments)
	require.NoError(t, err)
	return source{path, text, file, set}
}

func sources(t *testing.T) (all []source) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(p, ".go") {
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			all = append(all, parse(t, filepath.ToSlash(p), string(text)))
		}
		return nil
	}))
	return all
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) imports() (paths []string) {
	for _, i := range s.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// importRules are the rules about imports. The files that a rule concerns may not import the paths that it
// forbids.
var importRules = []struct {
	name      string
	concerns  func(s source) bool
	forbidden func(p string) bool
}{
	{
		"internal packages do not depend on the public packages",
		func(s source) bool { return strings.HasPrefix(s.path, "internal/") },
		func(p string) bool {
			return p == module || strings.HasPrefix(p, module+"/coterietest") || strings.HasPrefix(p, module+"/datadir")
		},
	},
	{
		"packages at the bottom import only the standard library",
		func(s source) bool { return !s.test() && slices.Contains(bottom, path.Dir(s.path)) },
		func(p string) bool { return strings.Contains(p, ".") },
	},
	{
		"only one package uses the logger of hashicorp/raft",
		func(s source) bool { return !s.test() && !in(s, "internal/raftlogger") },
		func(p string) bool { return p == "github.com/hashicorp/go-hclog" },
	},
	{
		"TLS and calls of user code depend on neither storage nor consensus",
		func(s source) bool { return !s.test() && (in(s, "internal/tlsnet") || in(s, "internal/usercode")) },
		func(p string) bool {
			name, internal := strings.CutPrefix(p, module+"/internal/")
			return strings.Contains(p, ".") && !internal || internal && !slices.Contains([]string{"rpc", "signal", "throttle", "usercode"}, name)
		},
	},
	{
		"few files use hashicorp/raft",
		func(s source) bool {
			return !s.test() && !slices.Contains([]string{"raft.go", "supervisor.go", "restart.go", "fsm.go"}, s.path) &&
				!in(s, "internal/storage") && !in(s, "internal/storage/storagetest") && !in(s, "internal/segments") && !in(s, "internal/conversion") &&
				!in(s, "internal/raftlog") && !in(s, "internal/raftlog/raftlogtest") && !in(s, "internal/raftnet") && !in(s, "boltlog") &&
				!in(s, "bench/rivals/raftboltdb")
		},
		func(p string) bool { return strings.HasPrefix(p, "github.com/hashicorp/raft") },
	},
	{
		"one package uses raft-boltdb and bbolt, besides etcd's snapshots, which are files of bbolt, and a program of bench",
		func(s source) bool {
			return !in(s, "boltlog") && !in(s, "etcdapi/etcdsnapshot") && !in(s, "bench/rivals/raftboltdb")
		},
		func(p string) bool {
			return strings.HasPrefix(p, "github.com/hashicorp/raft-boltdb") || strings.HasPrefix(p, "go.etcd.io/bbolt")
		},
	},
	{
		"package boltlog uses what a format of a directory needs",
		func(s source) bool { return !s.test() && in(s, "boltlog") },
		func(p string) bool {
			name, internal := strings.CutPrefix(p, module+"/internal/")
			return internal && !slices.Contains([]string{"fault", "slot", "storage", "vfs", "wire"}, name)
		},
	},
	{
		"the replicated state is a function of the log",
		func(s source) bool {
			return !s.test() && (s.path == "fsm.go" || in(s, "internal/wire") || in(s, "internal/mvcc") || in(s, "internal/command") ||
				in(s, "internal/auth") || in(s, "internal/state") || in(s, "internal/model"))
		},
		func(p string) bool {
			return slices.Contains([]string{"time", "math/rand", "math/rand/v2", "crypto/rand", "os", "net", "log", "log/slog"}, p)
		},
	},
	{
		"the caller passes the time to package lease",
		func(s source) bool { return !s.test() && in(s, "internal/lease") },
		func(p string) bool {
			return slices.Contains([]string{"math/rand", "math/rand/v2", "os", "net", "log", "log/slog"}, p)
		},
	},
	{
		"package membership uses no node, clock or network",
		func(s source) bool { return !s.test() && in(s, "internal/membership") },
		func(p string) bool {
			name, internal := strings.CutPrefix(p, module+"/internal/")
			return internal && !slices.Contains([]string{"fault", "metadata", "run", "state", "wire"}, name) ||
				slices.Contains([]string{"context", "time", "math/rand", "math/rand/v2", "os", "net", "log", "log/slog"}, p)
		},
	},
	{
		"package datadir uses no consensus and no network",
		func(s source) bool { return !s.test() && in(s, "datadir") },
		func(p string) bool {
			name, internal := strings.CutPrefix(p, module+"/internal/")
			allowed := []string{"backup", "breakable", "command", "conversion", "metadata", "raftlog", "run", "segments", "state", "storage", "vfs", "wire"}
			return strings.Contains(p, ".") && p != module && p != module+"/boltlog" && !internal || internal && !slices.Contains(allowed, name)
		},
	},
	{
		"recipes use only the public package and the standard library",
		func(s source) bool { return !s.test() && slices.Contains(recipePackages, path.Dir(s.path)) },
		func(p string) bool { return p != module && strings.Contains(p, ".") },
	},
	{
		"other modules use only the public packages",
		func(s source) bool { return slices.Contains(modules, path.Dir(s.path)) },
		func(p string) bool { return strings.HasPrefix(p, module+"/internal") },
	},
	{
		"examples use only the public packages and the standard library",
		func(s source) bool { return strings.HasPrefix(s.path, "examples/") && !s.test() },
		func(p string) bool {
			return strings.HasPrefix(p, module+"/internal") || strings.Contains(p, ".") && !strings.HasPrefix(p, module)
		},
	},
}

// bottom are the packages at the bottom: every other package may import them.
var bottom = []string{"internal/breakable", "internal/fault", "internal/signal", "internal/slot", "internal/throttle", "internal/wire"}

// recipePackages are the recipes that are packages of their own.
var recipePackages = []string{"dsync", "mirror", "queue", "registry", "sharedconfig", "stm"}

// modules are the directories of the other modules. Not every user needs their dependencies.
var modules = []string{"bench", "bench/harness", "bench/rivals", "bench/rivals/dragonboat", "bench/rivals/nats", "bench/rivals/raftboltdb", "compat", "compat/node", "etcdapi", "etcdapi/cmd/coteried", "etcdapi/difftest", "etcdapi/etcdsnapshot", "etcdapi/internal/bootstrap", "etcdapi/internal/certs", "etcdapi/internal/daemon", "etcdapi/internal/restore", "etcdapi/internal/snapshot", "etcdapi/internal/subcommand", "etcdapi/programs", "etcdapi/programs/commands", "etcdapi/programs/languages", "grpcresolver"}

// floors are the packages below internal/, from the bottom up: each imports only packages of lower floors.
var floors = [][]string{
	{"breakable", "fault", "golden", "lease", "memnet", "mvcc", "signal", "slot", "storage/storagetest", "throttle", "vfs", "wire"},
	{"expiry", "leader", "logqueue", "metadata", "raftlogger", "retention", "run", "watchhub"},
	{"command", "rpc"},
	{"auth"},
	{"model", "proposer", "state", "storage", "usercode", "vfs/vfstest"},
	{"conversion", "segments"},
	{"raftlog"},
	{"backup", "membership", "model/modeltest", "raftlog/raftlogtest", "raftnet", "tlsnet"},
}

// floor returns the floor of a package below internal/, or -1.
func floor(name string) int {
	return slices.IndexFunc(floors, func(f []string) bool { return slices.Contains(f, name) })
}

func floorFaults(all []source) (faults []string) {
	for _, s := range all {
		name, internal := strings.CutPrefix(path.Dir(s.path), "internal/")
		if !internal || s.test() {
			continue
		}
		own := floor(name)
		if own < 0 {
			faults = append(faults, s.path+" is on no floor")
		}
		for _, p := range s.imports() {
			if other, ok := strings.CutPrefix(p, module+"/internal/"); ok && floor(other) >= own {
				faults = append(faults, s.path+" imports "+other+", which is not on a lower floor")
			}
		}
	}
	return faults
}

// The limits of the root package keep its files and structs readable.
const (
	maxRootLines   = 500
	maxRootFields  = 25
	maxNodeFields  = 20
	maxNodeMethods = 45 // unexported ones
)

// wholeTests are the test files of the root that test no single file.
var wholeTests = []string{"arch_test.go", "example_test.go", "main_test.go", "nil_test.go", "readme_test.go"}

// rootFaults returns the files of the root that are too long, its structs that have too many fields, a Node that has
// too many unexported methods, and its test files that are not named after a file: x_test.go or x_aspect_test.go tests
// x.go.
func rootFaults(all []source) (faults []string) {
	files := map[string]bool{}
	for _, s := range all {
		files[s.path] = true
	}
	methods := 0 // of Node
	for _, s := range all {
		if path.Dir(s.path) != "." {
			continue
		}
		if s.test() {
			tested := func(name string) bool {
				for {
					if files[name+".go"] {
						return true
					}
					cut := strings.LastIndex(name, "_")
					if cut < 0 {
						return false
					}
					name = name[:cut]
				}
			}
			if !slices.Contains(wholeTests, s.path) && !tested(strings.TrimSuffix(s.path, "_test.go")) {
				faults = append(faults, s.path+" is not named after a file that it tests")
			}
			continue
		}
		if n := strings.Count(s.text, "\n"); n > maxRootLines {
			faults = append(faults, s.path+" has "+strconv.Itoa(n)+" lines")
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			most := maxRootFields
			if spec.Name.Name == "Node" {
				most = maxNodeFields
			}
			if st, ok := spec.Type.(*ast.StructType); ok && st.Fields.NumFields() > most {
				faults = append(faults, s.path+": struct "+spec.Name.Name+" has "+strconv.Itoa(st.Fields.NumFields())+" fields")
			}
			return true
		})
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && types.ExprString(f.Recv.List[0].Type) == "*Node" && !f.Name.IsExported() {
				methods++
			}
		}
	}
	if methods > maxNodeMethods {
		faults = append(faults, "Node has "+strconv.Itoa(methods)+" unexported methods")
	}
	return faults
}

func in(s source, dir string) bool { return path.Dir(s.path) == dir }

func importFaults(all []source) (faults []string) {
	for _, s := range all {
		for _, rule := range importRules {
			if !rule.concerns(s) {
				continue
			}
			for _, p := range s.imports() {
				if rule.forbidden(p) {
					faults = append(faults, s.path+" imports "+p+": "+rule.name)
				}
			}
		}
	}
	return faults
}

// recipes are the files with the recipes. They may use only the exported identifiers of the other files.
var recipes = []string{"lock.go", "election.go", "place.go", "holder.go", "follow.go"}

func recipeFaults(all []source) (faults []string) {
	private := map[string]string{} // the file, by unexported name
	for _, s := range all {
		if s.ast.Name.Name != "coterie" || s.test() || slices.Contains(recipes, s.path) {
			continue
		}
		for _, d := range s.ast.Decls {
			for _, name := range declared(d) {
				if !ast.IsExported(name) && types.Universe.Lookup(name) == nil {
					private[name] = s.path
				}
			}
		}
	}
	for _, s := range all {
		if !slices.Contains(recipes, s.path) {
			continue
		}
		own := map[string]bool{}
		for _, r := range all {
			if slices.Contains(recipes, r.path) {
				ast.Inspect(r.ast, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok && id.Obj != nil {
						own[id.Name] = true // declared in a recipe: a local, a field, a helper
					}
					return true
				})
				for _, d := range r.ast.Decls {
					for _, name := range declared(d) {
						own[name] = true
					}
				}
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			var id *ast.Ident
			switch n := n.(type) {
			case *ast.SelectorExpr:
				id = n.Sel
			case *ast.Ident:
				id = n
			}
			if id != nil && private[id.Name] != "" && !own[id.Name] {
				faults = append(faults, s.path+" uses "+id.Name+" of "+private[id.Name])
			}
			return true
		})
	}
	return faults
}

// declared returns the names that a declaration makes, including fields of structs and methods of types.
func declared(d ast.Decl) (names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		names = append(names, d.Name.Name)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, id := range spec.Names {
					names = append(names, id.Name)
				}
			case *ast.TypeSpec:
				names = append(names, spec.Name.Name)
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, f := range st.Fields.List {
						for _, id := range f.Names {
							names = append(names, id.Name)
						}
					}
				}
			}
		}
	}
	return names
}

func fileFaults(all []source) (faults []string) {
	docs := map[string][]string{}
	for _, s := range all {
		if !strings.HasPrefix(s.text, "// SPDX-License-Identifier: Apache-2.0\n") {
			faults = append(faults, s.path+" does not name the licence")
		}
		if n := strings.Count(s.text, "\n"); n > 800 {
			faults = append(faults, s.path+" has "+strconv.Itoa(n)+" lines")
		}
		if s.test() {
			if strings.Contains(s.text, "time.Sleep(") && !strings.Contains(s.text, "synctest") && !strings.Contains(s.text, "coterietest") &&
				!strings.Contains(s.text, "bubble(") {
				faults = append(faults, s.path+" sleeps by the real clock")
			}
			continue
		}
		if s.ast.Doc != nil {
			docs[path.Dir(s.path)] = append(docs[path.Dir(s.path)], s.path)
		} else if docs[path.Dir(s.path)] == nil {
			docs[path.Dir(s.path)] = []string{}
		}
		for _, d := range s.ast.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR && !strings.HasPrefix(s.path, "examples/") {
				for _, spec := range g.Specs {
					if fault := variableFault(spec.(*ast.ValueSpec)); fault != "" {
						faults = append(faults, s.path+": "+fault)
					}
				}
			}
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				faults = append(faults, s.path+" has an init function")
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(docs)) {
		if len(docs[dir]) != 1 {
			faults = append(faults, dir+" has package documentation in "+strconv.Itoa(len(docs[dir]))+" files")
		}
	}
	return faults
}

// variableFault reports a package variable that might be written: a variable that is neither an error, an
// assertion, a table, nor in the list of exceptions.
func variableFault(v *ast.ValueSpec) string {
	exceptions := map[string]string{
		"clusters": "coterietest counts its clusters, to tell their goroutines apart",
	}
	for i, id := range v.Names {
		if id.Name == "_" || strings.HasPrefix(strings.ToLower(id.Name), "err") || exceptions[id.Name] != "" {
			continue
		}
		if i < len(v.Values) {
			if call, ok := v.Values[i].(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && (sel.Sel.Name == "MakeTable" || sel.Sel.Name == "New") {
					continue
				}
				if _, ok := call.Fun.(*ast.ArrayType); ok {
					continue // []byte("…")
				}
			}
			if _, ok := v.Values[i].(*ast.CompositeLit); ok {
				continue
			}
		}
		return "variable " + id.Name + " at package level"
	}
	return ""
}

// maxTestName bounds the names of tests, so that a list of them is readable.
const maxTestName = 45

// testNameFaults returns the long names of tests, benchmarks, fuzz tests and examples.
func testNameFaults(all []source) (faults []string) {
	for _, s := range all {
		if !s.test() {
			continue
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || len(f.Name.Name) <= maxTestName {
				continue
			}
			for _, kind := range []string{"Test", "Benchmark", "Fuzz", "Example"} {
				if strings.HasPrefix(f.Name.Name, kind) {
					faults = append(faults, s.path+": the name "+f.Name.Name+" has "+strconv.Itoa(len(f.Name.Name))+" characters")
				}
			}
		}
	}
	return faults
}

func TestArchitecture(t *testing.T) {
	all := sources(t)
	require.Empty(t, importFaults(all))
	require.Empty(t, floorFaults(all))
	require.Empty(t, rootFaults(all))
	require.Empty(t, recipeFaults(all))
	require.Empty(t, fileFaults(all))
	require.Empty(t, testNameFaults(all))
}

// Each rule rejects an example of what it forbids.
func TestArchitectureRulesFail(t *testing.T) {
	const head = "// SPDX-License-Identifier: Apache-2.0\n\n// Package x.\npackage "
	for name, c := range map[string]struct {
		path, text string
		rule       func([]source) []string
	}{
		"internal imports root": {"internal/mvcc/x.go", head + "mvcc\nimport _ \"" + module + "\"", importFaults},
		"raft in kv.go":         {"kv.go", head + "coterie\nimport _ \"github.com/hashicorp/raft\"", importFaults},
		"net in membership":     {"internal/membership/x.go", head + "membership\nimport _ \"" + module + "/internal/rpc\"", importFaults},
		"time in fsm.go":        {"fsm.go", head + "coterie\nimport _ \"time\"", importFaults},
		"a package below fault": {"internal/fault/x.go", head + "fault\nimport _ \"" + module + "/internal/wire\"", importFaults},
		"hclog in raft.go":      {"raft.go", head + "coterie\nimport _ \"github.com/hashicorp/go-hclog\"", importFaults},
		"a log in tlsnet":       {"internal/tlsnet/x.go", head + "tlsnet\nimport _ \"" + module + "/internal/raftlog\"", importFaults},
		"a network in datadir":  {"datadir/x.go", head + "datadir\nimport _ \"" + module + "/internal/rpc\"", importFaults},
		"internal in a recipe":  {"dsync/x.go", head + "dsync\nimport _ \"" + module + "/internal/signal\"", importFaults},
		"a recipe of another":   {"mirror/x.go", head + "mirror\nimport _ \"" + module + "/sharedconfig\"", importFaults},
		"internal in a module":  {"grpcresolver/x.go", head + "grpcresolver\nimport _ \"" + module + "/internal/signal\"", importFaults},
		"upwards":               {"internal/state/x.go", head + "state\nimport _ \"" + module + "/internal/raftnet\"", floorFaults},
		"on one floor":          {"internal/state/x.go", head + "state\nimport _ \"" + module + "/internal/raftlog\"", floorFaults},
		"no floor":              {"internal/attic/x.go", head + "attic", floorFaults},
		"long in the root":      {"x.go", head + "coterie\n" + strings.Repeat("\n", 500), rootFaults},
		"a large struct":        {"x.go", head + "coterie\ntype x struct {\n" + strings.Repeat("_ int\n", 26) + "}", rootFaults},
		"a large Node":          {"x.go", head + "coterie\ntype Node struct {\n" + strings.Repeat("_ int\n", 21) + "}", rootFaults},
		"a Node of all trades":  {"x.go", head + "coterie\n" + strings.Repeat("func (n *Node) x() {}\n", 46), rootFaults},
		"a test of no file":     {"x_y_test.go", head + "coterie", rootFaults},
		"private in a recipe":   {"lock.go", head + "coterie\nfunc f(n *Node) { n.propose() }", recipeFaults},
		"no licence":            {"x.go", "// Package x.\npackage x", fileFaults},
		"long":                  {"x.go", head + "x\n" + strings.Repeat("\n", 900), fileFaults},
		"no documentation":      {"x.go", "// SPDX-License-Identifier: Apache-2.0\n\npackage x", fileFaults},
		"a variable":            {"x.go", head + "x\nvar count int", fileFaults},
		"init":                  {"x.go", head + "x\nfunc init() {}", fileFaults},
		"sleep":                 {"x_test.go", head + "x\nfunc f() { time.Sleep(1) }", fileFaults},
		"a long test name":      {"x_test.go", head + "x\nfunc Test" + strings.Repeat("A", 42) + "() {}", testNameFaults},
	} {
		all := []source{parse(t, c.path, c.text)}
		if c.path == "lock.go" {
			all = append(all, parse(t, "propose.go", head+"coterie\nfunc (n *Node) propose() {}"))
		}
		require.NotEmpty(t, c.rule(all), name)
	}
}

// TestDependencies lists the modules that a user's go.mod may get.
func TestDependencies(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all").Output()
	require.NoError(t, err)
	allowed := []string{
		"github.com/anishathalye/porcupine", "github.com/hashicorp/go-hclog", "github.com/hashicorp/go-msgpack/v2", "github.com/hashicorp/raft",
		"github.com/hashicorp/raft-boltdb/v2", "github.com/stretchr/testify", "github.com/tidwall/btree", "go.etcd.io/bbolt",
	}
	for _, m := range strings.Fields(string(out)) {
		require.Contains(t, allowed, m)
	}
}

// linked returns the modules in a program that imports a package.
func linked(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", pkg).Output()
	require.NoError(t, err)
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	return slices.Compact(modules)
}

// TestLinkedModules names the modules in a program that embeds a node, and those that boltlog adds: a program that does
// not import boltlog does not have them.
func TestLinkedModules(t *testing.T) {
	root := []string{
		module, "github.com/fatih/color", "github.com/hashicorp/go-hclog", "github.com/hashicorp/go-immutable-radix",
		"github.com/hashicorp/go-metrics", "github.com/hashicorp/go-msgpack/v2", "github.com/hashicorp/golang-lru",
		"github.com/hashicorp/raft", "github.com/mattn/go-colorable", "github.com/mattn/go-isatty", "github.com/tidwall/btree",
		"golang.org/x/sys",
	}
	require.ElementsMatch(t, root, linked(t, "."))
	more := []string{"github.com/armon/go-metrics", "github.com/boltdb/bolt", "github.com/hashicorp/raft-boltdb/v2", "go.etcd.io/bbolt"}
	bolt := linked(t, "./boltlog")
	for _, m := range bolt {
		require.Contains(t, append(root, more...), m)
	}
	require.Subset(t, bolt, more)
}
